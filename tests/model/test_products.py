"""Products of laid-out weights, by numbers that their arithmetic holds exactly."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from nmt.model import products
from nmt.model.products import Packed, Quantised, Rows, levels, pack


def whole(rows, columns, most, seed):
    """Whole numbers of at most this size, which each row reaches."""
    drawn = torch.randint(-most, most + 1, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    drawn[:, 0] = most
    return drawn


@pytest.fixture(params=["FBGEMM", "oneDNN"])
def library(request, monkeypatch):
    """All products by FBGEMM, or those of two rows and more by oneDNN."""
    if request.param == "oneDNN" and not products.has_vnni():
        pytest.skip("this CPU has no VNNI")
    monkeypatch.setattr(products, "WIDE", 1 if request.param == "oneDNN" else math.inf)
    monkeypatch.setattr(products, "MANY", 2)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("bounded", [True, False])
def test_int8_is_exact_on_its_own_levels(rows, bounded):
    weight, bias = whole(24, 32, 127, 1), torch.arange(24.0)  # levels of the weight: whole numbers to 127
    x = whole(rows, 32, 63, 2) / 63  # and of the input: 63 on either side of 0
    if not bounded:
        x *= torch.arange(1.0, rows + 1)[:, None]  # each row with levels of its own
    expected = x @ weight.t() + bias
    product = Quantised(weight, bias, bounded)
    assert_close(product(x), expected, rtol=1e-5, atol=1e-2)
    addend = torch.ones(rows, 24)
    assert_close(product.plus(x, addend), expected + 1, rtol=1e-5, atol=1e-2)
    assert_close(addend, expected + 1, rtol=1e-5, atol=1e-2)  # written over


def test_levels_are_bytes_around_64():
    every = torch.arange(-63, 64)
    assert levels(every[None] / 63).tolist() == [list(range(1, 128))]
    columns = torch.stack([every, every.flip(0)], dim=1)  # each row lies apart from itself
    assert levels((columns / 63).t()).tolist() == [list(range(1, 128)), list(range(127, 0, -1))]


@pytest.mark.usefixtures("library")
def test_int8_does_not_overflow():
    weight, x = torch.full((8, 512), 127.0), torch.ones(3, 512)
    assert_close(Quantised(weight, None, bounded=True)(x), torch.full((3, 8), 512 * 127.0))
    assert_close(Quantised(weight, None, bounded=True)(-x), torch.full((3, 8), -512 * 127.0))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("bounded", [True, False])
def test_in_int8_no_row_depends_on_its_neighbours(bounded):
    torch.manual_seed(1)
    weight, bias = torch.randn(16, 32) / 4, torch.randn(16) / 4  # results below 4, whose last bit is 2e-7
    product, x = Quantised(weight, bias, bounded), torch.rand(9, 32)
    alone = torch.cat([product(row[None]) for row in x])  # by FBGEMM, whose last bit may be another
    assert_close(alone, product(x), rtol=0, atol=1e-6 if product.many else 0)
    assert_close(torch.cat([product(x[:4]), product(x[4:])]), product(x), rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, 7])
def test_a_packed_weight_multiplies(rows):
    weight, bias, x = torch.randn(20, 12), torch.randn(20), torch.randn(rows, 12)
    assert_close(Packed(weight, bias)(x), x @ weight.t() + bias)
    addend = torch.ones(rows, 20)
    assert_close(Packed(weight, None).plus(x, addend), x @ weight.t() + 1)
    assert_close(addend, x @ weight.t() + 1)  # written over


def test_bf16_rounds_input_and_weight_to_8_bits():
    weight, x = whole(6, 10, 128, 3), whole(4, 10, 128, 4)  # whole numbers to 256 are held exactly
    assert_close(pack(weight / 256, None, "bf16")(x / 256), x @ weight.t() / 256**2, rtol=1 / 256, atol=0.01)
    [[found]] = pack(torch.tensor([[1 + 1 / 256]]), None, "bf16")(torch.tensor([[1.0]])).tolist()
    assert found == 1.0  # a tie, rounded to even


def test_an_empty_input_has_no_products():
    assert pack(torch.randn(4, 3), None, "fp32")(torch.empty(0, 3)).tolist() == []


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("bounded", [True, False])
def test_some_rows_say_what_they_say_among_all(precision, bounded):
    rows, ids, x = (
        Rows(torch.randn(20, 12), torch.randn(20), precision, bounded),
        torch.tensor([0, 3, 19]),
        torch.rand(7, 12),
    )
    assert_close(rows.some(ids)(x), rows.all()(x)[:, ids])


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 130])
@pytest.mark.parametrize("width", [1, 3])
def test_a_transpose_is_copied_row_by_row(rows, width):
    x = torch.arange(float(rows * (width + 2))).view(rows, width + 2)
    for given in (x, x[:, :width], x[::2]):
        for matrix in (given, given.t()):
            found = products._in_rows(matrix)
            assert found.is_contiguous()
            assert found.tolist() == matrix.tolist()


@pytest.mark.parametrize(
    ("told", "maker", "mkl", "fast"),
    [
        ("processor: 0\nvendor_id\t: GenuineIntel\n", "", True, True),
        ("processor: 0\nvendor_id\t: AuthenticAMD\n", "", True, False),
        ("processor: 0\nvendor_id\t: GenuineIntel\n", "", False, False),
        (None, "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel", True, True),
        (None, "arm", True, False),
    ],
)
def test_where_mkl_is_fast(told, maker, mkl, fast, tmp_path, monkeypatch):
    """By the maker of the CPU, which Linux tells in a file and other systems by name."""
    if told is not None:  # else there is no such file
        (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr("nmt.model.products.CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: maker)
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: mkl)
    assert products.has_fast_mkl.__wrapped__() == fast


@pytest.mark.parametrize("fast_mkl", [True, False])
@pytest.mark.parametrize("kind", ["fp64", "fp32", "bf16"])
def test_a_linear_layer_is_torchs(kind, fast_mkl, monkeypatch):
    """With its gradients; that of the bias is summed by a product."""
    monkeypatch.setattr(products, "has_fast_mkl", lambda: fast_mkl)
    torch.manual_seed(1)
    leaves = [
        torch.randn(*shape, dtype=torch.float64 if kind == "fp64" else None) for shape in ((70, 9), (12, 9), (12,))
    ]
    found = []
    for function in (products.linear, F.linear):
        parts = [leaf.clone().requires_grad_() for leaf in leaves]
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
            out = function(*parts)
        (out.float() * torch.linspace(-1, 1, 12)).sum().backward()
        found.append([out, *(part.grad for part in parts)])
    close = {"fp64": 1e-12, "fp32": 1e-5, "bf16": 2**-7}[kind]
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, rtol=close, atol=close)


def test_a_bias_in_bf16_is_summed_in_float32():
    """Of 5,000 ones: in bf16 the sum would stop at 256."""
    bias = torch.zeros(3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        products.linear(torch.zeros(5000, 2), torch.zeros(3, 2), bias).sum().backward()
    assert bias.grad is not None
    assert_close(bias.grad, torch.full((3,), 5000.0), rtol=2**-8, atol=0)
