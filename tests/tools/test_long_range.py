"""The sequences that the long-range tasks are made of, what is counted on them, and the command that climbs."""

import math
import re
import sys
from argparse import Namespace

import long_range
import pytest
import torch
from long_memory import training
from long_memory.report import table
from long_memory.tasks import DISTRACTORS, MARKS, TASKS, adding, temporal_order
from long_memory.training import LSTM, METHODS, Result, VanillaRNN
from torch import tensor
from torch.testing import assert_close

from nmt.model.cells import HiddenState

# torch's own, at the first forward derivative of a process


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


# ---- sequences


@pytest.mark.parametrize(("length", "first", "second"), [(10, {0}, {1, 2, 3, 4}), (20, {0, 1}, set(range(2, 10)))])
def test_two_numbers_are_marked_and_their_sum_is_asked(length, first, second):
    x, targets = adding(400, length)
    assert (tuple(x.shape), tuple(targets.shape)) == ((length, 400, 2), (400, 1))
    numbers, marks = x.unbind(dim=2)
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1
    seen: list[set[int]] = [set(), set()]
    for case in range(400):
        one, two = [step for step in range(length) if marks[step, case]]  # just two, the first first
        assert marks[one, case] == marks[two, case] == 1
        assert float(targets[case]) == float(numbers[one, case] + numbers[two, case])
        seen[0].add(one)
        seen[1].add(two)
    assert seen == [first, second]  # of 400, each place is met


@pytest.mark.parametrize(("length", "first", "second"), [(10, {1}, {5}), (20, {2, 3}, {10, 11})])
def test_two_marks_stand_in_their_tenths_and_their_order_is_asked(length, first, second):
    x, classes = temporal_order(400, length)
    assert tuple(x.shape) == (length, 400, MARKS + DISTRACTORS)
    assert (x.sum(dim=2) == 1).all()
    symbols = x.argmax(dim=2)
    seen: list[set[int]] = [set(), set()]
    for case in range(400):
        one, two = [step for step in range(length) if symbols[step, case] < MARKS]
        assert int(classes[case]) == 2 * symbols[one, case] + symbols[two, case]
        seen[0].add(one)
        seen[1].add(two)
    assert seen == [first, second]
    assert set(classes.tolist()) == {0, 1, 2, 3}
    assert set(symbols.unique().tolist()) == set(range(MARKS + DISTRACTORS))


def test_guessing_has_the_error_that_is_stated():
    """One who always says 1 errs by the variance of two numbers, 2 / 12; one class of four is right in a quarter."""
    _, sums = adding(100_000, 10)
    assert TASKS["adding"].error(torch.ones_like(sums), sums) == pytest.approx(1 / 6, abs=3e-3)  # deviation 6e-4
    _, classes = temporal_order(100_000, 10)
    always = tensor([[0.0, 0, 1, 0]]).expand(100_000, 4)
    assert TASKS["temporal-order"].error(always, classes) == pytest.approx(3 / 4, abs=7e-3)  # deviation 1.4e-3
    assert [task.guessing for task in TASKS.values()] == [1 / 6, 3 / 4]


