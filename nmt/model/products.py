"""Matrix products of the recurrence, through the fastest library at hand.

On a CPU that is oneDNN, which torch takes for bf16 by itself and for fp32 not: there its own product is MKL's, of half
the speed and less on AMD. oneDNN also wants a matrix laid out in its way; for a product that comes at every step, that
is done once. Neither knows its derivative; it is written out here and in `bptt.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def _served(x: Tensor) -> bool:
    """Whether oneDNN has this product."""
    if x.device.type != "cpu" or not x.numel() or not torch.backends.mkldnn.is_available():
        return False
    if x.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return x.dtype == torch.float32


def product(x: Tensor, weight: Tensor) -> Tensor:
    """X (n, E) times weight (M, E) transposed: (n, M)."""
    if not _served(x) or not weight.numel() or x.dtype != torch.float32:
        return F.linear(x, weight)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), None, "none", [], "")
    return found


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """F.linear of words x (N, E), weight (M, E) and bias (M), to be differentiated once: (N, M)."""
    if x.dtype != torch.float32 or not _served(x) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    found: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return product(d, weight.t()), product(d.t(), x.t()), d.sum(dim=0)


class Repeated:
    """A weight (M, E) that inputs of about `rows` rows are multiplied by at each of so many steps.

    Laying it out costs as much as a product or two, so for a single step it is left as it is.
    """

    def __init__(self, weight: Tensor, rows: int, steps: int) -> None:
        self.packed = steps > 1 and _served(weight)
        self.weight = weight.contiguous()
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """X (n, E) -> x weight^T (n, M)."""
        if not self.packed:
            return product(x, self.weight)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return found

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """Addend (n, M) + x weight^T."""
        if not self.packed:
            return product(x, self.weight) + addend
        found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, addend, self.weight, None, "add")
        return found
