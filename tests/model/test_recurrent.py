"""A layer over time is the cell in a loop, each sentence by itself: outputs, states and gradients, padded or not."""

import math

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from nmt.model.cells import LSTMCell, LSTMState
from nmt.model.recurrent import Layer, dropout

B, T, E, H = 3, 5, 4, 3
LENGTHS = tensor([2, 5, 1])
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
PADDED = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-4, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}


def loop(cell: LSTMCell, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """The cell over x (T, E), word by word: outputs (T, H) and the last state (1, H)."""
    outputs = []
    for word in x:
        state = cell(word[None], state)
        outputs.append(state.hidden)
    return torch.cat(outputs), state


def one_by_one(layer: Layer, x: Tensor, state: LSTMState, lengths: Tensor) -> tuple[list[Tensor], list[LSTMState]]:
    """Each sentence by itself, cut at its length; the second direction reads it backwards, from a state of zeros."""
    outputs, finals = [], []
    for row, length in enumerate(lengths.tolist()):
        words, before = x[row, :length], LSTMState(state.hidden[row : row + 1, :H], state.cell[row : row + 1, :H])
        there, final = loop(layer.cells[0], words, before)
        if len(layer.cells) == 2:
            back, final_back = loop(layer.cells[1], words.flip(0), layer.cells[1].zero_state(1))
            there = torch.cat([there, back.flip(0)], dim=1)
            final = LSTMState(*(torch.cat(parts, dim=1) for parts in zip(final, final_back, strict=True)))
        outputs.append(there)
        finals.append(final)
    return outputs, finals


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, of)


@TYPES
@PADDED
@DIRECTIONS
def test_a_layer_is_its_cells_in_a_loop(bidirectional, lengths, dtype):
    layer = Layer(E, H, bidirectional).to(dtype)
    x = torch.randn(B, T, E, dtype=dtype, requires_grad=True)
    start = LSTMState(*torch.randn(2, B, H, dtype=dtype).requires_grad_().unbind())
    state = None if bidirectional else start
    outputs, final = layer(x, state, lengths)
    lengths = torch.full((B,), T) if lengths is None else lengths
    expected, finals = one_by_one(layer, x, state or layer.cells[0].zero_state(B), lengths)

    pulls = torch.randn(B, T, layer.output_size, dtype=dtype), *torch.randn(2, B, layer.output_size, dtype=dtype)
    loss = sum((final[part] * pulls[1 + part]).sum() for part in range(2))
    expected_loss = torch.zeros((), dtype=dtype)
    for row, length in enumerate(lengths.tolist()):
        assert_close(outputs[row, :length], expected[row], **tolerance(dtype))
        loss = loss + (outputs[row, :length] * pulls[0][row, :length]).sum()
        expected_loss = expected_loss + (expected[row] * pulls[0][row, :length]).sum()
        for part in range(2):
            assert_close(final[part][row : row + 1], finals[row][part], **tolerance(dtype))
            expected_loss = expected_loss + (finals[row][part] * pulls[1 + part][row]).sum()

    of = [x, *layer.parameters(), *([] if state is None else start)]
    for found, wanted in zip(gradients(loss, *of), gradients(expected_loss, *of), strict=True):
        assert_close(found, wanted, **tolerance(dtype))