def test_errors_by_hand():
    assert TASKS["adding"].error(tensor([[1.0], [0.5]]), tensor([[1.0], [1.5]])) == 0.5
    logits = tensor([[0.0, 3, 1, 2], [5, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    assert TASKS["temporal-order"].error(logits, tensor([1, 0, 2, 0])) == 0.25


# ---- networks


@pytest.mark.parametrize("start", training.STARTS)
def test_the_vanilla_rnn_is_its_cell_in_a_loop(start):
    network = VanillaRNN(TASKS["adding"], 5, start)
    x, _ = adding(3, 10)
    state, states = HiddenState(torch.zeros(3, 5)), []
    for step in x.unbind():
        state = network.cell(step, state)
        states.append(state.hidden)
    found = network(x)
    assert_close(found.hidden, torch.stack(states))
    assert_close(found.predictions, network.output(state.hidden))


def test_the_lstm_answers_from_its_last_state():
    network = LSTM(TASKS["temporal-order"], 5, 3.0)
    found = network(temporal_order(3, 10)[0])
    assert_close(found.predictions, network.output(found.hidden[:, -1]))
    [cell] = network.layer.cells
    assert cell.bias.tolist() == [0.0] * 5 + [3.0] * 5 + [0.0] * 10  # rows i, f, g, o


def test_every_optimizer_starts_from_the_same_weights():
    options = Namespace(hidden=5, start="orthogonal")
    networks = [training.build(METHODS[name], TASKS["adding"], options, 3) for name in METHODS if "rnn" in name]
    assert len(networks) == 3
    for network in networks:
        assert all(map(torch.equal, network.parameters(), networks[0].parameters()))


# ---- running


@pytest.mark.parametrize(("errors", "run"), [([0.1, 0.009, 0.1], [1.0, 2.0]), ([0.1, 0.3, 0.2], [1.0, 2.0, 3.0])])
def test_rates_are_tried_until_one_learns_and_the_best_is_taken(monkeypatch, errors, run):
    tried = []

    def scripted(network, task, method, rate, length, options):
        tried.append(rate)
        return Result(errors[len(tried) - 1], rate, 5, 2.0)

    monkeypatch.setattr(training, "run", scripted)
    method = training.Method("rnn", "sgd", (1.0, 2.0, 3.0))
    best = training.best_of(method, TASKS["adding"], 10, 1, Namespace(hidden=2, start="uniform"))
    assert tried == run
    assert best.error == min(errors[: len(run)])


def test_a_run_ends_when_the_task_is_learnt_or_the_time_is_spent(monkeypatch):
    """The clock advances by 1 at each reading, so that an update takes a second."""
    clock, errors = iter(range(10_000)), iter([0.5, 0.2, 0.005])
    monkeypatch.setattr(training.time, "process_time", lambda: float(next(clock)))
    monkeypatch.setattr(training, "judge", lambda *_: next(errors))
    options = Namespace(hidden=2, start="uniform", batch=2, seconds=40.0)
    task, method = TASKS["adding"], METHODS["rnn-sgd"]
    network = training.build(method, task, options, 1)
    # looked at first, then every 40 / 20 = 2 seconds: after updates 1, 3, 5
    assert training.run(network, task, method, 0.1, 10, options) == Result(0.005, 0.1, 5, 5.0)
    errors = iter([0.5] * 30)
    assert training.run(network, task, method, 0.1, 10, options) == Result(0.5, 0.1, 40, 40.0)
    errors = iter([math.nan] * 2)  # a run that went astray has learnt nothing
    assert training.run(network, task, method, 0.1, 10, options) == Result(math.inf, 0.1, 1, 1.0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_updates_every_weight(name):
    options = Namespace(
        hidden=4, start="orthogonal", forget_bias=1.0, batch=8, large_batch=30, curvature_batch=10, seconds=1e-9,
        damping=1.0, structural_damping=0.1, max_iterations=5,
    )  # fmt: skip
    task, method = TASKS["adding"], METHODS[name]
    network = training.build(method, task, options, 1)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    result = training.run(network, task, method, method.rates[0], 10, options)
    assert result.updates == 1
    assert not any(map(torch.equal, network.parameters(), before))


def test_a_method_that_failed_twice_in_a_row_goes_no_further(monkeypatch, capsys):
    errors = {20: 0.2, 30: 0.001, 50: 0.2, 70: 0.2}
    monkeypatch.setattr(long_range, "best_of", lambda _m, _t, length, *_: Result(errors[length], 0.1, 1234, 2.0))
    found = {}
    options = Namespace(task="adding", lengths=[100, 70, 50, 30, 20], patience=2)
    long_range.climb("rnn-sgd", 7, options, found)
    assert {length: result.error for length, [result] in found["rnn-sgd"].items()} == errors
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "seed 7, length  20, rnn-sgd: squared error 0.2000, 1,234 updates in 2 s, rate 0.1"


def test_the_table_has_medians_counts_and_what_was_given_up():
    def results(*errors):
        return [Result(error, 0.1, 1, 1.0) for error in errors]

    found = {"rnn-sgd": {20: results(0.3, 0.001, 0.2)}, "lstm-adam": {20: results(0.004), 150: results(0.02)}}
    assert table(found, TASKS["adding"]).splitlines() == [
        "                    20          150",
        "rnn-sgd    0.200 (1/3)            -",
        "lstm-adam  0.004 (1/1)  0.020 (0/1)",
    ]


def test_sequences_too_short_for_tenths_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["long_range.py", "--lengths", "50", "9"])
    with pytest.raises(SystemExit, match=r"^2$"):
        long_range.main()
    assert "argument --lengths: must be at least 10, not 9" in capsys.readouterr().err


def test_the_command_prints_a_table_and_draws(monkeypatch, capsys, tmp_path):
    small = "--lengths 10 20 --patience 2 --seconds 0.01 --hidden 4 --seeds 1 2"
    small += " --large-batch 20 --curvature-batch 10 --max-iterations 3"
    monkeypatch.setattr(sys, "argv", ["long_range.py", *small.split(), "--plot", str(tmp_path / "far.png")])
    long_range.main()
    rows = capsys.readouterr().out.splitlines()[-6:]
    assert rows[0].split() == ["10", "20"]
    assert [row.split()[0] for row in rows[1:]] == list(METHODS)
    assert all(len(re.findall(r"\d\.\d{3} \([0-2]/2\)", row)) == 2 for row in rows[1:])
    assert (tmp_path / "far.png").read_bytes().startswith(b"\x89PNG")
