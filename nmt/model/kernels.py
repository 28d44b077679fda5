"""torch's kernels for whole sequences, called as they are, or in fp16 with errors scaled so that they do not vanish.

Under autocast torch gives cuDNN fp16, whatever type is asked for. That is fast, and as exact as TF32 (both keep 10
bits behind the first), but nothing is left of numbers below 6e-8; and where the loss is not scaled, as it is not for
bf16, errors that go back through time are smaller. So errors are multiplied on their way into the kernel by a power of
two that brings the largest of them near LARGEST, and divided by it on their way out. None vanishes then that is not a
millionth of the largest, and none overflows that grows less than a millionfold on its way: an LSTM's memory and a GRU's
state pass errors on by gates, which are below 1. That is the scaled loss of Micikevicius et al. 2018 (section 3.2), but
with a scale for each call, found there and then.

Shapes: x (B, T, E), initial and final states (D, B, H) of D directions, outputs (B, T, D*H), as torch has them.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGEST = 2.0**-4  # between the least number of fp16, 2^-24, and the largest, 2^16

Call = Callable[..., tuple[Tensor, ...]]  # (kernel, x, initial states, weights, options ...) -> outputs, final states


def plainly(
    kernel: Callable[..., Any], x: Tensor, initial: Sequence[Tensor], weights: Sequence[Tensor], *options: Any
) -> tuple[Tensor, ...]:
    """`torch.lstm`, `torch.gru` or `torch.rnn_tanh`: outputs and final states."""
    found = kernel(x, initial if len(initial) > 1 else initial[0], weights, *options)
    return cast(tuple[Tensor, ...], found)


def in_fp16(
    kernel: Callable[..., Any], x: Tensor, initial: Sequence[Tensor], weights: Sequence[Tensor], *options: Any
) -> tuple[Tensor, ...]:
    """The same in fp16, given and giving float32; without autocast."""
    scale = Scale()
    x, *given = _Enter.apply(scale, x, *initial, *weights)  # type: ignore[no-untyped-call]
    found = plainly(kernel, x, given[: len(initial)], given[len(initial) :], *options)
    left: tuple[Tensor, ...] = _Leave.apply(scale, *found)  # type: ignore[no-untyped-call]
    return left


class Scale:
    """What the errors are multiplied by in a backward pass."""

    factor: Tensor  # (1,), a power of two


class _Enter(torch.autograd.Function):
    """float32 -> fp16; scaled errors in fp16 -> errors in float32."""

    @staticmethod
    def forward(ctx: Any, scale: Scale, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        halves = tuple(part.half() for part in given)
        ctx.mark_non_differentiable(
            *(half for half, needed in zip(halves, ctx.needs_input_grad[1:], strict=True) if not needed)
        )
        return halves

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *errors: Tensor | None) -> tuple[Tensor | None, ...]:
        factor = ctx.scale.factor
        return None, *(None if error is None else error / factor for error in errors)


class _Leave(torch.autograd.Function):
    """fp16 -> float32; errors in float32 -> scaled errors in fp16."""

    @staticmethod
    def forward(ctx: Any, scale: Scale, *found: Tensor) -> tuple[Tensor, ...]:
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return tuple(part.float() for part in found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *errors: Tensor | None) -> tuple[Tensor | None, ...]:
        largest = torch.stack([torch.linalg.vector_norm(error, torch.inf) for error in errors if error is not None])
        largest = largest.amax(0, keepdim=True).clamp(min=1e-30)
        factor = ctx.scale.factor = LARGEST * torch.frexp(largest).mantissa / largest
        return None, *(None if error is None else (error * factor).half() for error in errors)
