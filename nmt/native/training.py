"""Our own kernels of training: what of an LSTM's steps is not a product, there and back, and the loss.

Shapes: see nmt/native/__init__.py.
"""

import torch
from torch import Tensor

from nmt import native


def lstm_forward(sums: Tensor, before: Tensor, gates: Tensor, memory: Tensor, output: Tensor) -> None:
    """A step in training: from sums (n, 4H) and the memory before, write gates (n, 5H), memory and output after (n, H).

    Memories are float32, the others all that or all bf16; all are contiguous.
    """
    rows, size = memory.shape
    arrays = sums.data_ptr(), before.data_ptr(), gates.data_ptr(), memory.data_ptr(), output.data_ptr()
    native.kernels().lstm_forward(sums.dtype == torch.bfloat16, rows, size, *arrays)


def lstm_backward(
    gates: Tensor, before: Tensor, d_output: Tensor, d_hidden: Tensor, d_memory: Tensor, errors: Tensor
) -> None:
    """A step back: from gates (n, 5H) and the memory before (n, H), write errors (n, 4H) and d by the memory before.

    d by the output is (n, H), and that by way of later steps (m, H) of the first rows; that by the memory after is in
    the first n rows of `d_memory`, and is written over. Types as above.
    """
    (rows, size), narrow = before.shape, gates.dtype == torch.bfloat16
    arrays = gates.data_ptr(), before.data_ptr(), d_output.data_ptr(), d_hidden.size(0), d_hidden.data_ptr()
    native.kernels().lstm_backward(narrow, rows, size, *arrays, d_memory.data_ptr(), errors.data_ptr())


def cross_entropy(logits: Tensor, words: Tensor, smoothing: float, gradient: Tensor | None) -> Tensor:
    """The losses (n,) of words (n,) by logits (n, V), as `nmt.model.loss.cross_entropy` has them, in float32.

    The gradient of their sum is written to `gradient` (n, V), if there is one: of the logits' type, float32 or bf16.
    IndexError for a word that is not among the V.
    """
    assert words.dtype == torch.long
    assert words.shape == logits.shape[:1]
    assert gradient is None or (gradient.is_contiguous() and gradient.dtype == logits.dtype)
    words, losses = words.contiguous(), torch.empty(logits.size(0))
    wrong = native.kernels().cross_entropy(
        *(logits.dtype == torch.bfloat16, *logits.shape, logits.data_ptr(), words.data_ptr(), smoothing),
        *(losses.data_ptr(), None if gradient is None else gradient.data_ptr()),
    )
    if wrong:
        raise IndexError(f"word {int(words[wrong - 1])} is none of the {logits.size(1)} that there are logits of")
    return losses


def serves(x: Tensor) -> bool:
    """Whether these kernels are there for such numbers: on the CPU, in float32 or bf16, contiguous."""
    served = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.is_contiguous()
    return served and native.library() is not None
