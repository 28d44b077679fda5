"""Families around "be": qualities, comparisons, professions, places, weather."""

from __future__ import annotations

from dataclasses import replace

from quickstart.clauses import (
    BE,
    Clause,
    close,
    question,
    sentence,
    statement,
)
from quickstart.draw import Draw, Unsuitable, lemma
from quickstart.lexicon import Adjective, Noun, Text, adjective, adjectives, entries, noun, nouns, verb
from quickstart.nominals import draw_actor, draw_name, draw_noun, draw_subject, finish
from quickstart.phrases import (
    POSSESSIVES,
    PRONOUNS,
    THEY,
    Phrase,
    nominal,
    prepositional,
)
from quickstart.predicates import (
    draw_entry,
    draw_place,
)
from quickstart.shared import IT, is_so

FEELINGS = ("tired", "sick", "hungry", "thirsty", "angry", "nervous", "happy", "sad")
COMPARED = (
    ("adult",),
    ("clothes", "clothes2"),
    ("text",),
    ("building",),
    ("furniture",),
    ("fruits",),
    ("show",),
    ("kin",),
)
SIZES = ("big", "small", "long", "short", "fast", "slow", "tall", "heavy", "light")
# season: what falls then, and how it feels
CLIMATE = {
    "spring": ("rain", ("warm", "beautiful")),
    "summer": ("rain", ("hot", "warm")),
    "autumn": ("rain", ("cold", "beautiful")),
    "winter": ("snow", ("cold",)),
}
BY_SIZE = ("mouse", "bird", "duck", "cat", "dog", "goat", "pig", "lion", "horse", "elephant")
BY_SPEED = ("bicycle", "boat", "bus", "car", "train", "plane")


def quality(draw: Draw, thing: Noun, names: tuple[str, ...] = ()) -> Adjective:
    """An adjective that can be said of the noun."""
    found = draw.word(
        [word for word in adjectives() if thing.suits(word.classes) and (not names or word.english in names)]
    )
    draw.combine("adjective", found.english, thing.english)
    return found


def definite(draw: Draw, thing: Noun) -> Phrase:
    """A definite phrase for a thing: the, this or a possessive, at times plural."""
    options = (("the", 5.0), ("this", 1.5), ("own", 2.0 if thing.suits(("owned", "kin")) else 0.0))
    kind = "own" if thing.suits(("kin",)) else draw.weighted(options)
    plural = thing.suits(("pairs",)) or (
        thing.has_plural and not thing.suits(("sky", "meal", "kin")) and draw.chance(0.25)
    )
    if not thing.has_plural:
        kind = "the"
    return finish(draw, kind, thing, (), plural)


def being_so(draw: Draw) -> Text:
    """The soup is hot; was the exam difficult?"""
    form = draw.one(("present", "present", "past"))
    if draw.chance(0.3):
        subject = draw_subject(draw, ("person",), general=True)
        name = draw.rare(FEELINGS, lambda word: f"adjective {word}")
        clause = is_so(draw, subject, name, form)
    else:
        word = draw.word(adjectives())
        thing = draw.word([noun for noun in nouns() if noun.suits(word.classes)])
        draw.combine("adjective", word.english, thing.english)
        person = thing.suits(("adult", "child", "kin", "animal"))
        clause = is_so(
            draw, draw_actor(draw, thing, general=True) if person else definite(draw, thing), word.english, form
        )
    kind = draw.weighted((("yes", 6), ("no", 2), ("ask", 2)))
    if kind == "ask" and clause.subject.english != "I":
        return sentence(question(clause), "?")
    time = draw_entry(draw, "today").text if form == "present" and clause.subject.human and draw.chance(0.2) else None
    return sentence(statement(replace(clause, negated=kind == "no", time=time)))


