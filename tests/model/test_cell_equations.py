"""Two steps of every cell with a pencil: one unit, all weights different, the papers' equations in plain arithmetic."""

import math
from math import tanh

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from nmt.model.cells import (
    Cell,
    DeepTransition,
    GRUCell,
    HiddenState,
    LayerNormLSTMCell,
    LectureLSTMCell,
    LSTMCell,
    LSTMState,
    RNNCell,
)

X = (0.7, -1.3)  # what is read, at two steps
H, C = 0.4, -0.6  # the state before
W, U, B = (0.3, -0.5, 0.8, 1.1), (-0.7, 0.9, 0.2, -0.4), (0.1, 0.6, -0.3, 0.5)  # of the blocks, in their order
P = (1.2, -0.8, 0.35)  # peepholes of i, f, o


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def fill(cell: Cell) -> Cell:
    """Give a cell of one unit the weights above."""
    cell.double()
    for parameter, values in ((cell.input_weight, W), (cell.recurrent_weight, U), (cell.bias, B)):
        parameter.data.copy_(tensor(values[: parameter.numel()], dtype=torch.float64).view_as(parameter))
    return cell


def run(cell: Cell, state: tuple[float, ...]) -> list[list[float]]:
    """The states after each of the two steps."""
    now = cell.state(*(tensor([[value]], dtype=torch.float64) for value in state))
    after = []
    for x in X:
        now = cell(tensor([[x]], dtype=torch.float64), now)
        after.append([part.item() for part in now])
    return after


def sums(x: float, h: float) -> list[float]:
    """W x + U h + b of each block."""
    return [w * x + u * h + b for w, u, b in zip(W, U, B, strict=True)]


def test_rnn():
    h, expected = H, []
    for x in X:
        h = tanh(W[0] * x + U[0] * h + B[0])
        expected.append([h])
    assert run(fill(RNNCell(1, 1)), (H,)) == [pytest.approx(state) for state in expected]


def lstm(x: float, h: float, c: float, peepholes: tuple[float, float, float]) -> tuple[float, float]:
    """m(t) and c(t), Sak et al. 2014, eq. 1-5."""
    i, f, g, o = sums(x, h)
    c_after = sigmoid(f + peepholes[1] * c) * c + sigmoid(i + peepholes[0] * c) * tanh(g)
    return sigmoid(o + peepholes[2] * c_after) * tanh(c_after), c_after


@pytest.mark.parametrize("peepholes", [False, True], ids=["standard", "peepholes"])
def test_lstm(peepholes):
    cell = fill(LSTMCell(1, 1, peepholes=peepholes))
    if peepholes:
        cell.peepholes.data.copy_(tensor(P)[:, None])
    one = lstm(X[0], H, C, P if peepholes else (0, 0, 0))
    two = lstm(X[1], *one, P if peepholes else (0, 0, 0))
    assert run(cell, (H, C)) == [pytest.approx(list(one)), pytest.approx(list(two))]


def test_lecture_lstm():
    h, c, expected = H, C, []
    for x in X:
        i, f, g, o = sums(x, h)
        c = sigmoid(f) * c + sigmoid(i) * g
        h = tanh(sigmoid(o) * c)
        expected.append([h, c])
    assert run(fill(LectureLSTMCell(1, 1)), (H, C)) == [pytest.approx(state) for state in expected]


def test_projections():
    """Two projections of one unit: r goes round, p only out (Sak et al. 2014, eq. 7-10)."""
    cell = fill(LSTMCell(1, 1, peepholes=True, projection=1, extra_projection=1))
    cell.peepholes.data.copy_(tensor(P)[:, None])
    cell.projection.data.copy_(tensor([[1.5], [-2.0]]))
    state = LSTMState(tensor([[H, 99.0]], dtype=torch.float64), tensor([[C]], dtype=torch.float64))  # p is not read
    r, c = H, C
    for x in X:
        m, c = lstm(x, r, c, P)
        r = 1.5 * m
        state = cell(tensor([[x]], dtype=torch.float64), state)
        assert state.hidden.tolist() == [pytest.approx([r, -2.0 * m])]
        assert state.cell.item() == pytest.approx(c)


def test_gru_reset_after():
    cell = fill(GRUCell(1, 1))
    cell.candidate_bias.data.fill_(0.45)
    h, expected = H, []
    for x in X:
        r, z = sigmoid(W[0] * x + U[0] * h + B[0]), sigmoid(W[1] * x + U[1] * h + B[1])
        n = tanh(W[2] * x + B[2] + r * (U[2] * h + 0.45))
        h = z * h + (1 - z) * n
        expected.append([h])
    assert run(cell, (H,)) == [pytest.approx(state) for state in expected]


def test_gru_reset_before():
    """With two units, since with one r * (U h) = U (r * h): Cho et al. 2014, eq. 5-8."""
    cell = GRUCell(1, 2, reset="before").double()
    for number, parameter in enumerate(cell.parameters()):
        values = torch.arange(parameter.numel(), dtype=torch.float64)
        parameter.data.copy_(((values + number) * 2.3).sin().view_as(parameter))
    w, u, b = (parameter.tolist() for parameter in (cell.input_weight, cell.recurrent_weight, cell.bias))
    h, state = [H, C], HiddenState(tensor([[H, C]], dtype=torch.float64))

    def add(row: int, x: float, read: list[float]) -> float:
        return w[row][0] * x + u[row][0] * read[0] + u[row][1] * read[1] + b[row]

    for x in X:
        r, z = [sigmoid(add(row, x, h)) for row in (0, 1)], [sigmoid(add(row, x, h)) for row in (2, 3)]
        reset = [r[0] * h[0], r[1] * h[1]]
        n = [tanh(add(row, x, reset)) for row in (4, 5)]
        h = [z[unit] * h[unit] + (1 - z[unit]) * n[unit] for unit in (0, 1)]
        state = cell(tensor([[x]], dtype=torch.float64), state)
        assert state.hidden.tolist() == [pytest.approx(h)]


