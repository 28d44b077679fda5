"""Kernels in fp16: what comes out is what float32 gives, however small the errors are."""

import pytest
import torch
from torch.testing import assert_close

from nmt.model.kernels import LARGEST, in_fp16, plainly

B, T, E, H = 3, 5, 4, 6
OPTIONS = True, 1, 0.0, True, False, True
KERNELS = {"lstm": (torch.lstm, 4, 2), "gru": (torch.gru, 3, 1)}


@pytest.fixture(params=KERNELS)
def case(request):
    """A kernel; its input, initial states and weights; and errors of all that it puts out."""
    torch.manual_seed(1)
    kernel, gates, states = KERNELS[request.param]
    weights = [torch.randn(gates * H, size) for size in (E, H)] + [torch.randn(gates * H) for _ in range(2)]
    leaves = [torch.randn(B, T, E), *(torch.randn(1, B, H) for _ in range(states)), *weights]
    errors = [torch.randn(B, T, H), *(torch.randn(1, B, H) for _ in range(states))]
    return kernel, [leaf.requires_grad_() for leaf in leaves], errors


def run(call, kernel, leaves, errors):
    """What comes out, and the gradients of all that went in."""
    x, *rest = leaves
    found = call(kernel, x, rest[: len(errors) - 1], rest[len(errors) - 1 :], *OPTIONS)
    return found, torch.autograd.grad(found, leaves, errors)


def norms(one, other):
    return [((a - b).norm() / b.norm()).item() for a, b in zip(one, other, strict=True)]


def test_it_is_as_exact_as_11_bits(case):
    """The kernels of a CPU round whatever they compute to fp16, a dozen times a step; each rounding errs by 2^-11."""
    kernel, leaves, errors = case
    exact, exact_gradients = run(plainly, kernel, leaves, errors)
    found, gradients = run(in_fp16, kernel, leaves, errors)
    assert all(part.dtype == torch.float32 for part in (*found, *gradients))
    for error in norms(found, exact) + norms(gradients, exact_gradients):
        assert 0 < error < 12 * 2.0**-11


@pytest.mark.parametrize("size", [2.0**-40, 2.0**-20, 2.0**60])
def test_errors_may_be_of_any_size(case, size):
    """Gradients of errors that fp16 does not hold differ from those of others by their exponents alone."""
    kernel, leaves, errors = case
    _, gradients = run(in_fp16, kernel, leaves, errors)
    _, sized = run(in_fp16, kernel, leaves, [size * error for error in errors])
    for one, other in zip(gradients, sized, strict=True):
        assert_close(size * one, other, rtol=0, atol=0)


def test_the_largest_error_is_brought_near_a_sixteenth(case):
    """3 is brought to 3 / 64, by a power of two."""
    kernel, leaves, errors = case
    errors = [3 * error / error.abs().amax() for error in errors]
    seen = []

    def watched(*arguments):
        found = kernel(*arguments)
        for part in found:
            part.register_hook(lambda error: seen.append(error.abs().amax().item()))
        return found

    run(in_fp16, watched, leaves, errors)
    assert seen == pytest.approx([3 / 64] * len(errors), rel=1e-3)
    assert LARGEST / 2 <= 3 / 64 < LARGEST


def test_no_errors_give_no_gradients(case):
    kernel, leaves, errors = case
    _, gradients = run(in_fp16, kernel, leaves, [torch.zeros_like(error) for error in errors])
    assert not any(part.any() for part in gradients)


def test_what_nothing_was_made_of_needs_no_errors(case):
    kernel, leaves, errors = case
    x, *rest = leaves
    found = in_fp16(kernel, x, rest[: len(errors) - 1], rest[len(errors) - 1 :], *OPTIONS)
    gradients = torch.autograd.grad(found[0], leaves, errors[0])
    _, exact = run(plainly, kernel, leaves, [errors[0], *(torch.zeros_like(error) for error in errors[1:])])
    assert max(norms(gradients, exact)) < 12 * 2.0**-11


@pytest.mark.parametrize("wrong", [torch.inf, torch.nan])
def test_an_error_that_is_no_number_is_not_hidden(case, wrong):
    kernel, leaves, errors = case
    errors[0][0, 0, 0] = wrong
    _, gradients = run(in_fp16, kernel, leaves, errors)
    assert not any(part.isfinite().all() for part in gradients)


def test_what_needs_no_gradient_gets_none(case):
    """Initial states of zeros and weights that stay as they are; and nothing at all without gradients."""
    kernel, leaves, errors = case
    x, *rest = leaves
    kept = [part.detach() for part in rest[:-1]]
    found = in_fp16(kernel, x, kept[: len(errors) - 1], [*kept[len(errors) - 1 :], rest[-1]], *OPTIONS)
    _, gradients = run(in_fp16, kernel, leaves, errors)
    for one, other in zip(torch.autograd.grad(found, [x, rest[-1]], errors), gradients[:: len(rest)], strict=True):
        assert_close(one, other, rtol=0, atol=0)
    with torch.no_grad():
        assert not any(
            part.requires_grad
            for part in in_fp16(kernel, x, kept[: len(errors) - 1], rest[len(errors) - 1 :], *OPTIONS)
        )
