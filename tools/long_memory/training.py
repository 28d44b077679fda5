"""The networks, and their training: the methods of one network from the same weights, with the same processor time.

Shapes: **T** steps, **B** sequences, **E** inputs, **H** units, **V** outputs.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from long_memory.tasks import Task
from nmt.hessian_free import HessianFree, Objective, Outputs
from nmt.model.cells import LSTMCell, RNNCell
from nmt.model.recurrent import Layer

TEST_SEQUENCES = 1000
LOOKS = 20  # at fresh sequences, while a run lasts
STARTS = ("orthogonal", "uniform")


class VanillaRNN(nn.Module):
    """Reads a sequence and answers at its end; a plain loop, as curvature is taken through it.

    It starts as its cell does, with an orthogonal recurrence; or `uniform`, as torch.nn.RNN does, everything within
    H^-1/2, where the gradient vanishes from the first.
    """

    def __init__(self, task: Task, hidden: int, start: str) -> None:
        super().__init__()
        self.cell, self.output = RNNCell(task.inputs, hidden), nn.Linear(hidden, task.outputs)
        if start == "uniform":
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Tensor) -> Outputs:
        """Read x (T, B, E); the answers (B, V) and all hidden states (T, B, H)."""
        hidden, weight, states = x.new_zeros(x.size(1), self.cell.hidden_size), self.cell.recurrent_weight.t(), []
        for products in self.cell.products(x).unbind():
            hidden = torch.addmm(products, hidden, weight).tanh()
            states.append(hidden)
        return Outputs(self.output(hidden), torch.stack(states))


class LSTM(nn.Module):
    """The same of an LSTM, through the fused kernel; it starts as its cell does, but for the forget bias."""

    def __init__(self, task: Task, hidden: int, forget_bias: float) -> None:
        super().__init__()
        cell = LSTMCell(task.inputs, hidden)
        cell.add_forget_bias(forget_bias - 1)  # it has 1 already
        self.layer = Layer(task.inputs, hidden, cell=lambda *_: cell)
        self.output = nn.Linear(hidden, task.outputs)

    def forward(self, x: Tensor) -> Outputs:
        """Read x (T, B, E); the answers (B, V) and all hidden states (B, T, H)."""
        states, last = self.layer(x.transpose(0, 1))
        return Outputs(self.output(last.hidden), states)


class Method(NamedTuple):
    """A network, how it is trained, and the rates of which it gets the best."""

    network: str
    optimizer: str
    rates: tuple[float, ...]


METHODS = {
    "rnn-sgd": Method("rnn", "sgd", (0.03, 0.1)),
    "rnn-adam": Method("rnn", "adam", (3e-4, 1e-3)),
    "rnn-hessian-free": Method("rnn", "hessian-free", (0.0,)),
    "lstm-adam": Method("lstm", "adam", (1e-3, 3e-3)),
    "lstm-sgd": Method("lstm", "sgd", (0.3, 1.0)),
}
FIRST_ORDER = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
Network = VanillaRNN | LSTM
Update = Callable[[], object]


class Result(NamedTuple):
    """How one run ended."""

    error: float  # of fresh sequences
    rate: float
    updates: int
    seconds: float  # of processor time, in updates


def build(method: Method, task: Task, options: argparse.Namespace, seed: int) -> Network:
    """A network; of one seed, the same weights for every optimiser."""
    torch.manual_seed(seed)
    if method.network == "lstm":
        return LSTM(task, options.hidden, options.forget_bias)
    return VanillaRNN(task, options.hidden, options.start)


def first_order(
    network: Network, task: Task, optimizer: torch.optim.Optimizer, length: int, options: argparse.Namespace
) -> Update:
    """Updates by a method of torch's, the gradient clipped at norm 1."""

    def update() -> None:
        x, targets = task.sequences(options.batch, length)
        optimizer.zero_grad()
        task.loss.mean(network(x).predictions, targets).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return update


def hessian_free(network: Network, task: Task, length: int, options: argparse.Namespace) -> Update:
    """Updates by the Hessian-free optimiser, each on its own large batch, the curvature from a part of it."""
    optimizer = HessianFree(
        network.named_parameters(),
        damping=options.damping,
        structural_damping=options.structural_damping,
        max_iterations=options.max_iterations,
    )

    def objective(x: Tensor, targets: Tensor) -> Objective:
        return Objective(lambda parameters: torch.func.functional_call(network, parameters, (x,)), targets, task.loss)

    def update() -> None:
        x, targets = task.sequences(options.large_batch, length)
        part = slice(options.curvature_batch)
        optimizer.step(objective=objective(x, targets), curvature=objective(x[:, part], targets[part]))

    return update


@torch.no_grad()
def judge(network: Network, task: Task, length: int) -> float:
    """The error on fresh sequences."""
    x, targets = task.sequences(TEST_SEQUENCES, length)
    return task.error(network(x).predictions, targets)


def run(network: Network, task: Task, method: Method, rate: float, length: int, options: argparse.Namespace) -> Result:
    """Update until the time is spent or the task is learnt."""
    if method.optimizer == "hessian-free":
        update = hessian_free(network, task, length, options)
    else:
        optimizer = FIRST_ORDER[method.optimizer](network.parameters(), lr=rate)
        update = first_order(network, task, optimizer, length, options)
    updates, looks, seconds, error = 0, 0, 0.0, float("inf")
    while seconds < options.seconds and error >= task.solved:
        begin = time.process_time()
        update()
        updates, seconds = updates + 1, seconds + time.process_time() - begin
        if seconds > looks * options.seconds / LOOKS:
            error, looks = judge(network, task, length), looks + 1
    error = error if error < task.solved else judge(network, task, length)
    return Result(float("inf") if math.isnan(error) else error, rate, updates, seconds)


def best_of(method: Method, task: Task, length: int, seed: int, options: argparse.Namespace) -> Result:
    """The best of its rates, tried until one learns the task."""
    results: list[Result] = []
    for rate in method.rates:
        results.append(run(build(method, task, options, seed), task, method, rate, length, options))
        if results[-1].error < task.solved:
            break
    return min(results)
