"""Matrix products of the recurrence, through the fastest library at hand.

On a CPU torch takes oneDNN for bf16 by itself and for fp32 not: there its own product is MKL's, of half the speed and
less on a CPU that is not Intel's, so oneDNN is asked there. On Intel's both are as fast, but oneDNN here wants its
matrices row by row, and would have them transposed first where MKL reads them as they lie. oneDNN also wants a matrix
laid out in its way; for a product that comes at every step, that is done once. It does not know its derivative; that is
written out here and in `bptt.py`. In int8 there is a kernel of our own, too (`nmt/native`), for CPUs that have VNNI.
"""

import platform
import warnings
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nmt import native

FP16 = torch.finfo(torch.float16).max
CPU_INFO = Path("/proc/cpuinfo")  # what Linux knows of the CPU


def _served(x: Tensor) -> bool:
    """Whether oneDNN has this product."""
    if x.device.type != "cpu" or not x.numel() or not torch.backends.mkldnn.is_available():
        return False
    if x.dtype == torch.bfloat16:
        return has_bf16_kernels()
    return x.dtype == torch.float32


@cache
def has_fast_mkl() -> bool:
    """Whether torch's own product of fp32 is MKL's, and the CPU one that it is fast on: Intel's."""
    try:
        maker = CPU_INFO.read_text("utf-8", "replace")
    except OSError:
        maker = platform.processor()
    return torch.backends.mkl.is_available() and "GenuineIntel" in maker


def _by_onednn(x: Tensor) -> bool:
    """Whether its products are oneDNN's, for torch's own are slower: in float32, but where they are MKL's."""
    return _served(x) and x.dtype == torch.float32 and not has_fast_mkl()


def product(x: Tensor, weight: Tensor) -> Tensor:
    """X (n, E) times weight (M, E) transposed: (n, M)."""
    if not _by_onednn(x) or not weight.numel():
        return F.linear(x, weight)
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(_in_rows(x), _in_rows(weight), None, "none", [], "")
    return found


def _in_rows(x: Tensor) -> Tensor:
    """A matrix, contiguous; on a CPU a transpose is copied 64 columns at a time, which takes less than half as long."""
    if x.is_contiguous() or x.stride(0) != 1 or x.device.type != "cpu":
        return x.contiguous()
    return torch.cat([columns.t() for columns in x.t().split(64)], dim=1)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """F.linear of words x (N, E), weight (M, E) and bias (M), to be differentiated once: (N, M).

    On a CPU the gradient of the bias is a product: of 1,760 x 8,000 errors 2.2 instead of torch's 4.6 ms in float32,
    1.0 instead of 4.5 in bf16.
    """
    if x.device.type != "cpu":
        return F.linear(x, weight, bias)
    parts = x, weight, bias
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        parts = x.to(kind), weight.to(kind), bias.to(kind)
    with torch.autocast("cpu", enabled=False):
        found: Tensor = _Linear.apply(*parts)  # type: ignore[no-untyped-call]
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight).add_(bias) if _by_onednn(x) else F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (of_x, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            product(d, weight.t()) if of_x else None,
            product(d.t(), x.t()) if of_weight else None,
            (d.new_ones(1, d.size(0)) @ d)[0] if of_bias else None,
        )


class Repeated:
    """A weight (M, E) that inputs of about `rows` rows are multiplied by at each of so many steps.

    Laying it out costs as much as a product or two, so for a single step it is left as it is.
    """

    def __init__(self, weight: Tensor, rows: int, steps: int) -> None:
        self.packed = steps > 1 and _served(weight)
        self.weight = _in_rows(weight)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """X (n, E) -> x weight^T (n, M)."""
        if not self.packed:
            return product(x, self.weight)
        found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.weight, None, "none", [], "")
        return found

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """Addend (n, M) + x weight^T."""
        if not self.packed:
            return product(x, self.weight) + addend
        found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, addend, self.weight, None, "add")
        return found


Precision = Literal["fp32", "bf16", "int8"]


