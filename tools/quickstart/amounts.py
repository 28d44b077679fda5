"""Families with numbers: ages, prices, clock times, dates."""

from __future__ import annotations

from quickstart.clauses import (
    BE,
    Clause,
    close,
    question,
    sentence,
    statement,
)
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Text, noun, verb
from quickstart.nominals import draw_actor, draw_name, draw_noun, finish
from quickstart.phrases import (
    NUMBERS,
    THEY,
    THIRD,
    Phrase,
    nominal,
)
from quickstart.predicates import (
    clock,
    on_date,
)
from quickstart.things import owned, possessor

TENS = {
    "twenty": "zwanzig", "thirty": "dreißig", "forty": "vierzig", "fifty": "fünfzig",
    "sixty": "sechzig", "seventy": "siebzig", "eighty": "achtzig", "ninety": "neunzig",
}  # fmt: skip
TEENS = {
    "thirteen": "dreizehn", "fourteen": "vierzehn", "fifteen": "fünfzehn", "sixteen": "sechzehn",
    "seventeen": "siebzehn", "eighteen": "achtzehn", "nineteen": "neunzehn",
}  # fmt: skip
HUNDRED = {"a hundred": "hundert"}


def number(draw: Draw, least: int = 2) -> Text:
    """A number up to a hundred."""
    small = {name: german for place, (name, german) in enumerate(NUMBERS.items(), 2) if place >= least}
    simple = {**small, **TEENS, **TENS, **HUNDRED}
    if draw.chance(0.6):
        name = draw.rare(tuple(simple), lambda word: f"number {word}")
        draw.note(f"number {name}")
        return Text(name, simple[name])
    ten = draw.rare(tuple(TENS), lambda word: f"number {word}")
    units = {"one": "ein", **dict(list(NUMBERS.items())[:8])}
    unit = draw.rare(tuple(units), lambda word: f"number {word}")
    draw.note(f"number {ten}", f"number {unit}")
    return Text(f"{ten}-{unit}", f"{units[unit]}und{TENS[ten]}")


def age(draw: Draw) -> Text:
    """My sister is twenty-three years old."""
    kind = draw.one(("name", "kin", "child"))
    subject = (
        draw_name(draw)
        if kind == "name"
        else draw_actor(draw, draw_noun(draw, ("kin",) if kind == "kin" else ("boy", "girl", "friend")), general=True)
    )
    if subject.person == THEY:
        raise Unsuitable
    if draw.chance(0.12):
        return sentence(question(Clause(subject, BE, "present"), Text("how old", "wie alt")), "?")
    years = number(draw, 4 if kind == "name" else 2)
    value = {**NUMBERS, **TEENS}
    if kind == "child" and years.english not in value:
        years = number(draw, 4)
    if (kind == "child" and years.english not in value) or not fits_age(subject, years.english):
        raise Unsuitable
    end = close(Text(f"{years.english} years old", f"{years.german} Jahre alt"))
    return sentence(statement(Clause(subject, BE, "present", (end,))))


def fits_age(subject: Phrase, years: str) -> bool:
    """Whether a relative can be that old."""
    if any(name in subject.english for name in ("grandmother", "grandfather")):
        return years.startswith(("sixty", "seventy", "eighty", "ninety"))
    if any(name in subject.english for name in ("mother", "father", "aunt", "uncle")):
        return years.startswith(("thirty", "forty", "fifty", "sixty"))
    if any(name in subject.english for name in ("son", "daughter", "friend")):
        return not years.startswith(("fifty", "sixty", "seventy", "eighty", "ninety", "a hundred"))
    return years != "a hundred"


PRICED = (
    "clothes", "clothes2", "pairs", "lamp", "umbrella", "bag", "suitcase", "ticket", "book", "chair", "radio", "ball",
    "doll", "blanket", "carpet", "mirror", "towel", "basket",
)  # fmt: skip


def price(draw: Draw) -> Text:
    """The coat costs forty-five euros; how much did it cost?"""
    thing = draw_noun(draw, PRICED)
    phrase = finish(draw, draw.one(("the", "this")), thing, (), thing.suits(("pairs",)))
    form = draw.one(("present", "past")) if phrase.person == THIRD else "present"  # "they cost" has no tense
    draw.note("verb cost")
    if draw.chance(0.15):
        return sentence(question(Clause(phrase, verb("cost"), form), Text("how much", "wie viel")), "?")
    value = number(draw, 5)
    end = close(Text(f"{value.english} euros", f"{value.german} Euro"))
    return sentence(statement(Clause(phrase, verb("cost"), form, (end,))))


def time_of_day(draw: Draw) -> Text:
    """It is half past three; today is the third of May."""
    kind = draw.one(("clock", "already", "date", "birthday", "birthday", "birthday"))
    if kind in ("clock", "already"):
        time = clock(draw)
        already = kind == "already"
        english, german = (" already", " schon") if already else ("", "")
        return sentence(Text(f"it is{english} {time.english}", f"es ist{german} {time.german}"))
    date = on_date(draw)
    if kind == "date":
        english, german = date.english.removeprefix("on "), date.german.removeprefix("am ").replace("ten ", "te ", 1)
        return sentence(Text(f"today is {english}", f"heute ist der {german}"))
    owner = possessor(draw)
    draw.note("noun birthday")
    day = owned(nominal("the", noun("birthday")), owner, "birthday")
    return sentence(statement(Clause(day, BE, "present", (close(date),))))
