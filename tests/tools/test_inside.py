"""What the tools that look inside say of networks whose answer is known."""

import math

import dynamics
import gradient_flow
import long_range
import pytest
import torch
from torch import tensor

from nmt.model.cells import LSTMCell, RNNCell

# ---- gradients back through time


def reader(cell, hidden: int = 3) -> gradient_flow.Reader:
    torch.manual_seed(1)
    return gradient_flow.Reader(cell, hidden, 1.0)


SYMBOLS = tensor([[1, 4, 0, 7], [3, 3, 2, 5]])


def test_without_a_recurrence_no_error_goes_back():
    network = reader(RNNCell)
    network.layer.cells[0].recurrent_weight.data.zero_()
    *before, last = network.flow(SYMBOLS)["dE/dh"]
    assert before == [0.0, 0.0, 0.0]
    assert last > 0


def test_each_step_multiplies_by_the_recurrence():
    """Input weights 0: h stays 0, tanh' = 1, and dE/dh(t-1) = U' dE/dh(t), here half of it."""
    network = reader(RNNCell)
    [cell] = network.layer.cells
    cell.input_weight.data.zero_()
    cell.recurrent_weight.data.copy_(0.5 * torch.eye(3))
    flow = network.flow(SYMBOLS)["dE/dh"]
    assert flow == pytest.approx([flow[-1] / 8, flow[-1] / 4, flow[-1] / 2, flow[-1]])


@pytest.mark.parametrize("name", gradient_flow.CELLS)
def test_the_last_output_is_told_by_the_output_layer_alone(name):
    """dE/dh(T) = (p - y) W, of softmax p and the symbol y that is asked for."""
    network = reader(gradient_flow.CELLS[name], hidden=4)
    outputs, _ = network.layer(torch.nn.functional.one_hot(SYMBOLS, 8).float())
    errors = network.output(outputs[:, -1]).softmax(dim=1)
    errors[torch.arange(2), SYMBOLS[:, 0]] -= 1
    expected = (errors @ network.output.weight).norm(dim=1).mean().item()
    assert network.flow(SYMBOLS)["dE/dh"][-1] == pytest.approx(expected, rel=1e-4)


def test_an_open_memory_carries_the_error_whole():
    """f = 1, and no recurrence: dE/dc is the same at every step but that the last h is made of the last c alone."""
    network = reader(LSTMCell)
    [cell] = network.layer.cells
    cell.recurrent_weight.data.zero_()
    cell.add_forget_bias(100.0)
    flow = network.flow(SYMBOLS)
    assert flow["dE/dh"][:-1] == [0.0, 0.0, 0.0]
    assert flow["dE/dc"] == pytest.approx([flow["dE/dc"][-1]] * 4, rel=1e-5)


# ---- free motion


def rotation(gain: float) -> RNNCell:
    """Two units that turn by one radian a step, stretched by the gain."""
    cell = RNNCell(0, 2).double()
    turn = [[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]]
    cell.recurrent_weight.data.copy_(gain * tensor(turn))
    return cell


def test_a_turn_that_shrinks_comes_to_rest_at_the_rate_it_shrinks():
    torch.manual_seed(1)
    motion = dynamics.follow(rotation(0.5), 200, 200)
    assert motion.kind == "fixed point"
    assert motion.exponent == pytest.approx(math.log(0.5), abs=1e-6)


@pytest.mark.slow
def test_a_turn_that_grows_ends_in_a_cycle():
    torch.manual_seed(1)
    motion = dynamics.follow(rotation(1.3), 500, 3000)
    assert motion.kind == "limit cycle"
    assert motion.exponent == pytest.approx(0, abs=2e-3)
    assert motion.step > 0.1


def test_a_saturated_flip_flop_is_a_cycle_though_no_difference_survives():
    cell = RNNCell(0, 1).double()
    cell.recurrent_weight.data.fill_(-100.0)
    torch.manual_seed(1)
    assert dynamics.follow(cell, 50, 50) == dynamics.Motion(-math.inf, 2.0, "limit cycle")


def test_what_is_still_on_its_way_to_rest_is_no_cycle():
    """A turn that shrinks by 1 % a step: after 20 steps each is still 0.8 of its length, after 2000 nothing is left."""
    for settle, kind in ((20, "not settled"), (2000, "fixed point")):
        torch.manual_seed(1)
        assert dynamics.follow(rotation(0.99), settle, 200).kind == kind


@pytest.mark.parametrize(
    ("tool", "flags", "complaint"),
    [
        (gradient_flow, ["--length=-1"], "argument --length: must be at least 1, not -1"),
        (gradient_flow, ["--updates=0"], "argument --updates: must be at least 1, not 0"),
        (gradient_flow, ["--hidden=x"], "argument --hidden: must be a whole number, not 'x'"),
        (gradient_flow, ["--plot=x.xyz"], "argument --plot: x.xyz: a picture is a file with one of the endings .png"),
        (gradient_flow, ["--plot=/nowhere/x.png"], "argument --plot: /nowhere is not a folder: make it first"),
        (dynamics, ["--gains=nan"], "argument --gains: must be finite, not nan"),
        (dynamics, ["--gains=-1"], "argument --gains: must be at least 0, not -1"),
        (long_range, ["--damping=0"], "argument --damping: must be above 0, not 0"),
        (dynamics, ["--gains=x"], "argument --gains: must be a number, not 'x'"),
        (long_range, ["--curvature-batch=50", "--large-batch=10"], "it is a part of --large-batch, 10, so at most"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(monkeypatch, capsys, tool, flags, complaint):
    monkeypatch.setattr("sys.argv", ["tool", *flags])
    with pytest.raises(SystemExit, match=r"^2$"):
        tool.main()
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err


def test_a_strong_random_recurrence_is_chaos():
    torch.manual_seed(1)
    motion = dynamics.follow(dynamics.random_cell("rnn", 100, 4.0), 300, 500)
    assert motion.kind == "chaos"
    assert motion.exponent > 0.1


@pytest.mark.parametrize("name", dynamics.CELLS)
def test_a_weak_random_recurrence_is_rest(name):
    torch.manual_seed(1)
    assert dynamics.follow(dynamics.random_cell(name, 20, 0.1), 300, 300).kind == "fixed point"
