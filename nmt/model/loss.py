"""Cross-entropy of the output layer, in one pass over its logits.

Shapes: **W** words, **V** vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(logits: Tensor, words: Tensor, smoothing: float = 0.0) -> Tensor:
    """-sum over the words (W,) of sum_v q(v) log softmax(logits)(v), logits (W, V); in float32.

    The target distribution q gives `smoothing` to all V pieces in equal parts and the rest to the word (Szegedy et al.
    2016, section 7). The gradient, softmax(logits) - q, is made together with the loss, where torch's own keeps and
    reads the logits several times over.
    """
    loss: Tensor = _CrossEntropy.apply(logits, words, smoothing)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, words: Tensor, smoothing: float) -> Tensor:
        kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
        target = words[:, None]
        probabilities = logits.softmax(dim=1, dtype=kind)
        top, best = probabilities.max(dim=1, keepdim=True)
        total = logits.gather(1, best).to(kind) - top.log()  # the log of the sum of all exponentials (W, 1)
        loss = (total - (1 - smoothing) * logits.gather(1, target).to(kind)).sum()
        if smoothing:
            loss -= smoothing / logits.size(1) * logits.sum(dtype=kind)
        gradient = None
        if ctx.needs_input_grad[0]:
            gradient = probabilities.sub_(smoothing / logits.size(1))
            gradient.scatter_add_(1, target, gradient.new_full((1, 1), smoothing - 1).expand_as(target))
            if logits.dtype != torch.float16:  # whose range needs the loss scaled first
                gradient = gradient.to(logits.dtype)
        ctx.kind = logits.dtype
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        if d_loss.is_cuda or d_loss != 1:
            gradient = gradient * d_loss.to(gradient.dtype)
        return gradient.to(ctx.kind), None, None
