"""Families with a subordinate clause: that, whether, because, although, if, when, before, while."""

from __future__ import annotations

from dataclasses import replace

from quickstart.being import quality
from quickstart.clauses import (
    BE,
    Clause,
    accusative,
    after_main,
    before_main,
    close,
    dative,
    sentence,
    statement,
    subordinate,
)
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Text, noun, verb
from quickstart.nominals import draw_noun, draw_person_object, draw_subject, finish
from quickstart.phrases import (
    PRONOUNS,
    nominal,
    pronoun_for,
)
from quickstart.predicates import (
    draw_clause,
    draw_entry,
    draw_place,
    vague,
)
from quickstart.shared import (
    ALTHOUGH,
    AS,
    BECAUSE,
    BEFORE,
    EFFORT,
    IF,
    IT,
    OUTDOOR,
    THAT,
    WHETHER,
    WHILE,
    draw_last_slot,
    is_so,
    reason_not,
    spoken,
    sub,
    unfronted,
    verb_of,
)

GOOD = (
    "beautiful",
    "comfortable",
    "interesting",
    "exciting",
    "funny",
    "modern",
    "warm",
    "cheap",
    "fast",
    "good",
    "delicious",
    "fresh",
)
POOR = ("boring", "bad", "expensive", "loud", "slow", "old", "cold", "difficult", "dirty", "heavy")


LASTING = (
    "read", "cook", "work", "sleep", "play", "clean", "repair", "write", "learn", "wash", "sing", "bake", "dance",
    "watch television", "wait for", "draw", "rest", "talk to",
)  # fmt: skip


def opinion(draw: Draw) -> Text:
    """My father says that Anna bought the car."""
    thinker = draw_subject(draw, ("person",), general=True)
    found = verb_of(draw, ("say", "think", "hope", "know that"))
    forms = (
        ("future", "perfect")
        if found.english == "hope"
        else ("progressive", "past", "future", "present", "can", "want to", "have to")
    )
    clause = draw_clause(draw, draw.one(forms), negated=draw.chance(0.12))
    if found.english == "hope" and clause.negated:
        clause = replace(clause, negated=False)
    if clause.negated and not clause.subject.human:
        raise Unsuitable
    main = statement(Clause(thinker, spoken(found), "present"))
    return sentence(after_main(main, sub(draw, "that", THAT, unfronted(clause))))


def doubt(draw: Draw) -> Text:
    """I do not know whether Anna bought the car; she wants to know where he lives."""
    thinker = draw_subject(draw, ("person",), general=True)
    know = spoken(verb("know that"))
    draw.note("verb know that")
    form, negated = draw.one((("present", True), ("want to", False), ("past", True)))
    clause = draw_clause(
        draw, draw.one(("past",) if form == "past" else ("past", "progressive", "future", "can", "present"))
    )
    main = statement(Clause(thinker, know, form, negated=negated))
    if draw.chance(0.35) and not clause.verb.stative and not draw_last_slot(clause.verb):
        if clause.form == "can" or not clause.subject.human:
            raise Unsuitable
        why, when = Text("why", "warum"), Text("when", "wann")
        asked = draw.one((why, when)) if clause.form in ("past", "future") else why
        clause = replace(clause, time=None, often=None)
        if vague(clause):
            raise Unsuitable
        return sentence(after_main(main, sub(draw, "indirect", asked, unfronted(clause))))
    return sentence(after_main(main, sub(draw, "whether", WHETHER, unfronted(clause))))


def excuse(draw: Draw) -> Text:
    """Anna is not going to the cinema because she has to work."""
    found = verb_of(draw, EFFORT)
    form = draw.one(("progressive", "past", "future", "can"))
    clause = draw_clause(draw, form, verb=found, negated=True, clear=True)
    if not clause.subject.human:
        raise Unsuitable
    draw.combine("form", found.english, form)
    why = reason_not(draw, clause, "past" if form == "past" else "present")
    return sentence(after_main(statement(clause), sub(draw, "because", BECAUSE, why)))


