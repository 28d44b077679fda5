"""Families with a relative clause, up to the longest sentences."""

from __future__ import annotations

from dataclasses import replace

from quickstart.clauses import (
    BE,
    Clause,
    accusative,
    after_main,
    before_main,
    dative,
    english_statement,
    german_final,
    question,
    sentence,
    statement,
    with_preposition,
)
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import NONE, Noun, Text, adjectives, verb
from quickstart.nominals import draw_noun, draw_subject
from quickstart.phrases import (
    Phrase,
    nominal,
    relative,
    relative_pronoun,
)
from quickstart.predicates import (
    draw_clause,
    draw_entry,
    draw_verb,
    forms,
    vague,
)
from quickstart.shared import ALTHOUGH, BECAUSE, EFFORT, THAT, is_so, reason_not, spoken, sub, unfronted, verb_of

WISHED = (
    "buy", "read", "visit", "eat", "drink", "rent", "wear", "sell", "repair", "order", "choose", "learn", "sing",
    "translate", "use", "photograph", "throw", "catch",
)  # fmt: skip
UNTOLD = ("broken", "wild", "empty")
MOVABLE = ("thing", "text", "clothes", "pairs", "device", "paper", "toy", "private", "present", "pet")
LIKEABLE = (
    "text",
    "song",
    "show",
    "clothes",
    "clothes2",
    "pairs",
    "edible",
    "drink",
    "pet",
    "image",
    "sight",
    "gift",
    "toy",
)
KNOWABLE = ("text", "song", "show", "eatery", "sight", "town", "task")


def relative_subject(draw: Draw, phrase: Phrase, forms: tuple[str, ...]) -> Phrase:
    """A person with what he or she does: the man who lives in Berlin."""
    form = draw.one(forms)
    pronoun = tuple(relative_pronoun(phrase, case) for case in ("nom", "acc", "dat"))
    who = replace(phrase, english="who", german=pronoun, pronoun=True)
    clause = draw_clause(draw, form, subject=who, plain=form != "past")
    if clause.verb.english in ("hear", "see") or (clause.verb.stative and form == "past"):
        raise Unsuitable
    draw.note("relative who")
    draw.combine("clause", clause.verb.english, "relative")
    return relative(phrase, Text(english_statement(unfronted(clause)), german_final(unfronted(clause))))


def person_with_relative(draw: Draw, forms: tuple[str, ...] = ("past", "present")) -> Phrase:
    """The man who lives in Berlin."""
    found = draw_noun(draw, ("adult", "boy", "girl", "child", "pupil"))
    if found.suits(("kin",)):
        raise Unsuitable
    phrase = nominal("the", found, plural=draw.chance(0.25))
    return relative_subject(draw, phrase, forms)


def relative_on_subject(draw: Draw) -> Text:
    """The man who lives in Berlin is reading a book."""
    subject = person_with_relative(draw)
    form = draw.one(("progressive", "past", "future", "present", "can", "want to"))
    clause = draw_clause(draw, form, subject=subject)
    return sentence(statement(replace(clause, front=False)))


def relative_on_object(draw: Draw) -> Text:
    """Yesterday I met the man who lives in Berlin."""
    found = verb_of(
        draw,
        ("know", "see", "visit", "meet", "invite", "call", "help", "thank", "greet", "wait for", "trust", "photograph"),
    )
    form = draw.one([form for form in ("past", "present", "future", "want to", "progressive") if form in forms(found)])
    subject = draw_subject(draw, ("person",))
    phrase = person_with_relative(draw, ("present", "progressive") if found.stative else ("past", "present"))
    slot = next(slot for slot in found.frames[0].slots)
    made = with_preposition(Text("", slot.preposition), "acc", phrase) if slot.preposition else accusative(phrase)
    draw.combine("form", found.english, form)
    return sentence(statement(Clause(subject, found, form, (dative(phrase) if slot.case == "dat" else made,))))


def thing_with_relative(draw: Draw) -> tuple[Noun, Phrase]:
    """A thing with and without what is done to it: the book that Anna is reading."""
    form = draw.one(("past", "past", "progressive", "would like to"))
    found = draw_verb(draw, form)
    frame = draw.one([frame for frame in found.frames if len(frame.slots) == 1 and frame.slots[0].case == "acc"])
    slot = frame.slots[0]
    if slot.preposition or "make" in found.notes or (form == "would like to" and found.english not in WISHED):
        raise Unsuitable
    thing = draw_noun(draw, slot.classes)
    if thing.suits(("adult", "child", "kin", "baby", "time", "feastday")):
        raise Unsuitable
    phrase = nominal("the", thing, plural=thing.suits(("pairs",)) or (thing.has_plural and draw.chance(0.1)))
    time = draw_entry(draw, "past", "").text if form == "past" and draw.chance(0.4) else None
    clause = Clause(draw_subject(draw, frame.subject), found, form, time=time)
    if vague(clause):
        raise Unsuitable
    draw.note("relative that")
    draw.combine("form", found.english, form)
    draw.combine("clause", found.english, "relative")
    german = f"{relative_pronoun(phrase, 'acc')} {german_final(clause)}"
    return thing, relative(phrase, Text(f"that {english_statement(clause)}", german))


def relative_thing(draw: Draw) -> Text:
    """The book that Anna is reading is interesting; where is the book that you bought?"""
    thing, phrase = thing_with_relative(draw)
    kind = draw.one(("is so", "where", "like", "know"))
    if kind == "is so":
        word = draw.word([word for word in adjectives() if thing.suits(word.classes) and word.english not in UNTOLD])
        draw.combine("adjective", word.english, thing.english)
        return sentence(statement(is_so(draw, phrase, word.english)))
    if kind == "where" and thing.suits(MOVABLE):
        main = question(Clause(replace(phrase, tail=NONE), BE, "present"), Text("where", "wo"))
        return sentence(Text(f"{main.english} {phrase.tail.english}", f"{main.german}, {phrase.tail.german}"), "?")
    if kind == "where" or not thing.suits(LIKEABLE if kind == "like" else KNOWABLE):
        raise Unsuitable
    draw.note(f"verb {kind}")
    negated = kind == "like" and draw.chance(0.3)
    subject = draw_subject(draw, ("person",), general=True)
    return sentence(statement(Clause(subject, verb(kind), "present", (accusative(phrase),), negated=negated)))


def long_one(draw: Draw) -> Text:
    """My father says that the woman who lives in Berlin cannot come because she has to work."""
    subject = person_with_relative(draw)
    if subject.gender == "n":
        raise Unsuitable
    found = verb_of(draw, EFFORT)
    form = draw.one(("future", "can", "past", "want to"))
    clause = draw_clause(draw, form, verb=found, subject=subject, negated=form != "want to")
    clause = replace(clause, front=False, time=None)
    draw.combine("form", found.english, form)
    why = reason_not(draw, clause, "past" if form == "past" else "present")
    if form == "want to":
        return sentence(before_main(sub(draw, "although", ALTHOUGH, why), clause))
    if draw.chance(0.5):
        return sentence(after_main(statement(clause), sub(draw, "because", BECAUSE, why)))
    thinker = Clause(draw_subject(draw, ("person",)), spoken(verb_of(draw, ("say", "think"))), "present")
    told = after_main(statement(thinker), sub(draw, "that", THAT, clause))
    return sentence(after_main(told, sub(draw, "because", BECAUSE, why)))