@DIRECTIONS
def test_a_layer_is_torchs_lstm_with_the_same_weights(bidirectional):
    layer, lstm = Layer(E, H, bidirectional), nn.LSTM(E, H, batch_first=True, bidirectional=bidirectional)
    for cell, suffix in zip(layer.cells, ["l0", "l0_reverse"], strict=False):
        getattr(lstm, f"weight_ih_{suffix}").data.copy_(cell.input_weight)
        getattr(lstm, f"weight_hh_{suffix}").data.copy_(cell.recurrent_weight)
        getattr(lstm, f"bias_ih_{suffix}").data.copy_(cell.bias)
        getattr(lstm, f"bias_hh_{suffix}").data.zero_()
    x = torch.randn(B, T, E)
    packed, (hidden, cell_state) = lstm(pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    outputs, final = layer(x, lengths=LENGTHS)
    words = torch.arange(T) < LENGTHS[:, None]
    assert_close(outputs[words], expected[words])
    assert_close(final.hidden, torch.cat(list(hidden), dim=1))
    assert_close(final.cell, torch.cat(list(cell_state), dim=1))


@DIRECTIONS
def test_garbage_in_the_padding_changes_nothing(bidirectional):
    layer, words = Layer(E, H, bidirectional), torch.arange(T) < LENGTHS[:, None]
    clean = torch.randn(B, T, E) * words[:, :, None]
    garbage = torch.where(words[:, :, None], clean, 100 * torch.randn(B, T, E)).requires_grad_()
    (outputs, state), (expected, expected_state) = layer(garbage, lengths=LENGTHS), layer(clean, lengths=LENGTHS)
    assert torch.equal(outputs[words], expected[words])
    assert torch.equal(state.hidden, expected_state.hidden)
    assert torch.equal(state.cell, expected_state.cell)
    (pull,) = gradients(outputs[words].sum() + state.hidden.sum() + state.cell.sum(), garbage)
    assert (pull[~words] == 0).all()
    assert (pull[words] != 0).all()


def test_without_padding_nothing_is_laid_beside_the_weights(monkeypatch):
    """It takes longer than to read a short sentence; the result is that of a batch that has padding."""
    layer, x = Layer(E, H, bidirectional=True), torch.randn(B, T, E)
    padded, expected = layer(torch.cat([x, x[:, :1]], dim=1), lengths=torch.full((B,), T))
    monkeypatch.setattr("nmt.model.recurrent._with_padding_column", None)
    outputs, state = layer(x, lengths=torch.full((B,), T))
    assert_close(outputs, padded[:, :T])
    assert_close(state, expected)


def fixed_gates() -> Layer:
    """i = 3/4, f = 1/2, g = 1/2, o = 1/4 whatever is read, in both directions."""
    layer = Layer(1, 1, bidirectional=True)
    for cell in layer.cells:
        for parameter in cell.parameters():
            nn.init.zeros_(parameter)
        cell.bias.data.copy_(tensor([math.log(3), 0, math.log(3) / 2, -math.log(3)]))
    return layer


def test_padding_is_waited_out_by_hand():
    outputs, final = fixed_gates()(torch.zeros(1, 9, 1), lengths=tensor([2]))
    assert_close(final.cell, tensor([[9 / 16, 9 / 16]]))  # c(1) = 3/8, c(2) = 1/2 * 3/8 + 3/8
    assert_close(final.hidden, torch.full((1, 2), math.tanh(9 / 16) / 4))
    one, two = math.tanh(3 / 8) / 4, math.tanh(9 / 16) / 4
    assert_close(outputs[0, :2], tensor([[one, two], [two, one]]))  # the second column is read backwards


@pytest.mark.parametrize("kind", ["fp32", "fp64", "bf16"])
def test_the_memory_crosses_any_padding_exactly(kind):
    layer = fixed_gates().to(torch.float64 if kind == "fp64" else torch.float32)
    x = torch.zeros(2, 300, 1, dtype=layer.cells[0].bias.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
        _, short = layer(x[:, :2], lengths=tensor([2, 1]))
        _, long = layer(x, lengths=tensor([2, 1]))
    assert (short.cell != 0).all()
    assert torch.equal(short.cell, long.cell)
    assert torch.equal(short.hidden, long.hidden)


@DIRECTIONS
def test_under_bf16_a_padded_sentence_is_the_sentence_alone(bidirectional):
    layer, x = Layer(E, H, bidirectional), torch.randn(B, 40, E)
    lengths = tensor([7, 40, 1])
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = layer(x, lengths=lengths)
        alone = [layer(x[row : row + 1, :length]) for row, length in enumerate(lengths.tolist())]
    for row, (expected, final) in enumerate(alone):
        close = {"rtol": 2**-6, "atol": 2**-8}  # bf16 keeps 8 bits
        assert_close(outputs[row, : lengths[row]], expected[0], **close)
        assert_close(state.hidden[row], final.hidden[0], **close)
        assert_close(state.cell[row], final.cell[0], **close)


@DIRECTIONS
def test_the_gradient_is_the_slope(bidirectional):
    layer, lengths = Layer(2, 2, bidirectional).double(), tensor([1, 3])
    words = torch.arange(3) < lengths[:, None]
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    start = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, start: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        outputs, state = layer(x, None if bidirectional else LSTMState(*start), lengths)
        return outputs[words], *state

    assert torch.autograd.gradcheck(run, (x, start, *layer.parameters()))


# ---- dropout over time


def test_dropout_drops_a_feature_from_all_steps_of_a_sentence():
    dropped = dropout(torch.ones(400, 6, 50), 0.25, training=True)
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 6, -1))
    assert set(dropped.unique().tolist()) == {0.0, tensor(1 / 0.75).item()}
    share = (dropped[:, 0] == 0).float().mean()  # of 20,000 draws: deviation 0.003
    assert 0.235 < share < 0.265
    assert len(dropped[:, 0].unique(dim=0)) == 400  # each sentence draws its own


def test_dropout_is_off_when_not_training():
    x = torch.randn(2, 3, 4)
    assert torch.equal(dropout(x, 0.9, training=False), x)
    assert torch.equal(dropout(x, 0.0, training=True), x)
