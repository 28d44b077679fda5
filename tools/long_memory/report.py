"""Table and figure of how far back each method learns."""

from pathlib import Path
from statistics import median

from long_memory.tasks import Task
from long_memory.training import Result

Results = dict[str, dict[int, list[Result]]]  # by method and length, one for each seed


def table(found: Results, task: Task) -> str:
    """A row per method: the median error of the seeds at each length, and how many of them learnt it."""
    lengths = sorted({length for by_length in found.values() for length in by_length})
    rows = [["", *map(str, lengths)]]
    for name, by_length in found.items():
        rows.append([name, *(_cell(by_length.get(length, []), task) for length in lengths)])
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = (
        name.ljust(first) + "".join(f"  {text:>{width}}" for text, width in zip(cells, widths, strict=True))
        for name, *cells in rows
    )
    return "\n".join(lines)


def _cell(results: list[Result], task: Task) -> str:
    """Such as `0.168 (1/3)`, or `-` for what was given up before."""
    if not results:
        return "-"
    learnt = sum(result.error < task.solved for result in results)
    return f"{median(result.error for result in results):.3f} ({learnt}/{len(results)})"


def plot(found: Results, task: Task, path: Path) -> None:
    """The error by length, on a logarithmic scale: a line through the medians, a dot for each seed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (name, by_length) in enumerate(found.items()):
        line = {"color": f"C{number}", "linestyle": "--" if name.startswith("lstm") else "-"}
        axes.plot(
            list(by_length), [median(r.error for r in results) for results in by_length.values()], label=name, **line
        )
        for length, results in by_length.items():
            axes.plot([length] * len(results), [result.error for result in results], ".", color=f"C{number}")
    for height, note in ((task.guessing, "guessing"), (task.solved, "learnt")):
        axes.axhline(height, color="grey", linewidth=0.7)
        axes.annotate(
            note, (0.99, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize="small"
        )
    axes.set_yscale("log")
    axes.set_xlabel("length of the sequence")
    axes.set_ylabel(task.measure)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
