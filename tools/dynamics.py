"""What a recurrent state does when nothing is read: `python tools/dynamics.py`.

The recurrent weights of a cell are drawn at random, N(0, gain^2 / H), and the state goes its own way from a random
start. As the gain grows a vanilla RNN passes from rest to cycles to chaos (Sompolinsky et al. 1988; Bertschinger &
Natschlaeger 2004): the edge where errors neither vanish nor explode. The largest Lyapunov exponent tells them apart:
the mean growth, per step, of the logarithm of a small difference between two states (Benettin et al. 1980).

- *fixed point*: the state comes to rest;
- *limit cycle*: it does not, yet differences do not grow;
- *chaos*: they grow;
- *not settled*: it is still on its way to rest, so longer `--settle` is needed.

Prints a table, and with `--plot FILE` draws it (needs matplotlib: pip install matplotlib).
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from arguments import Help, picture, real, whole
from torch import Tensor

from nmt.model.cells import Cell, GRUCell, LectureLSTMCell, LSTMCell, RNNCell, like

CELLS = {"rnn": RNNCell, "lecture-lstm": LectureLSTMCell, "lstm": LSTMCell, "gru": GRUCell}
GAINS = [0.5, 0.9, 1.1, 1.5, 2, 3, 5, 10, 20]
STILL = 1e-7  # a step no longer than this is rest
NEUTRAL = 2e-3  # exponents nearer to 0 than this are not told from 0


class Motion(NamedTuple):
    """How a state moved."""

    exponent: float  # largest Lyapunov exponent, in nats per step
    step: float  # length of the last step, per root of the number of units
    kind: str


def random_cell(name: str, hidden: int, gain: float) -> Cell:
    """A cell that reads nothing, with recurrent weights N(0, gain^2 / H) and biases 0."""
    cell = CELLS[name](0, hidden).double()
    cell.recurrent_weight.data.normal_(0, gain / hidden**0.5)
    for parameter in cell.parameters():
        if parameter.dim() == 1:
            parameter.data.zero_()
    return cell


def follow(cell: Cell, settle: int, steps: int) -> Motion:
    """Let a random state run `settle` steps, then measure over `steps` more."""
    nothing, sizes = torch.zeros(1, 0, dtype=torch.float64), cell.state_sizes
    blank = cell.zero_state(1)

    def advance(flat: Tensor) -> Tensor:
        """One step of the state, all its parts side by side (1, M)."""
        return torch.cat(list(cell(nothing, like(blank, flat.split(list(sizes), dim=1)))), dim=1)

    state = torch.randn(1, sum(sizes), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(settle):
            state = advance(state)
    tangent, growth, lengths = torch.randn_like(state), 0.0, list[float]()
    tangent /= tangent.norm()
    for _ in range(steps):
        after, tangent = torch.func.jvp(advance, (state,), (tangent,))
        tangent = tangent.detach()
        norm = float(tangent.norm())
        growth += torch.tensor(norm).log().item()  # -inf where nothing is left of the difference
        lengths.append(float((after.detach() - state).norm()) / state.numel() ** 0.5)
        state = after.detach()
        tangent = tangent / norm if norm else torch.randn_like(state)
    return Motion(growth / steps, lengths[-1], _kind(growth / steps, lengths))


def _kind(exponent: float, lengths: list[float]) -> str:
    """What exponent and lengths of the steps say: those of a cycle come again, those on the way to rest shrink."""
    if lengths[-1] < STILL:
        return "fixed point"
    if exponent > NEUTRAL:
        return "chaos"
    half = len(lengths) // 2
    return "not settled" if sum(lengths[-half:]) < sum(lengths[:half]) / 2 else "limit cycle"


def plot(found: dict[str, dict[float, Motion]], path: Path) -> None:
    """The exponent against the gain, one line per cell."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, motions in found.items():
        axes.plot(list(motions), [motion.exponent for motion in motions.values()], marker="o", label=name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("gain of the recurrence")
    axes.set_ylabel("largest Lyapunov exponent, nats per step")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="which are left to themselves")
    parser.add_argument("--gains", nargs="+", type=real(0), default=GAINS, help="of the recurrence")
    parser.add_argument("--hidden", type=whole(1), default=200, help="units of a cell")
    parser.add_argument("--settle", type=whole(0), default=1000, help="steps before measuring")
    parser.add_argument("--steps", type=whole(2), default=1000, help="steps measured over")
    parser.add_argument("--seed", type=whole(0), default=1, help="of weights and start")
    parser.add_argument("--plot", type=picture, help="a .png, .pdf or .svg to write")
    options = parser.parse_args()
    print(f"{'cell':<14}{'gain':>6}{'exponent':>11}{'last step':>11}  kind")
    found: dict[str, dict[float, Motion]] = {}
    for name in options.cells:
        for gain in options.gains:
            torch.manual_seed(options.seed)
            motion = follow(random_cell(name, options.hidden, gain), options.settle, options.steps)
            found.setdefault(name, {})[gain] = motion
            print(f"{name:<14}{gain:>6g}{motion.exponent:>11.4f}{motion.step:>11.1e}  {motion.kind}", flush=True)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
