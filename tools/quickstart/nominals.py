"""Draws noun phrases that make sense: who may act, what may be bought, which adjective suits which noun."""

from __future__ import annotations

from functools import cache

from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Adjective, Noun, Verb, adjectives, entries, nouns
from quickstart.lexicon import noun as noun_of
from quickstart.phrases import (
    NUMBERS,
    POSSESSIVES,
    PRONOUNS,
    THEY,
    WE,
    Phrase,
    both,
    nominal,
    possessive_for,
    proper,
)

PEOPLE = {"person": ("adult", "child", "kin"), "adult": ("adult", "kin"), "child": ("child", "young")}
TRANSIENT = ("tired", "sick", "hungry", "thirsty", "angry", "nervous", "dirty", "clean", "broken", "empty")
CHILDREN = ("boy", "boys", "girl", "girls", "child", "children", "pupil", "pupils", "baby", "babies")
WARMTH = ("hot", "warm", "cold")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown")
MADE = (
    "small",
    "big",
    "long",
    "short",
    "funny",
    "sad",
    "beautiful",
    "delicious",
    "sweet",
    "modern",
    "fresh",
    "important",
)
PRAISE = ("good", "beautiful", "interesting", "exciting", "delicious", "comfortable", "funny", "famous", "nice")
BLAME = ("boring", "bad", "dirty", "broken", "slow", "difficult")
GROWN = ("young", "colleague", "boss", "customer", "secretary", "lawyer", "gardener")  # no child has one


@cache
def nouns_of(classes: tuple[str, ...]) -> tuple[Noun, ...]:
    """All nouns of the classes."""
    return tuple(noun for noun in nouns() if noun.suits(classes))


@cache
def adjectives_of(noun: str) -> tuple[Adjective, ...]:
    """All adjectives that suit the noun of that name."""
    classes = noun_of(noun).classes
    return tuple(word for word in adjectives() if not classes.isdisjoint(word.classes))


def draw_noun(draw: Draw, classes: tuple[str, ...]) -> Noun:
    """A noun of one of the classes."""
    wide = tuple(name for given in classes for name in PEOPLE.get(given, (given,)))
    return draw.word(nouns_of(wide))


def suits(adjective: Adjective, noun: Noun, verb: Verb | None) -> bool:
    """Whether an adjective that suits the noun may stand before it where the verb acts on it."""
    notes = verb.notes if verb else ()
    name = adjective.english
    if name in TRANSIENT and name not in notes:
        return False
    if name in WARMTH and noun.suits(("edible", "drink", "alcohol", "nature")) and "temp" not in notes:
        return False
    if ("praise" in notes and name in BLAME) or ("blame" in notes and name in PRAISE):
        return False
    return "make" not in notes or name in MADE or name in COLOURS


def draw_adjectives(draw: Draw, noun: Noun, probability: float, verb: Verb | None = None) -> tuple[Adjective, ...]:
    """No adjective, one, or a size and a colour."""
    fitting = [adjective for adjective in adjectives_of(noun.english) if suits(adjective, noun, verb)]
    if not fitting or not draw.chance(probability):
        return ()
    first = draw.word(fitting)
    draw.combine("adjective", first.english, noun.english)
    colours = [adjective for adjective in fitting if adjective.english in COLOURS]
    if first.english in ("small", "big", "new", "old") and colours and draw.chance(0.25):
        second = draw.word(colours)
        draw.combine("adjective", second.english, noun.english)
        return first, second
    return (first,)


def draw_name(draw: Draw) -> Phrase:
    """A person's name."""
    entry = draw.word(entries("name"))
    return proper(entry.text, entry.note)


def draw_pronoun(draw: Draw, names: tuple[str, ...] = tuple(PRONOUNS)) -> Phrase:
    """A personal pronoun."""
    name = draw.rare(names, lambda word: f"pronoun {word}")
    draw.note(f"pronoun {name}")
    return PRONOUNS[name]


