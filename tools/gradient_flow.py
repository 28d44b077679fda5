"""How an error fades or grows on its way back through time, cell by cell: `python tools/gradient_flow.py`.

A network reads a sequence and must say at its end which symbol stood first; E is that loss. What is measured is the
norm of dE/dh(t) for every step t, and of dE/dc(t) where a cell has a memory: before training, where the cell and its
start alone decide, and after training on shorter sequences. In a vanilla RNN it vanishes, or explodes where the
recurrence is made large (`--gain`); the memory of an LSTM carries it (the lecture's slides on vanishing and exploding
gradients; Bengio et al. 1994; Pascanu et al. 2013).

Prints the norms, and with `--plot FILE` draws them (needs matplotlib: pip install matplotlib).
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from arguments import Help, picture, real, whole
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.cells import Cell, GRUCell, LayerNormLSTMCell, LectureLSTMCell, LSTMCell, RNNCell
from nmt.model.recurrent import CellMaker, Layer

SYMBOLS = 8
CELLS: dict[str, CellMaker] = {
    "rnn": RNNCell,
    "lecture-lstm": LectureLSTMCell,
    "lstm": LSTMCell,
    "lstm, peepholes": partial(LSTMCell, peepholes=True),
    "lstm, projection": lambda inputs, hidden: LSTMCell(inputs, hidden, projection=hidden // 2),
    "layer-norm-lstm": LayerNormLSTMCell,
    "gru": GRUCell,
    "gru, reset before": partial(GRUCell, reset="before"),
}


class Reader(nn.Module):
    """A layer that reads symbols and names the first of them at the end."""

    def __init__(self, cell: CellMaker, hidden: int, gain: float) -> None:
        super().__init__()
        self.layer = Layer(SYMBOLS, hidden, cell=cell)
        self.output = nn.Linear(self.layer.output_size, SYMBOLS)
        for part in self.layer.cells:
            part.recurrent_weight.data *= gain

    def loss(self, symbols: Tensor) -> Tensor:
        """Mean cross-entropy of symbols (B, T)."""
        outputs, _ = self.layer(F.one_hot(symbols, SYMBOLS).float())
        return F.cross_entropy(self.output(outputs[:, -1]), symbols[:, 0])

    def flow(self, symbols: Tensor) -> dict[str, list[float]]:
        """Norms of dE/dh(t), and dE/dc(t), t = 1 ... T of symbols (B, T): the mean over sequences, E being of each."""
        [cell] = self.layer.cells
        assert isinstance(cell, Cell)
        state, states = cell.zero_state(symbols.size(0)), []
        for words in F.one_hot(symbols, SYMBOLS).float().unbind(dim=1):
            state = cell(words, state)
            states.append(state)
        loss = F.cross_entropy(self.output(state.hidden), symbols[:, 0], reduction="sum")
        found = {}
        for part, field in enumerate(state._fields):
            slopes = torch.autograd.grad(loss, [step[part] for step in states], retain_graph=True)
            found[f"dE/d{field[0]}"] = [float(slope.norm(dim=1).mean()) for slope in slopes]
        return found


def train(reader: Reader, options: argparse.Namespace) -> float:
    """Adam, on sequences of `train_length`; the loss at the end."""
    optimizer, loss = torch.optim.Adam(reader.parameters(), lr=3e-3), torch.zeros(())
    for _ in range(options.updates):
        optimizer.zero_grad()
        loss = reader.loss(torch.randint(SYMBOLS, (options.batch, options.train_length)))
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
    return loss.item()


def measure(options: argparse.Namespace) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Norms by "untrained" and "trained", then by cell, then by what is differentiated; a line is printed for each."""
    steps = [step for step in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500) if step < options.length]
    print("norm so many steps before the end:")
    print(f"{'':<40}" + "".join(f"{step:>9}" for step in steps))
    found: dict[str, dict[str, dict[str, list[float]]]] = {"untrained": {}, "trained": {}}
    for name in options.cells:
        torch.manual_seed(options.seed)
        reader = Reader(CELLS[name], options.hidden, options.gain)
        symbols = torch.randint(SYMBOLS, (options.batch, options.length))
        found["untrained"][name] = reader.flow(symbols)
        loss = train(reader, options)
        found["trained"][name] = reader.flow(symbols)
        for stage, cells in found.items():
            for what, norms in cells[name].items():
                note = f"{name}, {what}, {stage}" + (f" to {loss:.2f}" if stage == "trained" else "")
                print(f"{note:<40}" + "".join(f"{norms[-1 - step]:>9.1e}" for step in steps), flush=True)
    return found


def plot(found: dict[str, dict[str, dict[str, list[float]]]], path: Path) -> None:
    """One panel before training and one after, the norms on a logarithmic scale; memories are dashed."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axes, (stage, cells) in zip(panels, found.items(), strict=True):
        for number, (name, flows) in enumerate(cells.items()):
            for what, norms in flows.items():
                line = {"color": f"C{number}", "linestyle": "-" if what == "dE/dh" else "--"}
                axes.semilogy(
                    range(len(norms) - 1, -1, -1), [max(norm, 1e-30) for norm in norms], label=f"{name}, {what}", **line
                )
        axes.set_title(stage)
        axes.set_xlabel("steps before the end")
    panels[0].set_ylabel("norm of dE/dh(t) and dE/dc(t)")
    panels[1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--length", type=whole(1), default=101, help="steps of the sequences measured on")
    parser.add_argument("--train-length", type=whole(1), default=20, help="steps of those trained on")
    parser.add_argument("--updates", type=whole(1), default=300, help="of that training")
    parser.add_argument("--hidden", type=whole(2), default=64, help="units of a cell")
    parser.add_argument("--batch", type=whole(1), default=64, help="sequences")
    parser.add_argument("--gain", type=real(0), default=1.0, help="what the recurrent weights are multiplied by")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="quoted where they have a blank")
    parser.add_argument("--seed", type=whole(0), default=1, help="of weights and sequences")
    parser.add_argument("--plot", type=picture, help="a .png, .pdf or .svg to write")
    options = parser.parse_args()
    found = measure(options)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
