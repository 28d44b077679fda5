"""Models that read their probabilities from tables, and every translation there is: the oracles of search."""

import functools
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from nmt.decoding import decode
from nmt.search import Hypothesis, SearchOptions, beam_search

PAD, UNK, BOS, EOS, A, B = range(6)
BANNED = (PAD, UNK, BOS)

Table = Callable[
    [tuple[int, ...], tuple[int, ...]], list[float]
]  # of (source, tokens so far): the next token's probabilities


class Memory(NamedTuple):
    source: Tensor  # (B, S)
    lengths: Tensor  # (B,)


class TableState(NamedTuple):
    memory: Memory
    prefix: Tensor  # (N, t) BOS first
    alignment: Tensor  # (N, S)


def look_number(read: Sequence[int]) -> float:
    return sum(token * 10.0**place for place, token in enumerate(read))


def by_look_number(source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
    """Tells paths apart."""
    return [look_number(prefix)] * len(source)


class TableModel:
    """Reads its probabilities from a table, and where it looks from another, by default so that paths show."""

    def __init__(self, table: Table, looks: Table = by_look_number) -> None:
        self.table, self.looks = table, looks
        self.steps: list[tuple[int, int, int]] = []  # rows, rows of memory, address of memory

    def start(self, source: Tensor, lengths: Tensor) -> TableState:
        return TableState(
            Memory(source.clone(), lengths.clone()), torch.empty(len(source), 0).long(), torch.zeros(source.shape)
        )

    def step(self, tokens: Tensor, state: TableState) -> tuple[Tensor, TableState]:
        memory, prefix = state.memory, torch.cat([state.prefix, tokens[:, None]], dim=1)
        self.steps.append((len(tokens), len(memory.source), memory.source.data_ptr()))
        beam, rest = divmod(len(tokens), len(memory.source))
        assert rest == 0
        assert (prefix[:, 0] == BOS).all()
        rows, looks = [], torch.zeros(len(tokens), memory.source.size(1))
        for row, read in enumerate(prefix.tolist()):
            source = tuple(memory.source[row // beam, : memory.lengths[row // beam]].tolist())
            rows.append(self.table(source, tuple(read[1:])))
            looks[row, : len(source)] = torch.tensor(self.looks(source, tuple(read[1:])))
        return torch.tensor(rows).log(), TableState(memory, prefix, looks)


def by_hand(rows: dict[tuple[int, ...], dict[int, float]]) -> TableModel:
    """A model of {tokens so far: {next token: its probability}}, 0 for all that is not said."""
    return TableModel(lambda source, prefix: [rows.get(prefix, {}).get(token, 0.0) for token in range(6)])


def constant(**probabilities: float) -> TableModel:
    """A model that forgets what it has said: constant(A=0.9, EOS=0.1)."""
    row = {globals()[name]: probability for name, probability in probabilities.items()}
    return TableModel(lambda source, prefix: [row.get(token, 0.0) for token in range(6)])


def at_random(seed: int, vocabulary: int = 7, sharpness: float = 1.0) -> Table:
    """Different for every source and every prefix; banned tokens have their share."""

    @functools.cache
    def table(source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
        draw = random.Random(f"{seed} {source} {prefix}")
        weights = [math.exp(sharpness * draw.gauss(0, 1)) for _ in range(vocabulary)]
        return [weight / sum(weights) for weight in weights]

    return table


def at_random_looks(seed: int) -> Table:
    """Attention that is different for every source and every prefix, and sums to 1."""

    @functools.cache
    def looks(source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
        draw = random.Random(f"{seed} looks {source} {prefix}")
        weights = [draw.random() ** 3 for _ in source]
        return [weight / sum(weights) for weight in weights]

    return looks


def batch(sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Padded ids (B, S) and their lengths (B,)."""
    rows = [torch.tensor(source, dtype=torch.long) for source in sources]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(source) for source in sources])


def translate(
    model: TableModel, *sources: list[int], with_alignment: bool = False, **options
) -> list[list[Hypothesis]]:
    """By `beam_search` itself."""
    settings = {"length_penalty": 0} | options
    keywords = {"bos": BOS, "eos": EOS, "banned": BANNED, "with_alignment": with_alignment}
    return beam_search(model, *batch(sources), SearchOptions(**settings), **keywords)


ASKED = ("prefixes", "constraints", "sampling", "numbers", "distinct", "with_alignment")


def decoded(model, sources: Sequence[Sequence[int]], **options) -> list[list[Hypothesis]]:
    """By `decode`: what is asked for of sentences, and options of the search."""
    asked = {name: options.pop(name) for name in ASKED if name in options}
    settings = SearchOptions(**{"length_penalty": 0} | options)
    return decode(model, *batch(sources), settings, bos=BOS, eos=EOS, banned=(PAD, BOS), unknown=UNK, **asked)


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-5)


def divided(log_prob: float, length: int, options: SearchOptions) -> float:
    """What ranks a translation of this |Y|, coverage left out."""
    base = {"gnmt": (5 + length) / 6, "power": length, "none": 1}[options.normalization]
    return log_prob / base**options.length_penalty + options.length_reward * length


def covered(looks: Table, source: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    """sum_i log min(sum_j p_ij, 1), EOS among the j; what is below 1e-6 counts as that (nmt/steppers.py)."""
    rows = [looks(source, tokens[:place]) for place in range(len(tokens) + 1)]
    return sum(math.log(max(min(sum(column), 1), 1e-6)) for column in zip(*rows, strict=True))


def all_translations(
    model: TableModel,
    source: tuple[int, ...],
    options: SearchOptions,
    allowed: Callable[[tuple[int, ...]], bool] = lambda tokens: True,
    limit: int | None = None,
) -> list[Hypothesis]:
    """Every translation that is allowed, best first."""
    silent = {PAD, BOS, EOS} | (set() if options.allow_unknown else {UNK})
    words = [token for token in range(len(model.table(source, ()))) if token not in silent]
    found = []
    for length in range((options.limit(len(source)) if limit is None else limit) + 1):
        for tokens in filter(allowed, itertools.product(words, repeat=length)):
            steps = [model.table(source, tokens[:place])[token] for place, token in enumerate((*tokens, EOS))]
            score = divided(log_prob := sum(math.log(step) for step in steps), length + 1, options)
            if options.coverage_penalty:
                score += options.coverage_penalty * covered(model.looks, source, tokens)
            found.append(Hypothesis(tokens, score, log_prob))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)
