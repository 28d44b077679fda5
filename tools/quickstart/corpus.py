"""Draws the corpus from the grammar, keeps some combinations for the test alone, and divides the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from quickstart.draw import Draw, Unsuitable
from quickstart.grammar import FAMILIES, Family
from quickstart.lexicon import Text, nouns_by_name, rows

SEED = 20240229
SIZES = {"train": 19_000, "val": 500, "test": 500}
UNSEEN_EACH = 5  # sentences for each combination held out
LEXICAL = (
    "noun", "verb", "adjective", "name", "place", "pronoun", "determiner", "number", "ordinal", "day", "month",
    "season",
    "sport", "game", "instrument", "language", "often", "manner", "conjunction", "preposition",
)  # fmt: skip
LONGEST = 150  # characters
TRIES = 30  # before a family is given up for the turn


@dataclass(frozen=True)
class Example:
    """A sentence pair with its family, its words and the combinations in it."""

    text: Text
    family: str
    words: tuple[str, ...]
    combinations: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """The parts of the corpus by name: train, val, test, test-unseen."""

    parts: dict[str, list[Example]]

    def lemmas(self, part: str = "train") -> Counter[str]:
        """How often each word of the lexicon occurs in a part."""
        words = (word for example in self.parts[part] for word in example.words)
        return Counter(lemma for word in words if (lemma := as_lemma(word)))


def as_lemma(word: str) -> str:
    """The word if it is one of the lexicon, or nothing; a place such as "park" is the noun."""
    kind, _, name = word.partition(" ")
    if kind == "place" and name in nouns_by_name():
        return f"noun {name}"
    return word if kind in LEXICAL else ""


def held_out() -> tuple[str, ...]:
    """The combinations that only test-unseen holds."""
    return tuple(row[0] for row in rows("held_out.txt"))


def attempt(draw: Draw, family: Family) -> Text | None:
    """A sentence of the family, or none where the tries lead nowhere."""
    for _ in range(TRIES):
        draw.begin()
        with suppress(Unsuitable):
            return family(draw)
    return None


def examples(draw: Draw) -> Iterator[Example]:
    """Sentences without end, no source and no target twice."""
    seen: dict[str, str] = {}
    targets: dict[str, str] = {}
    while True:
        family = draw.weighted(FAMILIES)
        text = attempt(draw, family)
        if text is None:
            continue
        if text.english in seen:
            assert seen[text.english] == text.german, f"two translations of {text.english!r}"
            continue
        if text.german in targets or max(map(len, text)) > LONGEST:
            continue
        seen[text.english], targets[text.german] = text.german, text.english
        draw.accept()
        yield Example(text, family.__name__, tuple(draw.words), tuple(draw.combinations))


def build(seed: int = SEED) -> Corpus:
    """The whole corpus; the same on every run."""
    draw = Draw(seed)
    kept = held_out()
    wanted = sum(SIZES.values())
    common: list[Example] = []
    unseen: list[Example] = []
    room = Counter(dict.fromkeys(kept, UNSEEN_EACH))
    for example in islice(examples(draw), 10 * wanted):
        rare = [combination for combination in example.combinations if combination in room]
        if not rare and len(common) < wanted:
            common.append(example)
        elif rare and room[rare[0]] > 0:
            room[rare[0]] -= 1
            unseen.append(example)
        if len(common) == wanted and not +room:
            return divide(draw, common, unseen)
    raise ValueError(f"the grammar does not make what held_out.txt asks for: {', '.join(+room)}")


def divide(draw: Draw, common: list[Example], unseen: list[Example]) -> Corpus:
    """Shuffle and cut into the parts."""
    mixed = draw.shuffled(common)
    parts = {}
    for name in ("test", "val", "train"):
        parts[name], mixed = mixed[: SIZES[name]], mixed[SIZES[name] :]
    return Corpus({**parts, "test-unseen": draw.shuffled(unseen)})


def files(corpus: Corpus) -> dict[str, bytes]:
    """Name and content of each file."""
    found = {}
    for name, part in corpus.parts.items():
        for side, language in enumerate(("en", "de")):
            found[f"{name}.{language}"] = "".join(f"{example.text[side]}\n" for example in part).encode()
    return found
