"""The words of the quick-start corpus: what one entry holds, and how the tables beside this file are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent


class Text(NamedTuple):
    """The same words in both languages."""

    english: str
    german: str


NONE = Text("", "")


@dataclass(frozen=True)
class Noun:
    """A noun with its forms, and the classes that say what may be told of it; its own name is one of its classes."""

    english: str
    english_plural: str
    gender: str  # m, f, n; p for a word that has only a plural
    german: str
    german_plural: str
    classes: frozenset[str]
    oblique: str  # singular accusative and dative of "der Junge, den Jungen"; otherwise the nominative
    genitive: str

    @property
    def has_plural(self) -> bool:
        """Whether it is counted: "two apples", but not "two milks"."""
        return self.german_plural != "-"

    def suits(self, classes: tuple[str, ...]) -> bool:
        """Whether it belongs to one of the classes."""
        return not self.classes.isdisjoint(classes)


@dataclass(frozen=True)
class Adjective:
    """An adjective; `german` is the form that takes endings, `predicate` the one that stands alone."""

    english: str
    german: str
    predicate: str
    classes: tuple[str, ...]
    comparative: Text | None = None


@dataclass(frozen=True)
class Slot:
    """A complement that a verb asks for: its case (or preposition, or kind of place) and what may fill it."""

    case: str  # acc, dat, loc, dir, fixed
    preposition: str  # German; empty for a bare case
    english: str  # English preposition where the verb itself does not hold it
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """One way to use a verb: who may do it, to what, and the tag of the places where that is usual."""

    subject: tuple[str, ...]
    slots: tuple[Slot, ...] = ()
    places: str = ""


@dataclass(frozen=True)
class Verb:
    """A verb of both languages; the first English word inflects, the German prefix separates."""

    english: str
    past: str
    participle: str
    ing: str
    german: str  # infinitive without prefix and "sich"
    prefix: str
    du: str
    er: str
    partizip: str
    auxiliary: str  # haben or sein
    reflexive: bool
    notes: tuple[str, ...]
    frames: tuple[Frame, ...] = field(repr=False)

    @property
    def stative(self) -> bool:
        """Whether English avoids its progressive form."""
        return "stative" in self.notes

    @property
    def infinitive(self) -> str:
        """German infinitive with its prefix."""
        return self.prefix + self.german


@dataclass(frozen=True)
class Place:
    """A place: where one is, and where one goes."""

    at: Text
    to: Text
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A word or phrase that does not inflect; `note` is its gender, its negation or what its kind needs."""

    kind: str
    text: Text
    note: str


def rows(name: str) -> list[list[str]]:
    """Fields of each line of a table, without comments."""
    lines = (FOLDER / name).read_text(encoding="utf-8").split("\n")
    return [[cell.strip() for cell in line.split("|")] for line in lines if line and not line.startswith("#")]


def pad(cells: list[str], width: int) -> list[str]:
    """Cells with empty ones for those left out at the end of the line."""
    return cells + [""] * (width - len(cells))


def english_plural(word: str) -> str:
    """Regular plural."""
    return word + "es" if word.endswith(("s", "x", "ch", "sh")) else word + "s"


def german_genitive(word: str, gender: str) -> str:
    """Regular genitive singular."""
    if gender in "fp":
        return word
    return word + "es" if word.endswith(("s", "ß", "z", "x", "sch")) else word + "s"


@cache
def nouns() -> tuple[Noun, ...]:
    """All nouns."""
    found = []
    for row in rows("nouns.txt"):
        english, plural, gender, german, german_plural, classes, oblique, genitive = pad(row, 8)
        plural = {"": english_plural(english), "=": english}.get(plural, plural)
        genitive = genitive or oblique or german_genitive(german, gender)
        names = frozenset((*classes.split(), english))
        found.append(Noun(english, plural, gender, german, german_plural, names, oblique or german, genitive))
    return tuple(found)


@cache
def adjectives() -> tuple[Adjective, ...]:
    """All adjectives."""
    found = []
    for row in rows("adjectives.txt"):
        english, german, classes, more, mehr, predicate = pad(row, 6)
        comparative = Text(more, mehr) if more else None
        found.append(Adjective(english, german, predicate or german, tuple(classes.split()), comparative))
    return tuple(found)


