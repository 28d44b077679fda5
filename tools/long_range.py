"""How far back can each learn? Vanilla RNN and LSTM, first order and Hessian-free: `python tools/long_range.py`.

The task is the adding problem, or temporal order (Hochreiter & Schmidhuber 1997; Martens & Sutskever 2011), at growing
lengths: `long_memory/tasks.py` has both. The methods of one network start from the same weights, and every run has the
same processor time, counted in its updates; it ends early when the error on fresh sequences is below 0.01. A
first-order method is run at each of its rates until one learns the task, and gets the best; Hessian-free is run once,
as it comes. All sequences are fresh. A method that has failed at `--patience` lengths in a row is not run at longer
ones.

Prints a line per length and method as it ends, and the table; with `--plot FILE` draws the error by length (needs
matplotlib: pip install 'nmt[plots]').
"""

import argparse
from pathlib import Path

import torch
from long_memory.report import Results, plot, table
from long_memory.tasks import TASKS
from long_memory.training import METHODS, STARTS, best_of


def climb(name: str, seed: int, options: argparse.Namespace, found: Results) -> None:
    """One method at growing lengths, until it has failed too often."""
    task, failures = TASKS[options.task], 0
    for length in sorted(options.lengths):
        if failures == options.patience:
            return
        result = best_of(METHODS[name], task, length, seed, options)
        found.setdefault(name, {}).setdefault(length, []).append(result)
        failures = failures + 1 if result.error >= task.solved else 0
        figures = f"{task.measure} {result.error:.4f}, {result.updates:,} updates in {result.seconds:.0f} s"
        print(
            f"seed {seed}, length {length:>3}, {name}: {figures}" + f", rate {result.rate:g}" * (result.rate > 0),
            flush=True,
        )


def main() -> None:
    """Run all, print the table and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--task", choices=TASKS, default="adding", help="(default: %(default)s)")
    add(
        "--lengths",
        type=int,
        nargs="+",
        default=[20, 30, 50, 70, 100, 150, 200],
        help="of a sequence, from 10 (default: %(default)s)",
    )
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="(default: all)")
    add("--seconds", type=float, default=60, help="processor time of each run (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[1], help="of weights and sequences (default: %(default)s)")
    add(
        "--patience",
        type=int,
        default=1,
        help="lengths failed in a row, after which none follow (default: %(default)s)",
    )
    add("--hidden", type=int, default=50, help="units (default: %(default)s)")
    add("--start", choices=STARTS, default="orthogonal", help="of the vanilla RNN (default: %(default)s)")
    add(
        "--forget-bias",
        type=float,
        default=4,
        help="of the LSTM at the start, as Le et al. (2015) tried on this task (default: %(default)s)",
    )
    add("--batch", type=int, default=20, help="of first-order methods (default: %(default)s)")
    add("--large-batch", type=int, default=1000, help="of Hessian-free (default: %(default)s)")
    add("--curvature-batch", type=int, default=200, help="what of it gives the curvature (default: %(default)s)")
    add("--damping", type=float, default=0.01, help="lambda at the start (default: %(default)s)")
    add("--structural-damping", type=float, default=0.1, help="mu (default: %(default)s)")
    add("--max-iterations", type=int, default=100, help="of conjugate gradients (default: %(default)s)")
    add("--plot", type=Path, help="a .png, .pdf or .svg to write")
    options = parser.parse_args()
    if min(options.lengths) < 10:
        parser.error(
            f"--lengths: the marks stand in tenths of a sequence, so {min(options.lengths)} is too short: from 10"
        )
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # where gradients vanish, they would cost a fifth of the time
    found: Results = {}
    for seed in options.seeds:
        for name in options.methods:
            climb(name, seed, options, found)
    print("", table(found, TASKS[options.task]), sep="\n")
    if options.plot:
        plot(found, TASKS[options.task], options.plot)


if __name__ == "__main__":
    main()
