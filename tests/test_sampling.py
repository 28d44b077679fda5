"""Samples: as frequent as they are probable, and the same whatever they are drawn with."""

import math
from collections import Counter

import pytest
import torch

from nmt.sampling import SamplingOptions, draw
from tests.tables import EOS, A, B, TableModel, assert_same, at_random, by_hand, constant, decoded

# 0.999 quantiles of chi-square by degrees of freedom, from any table: a right program fails one run in a thousand,
# and here the seed is fixed.
QUANTILE = {1: 10.83, 2: 13.82, 3: 16.27, 5: 20.52}


def chi_square(counts: Counter, chances: dict[tuple[int, ...], float]) -> float:
    total = sum(counts.values())
    assert set(counts) <= set(chances)
    return sum((counts[key] - total * chance) ** 2 / (total * chance) for key, chance in chances.items())


def sampled(model, samples=2000, source=(A,), **options) -> Counter:
    names = ("temperature", "top_k", "top_p", "seed")
    sampling = SamplingOptions(samples, **{name: options.pop(name) for name in names if name in options})
    (found,) = decoded(model, [list(source)], sampling=sampling, **options)
    assert len(found) == samples
    return Counter(hypothesis.tokens for hypothesis in found)


TWO_STEPS = {(): {A: 0.5, B: 0.3, EOS: 0.2}, (A,): {A: 0.1, EOS: 0.9}, (B,): {A: 0.6, EOS: 0.4}}
TWO_STEPS |= {(A, A): {EOS: 1.0}, (B, A): {EOS: 1.0}}
CHANCES = {(): 0.2, (A,): 0.45, (A, A): 0.05, (B,): 0.12, (B, A): 0.18}


def test_translations_are_as_frequent_as_they_are_probable():
    assert chi_square(sampled(by_hand(TWO_STEPS), 5000, seed=3), CHANCES) < QUANTILE[5]


def test_one_sample_of_many_sentences_is_as_frequent_too():
    found = decoded(by_hand(TWO_STEPS), [[A]] * 2000, sampling=SamplingOptions(seed=4))
    assert chi_square(Counter(hypothesis.tokens for (hypothesis,) in found), CHANCES) < QUANTILE[5]


def test_temperature_by_hand():
    # The square root of each probability, normalised: 0.8, 0.4, 0.4 over 1.6.
    counts = sampled(constant(A=0.64, B=0.16, EOS=0.16), temperature=2.0, max_length=1)
    assert chi_square(counts, {(A,): 0.5, (B,): 0.25, (): 0.25}) < QUANTILE[2]
    assert set(sampled(constant(A=0.4, B=0.35, EOS=0.25), 50, temperature=0.001, max_length=1)) == {(A,)}


def test_top_k_by_hand():
    model = constant(A=0.5, B=0.3, EOS=0.2)
    assert chi_square(sampled(model, top_k=2, max_length=1), {(A,): 5 / 8, (B,): 3 / 8}) < QUANTILE[1]
    assert set(sampled(model, 50, top_k=1, max_length=1)) == {(A,)}
    assert set(sampled(model, 500, top_k=99, max_length=1)) == {(A,), (B,), ()}


@pytest.mark.parametrize(
    ("top_p", "chances"),
    [
        (0.4, {(A,): 1.0}),
        (0.6, {(A,): 5 / 8, (B,): 3 / 8}),  # A alone has 0.5, so B is needed
        (0.9, {(A,): 0.5, (B,): 0.3, (): 0.2}),
        (1.0, {(A,): 0.5, (B,): 0.3, (): 0.2}),
    ],
)
def test_top_p_by_hand(top_p, chances):
    counts = sampled(constant(A=0.5, B=0.3, EOS=0.2), top_p=top_p, max_length=1)
    assert set(counts) == set(chances)
    assert chi_square(counts, chances) < QUANTILE[2]


def test_inversion_by_hand():
    log_probs = torch.tensor([[[0.0, 0.5, 0.0, 0.25, 0.25]]]).log()
    points = {0.0: 1, 0.49: 1, 0.51: 3, 0.74: 3, 0.76: 4, 0.999999: 4}
    for point, token in points.items():
        assert draw(log_probs, torch.tensor([[point]]).double(), SamplingOptions()).tolist() == [[token]]


def test_scores_are_the_models_whatever_was_left_out():
    (found,) = decoded(by_hand(TWO_STEPS), [[A]], sampling=SamplingOptions(20, 0.5, top_k=2), length_penalty=1.0)
    for tokens, score, log_prob, _ in found:
        assert log_prob == pytest.approx(math.log(CHANCES[tokens]))
        assert score == pytest.approx(log_prob * 6 / (5 + len(tokens) + 1))


def test_a_sample_is_the_same_among_few_and_among_many():
    model = TableModel(at_random(2))
    few, many = (Counter(sampled(model, count, max_length=6)) for count in (3, 30))
    assert few <= many  # as often, or more often


def test_seeds_and_numbers_decide():
    model, source = TableModel(at_random(2)), [A, B]
    found = []
    for seed, asked in [(1, {}), (1, {"numbers": [0]}), (2, {}), (1, {"numbers": [7]})]:
        (samples,) = decoded(model, [source], sampling=SamplingOptions(8, seed=seed), **asked)
        found.append([hypothesis.tokens for hypothesis in samples])
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0] != found[3]


def test_ends_are_forced_at_the_limit_and_paths_end_each_on_its_own():
    (found,) = decoded(constant(A=0.5, EOS=0.5), [[A]], sampling=SamplingOptions(200), max_length=3)
    lengths = Counter(len(hypothesis.tokens) for hypothesis in found)
    assert set(lengths) == {0, 1, 2, 3}
    assert all(h.log_prob == pytest.approx((len(h.tokens) + 1) * math.log(0.5)) for h in found)
    # the limit takes all that had not ended: 1/2, 1/4, 1/8, and 1/8
    chances = {0: 1 / 2, 1: 1 / 4, 2: 1 / 8, 3: 1 / 8}
    assert chi_square(lengths, chances) < QUANTILE[3]


def test_alignments_follow_each_sample():
    sources = [[A, B], [B, A, A]]
    model = TableModel(at_random(3))
    options = {"sampling": SamplingOptions(5), "with_alignment": True, "max_length": 6}
    for source, found in zip(sources, decoded(model, sources, **options), strict=True):
        for tokens, _, _, alignment in found:
            expected = [model.looks(tuple(source), tokens[:place]) for place in range(len(tokens))]
            assert alignment.tolist() == expected


def test_samples_that_agree_count_once_if_asked():
    (found,) = decoded(by_hand(TWO_STEPS), [[A]], sampling=SamplingOptions(500), distinct=tuple)
    assert sorted(hypothesis.tokens for hypothesis in found) == sorted(CHANCES)
    (again,) = decoded(by_hand(TWO_STEPS), [[A]], sampling=SamplingOptions(500), distinct=tuple)
    assert_same(found, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"top_k": -1}, "top_k must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0: a beam_size of 1 is greedy"),
        ({"temperature": math.nan}, "temperature must be above 0 and finite, got nan"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**options)