def read_slot(text: str) -> Slot:
    """Read `[english=]case:classes`, as in "to=dat:person" or "auf+acc:train"."""
    head, _, classes = text.partition(":")
    english, _, case = head.rpartition("=")
    preposition, _, case = case.rpartition("+")
    return Slot(case, preposition, english, tuple(classes.split(",")))


def read_frame(text: str) -> Frame:
    """Read `subject > complements @ places`."""
    rest, _, places = text.partition("@")
    subject, _, slots = rest.partition(">")
    return Frame(tuple(subject.strip().split(",")), tuple(map(read_slot, slots.split())), places.strip())


def inflect(word: str, ending: str) -> str:
    """Regular English past or -ing form: dance, danced, dancing; carry, carried, carrying."""
    if word.endswith("e"):
        return word + "d" if ending == "ed" else word[:-1] + ending
    if ending == "ed" and word.endswith("y") and word[-2] not in "aeou":
        return word[:-1] + "ied"
    return word + ending


def read_verb(row: list[str]) -> Verb:
    """Read one line of the verb table."""
    english, parts, german, finite, partizip, auxiliary, notes, frames = pad(row, 8)
    word = english.split()[0]
    given = [part.strip() for part in parts.split(",")] if parts else []
    past, participle, ing = pad(given or [inflect(word, "ed")] * 2, 3)
    prefix, _, stem = german.removeprefix("sich ").rpartition("/")
    du, er = [part.strip() for part in finite.split(",")] if "," in finite else regular_finite(stem)
    return Verb(
        english=english,
        past=past,
        participle=participle,
        ing=ing or inflect(word, "ing"),
        german=stem,
        prefix=prefix,
        du=du,
        er=er,
        partizip=partizip,
        auxiliary=auxiliary,
        reflexive=german.startswith("sich "),
        notes=tuple(notes.split()),
        frames=tuple(map(read_frame, frames.split(";"))),
    )


def german_stem(infinitive: str) -> str:
    """Stem that takes the endings: kauf-en, fütter-n."""
    return infinitive[:-2] if infinitive.endswith("en") else infinitive[:-1]


def regular_finite(infinitive: str) -> tuple[str, str]:
    """Second and third person singular of a regular verb: du kaufst, er kauft; du tanzt; du arbeitest."""
    stem = german_stem(infinitive)
    if stem.endswith(("t", "d", "ffn", "chn", "gn")):
        return stem + "est", stem + "et"
    return (stem + "t" if stem.endswith(("s", "ß", "z", "x")) else stem + "st"), stem + "t"


@cache
def verbs() -> tuple[Verb, ...]:
    """All full verbs."""
    return tuple(map(read_verb, rows("verbs.txt")))


@cache
def places() -> tuple[Place, ...]:
    """All places; one without a direction has an empty `to`."""
    found = []
    for at, to, wo, wohin, tags in (pad(row, 5) for row in rows("places.txt")):
        found.append(Place(Text(at, wo), Text(to, wohin), tuple(tags.split())))
    return tuple(found)


@cache
def entries(kind: str) -> tuple[Entry, ...]:
    """All words and phrases of one kind that do not inflect."""
    table = (pad(row, 4) for row in rows("phrases.txt"))
    return tuple(Entry(name, Text(english, german), note) for name, english, german, note in table if name == kind)


@cache
def nouns_by_name() -> dict[str, Noun]:
    """Nouns by their English names."""
    return {word.english: word for word in nouns()}


def noun(english: str) -> Noun:
    """The noun of that English name."""
    return nouns_by_name()[english]


@cache
def adjectives_by_name() -> dict[str, Adjective]:
    """Adjectives by their English names."""
    return {word.english: word for word in adjectives()}


def adjective(english: str) -> Adjective:
    """The adjective of that English name."""
    return adjectives_by_name()[english]


@cache
def verbs_by_name() -> dict[str, Verb]:
    """Verbs by their English names."""
    return {word.english: word for word in verbs()}


def verb(english: str) -> Verb:
    """The verb of that English name."""
    return verbs_by_name()[english]
