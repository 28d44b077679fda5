"""Diverse beam search against the paper's algorithm in lists, and by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.search import Hypothesis, SearchOptions
from tests.tables import BANNED, EOS, A, B, Table, TableModel, assert_same, at_random, constant, decoded, divided


def slow_groups(table: Table, source: tuple[int, ...], options: SearchOptions) -> list[Hypothesis]:
    """One sentence: each group in turn at each step, on to the limit, however many have ended."""
    groups, limit = options.diverse_groups, options.limit(len(source))
    size = options.beam_size // groups
    beams: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in range(groups)]
    found: dict[tuple[int, ...], Hypothesis] = {}
    for length in range(limit + 1):
        said: list[int] = []
        for number, beam in enumerate(beams):
            extensions = [
                (log_prob + math.log(probability) - options.diversity * said.count(token), log_prob, prefix, token)
                for log_prob, prefix in beam
                for token, probability in enumerate(table(source, prefix))
                if token not in BANNED and (token == EOS or length < limit)
            ]
            extensions.sort(key=lambda extension: -extension[0])
            extensions = [(b + math.log(table(source, p)[t]), p, t) for _, b, p, t in extensions]
            for log_prob, prefix, token in extensions[:size]:
                if token == EOS:
                    found[prefix] = Hypothesis(prefix, divided(log_prob, length + 1, options), log_prob)
            said = said + [token for _, _, token in extensions[:size]]
            beams[number] = [(log_prob, (*p, token)) for log_prob, p, token in extensions if token != EOS][:size]
    return sorted(found.values(), key=lambda hypothesis: -hypothesis.score)[: options.n_best]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.0, 0.5, 5.0]), st.integers(0, 3))
def test_groups_answer_as_the_same_the_slow_way(seed, groups, size, diversity, limit):
    # A reward of 9 a piece makes every sentence go on to its limit, so the bound stops nothing here.
    options = {"beam_size": groups * size, "n_best": groups * size, "diverse_groups": groups, "diversity": diversity}
    options |= {"max_length_ratio": 0.0, "max_length_offset": limit, "length_reward": 9.0, "early_stopping": False}
    table, source = at_random(seed, 8), (A, B)
    (found,) = decoded(TableModel(table), [source], **options)
    assert_same(found, slow_groups(table, source, SearchOptions(**{"length_penalty": 0} | options)))


def test_two_groups_of_one_say_different_first_words():
    model = constant(A=0.6, B=0.3, EOS=0.1)
    options = {"beam_size": 2, "n_best": 2, "diverse_groups": 2, "max_length": 1}
    (found,) = decoded(model, [[A]], diversity=1.0, **options)  # log(0.6) - 1 is less than log(0.3)
    assert [hypothesis.tokens for hypothesis in found] == [(A,), (B,)]
    assert [hypothesis.log_prob for hypothesis in found] == pytest.approx([math.log(0.06), math.log(0.03)])
    (found,) = decoded(model, [[A]], diversity=0.5, **options)  # and log(0.6) - 0.5 is more
    assert [hypothesis.tokens for hypothesis in found] == [(A,)]


def test_a_group_alone_is_a_beam():
    for seed in range(5):
        model, sources = TableModel(at_random(seed)), [[A], [B, A]]
        one = decoded(model, sources, beam_size=3, n_best=3, diverse_groups=1, diversity=9.0)
        for found, beam in zip(one, decoded(model, sources, beam_size=3, n_best=3), strict=True):
            assert_same(found, beam)
        twice = decoded(model, sources, beam_size=6, n_best=3, diverse_groups=2, diversity=0.0)
        for found, beam in zip(twice, one, strict=True):  # both groups search alike, and nothing comes out twice
            assert_same(found, beam)
