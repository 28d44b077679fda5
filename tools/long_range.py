"""How far back can each learn? Vanilla RNN and LSTM, first order and Hessian-free: `python tools/long_range.py`.

The task is the adding problem, or temporal order (Hochreiter & Schmidhuber 1997; Martens & Sutskever 2011), at growing
lengths: `long_memory/tasks.py` has both. The methods of one network start from the same weights, and every run has the
same processor time, counted in its updates; it ends early when the error on fresh sequences is below 0.01. A
first-order method is run at each of its rates until one learns the task, and gets the best; Hessian-free is run once,
as it comes. All sequences are fresh. A method that has failed at `--patience` lengths in a row is not run at longer
ones.

Prints a line per length and method as it ends, and the table; with `--plot FILE` draws the error by length (needs
matplotlib: pip install matplotlib).
"""

import argparse

import torch
from arguments import Help, picture, real, whole
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("--task", choices=TASKS, default="adding", help="what is to be learnt")
    add(
        "--lengths",
        type=whole(10),
        nargs="+",
        default=[20, 30, 50, 70, 100, 150, 200],
        help="of a sequence, from 10: the marks stand in its tenths",
    )
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="networks and how they are trained")
    add("--seconds", type=real(0, above=True), default=60, help="processor time of each run")
    add("--seeds", type=whole(0), nargs="+", default=[1], help="of weights and sequences")
    add(
        "--patience",
        type=whole(1),
        default=1,
        help="lengths failed in a row, after which none follow",
    )
    add("--hidden", type=whole(1), default=50, help="units")
    add("--start", choices=STARTS, default="orthogonal", help="of the vanilla RNN")
    add(
        "--forget-bias",
        type=real(),
        default=4,
        help="of the LSTM at the start, as Le et al. (2015) tried on this task",
    )
    add("--batch", type=whole(1), default=20, help="of first-order methods")
    add("--large-batch", type=whole(1), default=1000, help="of Hessian-free")
    add("--curvature-batch", type=whole(1), default=200, help="what of it gives the curvature")
    add("--damping", type=real(0, above=True), default=0.01, help="lambda at the start")
    add("--structural-damping", type=real(0), default=0.1, help="mu")
    add("--max-iterations", type=whole(1), default=100, help="of conjugate gradients")
    add("--plot", type=picture, help="a .png, .pdf or .svg to write")
    options = parser.parse_args()
    if options.curvature_batch > options.large_batch:
        parser.error(f"--curvature-batch: it is a part of --large-batch, {options.large_batch}, so at most that")
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
