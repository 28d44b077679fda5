"""A search among the few words that a model offers finds what a search among all of them finds."""

import math

import pytest
import torch

from nmt.sampling import SamplingOptions
from tests.tables import A, B, TableModel, assert_same, at_random, at_random_looks, constant, decoded

SOURCES = [[A, B], [B], [A, A, B, A], [B, A, A]]


class Telling(TableModel):
    """A model that offers words, and counts how often it was asked."""

    asked = 0

    def offers(self, count, silent):
        return count + silent < 9

    def offer(self, tokens, state, count, end, silent):
        self.asked += 1
        log_probs, state = self.step(tokens, state)
        others = log_probs.clone()
        others[:, [end, *silent.tolist()]] = -math.inf
        best = others.topk(count)
        words = torch.cat([torch.full((len(tokens), 1), end), best.indices], dim=1)
        return torch.cat([log_probs[:, [end]], best.values], dim=1), words, state


def both(seed):
    return [kind(at_random(seed, vocabulary=9), at_random_looks(seed)) for kind in (Telling, TableModel)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"early_stopping": False, "length_penalty": 1.0},
        {"max_length": 2},
        {"allow_unknown": True},
        {"distinct": lambda tokens: tokens[:1]},
        {"with_alignment": True, "length_reward": 0.5, "normalization": "none"},
    ],
)
@pytest.mark.parametrize("kernels", [True, False])
def test_what_is_found_is_the_same(seed, size, options, kernels, monkeypatch):
    """The best offered being looked for by our own kernel, where there is one, and by torch."""
    if not kernels:
        monkeypatch.setattr("nmt.native.library", lambda: None)
    offering, whole = both(seed)
    options = {"beam_size": size, "n_best": size} | options
    found, expected = decoded(offering, SOURCES, **options), decoded(whole, SOURCES, **options)
    assert offering.asked
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
        for mine, theirs in zip(one, other, strict=True):
            assert (mine.alignment is None) == (theirs.alignment is None)
            assert mine.alignment is None or mine.alignment.equal(theirs.alignment)


@pytest.mark.parametrize(
    "options",
    [
        {"min_length": 2},
        {"no_repeat_ngram": 2},
        {"coverage_penalty": 0.5},
        {"diverse_groups": 2, "beam_size": 4},
        {"prefixes": [[A], [], [], []]},
        {"constraints": [[[A]], [], [], []]},
        {"sampling": SamplingOptions(samples=2)},
        {"beam_size": 6},  # with PAD, BOS and UNK silent and EOS apart, there are only five words
    ],
)
def test_where_all_words_count_they_are_asked_for(options):
    offering, whole = both(1)
    found, expected = decoded(offering, SOURCES, **options), decoded(whole, SOURCES, **options)
    assert not offering.asked
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("size", [1, 3])
def test_nan_is_reported(size):
    with pytest.raises(ValueError, match="NaN"):
        decoded(Telling(lambda source, prefix: [math.nan] * 9), SOURCES, beam_size=size)


def test_a_translation_of_no_words():
    always = Telling(constant(EOS=1.0).table)
    always.offers = lambda count, silent: True
    assert [hypothesis.tokens for (hypothesis,) in decoded(always, SOURCES, beam_size=2)] == [()] * 4
    assert always.asked