def draw_subject(
    draw: Draw, classes: tuple[str, ...], *, third: bool = False, clear: bool = False, general: bool = False
) -> Phrase:
    """Who acts. `third` leaves out "I" and the like; `clear` also neuter nouns, so that a pronoun can
    follow; `general` numbers and "a", as for what someone always does."""
    if classes[0].startswith("the:"):
        return draw_thing_subject(draw, (classes[0][4:], *classes[1:]))
    if any(name in ("person", "adult") for name in classes):
        kind = draw.weighted((("pronoun", 0 if third else 26), ("name", 20), ("names", 4), ("noun", 50)))
        if kind == "pronoun":
            return draw_pronoun(draw)
        if kind != "noun":
            first = draw_name(draw)
            return both(first, draw_name(draw)) if kind == "names" else first
    noun = draw_noun(draw, classes)
    if clear and noun.gender == "n":
        raise Unsuitable
    return draw_actor(draw, noun, general)


def draw_actor(draw: Draw, noun: Noun, general: bool = False) -> Phrase:
    """A person or an animal with article and, at times, an adjective."""
    if noun.suits(("kin",)):
        determiner = draw.one(POSSESSIVES)
        plural = noun.suits(("brother", "sister", "aunt", "uncle", "young")) and draw.chance(0.15)
    else:
        own = 3.0 if noun.suits(("owned",)) else 0.0
        options: tuple[tuple[str, float], ...] = (
            ("the", 6.0),
            ("this", 1.0),
            ("own", own),
            ("the many", 3.0),
            ("many", 0.4),
        )
        options += () if general else (("a", 1.5), ("number", 0.6))
        determiner = draw.weighted(options)
        plural = determiner in ("the many", "many", "number") or (determiner == "own" and draw.chance(0.2))
    return finish(draw, determiner, noun, draw_adjectives(draw, noun, 0.15), plural)


def finish(draw: Draw, determiner: str, noun: Noun, words: tuple[Adjective, ...], plural: bool) -> Phrase:
    """The phrase for a kind of determiner: "own" stands for a possessive, "number" for a number, and so on."""
    if determiner == "own":
        determiner = draw.one(POSSESSIVES)
    elif determiner == "number":
        determiner = draw.rare(tuple(NUMBERS)[:6], lambda name: f"number {name}")
        draw.note(f"number {determiner}")
        return nominal(determiner, noun, *words, plural=True)
    elif determiner == "the many":
        determiner = "the"
    if determiner:
        draw.note(f"determiner {determiner}")
    return nominal(determiner, noun, *words, plural=plural)


def draw_thing_subject(draw: Draw, classes: tuple[str, ...]) -> Phrase:
    """A definite thing, as in "the film starts"."""
    noun = draw_noun(draw, classes)
    if noun.has_plural and noun.suits(("owned",)) and draw.chance(0.2):
        return finish(draw, "own", noun, (), False)
    return finish(draw, draw.weighted((("the", 5), ("this", 2))), noun, draw_adjectives(draw, noun, 0.15), False)


def draw_person_object(draw: Draw, classes: tuple[str, ...], subject: Phrase, pronouns: bool) -> Phrase:
    """A person someone acts upon."""
    if "person" in classes and pronouns and draw.chance(0.2):
        mine = {"I": ("I", "we"), "we": ("I", "we"), "you": ("you",)}.get(subject.english, ())
        return draw_pronoun(draw, tuple(name for name in PRONOUNS if name not in mine))
    if "person" in classes and draw.chance(0.15):
        return draw_name(draw)
    noun = draw_noun(draw, classes)
    if noun.suits(GROWN) and any(word in subject.english.split() for word in CHILDREN):
        raise Unsuitable
    possessive = draw.one((possessive_for(subject), possessive_for(subject), "my", "your"))
    if noun.suits(("kin",)):
        determiner = possessive
    else:
        own = 3.0 if noun.suits(("owned",)) else 0.0
        determiner = draw.weighted((("the", 7.0), ("this", 1.0), (possessive, own), ("the many", 2.0)))
    plural = determiner == "the many" or (
        determiner not in ("the", "this") and noun.suits(("owned",)) and draw.chance(0.2)
    )
    return finish(draw, determiner, noun, draw_adjectives(draw, noun, 0.12), plural)


