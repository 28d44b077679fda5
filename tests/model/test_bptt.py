"""Every cell over time, whichever way it runs, is the cell in a loop over each sentence by itself, on CPU and GPU."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from nmt import native
from nmt.model import bptt, recurrent
from nmt.model.bptt import reading
from nmt.model.cells import (
    Cell,
    DeepTransition,
    GRUCell,
    LayerNormLSTMCell,
    LectureLSTMCell,
    LSTMCell,
    LSTMState,
    RNNCell,
    State,
    like,
)
from nmt.model.equations import LSTMEquations
from nmt.model.native_equations import NativeLSTMEquations, fastest
from nmt.model.products import Repeated, linear, product
from nmt.model.recurrent import Layer

B, T, E, H = 4, 5, 3, 4
LENGTHS = tensor([2, 5, 1, 4])
CELLS: dict[str, Callable[[int, int], Cell | DeepTransition]] = {
    "rnn": RNNCell,
    "lstm": LSTMCell,
    "peepholes": partial(LSTMCell, peepholes=True),
    "projection": partial(LSTMCell, projection=3),
    "two projections": partial(LSTMCell, peepholes=True, projection=2, extra_projection=1),
    "lecture": LectureLSTMCell,
    "layer norm": LayerNormLSTMCell,
    "gru": GRUCell,
    "gru reset before": partial(GRUCell, reset="before"),
    "deep transition": lambda inputs, cells: DeepTransition([LSTMCell(inputs, cells), LSTMCell(0, cells)]),
    "deep transition of grus": lambda inputs, cells: DeepTransition([GRUCell(inputs, cells), GRUCell(0, cells)]),
}
KINDS = pytest.mark.parametrize("kind", CELLS)
SINGLE = pytest.mark.parametrize("kind", [kind for kind in CELLS if not kind.startswith("deep")])
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
PADDED = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])


class Arithmetic(NamedTuple):
    """Where and in what a layer computes, and how far it may be from the same in float64 on the CPU."""

    device: str
    dtype: torch.dtype  # of weights and input; bfloat16 is autocast over float32
    share: float  # of the norm of what is expected
    floor: float  # what is allowed beside, where little is expected

    def close(self, found: Tensor, expected: Tensor) -> None:
        found = found.detach().cpu().double()
        assert (found - expected).norm() <= self.share * expected.norm() + self.floor


# fp32 keeps 24 bits, 6e-8, and five steps of a dozen sums each lose less than a hundred times that; bf16 keeps 8 bits,
# 0.4 %, of everything that enters a product, and five steps multiply it by about ten
FP64, FP32, BF16 = (torch.float64, 1e-9, 1e-12), (torch.float32, 1e-5, 1e-5), (torch.bfloat16, 0.05, 1e-2)
torch.backends.cudnn.allow_tf32 = False  # as the program has it
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
ARITHMETIC = pytest.mark.parametrize(
    "arithmetic",
    [
        pytest.param(Arithmetic("cpu", *FP64), id="cpu-fp64"),
        pytest.param(Arithmetic("cpu", *FP32), id="cpu-fp32"),
        pytest.param(Arithmetic("cpu", *BF16), id="cpu-bf16"),
        pytest.param(Arithmetic("cuda", *FP32), id="cuda-fp32", marks=ON_GPU),
        pytest.param(Arithmetic("cuda", *BF16), id="cuda-bf16", marks=ON_GPU),
    ],
)
EXACT = Arithmetic("cpu", *FP64)


def build(kind: str, bidirectional: bool = False, path: str = "", **noise: float) -> Layer:
    """A layer with weights of some size, all in float64; run that way, if one is given."""
    torch.manual_seed(1)
    layer = Layer(E, H, bidirectional, CELLS[kind], **noise).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0, 0.7)
    if path:
        layer.path = lambda *_: path  # type: ignore[method-assign]
    return layer


def words(lengths: Tensor | None) -> Tensor:
    return torch.arange(T) < (torch.full((B,), T) if lengths is None else lengths)[:, None]


def start(layer: Layer) -> State:
    return layer.state._make(torch.randn(B, size).double().requires_grad_() for size in layer.state_sizes)


def run_alone(cell: nn.Module, x: Tensor, state: State, stays: float) -> tuple[Tensor, State]:
    """The cell over the words of one sentence x (T, E), one after the other; a share of the state stays as it was."""
    outputs = []
    for word in x:
        after = cell(word[None], state)
        state = like(after, [stays * old + (1 - stays) * new for old, new in zip(state, after, strict=True)])
        outputs.append(state.hidden)
    return torch.cat(outputs), state


def one_by_one(layer: Layer, x: Tensor, state: State | None, lengths: Tensor | None) -> list[Tensor]:
    """Outputs of all words (N, D*O), and the parts of the final state, of each sentence by itself."""
    outputs, finals = [], []
    for row, length in enumerate((torch.full((B,), T) if lengths is None else lengths).tolist()):
        there, back = x[row, :length], x[row, :length].flip(0)
        cells = layer.cells
        zeros = layer.state._make(torch.zeros(1, size).double() for size in cells[0].state_sizes)
        before = zeros if state is None else like(state, [part[row : row + 1] for part in state])
        output, final = run_alone(cells[0], there, before, layer.zoneout)
        if len(cells) == 2:
            output_back, final_back = run_alone(cells[1], back, zeros, layer.zoneout)
            output = torch.cat([output, output_back.flip(0)], dim=1)
            final = like(final, [torch.cat(parts, dim=1) for parts in zip(final, final_back, strict=True)])
        outputs.append(output)
        finals.append(final)
    return [torch.cat(outputs), *(torch.cat(parts) for parts in zip(*finals, strict=True))]


def moved(parts: Iterable[Tensor], arithmetic: Arithmetic) -> list[Tensor]:
    """Copies of leaves, where and in what is computed."""
    dtype = torch.float64 if arithmetic.dtype == torch.float64 else torch.float32
    return [part.detach().to(arithmetic.device, dtype).requires_grad_() for part in parts]


def assert_equal_with_gradients(layer: Layer, lengths: Tensor | None, arithmetic: Arithmetic = EXACT) -> None:
    """Outputs, final states and the gradients of everything are those of the loops, which run in float64 on the CPU."""
    x = torch.randn(B, T, E).double().requires_grad_()
    state = None if len(layer.cells) == 2 else start(layer)
    expected = one_by_one(layer, x, state, lengths)
    pulls = [torch.randn_like(part) for part in expected]
    of = [x, *layer.parameters(), *(state or ())]
    expected += torch.autograd.grad(sum((a * b).sum() for a, b in zip(expected, pulls, strict=True)), of)

    there = copy.deepcopy(layer).to(arithmetic.device, torch.float64 if arithmetic == EXACT else torch.float32)
    x, *parts = moved([x, *(state or ())], arithmetic)
    state = None if state is None else like(state, parts)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 keeps 11 bits
        with torch.autocast(arithmetic.device, torch.bfloat16, enabled=arithmetic.dtype == torch.bfloat16):
            outputs, final = there(x, state, None if lengths is None else lengths.to(arithmetic.device))
        found = [outputs[words(lengths).to(arithmetic.device)], *final]
        loss = sum((a.cpu().double() * b).sum() for a, b in zip(found, pulls, strict=True))
        found += torch.autograd.grad(loss, [x, *there.parameters(), *parts])
    for one, other in zip(found, expected, strict=True):
        arithmetic.close(one, other)


@SINGLE
@PADDED
@DIRECTIONS
@ARITHMETIC
def test_unrolled_it_is_the_cell_in_a_loop(kind, bidirectional, lengths, arithmetic):
    assert_equal_with_gradients(build(kind, bidirectional, "unrolled"), lengths, arithmetic)


@KINDS
@PADDED
@DIRECTIONS
@ARITHMETIC
def test_looped_it_is_the_cell_in_a_loop(kind, bidirectional, lengths, arithmetic):
    assert_equal_with_gradients(build(kind, bidirectional, "loop"), lengths, arithmetic)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@PADDED
@DIRECTIONS
@ARITHMETIC
def test_fused_it_is_the_cell_in_a_loop(kind, bidirectional, lengths, arithmetic):
    if arithmetic[:2] == ("cpu", torch.bfloat16) and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bf16 on this CPU")
    if arithmetic[:2] == ("cuda", torch.float32) and kind != "lstm":
        arithmetic = arithmetic._replace(share=5e-5)  # cuDNN's vanilla RNN and GRU were seen to be 2e-5 off
    assert_equal_with_gradients(build(kind, bidirectional, "fused"), lengths, arithmetic)


@SINGLE
def test_it_is_the_same_in_blocks_of_a_few_words(kind, monkeypatch):
    monkeypatch.setattr(bptt, "BLOCK", 6)  # of rows running 4, 3, 2, 2, 1: blocks of one, two, two steps
    assert [len(counts) for counts in bptt._blocks([4, 3, 2, 2, 1])] == [1, 2, 2]
    assert_equal_with_gradients(build(kind, True, "unrolled"), LENGTHS)


@KINDS
@PADDED
@DIRECTIONS
def test_the_expectation_of_zoneout_is_the_cell_in_a_loop(kind, bidirectional, lengths):
    assert_equal_with_gradients(build(kind, bidirectional, zoneout=0.3).eval(), lengths)


@SINGLE
@DIRECTIONS
@pytest.mark.parametrize("lengths", [None, LENGTHS, tensor([1, 1, 1, 1]), tensor([5, 1, 3, 3])], ids=str)
def test_the_gradient_is_the_slope(kind, bidirectional, lengths):
    layer = build(kind, bidirectional, "unrolled")
    x = torch.randn(B, T, E).double().requires_grad_()
    state = None if bidirectional else start(layer)

    def run(x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        outputs, final = layer(x, state, lengths)
        return outputs[words(lengths)], *final

    assert torch.autograd.gradcheck(run, (x, *layer.parameters(), *(state or ())), fast_mode=True)


@KINDS
def test_one_call_is_many_calls(kind):
    layer = build(kind)
    x, state = torch.randn(B, T, E).double(), start(layer)
    outputs, final = layer(x, state)
    for step in range(T):
        output, state = layer(x[:, step : step + 1], state)
        assert_close(output[:, 0], outputs[:, step])
    assert_close(tuple(state), tuple(final))


@SINGLE
def test_garbage_in_the_padding_is_never_read(kind):
    layer = build(kind, bidirectional=True, path="unrolled")
    clean = torch.randn(B, T, E).double()
    garbage = torch.where(words(LENGTHS)[:, :, None], clean, torch.nan).requires_grad_()
    (found, final), (expected, expected_final) = layer(garbage, None, LENGTHS), layer(clean, None, LENGTHS)
    assert torch.equal(found[words(LENGTHS)], expected[words(LENGTHS)])
    assert all(torch.equal(*parts) for parts in zip(final, expected_final, strict=True))
    (pull,) = torch.autograd.grad(found[words(LENGTHS)].sum(), garbage)
    assert (pull[~words(LENGTHS)] == 0).all()


# ---- torch's own, of another hand


@pytest.mark.parametrize("path", ["fused", "unrolled", "loop"])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_torch_has_the_same_cell(kind, path):
    layer = build(kind, True, path)
    theirs = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind](E, H, batch_first=True, bidirectional=True).double()
    for cell, suffix in zip(layer.cells, ["l0", "l0_reverse"], strict=True):
        getattr(theirs, f"weight_ih_{suffix}").data.copy_(cell.input_weight)
        getattr(theirs, f"weight_hh_{suffix}").data.copy_(cell.recurrent_weight)
        getattr(theirs, f"bias_ih_{suffix}").data.copy_(cell.bias)
        second = getattr(theirs, f"bias_hh_{suffix}").data.zero_()
        if kind == "gru":
            second[2 * H :] = cell.candidate_bias.data
    x = torch.randn(B, T, E).double()
    packed, final = theirs(pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    outputs, state = layer(x, None, LENGTHS)
    assert_close(outputs[words(LENGTHS)], expected[words(LENGTHS)])
    for part, wanted in zip(state, final if kind == "lstm" else [final], strict=True):
        assert_close(part, torch.cat(list(wanted), dim=1))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
def test_torchs_projection_is_ours():
    layer, theirs = build("projection"), nn.LSTM(E, H, proj_size=3, batch_first=True).double()
    (cell,) = layer.cells
    for name in ("input_weight", "recurrent_weight", "bias", "projection"):
        short = {"input_weight": "weight_ih", "recurrent_weight": "weight_hh", "bias": "bias_ih"}.get(name, "weight_hr")
        getattr(theirs, f"{short}_l0").data.copy_(getattr(cell, name))
    theirs.bias_hh_l0.data.zero_()
    x = torch.randn(B, T, E).double()
    expected, (hidden, memory) = theirs(x)
    outputs, final = layer(x)
    assert_close(outputs, expected)
    assert_close(tuple(final), (hidden[0], memory[0]))


# ---- noise


@SINGLE
def test_recurrent_dropout_is_the_same_whichever_way_it_runs(kind):
    found = []
    for path in ("unrolled", "loop"):
        layer = build(kind, True, path, recurrent_dropout=0.5)
        x = torch.randn(B, T, E).double().requires_grad_()
        torch.manual_seed(2)
        outputs, final = layer(x, None, LENGTHS)
        loss = outputs[words(LENGTHS)].square().sum() + sum(part.square().sum() for part in final)
        found.append([outputs, *final, *torch.autograd.grad(loss, [x, *layer.parameters()])])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)
    assert not torch.equal(layer.eval()(x, None, LENGTHS)[0], outputs)


def test_recurrent_dropout_hides_a_unit_at_every_step_or_at_none():
    """A vanilla RNN that only passes its state on: what is hidden once is 0 for ever, the rest grows by 1 / 0.75."""
    layer = Layer(1, 1, cell=RNNCell, recurrent_dropout=0.25)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    layer.cells[0].recurrent_weight.data.fill_(1e-3)
    state = layer.state(torch.full((4000, 1), 1.0))
    last = layer(torch.zeros(4000, 3, 1), state)[1].hidden
    kept = last > 0
    assert_close(last[kept], torch.full_like(last[kept], (1e-3 / 0.75) ** 3))
    assert 0.72 < kept.float().mean() < 0.78  # deviation 0.007


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_zoneout_leaves_units_as_they_were(kind):
    layer = build(kind, zoneout=0.25)
    torch.manual_seed(3)
    x, state = (
        torch.randn(500, 1, E).double(),
        layer.state._make(torch.randn(500, size).double() for size in layer.state_sizes),
    )
    fresh = layer.cells[0](x[:, 0], state)
    for before, new, found in zip(state, fresh, layer(x, state)[1], strict=True):
        old = found == before
        assert_close(torch.where(old, before, new), found)
        assert 0.2 < old.double().mean() < 0.3  # of 2,000 draws: deviation 0.01
    for before, new, found in zip(state, fresh, layer.eval()(x, state)[1], strict=True):
        assert_close(found, 0.25 * before + 0.75 * new)  # the expectation


# ---- by our own kernels


@pytest.mark.skipif(native.library() is None, reason="there are none of our own kernels here")
@pytest.mark.parametrize(("reduced", "share"), [(False, 1e-5), (True, 0.02)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_our_own_kernels_do_as_torch(reduced, share, dropout, monkeypatch):
    """Outputs, final states and all gradients, of sizes that fill vectors and that do not, some rows shorter."""
    monkeypatch.setattr(bptt, "BLOCK", 9)  # so that there are several
    layer, x = Layer(5, 19, recurrent_dropout=dropout), torch.randn(4, 7, 5, requires_grad=True)
    weigh, state = torch.randn(4, 7, 19), [torch.randn(4, 19, requires_grad=True) for _ in range(2)]
    for parameter in layer.parameters():
        parameter.data.normal_(std=0.4)

    def run():
        leaves = (x, *state, *layer.parameters())
        for leaf in leaves:
            leaf.grad = None
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            outputs, final = layer._read("unrolled", x, LSTMState(*state), torch.tensor([7, 3, 7, 1]))
        ((outputs * weigh).sum() + sum(part.sum() for part in final)).backward()
        return [*(part.detach() for part in (outputs, *final)), *(leaf.grad for leaf in leaves)]

    ours = run()
    monkeypatch.setattr("nmt.native.library", lambda: None)
    for one, other in zip(ours, run(), strict=True):
        assert one.dtype == other.dtype
        assert (one.float() - other.float()).norm() <= share * other.float().norm()


def test_nothing_but_a_plain_lstm_in_float32_or_bf16_is_run_by_them(monkeypatch):
    monkeypatch.setattr("nmt.native.library", object)
    plain, numbers = LSTMEquations(), torch.zeros(1)
    for served in (numbers, numbers.bfloat16()):
        assert type(fastest(plain, served)) is NativeLSTMEquations
    for other in (LSTMEquations(peepholes=True), LSTMEquations(projection=3), LSTMEquations(lecture=True)):
        assert fastest(other, numbers) is other
    for kind in (torch.float64, torch.float16):
        assert fastest(plain, numbers.to(kind)) is plain
    monkeypatch.setattr("nmt.native.library", lambda: None)
    assert fastest(plain, numbers) is plain


# ---- which way


@pytest.mark.parametrize(
    ("kind", "device", "path"),
    [
        ("gru", "cpu", "unrolled"),
        ("rnn", "cpu", "unrolled"),
        ("lstm", "cuda", "fused"),
        ("gru", "cuda", "fused"),
        ("rnn", "cuda", "fused"),
        ("gru reset before", "cuda", "unrolled"),
        ("peepholes", "cuda", "unrolled"),
        ("lecture", "cpu", "unrolled"),
        ("deep transition", "cpu", "loop"),
    ],
)
def test_which_way_a_cell_runs(kind, device, path):
    assert build(kind).path(torch.device(device), True, False) == path


@pytest.mark.parametrize(
    ("library", "cells", "directions", "path"),
    [
        (None, 512, 1, "fused"),
        (object(), 512, 1, "unrolled"),
        (object(), 256, 2, "unrolled"),
        (object(), 256, 1, "fused"),
        (object(), 255, 2, "fused"),
    ],
)
def test_a_wide_lstm_is_trained_by_our_own_kernels_where_there_are_any(library, cells, directions, path, monkeypatch):
    monkeypatch.setattr("nmt.native.library", lambda: library)
    layer, cpu = Layer(4, cells, directions == 2), torch.device("cpu")
    assert layer.path(cpu, True, False) == path
    assert layer.path(cpu, False, False) == "fused"


def test_noise_and_a_second_derivative_choose_the_way(monkeypatch):
    cpu = torch.device("cpu")
    assert build("lstm", recurrent_dropout=0.1).path(cpu, True, False) == "unrolled"
    assert build("lstm", recurrent_dropout=0.1).path(cpu, False, False) == "fused"
    assert build("lstm", zoneout=0.1).path(cpu, False, False) == "loop"
    layer = build("lstm")
    layer.looped = True
    assert layer.path(cpu, False, False) == "loop"
    assert build("lstm").path(cpu, True, True) == "unrolled"
    monkeypatch.setattr("nmt.model.recurrent.has_bf16_kernels", lambda: True)
    assert build("lstm").path(cpu, False, True) == "fused"
    monkeypatch.setattr("nmt.model.recurrent.has_bf16_kernels", lambda: False)  # such as CPUs without AVX-512
    assert build("lstm").path(cpu, False, True) == "unrolled"
    assert build("lstm").path(torch.device("cuda"), True, True) == "fused"


@pytest.mark.parametrize(
    ("device", "enabled", "kind", "expected"),
    [
        ("cuda", True, torch.bfloat16, True),
        ("cuda", True, torch.float16, False),  # then the loss is scaled
        ("cuda", False, torch.bfloat16, False),
        ("cpu", True, torch.bfloat16, False),
    ],
)
def test_where_bf16_would_become_fp16(monkeypatch, device, enabled, kind, expected):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: enabled)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: kind)
    assert recurrent._rounds_to_fp16(torch.device(device)) == expected


def test_padding_may_take_more_columns_than_one():
    layer, x = build("lstm"), torch.randn(B, T, E).double()
    exact, final = layer(x, None, LENGTHS)
    (weight, *rest), padding = layer.cells[0].parameters(), (~words(LENGTHS)).double()
    wide = torch.cat([x, padding[:, :, None].expand(-1, -1, 8)], dim=2)
    weights = [recurrent._with_padding_column(weight, 8), *rest, torch.zeros_like(rest[-1])]
    start = [torch.zeros(1, B, H).double()] * 2
    outputs, _, memory = torch.lstm(wide, start, weights, True, 1, 0.0, True, False, True)
    assert_close(outputs[words(LENGTHS)], exact[words(LENGTHS)])
    assert_close(memory[0], final[1])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
def test_the_fused_kernel_runs_in_fp16_where_autocast_would_make_it(monkeypatch, kind, device):
    """Where that is, a CPU must be told. Outputs, state and gradients are exact to 11 bits, and errors may be small."""
    layer, x = build(kind, True, "fused").float().to(device), torch.randn(B, T, E).to(device).requires_grad_()
    lengths, real = LENGTHS.to(device), words(LENGTHS).to(device)
    exact, final = layer(x, None, lengths)
    pull, pulls = torch.randn_like(exact) * real[:, :, None], [torch.randn_like(part) for part in final]
    of = [x, *layer.parameters()]

    def told(outputs, state):
        return (outputs * pull).sum() + sum((part * other).sum() for part, other in zip(state, pulls, strict=True))

    gradients = torch.autograd.grad(told(exact, final), of)
    if device == "cpu":
        monkeypatch.setattr("nmt.model.recurrent._rounds_to_fp16", lambda device: True)
    with torch.autocast(device, torch.bfloat16):
        found, found_final = layer(x, None, lengths)
    assert all(part.dtype == torch.float32 for part in (found, *found_final))
    small = torch.autograd.grad(1e-9 * told(found, found_final), of)
    pairs = [
        (found[real], exact[real]),
        *zip(found_final, final, strict=True),
        *((1e9 * one, other) for one, other in zip(small, gradients, strict=True)),
    ]
    for one, other in pairs:
        assert 0 < (one - other).norm() < 12 * 2.0**-11 * other.norm()


def test_a_vanilla_rnn_is_given_float32_where_it_would_be_given_fp16(monkeypatch):
    """As on a GPU under autocast; what comes out is then as exact as without."""
    layer, x = build("rnn", True, "fused").float(), torch.randn(B, T, E)
    exact, _ = layer(x, None, LENGTHS)
    monkeypatch.setattr("nmt.model.recurrent._rounds_to_fp16", lambda device: True)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = layer(x.bfloat16().float(), None, LENGTHS)
        given, _ = layer(x.bfloat16(), None, LENGTHS)
    assert found.dtype == given.dtype == torch.float32
    assert_close(found, layer(x.bfloat16().float(), None, LENGTHS)[0], rtol=0, atol=0)
    assert_close(given, found, rtol=0, atol=0)
    assert 0 < (found - exact).norm() < 0.02 * exact.norm()  # the input itself was rounded


# ---- the order of reading, and products


def test_the_order_of_reading_by_hand():
    order = reading(tensor([1, 3, 2]), 3)
    assert order.counts == [3, 2, 1]
    assert order.rows.tolist() == [1, 2, 0]  # longest first
    assert order.words.tolist() == [3, 6, 0, 4, 7, 5]  # all first words, all second ones, the third: of rows 1, 2, 0
    assert order.before.tolist() == [0, 1, 2, 3, 4, 6]  # 3 initial states, then those after each word
    assert order.last.tolist() == [5, 4, 2]
    assert reading(tensor([1, 3, 2]), 3, backwards=True).words.tolist() == [5, 7, 0, 4, 6, 3]


FAST = pytest.mark.parametrize("fast", [False, True], ids=["onednn", "mkl"])


@FAST
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_linear_layer_and_its_gradients_are_torchs(dtype, fast, monkeypatch):
    monkeypatch.setattr("nmt.model.products.has_fast_mkl", lambda: fast)
    x, weight, bias, pull = (torch.randint(-4, 5, shape).to(dtype) for shape in ((7, 6), (5, 6), (5,), (7, 5)))
    of = [part.requires_grad_() for part in (x, weight, bias)]
    results = [(layer(x, weight, bias) * pull).sum() for layer in (linear, nn.functional.linear)]
    assert_close(*results)
    for found, expected in zip(*(torch.autograd.grad(result, of) for result in results), strict=True):
        assert_close(found, expected)


@FAST
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_products_are_products(dtype, fast, monkeypatch):
    monkeypatch.setattr("nmt.model.products.has_fast_mkl", lambda: fast)
    x, weight, addend = (torch.randint(-4, 5, shape).to(dtype) for shape in ((7, 6), (5, 6), (7, 5)))  # exact in all
    expected = x.double() @ weight.double().t()
    assert_close(product(x, weight).double(), expected)
    for steps in (1, 2):  # left as it is, and laid out
        repeated = Repeated(weight, 7, steps)
        assert_close(repeated(x).double(), expected)
        assert_close(repeated.plus(x, addend).double(), expected + addend.double())
    assert_close(product(x.t().contiguous().t(), weight).double(), expected)
    assert_close(Repeated(weight.t().contiguous().t(), 7, 2)(x).double(), expected)
