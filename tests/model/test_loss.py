"""The loss in one pass is torch's, with its gradient."""

import math

import pytest
import torch
from torch import tensor
from torch.nn import functional as F
from torch.testing import assert_close

from nmt.model.loss import cross_entropy
from nmt.native import training

SMOOTHED = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])


@pytest.fixture(params=["our own kernel where there is one", "torch's"])
def either_way(request, monkeypatch):
    if request.param == "torch's":
        monkeypatch.setattr("nmt.native.library", lambda: None)


@pytest.fixture
def by_torch(monkeypatch):
    monkeypatch.setattr("nmt.native.library", lambda: None)


@pytest.mark.usefixtures("either_way")
def test_by_hand():
    """P = (1/2, 1/4, 1/4): the word's -log P, and with a share of 0.3 the mean of all three's."""
    logits = tensor([[1.0, 0.5, 0.5]]).log().requires_grad_()
    assert_close(cross_entropy(logits, tensor([0])), tensor(math.log(2)))
    loss = cross_entropy(logits, tensor([0]), 0.3)
    assert_close(loss, tensor(0.7 * math.log(2) + 0.1 * (math.log(2) + 2 * math.log(4))))
    (slope,) = torch.autograd.grad(loss, logits)
    assert_close(slope, tensor([[1 / 2 - 0.8, 1 / 4 - 0.1, 1 / 4 - 0.1]]))


@SMOOTHED
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [30, 64, 401])
@pytest.mark.usefixtures("either_way")
def test_it_is_torchs(smoothing, dtype, size):
    torch.manual_seed(1)
    logits = (3 * torch.randn(80, size)).to(dtype).requires_grad_()
    words = torch.randint(0, size, (80,))
    exact = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(exact, words, label_smoothing=smoothing, reduction="sum")
    found = cross_entropy(logits, words, smoothing)
    assert_close(found.double(), expected, rtol=1e-5, atol=0)
    (slope,), (expected_slope,) = torch.autograd.grad(2 * found, logits), torch.autograd.grad(2 * expected, exact)
    assert slope.dtype == dtype
    close = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-8}[dtype]
    assert_close(slope.double(), expected_slope, rtol=close, atol=close)


def test_an_fp16_gradient_is_scaled_before_it_is_rounded():
    """As mixed precision needs it: 2^-26, which fp16 does not hold, times 2^16, which it does not hold either."""
    logits = tensor([[0.0, -26 * math.log(2)]], dtype=torch.float16).requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(logits, tensor([0])) * 2.0**16, logits)
    assert_close(slope[0, 1].double(), tensor(2.0**-10).double(), rtol=0.02, atol=0)


@SMOOTHED
@pytest.mark.usefixtures("either_way")
def test_a_word_of_hardly_any_probability_has_a_finite_loss(smoothing):
    logits = tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    loss = cross_entropy(logits, tensor([2]), smoothing)
    assert_close(loss, tensor((1 - smoothing) * 1000 + smoothing * 500))
    assert_close(torch.autograd.grad(loss, logits)[0].sum(), tensor(0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_nothing_and_a_loss_without_a_gradient_is_the_same(dtype):
    torch.manual_seed(1)
    logits, words = torch.randn(300, 1000).to(dtype).requires_grad_(), torch.randint(0, 1000, (300,))
    alone = cross_entropy(logits, words, 0.1)
    (expected,) = torch.autograd.grad(alone, logits)
    torch.set_num_threads(2)
    try:
        both = cross_entropy(logits, words, 0.1)
        assert both.equal(alone)
        assert torch.autograd.grad(both, logits)[0].equal(expected)
    finally:
        torch.set_num_threads(1)
    assert cross_entropy(logits.detach(), words, 0.1).equal(alone)


@pytest.mark.usefixtures("either_way")
def test_what_is_no_number_is_seen():
    logits = torch.randn(3, 100)
    logits[1, 70] = math.nan
    assert cross_entropy(logits, tensor([1, 2, 3])).isnan()


@pytest.mark.parametrize("word", [-1, 41])
@pytest.mark.usefixtures("either_way")
def test_a_word_that_is_none_is_refused(word):
    logits = torch.randn(3, 30)
    kind, match = (
        (IndexError, f"word {word} is none of the 30 ") if training.serves(logits) else (RuntimeError, f"{word}")
    )
    with pytest.raises(kind, match=match):
        cross_entropy(logits, tensor([1, word, 3]))


@pytest.mark.usefixtures("either_way")
def test_logits_may_lie_as_they_will_and_be_none():
    torch.manual_seed(1)
    logits, words = torch.randn(30, 7), tensor([1, 2, 29, 0, 4, 4, 9])
    across = logits.clone().requires_grad_()
    found = cross_entropy(across.t(), words, 0.1)
    straight = logits.t().contiguous().requires_grad_()
    expected = cross_entropy(straight, words, 0.1)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, across)[0].t(), torch.autograd.grad(expected, straight)[0])
    nothing = torch.empty(0, 30, requires_grad=True)
    loss = cross_entropy(nothing, tensor([], dtype=torch.long), 0.1)
    assert loss == 0
    assert torch.autograd.grad(loss, nothing)[0].shape == (0, 30)


@SMOOTHED
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("by_torch")
def test_a_few_words_at_a_time_it_is_the_same(smoothing, dtype, monkeypatch):
    logits, words = torch.randn(7, 5).to(dtype).requires_grad_(), torch.randint(0, 5, (7,))
    whole = cross_entropy(logits, words, smoothing)
    (expected,) = torch.autograd.grad(whole, logits)
    blocks, softmax = [], torch.softmax

    def watched(some, *rest, **options):
        blocks.append(len(some))
        return softmax(some, *rest, **options)

    monkeypatch.setattr("torch.softmax", watched)
    for some, sizes in ((14, [2, 2, 2, 1]), (1, [1] * 7)):
        monkeypatch.setattr("nmt.model.loss.SOME", some)
        blocks.clear()
        parts = cross_entropy(logits, words, smoothing)
        assert blocks == sizes
        assert_close(parts, whole)
        assert_close(torch.autograd.grad(parts, logits)[0], expected, rtol=0, atol=0)
        assert_close(cross_entropy(logits.detach(), words, smoothing), whole.detach())