def cause(draw: Draw) -> Text:
    """Anna is drinking water because she is thirsty."""
    name, need = draw.one((("eat", "hungry"), ("drink", "thirsty"), ("sleep", "tired"), ("rest", "tired")))
    found = verb_of(draw, (name,))
    form = draw.one(("progressive", "past", "want to"))
    clause = draw_clause(draw, form, verb=found, clear=True, third=draw.chance(0.5))
    draw.combine("form", name, form)
    why = is_so(draw, pronoun_for(clause.subject), need, "past" if form == "past" else "present")
    if draw.chance(0.4):
        opening = sub(draw, "because", BECAUSE, replace(why, subject=clause.subject))
        return sentence(before_main(opening, replace(unfronted(clause), subject=pronoun_for(clause.subject))))
    return sentence(after_main(statement(clause), sub(draw, "because", BECAUSE, why)))


def thanks(draw: Draw) -> Text:
    """Anna is thanking the man because he helped her."""
    subject = draw_subject(draw, ("person",), clear=True, general=True)
    found = verb_of(draw, ("thank", "love", "trust", "invite"))
    other = draw_person_object(draw, ("adult", "kin"), subject, pronouns=False)
    form = "past" if not found.stative and draw.chance(0.5) else "present" if found.stative else "progressive"
    case = dative(other) if found.english in ("thank", "trust") else accusative(other)
    who, me = pronoun_for(other), pronoun_for(subject)
    if who.english == me.english or other.gender == "n":
        raise Unsuitable
    deed = Clause(who, verb("help"), "past", (dative(me),))
    kind = is_so(
        draw,
        who,
        draw.one(("friendly", "nice", "polite", "clever", "honest", "funny")),
        "past" if form == "past" else "present",
    )
    why = deed if draw.chance(0.5) or found.english == "thank" else kind
    draw.combine("form", found.english, form)
    main = statement(Clause(subject, found, form, (case,)))
    return sentence(after_main(main, sub(draw, "because", BECAUSE, why)))


def concession(draw: Draw) -> Text:
    """Although he is tired, Peter is reading the book."""
    found = verb_of(draw, EFFORT)
    form = draw.one(("progressive", "past", "future", "want to"))
    clause = draw_clause(draw, form, verb=found, clear=True)
    if not clause.subject.human:
        raise Unsuitable
    draw.combine("form", found.english, form)
    when, who = "past" if form == "past" else "present", pronoun_for(clause.subject)
    rain = Clause(IT, verb("rain"), "past" if form == "past" else "progressive")
    but = (
        rain
        if found.english in OUTDOOR and draw.chance(0.6)
        else is_so(draw, who, draw.one(("tired", "sick", "hungry")), when)
    )
    if draw.chance(0.5):
        return sentence(before_main(sub(draw, "although", ALTHOUGH, but), unfronted(clause)))
    return sentence(after_main(statement(clause), sub(draw, "although", ALTHOUGH, but)))


def condition(draw: Draw) -> Text:
    """If it does not rain tomorrow, we will go for a walk; if you are hungry, you can eat the bread."""
    if draw.chance(0.35):
        need, name = draw.one((("hungry", "eat"), ("thirsty", "drink"), ("tired", "sleep"), ("tired", "rest")))
        found = verb_of(draw, (name,))
        clause = draw_clause(draw, draw.one(("can", "should")), verb=found, subject=PRONOUNS["you"])
        return sentence(
            before_main(sub(draw, "if", IF, is_so(draw, PRONOUNS["you"], need)), unfronted(replace(clause, time=None)))
        )
    subject = draw_subject(draw, ("person",), clear=True)
    found = verb_of(draw, tuple(name for name in EFFORT if name not in ("work", "sing", "help")))
    clause = draw_clause(draw, "future", verb=found, subject=pronoun_for(subject), plain=True)
    draw.note("noun time")
    time = draw_entry(draw, "future", "").text if draw.chance(0.5) else None
    time = None if time and time.english == "soon" else time
    have = Clause(subject, verb("have"), "present", (accusative(nominal("", noun("time"))),))
    dry = Clause(IT, verb("rain"), "present", time=time, negated=True)
    first = dry if found.english in OUTDOOR and draw.chance(0.7) else replace(have, time=time)
    draw.combine("form", found.english, "future")
    main = replace(clause, subject=subject if first is dry else clause.subject)
    return sentence(before_main(sub(draw, "if", IF, first), main))


