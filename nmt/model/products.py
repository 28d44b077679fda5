"""Matrix products of the recurrence, through the fastest library at hand.

On a CPU that is oneDNN, which torch takes for bf16 by itself and for fp32 not: there its own product is MKL's, of half
the speed and less on AMD. oneDNN also wants a matrix laid out in its way; for a product that comes at every step, that
is done once. Neither can be differentiated: `bptt.py` does that by hand.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def _served(x: Tensor) -> bool:
    """Whether oneDNN has this product."""
    mkldnn = torch.backends.mkldnn.is_available()
    return mkldnn and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0


def product(x: Tensor, weight: Tensor) -> Tensor:
    """X (n, E) times weight (M, E) transposed: (n, M)."""
    if not _served(x) or not weight.numel() or x.dtype != torch.float32:
        return F.linear(x, weight)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), None, "none", [], "")
    return found


class Repeated:
    """A weight (M, E) that many inputs of about `rows` rows are multiplied by."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.packed = _served(weight)
        self.weight = weight.contiguous()
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """X (n, E) -> x weight^T (n, M)."""
        if not self.packed:
            return F.linear(x, self.weight)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return found

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """Addend (n, M) + x weight^T."""
        if not self.packed:
            return addend + F.linear(x, self.weight)
        found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, addend, self.weight, None, "add")
        return found
