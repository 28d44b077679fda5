"""Columns find what topk finds."""

import math

import pytest
import torch
from torch.testing import assert_close

from nmt import columns
from nmt.columns import best_of_columns, most_probable
from nmt.search import best


@pytest.fixture(params=["our own kernels", "columns"])
def way(request, monkeypatch):
    """By our own kernels, where there are any, or by columns."""
    if request.param == "columns":
        monkeypatch.setattr("nmt.native.library", lambda: None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [1, 5, 12])
@pytest.mark.parametrize("vocabulary", [13, 640, 2080, 2083])  # too few; just enough for some beams; not in sixteens
def test_they_are_the_best(vocabulary, size):
    draw = torch.Generator().manual_seed(1)
    log_probs = torch.randn(3, size, vocabulary, generator=draw).log_softmax(2)
    log_probs[0, 0, -1], log_probs[1, 0] = -1e-3, -math.inf  # the very last; a hypothesis that may say nothing
    before = -torch.rand(3, size, generator=draw)
    expected = best(before, log_probs, size, None)
    possible = expected.log_probs > -math.inf
    for one, other in zip(best_of_columns(before, log_probs, size, None), expected, strict=True):
        assert one[possible].equal(other[possible])
        assert one.shape == other.shape


def test_columns_are_what_is_looked_through(monkeypatch):
    seen = []

    def watched(before, log_probs, size, moment):
        seen.append(log_probs.size(2))
        return best(before, log_probs, size, moment)

    monkeypatch.setattr(columns, "best", watched)
    monkeypatch.setattr("nmt.native.library", lambda: None)
    for vocabulary in (4000, 4001):
        best_of_columns(torch.zeros(1, 1), torch.randn(1, 1, vocabulary), 5, None)
    assert seen == [96, 4001]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("vocabulary", [13, 240, 256, 4000, 4001])  # too few; just enough; many; not in sixteens
def test_the_most_probable_is_found(vocabulary):
    log_probs = torch.randn(50, 2, vocabulary, generator=torch.Generator().manual_seed(1))
    log_probs[0, 0, -1] = log_probs[1, 1, 0] = 9
    log_probs[2, 0, 3] = math.nan
    values, tokens = most_probable(log_probs, None)
    assert tokens.equal(log_probs.argmax(2))
    assert_close(values, log_probs.amax(2), rtol=0, atol=0, equal_nan=True)
