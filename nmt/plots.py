"""Pictures; they need matplotlib, the `plots` extra."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = (".png", ".pdf", ".svg")


def check_picture(name: str) -> None:
    """Refuse a picture that could not be drawn in the end. ValueError, or ModuleNotFoundError without matplotlib."""
    if Path(name).suffix not in FORMATS:
        raise ValueError(f"{name}: a picture is a file with one of the endings {', '.join(FORMATS)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pictures need matplotlib: pip install matplotlib") from error


def heat_map(
    attention: "Tensor", source_pieces: Sequence[str], target_pieces: Sequence[str], path: Path, format: str
) -> None:
    """Draw attention (T, S), a row for each target piece, a column for each source piece and the last for EOS."""
    from matplotlib.figure import Figure

    columns = [*source_pieces, "</s>"]
    figure = Figure(figsize=(2 + 0.3 * len(columns), 2 + 0.3 * len(target_pieces)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(attention.float().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(target_pieces)), target_pieces)
    axes.xaxis.tick_top()
    figure.colorbar(image, label="attention")
    figure.savefig(path, format=format, dpi=150)
