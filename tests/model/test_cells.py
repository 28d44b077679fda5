"""The LSTM cell with a pencil: sigmoid(log n) = n / (n + 1) and tanh(log(n) / 2) = (n - 1) / (n + 1)."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from nmt.model.cells import LSTMCell, LSTMState

LOG2, LOG3, LOG7 = math.log(2), math.log(3), math.log(7)

# Two units, all eight values different in effect: i = 3/4, 1/4; f = 1/2, 7/8; g = 1/2, 3/5; o = 1/4, 1/2.
GATES = tensor([LOG3, -LOG3, 0, LOG7, LOG3 / 2, LOG2, -LOG3, 0])


def fixed_gates(input_size: int = 1) -> LSTMCell:
    """Whatever is read, the gates are as above."""
    cell = LSTMCell(input_size, 2)
    for parameter in cell.parameters():
        torch.nn.init.zeros_(parameter)
    cell.bias.data.copy_(GATES)
    return cell


def test_two_steps_by_hand():
    cell = fixed_gates()
    one = cell(tensor([[5.0]]), LSTMState(tensor([[9.0, 9.0]]), tensor([[1.0, 2.0]])))
    assert_close(one.cell, tensor([[7 / 8, 19 / 10]]))  # 1/2 * 1 + 3/4 * 1/2; 7/8 * 2 + 1/4 * 3/5
    assert_close(one.hidden, tensor([[math.tanh(7 / 8) / 4, math.tanh(19 / 10) / 2]]))
    two = cell(tensor([[6.0]]), one)
    assert_close(two.cell, tensor([[13 / 16, 29 / 16]]))  # 1/2 * 7/8 + 3/8; 7/8 * 19/10 + 3/20
    assert_close(two.hidden, tensor([[math.tanh(13 / 16) / 4, math.tanh(29 / 16) / 2]]))


def test_the_gates_add_what_the_word_the_state_and_the_bias_say():
    cell = LSTMCell(2, 2)
    cell.input_weight.data.fill_(99.0)[:, 0] = 3 * GATES  # x = (1, 0) reads the first column
    cell.recurrent_weight.data.fill_(99.0)[:, 1] = -4 * GATES  # h = (0, 1) reads the second
    cell.bias.data.copy_(2 * GATES)
    after = cell(tensor([[1.0, 0.0]]), LSTMState(tensor([[0.0, 1.0]]), tensor([[1.0, 2.0]])))
    assert_close(after.cell, tensor([[7 / 8, 19 / 10]]))
    assert_close(after.hidden, tensor([[math.tanh(7 / 8) / 4, math.tanh(19 / 10) / 2]]))


def test_each_row_has_its_own_state():
    cell = fixed_gates()
    after = cell(tensor([[0.0], [0.0]]), LSTMState(torch.zeros(2, 2), tensor([[1.0, 2.0], [0.0, 0.0]])))
    assert_close(after.cell, tensor([[7 / 8, 19 / 10], [3 / 8, 3 / 20]]))


def test_the_state_before_the_first_word_is_zero():
    after = fixed_gates()(torch.zeros(3, 1), fixed_gates().zero_state(3))
    assert_close(after.cell, tensor([[3 / 8, 3 / 20]] * 3))  # i * g alone


@pytest.mark.parametrize("value", [1.0, -2.0])
def test_a_new_cell_remembers(value):
    cell = LSTMCell(3, 2)
    cell.add_forget_bias(value - 1.0)
    assert cell.bias.tolist() == [0, 0, value, value, 0, 0, 0, 0]


def test_each_gate_starts_with_an_orthogonal_recurrence():
    for gate in LSTMCell(3, 5).recurrent_weight.detach().split(5):
        assert_close(gate @ gate.T, torch.eye(5))


def test_input_weights_start_within_glorots_limit():
    limit = math.sqrt(6 / (20 + 30))  # of a 30 x 20 matrix, not of all four gates' together
    largest = [float(gate.abs().max()) for gate in LSTMCell(20, 30).input_weight.detach().split(30)]
    assert all(0.9 * limit < value <= limit for value in largest)