def comparison(draw: Draw) -> Text:
    """The dog is bigger than the cat; the coat is as expensive as the jacket."""
    if draw.chance(0.25):
        return size_or_speed(draw)
    kinds = draw.one(COMPARED)
    first, second = draw_noun(draw, kinds), draw_noun(draw, kinds)
    words = [
        word
        for word in adjectives()
        if word.comparative and first.suits(word.classes) and second.suits(word.classes) and word.english not in SIZES
    ]
    found = draw.word(words)
    assert found.comparative
    draw.combine("adjective", found.english, first.english)
    draw.combine("adjective", found.english, second.english)
    one, two = (
        finish(draw, draw.one(POSSESSIVES) if word.suits(("kin",)) else "the", word, (), False)
        for word in (first, second)
    )
    draw.note("comparison")
    if draw.chance(0.35):
        return sentence(
            compare(one, two, Text(f"as {found.english} as", f"so {found.predicate} wie"), draw.chance(0.3))
        )
    return sentence(
        compare(one, two, Text(f"{found.comparative.english} than", f"{found.comparative.german} als"), False)
    )


def size_or_speed(draw: Draw) -> Text:
    """The elephant is bigger than the mouse; the train is faster than the car."""
    order, more, less = draw.one(((BY_SIZE, "big", "small"), (BY_SPEED, "fast", "slow")))
    ranks = sorted((draw.below(len(order)), draw.below(len(order))))
    if ranks[0] == ranks[1]:
        raise Unsuitable
    low, high = noun(order[ranks[0]]), noun(order[ranks[1]])
    first, second, name = draw.one(((high, low, more), (low, high, less)))
    word = adjective(name)
    draw.note(lemma(first), lemma(second), lemma(word), "comparison")
    draw.combine("adjective", name, first.english)
    draw.combine("adjective", name, second.english)
    assert word.comparative
    plural = draw.chance(0.3)
    one, two = (finish(draw, "" if plural else "the", thing, (), plural) for thing in (first, second))
    end = Text(f"{word.comparative.english} than", f"{word.comparative.german} als")
    negated = draw.chance(0.2)
    if negated:
        one, two = two, one
    return sentence(compare(one, two, end, negated))


def compare(one: Phrase, two: Phrase, words: Text, negated: bool) -> Text:
    """One thing compared with another."""
    end = close(Text(f"{words.english} {two.as_object}", f"{words.german} {two.case('nom')}"))
    return statement(Clause(one, BE, "present", (end,), negated=negated))


def profession(draw: Draw) -> Text:
    """My uncle is a doctor; her sister wants to be a singer (werden)."""
    kind = draw.one(("name", "kin", "pronoun"))
    subject = draw_name(draw) if kind == "name" else draw_actor(draw, draw_noun(draw, ("kin",)))
    if kind == "pronoun":
        subject = PRONOUNS[draw.one(("I", "you", "he"))]
    job = draw.word(
        [word for word in nouns() if word.suits(("job",)) and (word.gender == "f") == (subject.gender == "f")]
    )
    phrase = nominal("a", job, plural=subject.person == THEY)
    if subject.gender == "p":
        raise Unsuitable
    form = draw.one(("present", "present", "past"))
    end = close(Text(phrase.english, job.german), without=f"kein{'e' if job.gender == 'f' else ''} {job.german}")
    clause = Clause(subject, BE, form, (end,), negated=draw.chance(0.2))
    return sentence(question(replace(clause, negated=False)), "?") if draw.chance(0.2) else sentence(statement(clause))


PRESENCE = (
    "near",
    "near2",
    "far",
    "city",
    "country",
    "room",
    "sit",
    "work",
    "stall",
    "quiet",
    "yard",
    "settle",
    "sing",
)


