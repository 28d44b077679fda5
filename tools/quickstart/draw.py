"""Chance for the generator: repeatable on every Python, fair to rare words, and aware of what a sentence holds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from quickstart.lexicon import Adjective, Entry, Noun, Verb

T = TypeVar("T")
W = TypeVar("W", Noun, Adjective, Verb, Entry)


class Unsuitable(Exception):  # noqa: N818 - a turn that leads nowhere, not an error
    """Nothing fits here: the sentence is given up and another one drawn."""


def lemma(word: Noun | Adjective | Verb | Entry) -> str:
    """Name under which a word is counted: "noun dog"."""
    if isinstance(word, Entry):
        return f"{word.kind} {word.text.english}"
    return f"{type(word).__name__.lower()} {word.english}"


class Draw:
    """A seeded source of chance that notes the words and the combinations of the sentence in the making."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.used: Counter[str] = Counter()
        self.words: list[str] = []
        self.combinations: list[str] = []

    def begin(self) -> None:
        """Start a new sentence."""
        self.words, self.combinations = [], []

    def accept(self) -> None:
        """Count the words of the sentence just made."""
        self.used.update(self.words)

    def below(self, size: int) -> int:
        """A whole number from 0 to size - 1; only `random()` is the same on every Python."""
        return int(self._random.random() * size)

    def chance(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return self._random.random() < probability

    def one(self, options: Sequence[T]) -> T:
        """One of the options, all alike."""
        if not options:
            raise Unsuitable
        return options[self.below(len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """One of the options by weight."""
        left = self._random.random() * sum(weight for _, weight in options)
        for option, weight in options:
            left -= weight
            if left < 0:
                return option
        return options[-1][0]

    def several(self, options: Sequence[T]) -> list[T]:
        """Eight options drawn to choose from, or just one, so that common words meet too."""
        return [self.one(options) for _ in range(8 if self.chance(0.7) else 1)]

    def rare(self, options: Sequence[T], name: Callable[[T], str]) -> T:
        """Of several options drawn, the one used least so far."""
        return min(self.several(options), key=lambda option: self.used[name(option)])

    def word(self, options: Sequence[W]) -> W:
        """A word that the sentence does not hold yet, rare ones first; it is noted."""
        fresh = [option for option in self.several(options) if lemma(option) not in self.words]
        if not fresh:
            raise Unsuitable
        found = min(fresh, key=lambda option: self.used[lemma(option)])
        self.note(lemma(found))
        return found

    def note(self, *words: str) -> None:
        """Note words of the sentence."""
        self.words.extend(words)

    def combine(self, kind: str, first: str, second: str) -> None:
        """Note a combination, as "form read past"."""
        self.combinations.append(f"{kind}: {first} + {second}")

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.below(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed
