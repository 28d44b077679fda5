"""Cross-entropy of the output layer, in one pass over its logits.

Shapes: **W** words, **V** vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.native import training

SOME = 1 << 21  # logits at a time: 8 MB in float32
LEAST = 1e-30  # of a probability whose logarithm is taken


def cross_entropy(logits: Tensor, words: Tensor, smoothing: float = 0.0) -> Tensor:
    """-sum over the words (W,) of sum_v q(v) log softmax(logits)(v), logits (W, V); in float32.

    The target distribution q gives `smoothing` to all V pieces in equal parts and the rest to the word (Szegedy et al.
    2016, section 7). The gradient, softmax(logits) - q, is made together with the loss, by our own kernel where there
    is one; else, of 16 bits on a CPU, for so few words at a time that they stay in its cache. torch's own keeps and
    reads the logits several times over. IndexError for a word that is not among the V; torch's is a RuntimeError.
    """
    loss: Tensor = _CrossEntropy.apply(logits, words, smoothing)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, words: Tensor, smoothing: float) -> Tensor:
        if training.serves(logits):
            gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
            ctx.kind = logits.dtype
            ctx.save_for_backward(gradient)
            return training.cross_entropy(logits, words, smoothing, gradient).sum()
        kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
        whole = logits.is_cuda or logits.dtype == kind  # else probabilities need room of their own
        rows = max(1, len(logits) if whole else SOME // logits.size(1))
        gradient = None
        if ctx.needs_input_grad[0]:  # of float16 in float32, for its range needs the loss scaled first
            gradient = torch.empty_like(logits, dtype=kind if logits.dtype == torch.float16 else logits.dtype)
        loss = torch.zeros((), dtype=kind, device=logits.device)
        for start in range(0, len(logits), rows):
            some, target = logits[start : start + rows], words[start : start + rows, None]
            into = None if gradient is None else gradient[start : start + rows]
            in_place = into is not None and into.dtype == kind
            probabilities = torch.softmax(some, 1, kind, out=into if in_place else None)
            chosen, of_chosen = some.gather(1, target).to(kind), probabilities.gather(1, target)
            if logits.is_cuda or of_chosen.amin() < LEAST:  # a GPU is not asked, for the host would wait
                total = some.amax(1, keepdim=True).to(kind) - probabilities.amax(1, keepdim=True).log()
            else:
                total = chosen - of_chosen.log()  # the log of the sum of all exponentials
            loss += (total - (1 - smoothing) * chosen).sum()
            if smoothing:
                loss -= smoothing / logits.size(1) * some.sum(dtype=kind)
            if into is not None:
                probabilities -= smoothing / logits.size(1)
                probabilities.scatter_add_(1, target, probabilities.new_full((1, 1), smoothing - 1).expand_as(target))
                if not in_place:
                    into.copy_(probabilities)
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