def childhood(draw: Draw) -> Text:
    """When she was a child, Anna lived in Berlin."""
    found = verb_of(draw, ("live", "like", "love", "play", "draw", "sing", "swim"))
    subject = draw_subject(draw, ("adult",), clear=True, general=True)
    if subject.person == 4:
        raise Unsuitable
    clause = draw_clause(draw, "past", verb=found, subject=subject, plain=True)
    often = None if found.stative else draw.one((Text("often", "oft"), Text("sometimes", "manchmal")))
    who = pronoun_for(subject)
    young = Clause(who, BE, "past", (close(Text("a child", "ein Kind")),))
    if who.english == "we":
        young = is_so(draw, who, "young", "past")
    draw.note("noun child")
    return sentence(before_main(sub(draw, "when", AS, young), replace(clause, often=often)))


def sequence(draw: Draw) -> Text:
    """Before he went to the office, Peter drank coffee; while Anna is cooking, Peter is reading."""
    if draw.chance(0.5):
        form = draw.one(("past", "future"))
        subject = draw_subject(draw, ("person",), clear=True)
        way = Clause(
            pronoun_for(subject),
            verb("go"),
            "past" if form == "past" else "present",
            (close(draw_place(draw, ("near",), to=True)),),
        )
        clause = draw_clause(draw, form, subject=subject, plain=True)
        if set(clause.verb.notes) & {"stative", "event", "far", "act", "nomodal"}:
            raise Unsuitable
        return sentence(before_main(sub(draw, "before", BEFORE, way), clause))
    first = draw_clause(draw, "progressive", verb=verb_of(draw, LASTING), third=True)
    second = draw_clause(draw, "progressive", verb=verb_of(draw, LASTING), third=True)
    if not (first.subject.human and second.subject.human):
        raise Unsuitable
    first, second = replace(unfronted(first), time=None), replace(unfronted(second), time=None)
    return sentence(before_main(sub(draw, "while", WHILE, first), second))


def lost_and_found(draw: Draw) -> Text:
    """Anna is happy because she has found her key; Peter is angry because he lost his hat."""
    subject = draw_subject(draw, ("person",), clear=True)
    who = pronoun_for(subject)
    name, deeds = draw.one(
        (
            ("happy", ("find", "win")),
            ("sad", ("lose",)),
            ("angry", ("lose", "miss")),
            ("nervous", ("lose", "miss", "forget")),
        )
    )
    found = draw.word([verb(deed) for deed in deeds])
    deed = draw_clause(draw, "past", verb=found, subject=who, plain=True)
    draw.combine("form", found.english, "past")
    draw.combine("clause", found.english, "because")
    draw.note("conjunction because")
    main = is_so(draw, subject, name)
    if draw.chance(0.3):
        opening = subordinate(BECAUSE, replace(deed, subject=subject))
        return sentence(before_main(opening, replace(main, subject=who)))
    return sentence(after_main(statement(main), subordinate(BECAUSE, deed)))


def verdict(draw: Draw) -> Text:
    """She likes the film because it is funny (er); he did not buy the coat because it was too expensive (er)."""
    groups = (
        ("text", "show", "song"),
        ("clothes", "clothes2", "private"),
        ("furniture", "device"),
        ("town", "eatery", "sight", "room"),
        ("pet",),
        ("edible", "drink"),
    )
    thing = draw_noun(draw, draw.one(groups))
    liked = draw.chance(0.55)
    if thing.suits(("device", "furniture", "clothes", "clothes2", "private")) and draw.chance(0.6):
        found, form = verb("buy"), draw.one(("past", "future", "want to"))
    else:
        found, form = verb("like"), "present"
    draw.note(f"verb {found.english}")
    word = quality(draw, thing, GOOD if liked else POOR if not thing.suits(("pet",)) else ("dirty", "lazy"))
    subject = draw_subject(draw, ("person",), general=True)
    phrase = finish(draw, draw.one(("the", "this")), thing, (), thing.has_plural and draw.chance(0.15))
    when = "past" if form == "past" else "present"
    why = is_so(draw, pronoun_for(phrase), word.english, when)
    draw.note("conjunction because")
    draw.combine("form", found.english, form)
    main = Clause(subject, found, form, (accusative(phrase),), negated=not liked)
    return sentence(after_main(statement(main), subordinate(BECAUSE, why)))