def presence(draw: Draw) -> Text:
    """The children are in the garden; where is your brother?"""
    subject = draw_subject(draw, ("person",))
    form = draw.one(("present", "past", "future"))
    if draw.chance(0.15):
        return sentence(question(Clause(subject, BE, "past" if form == "future" else form), Text("where", "wo")), "?")
    place = draw_place(draw, PRESENCE)
    time = None
    if form == "past" and draw.chance(0.6):
        time = draw_entry(draw, "past", "").text
    if form == "future":
        time = draw_entry(draw, "future", "").text
    clause = Clause(subject, BE, form, (close(place),), time=time, front=time is not None and draw.chance(0.4))
    kind = draw.weighted((("yes", 6), ("no", 2), ("ask", 2)))
    if kind == "ask":
        return sentence(question(replace(clause, front=False)), "?")
    return sentence(statement(replace(clause, negated=kind == "no")))


def weather(draw: Draw) -> Text:
    """It is raining in Berlin today; yesterday it was cold at the lake."""
    if draw.chance(0.3):
        return climate(draw)
    form = draw.one(("progressive", "past", "future"))
    place = draw_place(draw, ("city", "country", "open")) if draw.chance(0.75) else None
    times = {"progressive": ("today", None), "past": ("past", ""), "future": ("future", "")}
    kind, note = times[form]
    time = draw_entry(draw, kind, note).text if draw.chance(0.7) else None
    front, negated = time is not None and draw.chance(0.4), draw.chance(0.15)
    if draw.chance(0.5):
        found = verb(draw.one(("rain", "snow")))
        draw.note(f"verb {found.english}")
        clause = Clause(IT, found, form, time=time, place=place, front=front, negated=negated)
        return sentence(statement(replace(clause, place=None if negated else place)))
    name = draw.rare(("cold", "warm", "hot"), lambda word: f"adjective {word}")
    clause = is_so(draw, IT, name, "present" if form == "progressive" else form)
    return sentence(
        statement(replace(clause, time=time, place=None if negated else place, front=front, negated=negated))
    )


def climate(draw: Draw) -> Text:
    """In winter it is cold in Berlin; in autumn it often rains."""
    season, (often, names) = draw.rare(tuple(CLIMATE.items()), lambda item: f"season {item[0]}")
    draw.note(f"season {season}")
    entry = next(entry for entry in entries("season") if entry.text.english == season)
    time = Text(f"in {season}", entry.note)
    place = draw_place(draw, ("city", "country", "open")) if draw.chance(0.85) else None
    adverb = None if place else draw_entry(draw, "often", "").text
    name = draw.one((often, *names))
    if name == often:
        draw.note(f"verb {often}")
        clause = Clause(IT, verb(often), "present")
    else:
        clause = is_so(draw, IT, name)
    return sentence(statement(replace(clause, time=time, place=place, often=adverb, front=True)))


def existence(draw: Draw) -> Text:
    """There is a museum in this town; there are two churches in the village."""
    thing = draw_noun(draw, ("public2", "lake", "river"))
    site = nominal(draw.one(("the", "this", "our")), noun(draw.one(("town", "village"))))
    where = prepositional(Text("in", "in"), "dat", site)
    words = [
        word
        for word in adjectives()
        if thing.suits(word.classes) and word.english not in ("dirty", "clean", "cold", "white")
    ]
    chosen: tuple[Adjective, ...] = ()
    if words and draw.chance(0.5):
        found = draw.word(words)
        draw.combine("adjective", found.english, thing.english)
        chosen = (found,)
    kind = draw.one(("a", "a", "number", "no", "many", "some"))
    phrase = finish(draw, kind, thing, chosen, kind in ("many", "some"))
    draw.note(f"place {site.english.split()[-1]}")
    be = "are" if phrase.person == THEY else "is"
    if draw.chance(0.2) and kind == "a":
        return sentence(
            Text(f"is there {phrase.english} {where.english}", f"gibt es {where.german} {phrase.case('acc')}"), "?"
        )
    return sentence(
        Text(f"there {be} {phrase.english} {where.english}", f"{where.german} gibt es {phrase.case('acc')}")
    )