class Packed:
    """A weight (M, E) and a bias (M), laid out once for inputs of any number of rows: (n, E) -> (n, M), in float32.

    In bf16 the input and the weight are rounded to it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: torch.dtype = torch.float32) -> None:
        self.kind, self.bias = kind, None if bias is None else bias.detach().to(kind)
        self.weight = weight.detach().to(kind).contiguous()
        self.packed = _served(self.weight)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        """The product of x (n, E): (n, M)."""
        x = x.to(self.kind)
        if not self.packed:
            return F.linear(x, self.weight, self.bias).float()
        found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.weight, self.bias, "none", [], "")
        return found.float()

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """Addend (n, M), contiguous, which is written over, + the product of x."""
        return addend.add_(self(x))


MANY, WIDE = 64, 1024  # rows of inputs, and of weights, from which on oneDNN's product in int8 is the faster


class Quantised:
    """The same in int8: weights to 255 levels of their row, inputs to 127 levels of theirs; no row depends on another.

    The levels of an input that is `bounded`, as all is that comes out of a tanh, lie between -1 and 1. They are 127
    because older CPUs add pairs of products up in 16 bits. torch has the kernels behind interfaces that it says will
    change; nothing else here knows them: FBGEMM, and for many rows, where the CPU has VNNI, oneDNN. Sums are exact in
    both, so a row comes out the same but for the last bit of its scaling.
    """

    engine = Lock()  # torch packs for the one engine that is chosen, for all threads

    def __init__(self, weight: Tensor, bias: Tensor | None, bounded: bool = False) -> None:
        """Of a weight (M, E), or of one `rounded` before, and a bias (M)."""
        self.bias, self.bounded = None if bias is None else bias.detach().float(), bounded
        rows, engines = weight if weight.is_quantized else rounded(weight), torch.backends.quantized
        with self.engine:
            before = engines.engine
            engines.engine = "fbgemm"
            self.weight = torch.ops.quantized.linear_prepack(rows, self.bias if bounded else None)
            engines.engine = before
        self.few = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
        self.many: ManyRows | None = None
        self.rows = rows if has_vnni() and rows.size(0) >= WIDE else None

    def __call__(self, x: Tensor) -> Tensor:
        """The product of x (n, E): (n, M)."""
        if self.bounded:
            return self._of_bounded(x)
        extremes = x.abs().amax(dim=1, keepdim=True).clamp_(min=1e-12)  # (n, 1)
        found = self._of_bounded(x / extremes).mul_(extremes)
        return found if self.bias is None else found.add_(self.bias)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """Addend (n, M), contiguous, which is written over, + the product of x."""
        if self.bounded and self.rows is not None and len(x) >= MANY:
            return self._for_many(self.rows)(x, addend)
        return addend.add_(self(x))

    def _of_bounded(self, x: Tensor) -> Tensor:
        if self.rows is not None and len(x) >= MANY:
            return self._for_many(self.rows)(x)
        found: Tensor = self.few(x, 1 / 63, 64, self.weight)
        return found

    def _for_many(self, rows: Tensor) -> "ManyRows":
        """oneDNN's product, which is the faster for many rows of inputs."""
        self.many = self.many or ManyRows(rows, self.bias if self.bounded else None)
        return self.many


class ManyRows:
    """oneDNN's product of a `rounded` weight (M, E) with inputs (n, E) within [-1, 1], for many of them."""

    def __init__(self, rows: Tensor, bias: Tensor | None) -> None:
        packed = torch.ops.onednn.qlinear_prepack.default(rows.int_repr(), [MANY, rows.size(1)])
        scales, zeros = rows.q_per_channel_scales().float(), torch.zeros(rows.size(0), dtype=torch.long)
        self.weight, self.bias = (packed, scales, zeros), bias

    def __call__(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        """The product (n, M), with the bias; added to an addend (n, M), that one is written over."""
        x, float32 = levels(x), torch.float32
        if addend is None:
            said: Tensor = torch.ops.onednn.qlinear_pointwise.default(
                x, 1 / 63, 64, *self.weight, self.bias, 1.0, 0, float32, "none", [], ""
            )
            return said
        added: Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            x,
            1 / 63,
            64,
            *self.weight,
            addend,
            self.bias,
            1.0,
            0,
            float32,
            1.0,
            0,
            "sum",
            1.0,
            "none",
            [],
            "",
        )
        return added