def norm(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-5)
    return [(value - mean) / deviation for value in values]


def test_layer_norm_lstm():
    """Two units, since the norm of one is 0: Ba et al. 2016, eq. 20-22."""
    cell = LayerNormLSTMCell(1, 2).double()
    for number, parameter in enumerate(cell.parameters()):
        values = torch.arange(parameter.numel(), dtype=torch.float64)
        parameter.data.copy_(((values + number) * 2.3).sin().view_as(parameter))
    w, u, b, input_gain, recurrent_gain, cell_gain, cell_bias = (parameter.tolist() for parameter in cell.parameters())
    state = LSTMState(*(tensor([values], dtype=torch.float64) for values in ([0.4, -0.9], [0.2, 1.1])))
    h, c = [0.4, -0.9], [0.2, 1.1]
    for x in X:
        read, said = norm([row[0] * x for row in w]), norm([row[0] * h[0] + row[1] * h[1] for row in u])
        gates = [read[k] * input_gain[k] + said[k] * recurrent_gain[k] + b[k] for k in range(8)]
        i, f, g, o = gates[:2], gates[2:4], gates[4:6], gates[6:]
        c = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * tanh(g[k]) for k in (0, 1)]
        normed = norm(c)
        h = [sigmoid(o[k]) * tanh(normed[k] * cell_gain[k] + cell_bias[k]) for k in (0, 1)]
        state = cell(tensor([[x]], dtype=torch.float64), state)
        assert state.cell.tolist() == [pytest.approx(c)]
        assert state.hidden.tolist() == [pytest.approx(h)]


def test_deep_transition():
    """The second cell reads no input, only what the first left."""
    first, second = fill(RNNCell(1, 1)), RNNCell(0, 1).double()
    second.recurrent_weight.data.fill_(-1.7)
    second.bias.data.fill_(0.25)
    h, expected = H, []
    for x in X:
        h = tanh(-1.7 * tanh(W[0] * x + U[0] * h + B[0]) + 0.25)
        expected.append([h])
    assert run(DeepTransition([first, second]), (H,)) == [pytest.approx(state) for state in expected]


def test_the_mask_is_for_the_first_cell_of_a_deep_transition():
    first, second = fill(RNNCell(1, 1)), fill(RNNCell(0, 1))
    x, state = tensor([[X[0]]]).double(), HiddenState(tensor([[H]]).double())
    masked = DeepTransition([first, second])(x, state, torch.zeros(1, 1).double())
    assert masked.hidden.item() == pytest.approx(tanh(U[0] * tanh(W[0] * X[0] + B[0]) + B[0]))


@pytest.mark.parametrize(
    "cell", [RNNCell(1, 1), LSTMCell(1, 1), LectureLSTMCell(1, 1), GRUCell(1, 1), GRUCell(1, 1, reset="before")]
)
def test_the_mask_is_on_what_the_recurrence_reads_and_on_nothing_else(cell):
    """With U h(t-1) masked to 0, only the direct ways are left: as with U = 0."""
    fill(cell)
    x = tensor([[X[0]]]).double()
    state = cell.state(*(tensor([[value]]).double() for value in (H, C)[: len(cell.state_sizes)]))
    masked = cell(x, state, torch.zeros(1, 1).double())
    cell.recurrent_weight.data.zero_()
    assert_close(tuple(masked), tuple(cell(x, state)))


# ---- sizes


def weights(cell: Cell) -> int:
    """Parameters, biases not counted."""
    return sum(parameter.numel() for parameter in cell.parameters()) - cell.bias.numel()


def test_parameters_are_as_many_as_the_paper_says():
    """Sak et al. 2014, sections 2 and 3, without the output layer: 4 nc nc + 4 ni nc + 3 nc, and with projections."""
    ni, nc, nr, n_p = 5, 11, 3, 2
    assert weights(LSTMCell(ni, nc, peepholes=True)) == 4 * nc * nc + 4 * ni * nc + 3 * nc
    assert weights(LSTMCell(ni, nc, peepholes=True, projection=nr)) == 4 * nc * nr + 4 * ni * nc + nc * nr + 3 * nc
    both = LSTMCell(ni, nc, peepholes=True, projection=nr, extra_projection=n_p)
    assert weights(both) == 4 * nc * nr + 4 * ni * nc + nc * (nr + n_p) + 3 * nc


def test_the_state_of_a_projected_cell_is_as_wide_as_it_puts_out():
    cell = LSTMCell(2, 5, projection=2, extra_projection=1)
    after: Tensor = cell(torch.ones(4, 2), cell.zero_state(4)).hidden
    assert (cell.output_size, cell.state_sizes, after.size(1)) == (3, (3, 5), 3)


def test_a_cell_refuses_what_it_would_ignore():
    with pytest.raises(ValueError, match="extra_projection 2 stands beside a projection, which is 0"):
        LSTMCell(2, 5, extra_projection=2)
    with pytest.raises(ValueError, match="the reset gate is applied after or before the product, not 'befor'"):
        GRUCell(2, 5, reset="befor")
