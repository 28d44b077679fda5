"""Can a vanilla RNN learn what lies far back? Hessian-free against first-order training: `python tools/long_range.py`.

The task is temporal order (Hochreiter & Schmidhuber 1997, experiment 6a), as in Martens & Sutskever 2011: a sequence
of distractors holds one of two marks in its second tenth and again in its sixth; which marks, and in which order, is
asked at the end (4 classes, so that guessing is wrong 75 % of the time).

Every run starts from the same weights and has the same processor time, and ends early when fewer than 1 % of 2000 fresh
sequences are wrong. Each first-order method is run at every rate of its grid and gets the best; Hessian-free is run
once, as it comes. All sequences are fresh. Two things decide as much as the optimiser: the start (from `uniform`, that
of torch.nn.RNN, the gradient vanishes; from an orthogonal recurrence it does not, and Adam learns this length too), and
luck: try several seeds, as Hessian-free does not succeed from all of them.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.hessian_free import HessianFree, Objective, Outputs
from nmt.model.cells import RNNCell

MARKS, DISTRACTORS = 2, 4
TEST_SEQUENCES = 2000
SOLVED = 0.01
RATES = {"sgd": (1.0, 0.1, 0.01), "rmsprop": (1e-2, 1e-3, 1e-4), "adam": (1e-2, 1e-3, 1e-4)}
FIRST_ORDER = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}
Update = Callable[[], object]


class Result(NamedTuple):
    """How one run ended."""

    error: float  # share of wrong answers
    loss: float  # per sequence
    seconds: float  # of processor time
    updates: int


class Reader(nn.Module):
    """A vanilla RNN that reads a sequence and answers at its end."""

    def __init__(self, hidden: int, start: str) -> None:
        super().__init__()
        self.cell, self.output = RNNCell(MARKS + DISTRACTORS, hidden), nn.Linear(hidden, MARKS**2)
        if start == "uniform":
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Tensor) -> Outputs:
        """Read x (T, B, 6); the answer (B, 4) and all hidden states (T, B, H)."""
        state, hidden = self.cell.zero_state(x.size(1)), []
        for symbol in x.unbind():
            state = self.cell(symbol, state)
            hidden.append(state.hidden)
        return Outputs(self.output(state.hidden), torch.stack(hidden))


def sequences(cases: int, length: int) -> tuple[Tensor, Tensor]:
    """Fresh sequences (T, B, 6), one-hot, and their classes (B,)."""
    symbols = torch.randint(MARKS, MARKS + DISTRACTORS, (length, cases))  # (T, B)
    marks = torch.randint(MARKS, (2, cases))
    for tenth, mark in zip((1, 5), marks, strict=True):
        places = torch.randint(tenth * length // 10, (tenth + 1) * length // 10, (1, cases))
        symbols.scatter_(0, places, mark[None])
    return F.one_hot(symbols, MARKS + DISTRACTORS).float(), MARKS * marks[0] + marks[1]


def first_order(network: Reader, name: str, rate: float, options: argparse.Namespace) -> Update:
    """Updates by a method of torch's, the gradient clipped at norm 1."""
    optimizer = FIRST_ORDER[name](network.parameters(), lr=rate)

    def update() -> None:
        x, targets = sequences(options.batch, options.length)
        optimizer.zero_grad()
        F.cross_entropy(network(x).logits, targets).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return update


def hessian_free(network: Reader, options: argparse.Namespace) -> Update:
    """Updates by the Hessian-free optimiser, each on its own large batch."""
    optimizer = HessianFree(
        network.named_parameters(),
        damping=options.damping,
        structural_damping=options.structural_damping,
        max_iterations=options.max_iterations,
    )

    def update() -> None:
        x, targets = sequences(options.large_batch, options.length)
        forward = Objective(lambda parameters: torch.func.functional_call(network, parameters, (x,)), targets)
        optimizer.step(objective=forward)

    return update


@torch.no_grad()
def judge(network: Reader, length: int) -> tuple[float, float]:
    """(share of wrong answers, loss) on fresh sequences."""
    x, targets = sequences(TEST_SEQUENCES, length)
    logits = network(x).logits
    return float((logits.argmax(1) != targets).float().mean()), float(F.cross_entropy(logits, targets))


def run(network: Reader, update: Update, options: argparse.Namespace) -> Result:
    """Update until the time is spent or the task is learnt, looking thirty times."""
    begin, updates, looks, error = time.process_time(), 0, 0, 1.0
    while (seconds := time.process_time() - begin) < options.seconds and error >= SOLVED:
        update()
        updates += 1
        if 30 * seconds > looks * options.seconds:
            error, _ = judge(network, options.length)
            looks += 1
    return Result(*judge(network, options.length), seconds, updates)


def best_of(name: str, options: argparse.Namespace) -> tuple[str, Result]:
    """The best rate of an optimiser, and its result; every run is printed as it ends."""
    results: dict[str, Result] = {}
    for rate in RATES.get(name, (0.0,)):
        torch.manual_seed(options.seed)
        network = Reader(options.hidden, options.start)
        update = first_order(network, name, rate, options) if rate else hessian_free(network, options)
        results[shown := f"{rate:g}" if rate else "-"] = result = run(network, update, options)
        print(f"  {name:<14}{shown:>8}  wrong {result.error:6.1%}  loss {result.loss:6.3f}", flush=True)
    return min(results.items(), key=lambda item: item[1])


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=100, help="of a sequence (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="processor time of each run (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=50, help="tanh units (default: %(default)s)")
    parser.add_argument("--start", choices=("uniform", "orthogonal"), default="uniform", help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="of first-order methods (default: %(default)s)")
    parser.add_argument("--large-batch", type=int, default=500, help="of Hessian-free (default: %(default)s)")
    parser.add_argument("--damping", type=float, default=0.03, help="lambda at the start (default: %(default)s)")
    parser.add_argument("--structural-damping", type=float, default=0.1, help="mu (default: %(default)s)")
    parser.add_argument("--max-iterations", type=int, default=100, help="of an update (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and sequences (default: %(default)s)")
    parser.add_argument("--optimizers", nargs="+", choices=(*RATES, "hessian-free"), default=(*RATES, "hessian-free"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"temporal order, length {options.length}, {options.hidden} tanh units, {options.start} start")
    rows = {name: best_of(name, options) for name in options.optimizers}
    print(f"\n{'optimiser':<14}{'best rate':>10}{'updates':>9}{'seconds':>9}{'wrong':>8}{'loss':>8}")
    for name, (rate, result) in rows.items():
        figures = f"{result.updates:>9}{result.seconds:>9.0f}{result.error:>8.1%}{result.loss:>8.3f}"
        print(f"{name:<14}{rate:>10}{figures}")


if __name__ == "__main__":
    main()