def draw_object(
    draw: Draw, verb: Verb, classes: tuple[str, ...], subject: Phrase, form: str, bound: bool, negated: bool = False
) -> Phrase:
    """What someone acts upon; `bound` says that it stands after a preposition and stays definite."""
    noun = draw_noun(draw, classes)
    if noun.suits(("adult", "child", "kin", "baby")):
        raise Unsuitable  # persons come from draw_person_object
    options = object_options(verb, noun, form, bound)
    if negated:
        options = [option for option in options if option[0] != "number"]
    kind = draw.weighted(options)
    plural = kind in ("the many", "many", "this many", "number")
    shared = "one" in verb.notes and noun.suits(("clothes",)) and subject.person in (WE, THEY)
    if noun.suits(("pairs",)) or shared:
        plural = True
    if kind == "own":
        kind = draw.one((possessive_for(subject), possessive_for(subject), "my"))
    words = draw_adjectives(draw, noun, 0.3, verb)
    kind = {"this many": "this", "many": "", "bare": ""}.get(kind, kind)
    if kind == "a" and plural:
        kind = ""
    return finish(draw, kind, noun, words, plural)


def object_options(verb: Verb, noun: Noun, form: str, bound: bool) -> list[tuple[str, float]]:
    """Determiners that suit a verb and its object, with weights."""
    notes, habitual = verb.notes, form in ("habit", "like to")
    if noun.suits(("feastday", "kin")):
        return [("own", 1.0)]
    if noun.suits(("time",)):
        return [("bare", 1.0)]
    if verb.english in ("bake", "cook") and noun.suits(("biscuit", "roll", "potato", "egg")):
        return [("many", 2.0), ("the many", 0.0 if habitual else 1.0)]
    if not noun.has_plural:
        bare_only = "consume" in notes and habitual
        return [
            ("bare", 6.0),
            ("the", 0.0 if bare_only or "generic" in notes else 4.0 if not noun.suits(("sky", "meal")) else 99.0),
        ]
    if noun.gender == "p" or noun.suits(("meal", "sky")):
        return [("the", 2.0), ("own", 1.0)] if noun.suits(("plan",)) else [("the", 1.0)]
    own = 2.5 if noun.suits(("owned",)) and not ("consume" in notes and not noun.suits(("text",))) else 0.0
    if "generic" in notes:
        return [
            ("many", 4.0 if form == "present" and noun.suits(("edible", "animal", "flower")) else 0.0),
            ("the", 3.0),
            ("this", 2.0),
            ("own", own),
        ]
    if "indef" in notes:
        return [("a", 6.0), ("number", 1.5 if noun.suits(("pet", "private", "problem", "question", "idea")) else 0.0)]
    if "consume" in notes and habitual:
        return [("a", 4.0), ("many", 4.0)]
    if bound or "def" in notes:
        several = 1.0 if not bound and "one" not in notes else 0.0
        return [("the", 5.0), ("this", 1.5), ("own", own), ("the many", several)]
    if habitual:
        return [
            ("the", 4.0),
            ("own", own),
            ("many", 3.0 if "one" not in notes else 0.0),
            ("a", 1.0 if noun.suits(("clothes",)) else 0.0),
        ]
    several = 0.0 if "one" in notes else 1.0
    number = 1.0 if "num" in notes and form != "progressive" else 0.0
    return [
        ("the", 4.0),
        ("a", 3.0),
        ("this", 1.0),
        ("own", own),
        ("many", several),
        ("the many", several),
        ("this many", several / 2),
        ("number", number),
    ]


__all__ = ["THEY", "draw_actor", "draw_name", "draw_noun", "draw_object", "draw_person_object", "draw_subject"]