class Own:
    """The same by our own kernel (`nmt/native`), where inputs have 255 levels, of the largest of their row.

    All is summed exactly: a row comes out the same whatever stands beside it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, widths: Sequence[int] = ()) -> None:
        """Of a weight (M, E), or of one `rounded` before, and a bias (M); several inputs have these widths."""
        rows = weight if weight.is_quantized else rounded(weight)
        bias = None if bias is None else bias.detach()
        self.weight = native.Weight(rows.int_repr(), rows.q_per_channel_scales(), bias, widths)

    def __call__(self, x: Tensor, result: native.Result = "plain") -> Tensor:
        """The product of x (n, E), or what is to be made of it: (n, M)."""
        return self.weight.multiply([x], result)

    def of(self, inputs: Sequence[Tensor], result: native.Result = "plain") -> Tensor:
        """The same of several inputs (n, ..) side by side."""
        return self.weight.multiply(inputs, result)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """Addend (n, M), contiguous, which is written over, + the product of x."""
        return addend.add_(self(x))

    def halved(self, x: Tensor) -> Tensor:
        """The product of x (..., E) in fp16: (..., M)."""
        rows, whole = x.flatten(0, -2), self.weight.rows % native.PANEL == 0
        said = self(rows, "halved") if whole else in_fp16(self(rows))
        return said.view(*x.shape[:-1], said.size(-1))


def in_fp16(x: Tensor) -> Tensor:
    """The same numbers in fp16; what is larger than it has is cut off."""
    return x.clamp(-FP16, FP16).half()


Product = Packed | Quantised | Own


def serves_int8(precision: Precision) -> bool:
    """Whether our own kernel is there for this arithmetic."""
    return precision == "int8" and native.library() is not None


def own_lstm(weights: Sequence[Tensor], bias: Tensor | None = None) -> native.LSTMWeight:
    """For our own kernel, the weights (4H, ..) of an LSTM's inputs, and a bias, of its gates i, f, o, g."""
    rows = rounded(torch.cat(list(weights), dim=1))
    return native.LSTMWeight(rows.int_repr(), rows.q_per_channel_scales(), bias, [weight.size(1) for weight in weights])


def levels(x: Tensor) -> Tensor:
    """Numbers within [-1, 1] as bytes, 63 levels either side of 64.

    torch's quantised tensor is read where it lies, for its own copy (`int_repr`) takes four times as long as rounding.
    """
    rounded = torch.quantize_per_tensor(x.contiguous(), 1 / 63, 64, torch.quint8)
    return torch.empty(0, dtype=torch.uint8).set_(rounded.untyped_storage(), 0, x.shape, rounded.stride())


def pack(
    weight: Tensor, bias: Tensor | None, precision: Precision, bounded: bool = False, widths: Sequence[int] = ()
) -> Product:
    """A weight and a bias, laid out for products in this arithmetic; `bounded` says that inputs lie within [-1, 1].

    Of several inputs, which `Own` takes one by one, the `widths`.
    """
    if precision == "int8":
        return Own(weight, bias, widths) if serves_int8(precision) else Quantised(weight, bias, bounded)
    return Packed(weight, bias, torch.bfloat16 if precision == "bf16" else torch.float32)


def rounded(weight: Tensor) -> Tensor:
    """A weight (M, E) in levels of its rows, as torch's quantised tensor."""
    weight = weight.detach().float()
    scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it will change
        return torch.quantize_per_channel(weight, scales, torch.zeros_like(scales).long(), 0, torch.qint8)


class Rows:
    """A weight (M, E) and a bias (M), of which some rows at a time are wanted; for int8 they are rounded once."""

    def __init__(self, weight: Tensor, bias: Tensor, precision: Precision, bounded: bool = False) -> None:
        self.weight, self.bias = weight.detach(), bias.detach()
        self.pack, self.levels = partial(pack, precision=precision, bounded=bounded), torch.empty(0)
        if precision == "int8":
            self.weight = rounded(weight)
            self.levels = self.weight.int_repr()

    def all(self) -> Product:
        """All of them, laid out: (n, E) -> (n, M)."""
        return self.pack(self.weight, self.bias)

    def some(self, ids: Tensor) -> Product:
        """Those of these numbers (m), laid out: (n, E) -> (n, m)."""
        bias = self.bias.index_select(0, ids)
        if not self.weight.is_quantized:
            return self.pack(self.weight.index_select(0, ids), bias)
        scales, zeros = self.weight.q_per_channel_scales().index_select(0, ids), torch.zeros_like(ids)
        levels = self.levels.index_select(0, ids)
        return self.pack(torch._make_per_channel_quantized_tensor(levels, scales, zeros, 0), bias)


def has_bf16_kernels() -> bool:
    """Whether oneDNN multiplies bf16 on this CPU, be it slowly."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_bf16() -> bool:
    """Whether it has the instructions (avx512_bf16 or AMX) that make it pay."""
    return has_bf16_kernels() and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_bf16_on_gpu() -> bool:
    """Whether the GPU has them; no GPU has not."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def has_vnni() -> bool:
    """Whether this CPU sums products of int8 in 32 bits (AVX-512 VNNI)."""
    return bool(torch.cpu._is_vnni_supported()) and torch.backends.mkldnn.is_available()


def has_int8() -> bool:
    """Whether torch has its int8 kernels for this CPU."""
    return "fbgemm" in torch.backends.quantized.supported_engines
