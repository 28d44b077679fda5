"""How fast it is on this machine: `python tools/bench.py recurrent`.

Each line is the median of several timed runs, taken in turn so that a disturbance meets all alike, with their spread;
the rate is set against the peak of a large matrix product, measured in the same run. Let nothing else run beside it.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from nmt.model.cells import GRUCell, LectureLSTMCell, LSTMCell, RNNCell
from nmt.model.recurrent import CellMaker, Layer
from nmt.model.recurrent import Path as Way

Run = Callable[[], object]


def timed(runs: dict[str, Run], repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat of each run, after two to warm up; the runs take turns."""
    for run in runs.values():
        run()
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - start)
    return found


def peak(kind: torch.dtype) -> float:
    """GFLOP/s of a product of 2048 x 2048 matrices."""
    size = 2048
    x, y = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    seconds = timed({"product": lambda: x @ y}, 9)["product"]
    return 2 * size**3 / statistics.median(seconds) / 1e9


class Table:
    """Prints a line per run, and keeps what it printed."""

    def __init__(self, peaks: dict[str, float]) -> None:
        self.peaks, self.lines = peaks, list[dict[str, Any]]()

    def add(self, kind: str, name: str, seconds: list[float], flops: float, note: str = "") -> None:
        """A line: the median of `seconds`, and the rate that so many multiplications and additions make of it."""
        median = statistics.median(seconds)
        spread = (max(seconds) - min(seconds)) / median
        rate = flops / median / 1e9
        line = {"kind": kind, "name": name, "ms": 1000 * median, "spread": spread, "gflops": rate}
        self.lines.append(line | {"of_peak": rate / self.peaks[kind]})
        share = f"{rate:6.0f} GFLOP/s {rate / self.peaks[kind]:5.0%}"
        print(f"{kind} {name:<38} {1000 * median:8.1f} ms +-{spread / 2:4.0%} {share}  {note}".rstrip(), flush=True)


class Stack(nn.Module):
    """Layers on top of each other, as in the encoder."""

    def __init__(self, layers: int, inputs: int, hidden: int, cell: CellMaker, way: Way) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = Layer(inputs, hidden, cell=cell)
            layer.path = lambda *_: way  # type: ignore[method-assign]
            self.layers.append(layer)
            inputs = layer.output_size

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Outputs of the top layer."""
        for layer in self.layers:
            x, _ = layer(x, None, lengths)
        return x

    def flops(self, words: int) -> float:
        """Multiplications and additions of forward and backward: three products with every matrix, per word."""
        return (
            6.0 * words * sum(p.numel() for name, p in self.named_parameters() if p.dim() == 2 and "peep" not in name)
        )


def both_ways(model: nn.Module, x: Tensor, bf16: bool, *inputs: Any) -> Run:
    """Forward, and backward to the weights and the input."""

    def run() -> None:
        x.grad = None
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = model(x, *inputs)
        y.float().sum().backward()

    return run


class TorchLSTM(nn.Module):
    """torch.nn.LSTM; given lengths, by way of PackedSequence."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Outputs, packed if there are lengths."""
        if lengths is None:
            return self.lstm(x)[0]
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[0].data


def recurrent(options: argparse.Namespace, table: Table) -> None:
    """A stack of two layers, T = 20, B = 128, H = 512, forward and backward."""
    rows, steps, hidden = options.batch, options.steps, options.hidden
    x = torch.randn(rows, steps, hidden, requires_grad=True)
    lengths = (0.4 * steps + torch.arange(rows) * 0.6 * steps / rows).ceil().long().clamp(max=steps)  # 70 % of words
    words, filled = rows * steps, int(lengths.sum())
    print(f"{rows} rows of {steps} steps, {hidden} cells, two layers; padded: {filled / words:.0%} filled")
    for kind in ("bf16", "fp32"):
        bf16 = kind == "bf16"
        theirs = TorchLSTM(hidden, hidden, 2)
        stack = partial(Stack, 2, hidden)
        ours = stack(hidden, LSTMCell, "unrolled")
        wide = TorchLSTM(hidden, 1024, 2)
        models: dict[str, tuple[nn.Module, int, tuple[Any, ...]]] = {
            "torch.nn.LSTM": (theirs, words, ()),
            "ours": (ours, words, ()),
            "torch.nn.LSTM, padded and packed": (theirs, filled, (lengths,)),
            "ours, padded": (ours, filled, (lengths,)),
            "ours, peepholes": (stack(hidden, partial(LSTMCell, peepholes=True), "unrolled"), words, ()),
            "ours, lecture's LSTM": (stack(hidden, LectureLSTMCell, "unrolled"), words, ()),
            "ours, GRU": (stack(hidden, GRUCell, "unrolled"), words, ()),
            "ours, vanilla RNN": (stack(hidden, RNNCell, "unrolled"), words, ()),
            "ours, 1024 cells": (stack(1024, LSTMCell, "unrolled"), words, ()),
            "torch.nn.LSTM, 1024 cells": (wide, words, ()),
            "ours, 1024 cells projected to 512": (
                stack(1024, partial(LSTMCell, projection=512), "unrolled"),
                words,
                (),
            ),
        }
        runs = {name: both_ways(model, x, bf16, *inputs) for name, (model, _, inputs) in models.items()}
        seconds = timed(runs, options.repeats)
        middle = {name: statistics.median(times) for name, times in seconds.items()}
        against = {
            "ours": "torch.nn.LSTM",
            "ours, padded": "torch.nn.LSTM, padded and packed",
            "ours, peepholes": "ours",
            "ours, 1024 cells projected to 512": "ours, 1024 cells",
        }
        for name, (model, count, _) in models.items():
            flops = (
                6.0 * count * sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "peep" not in n)
            )
            other = against.get(name)
            table.add(
                kind, name, seconds[name], flops, f"{middle[name] / middle[other]:.2f} x {other}" if other else ""
            )
    growth(options, table)


def growth(options: argparse.Namespace, table: Table) -> None:
    """Time and memory as sentences get longer, and as layers are added: both should grow in proportion."""
    for steps in (10, 20, 40, 80, 160):
        stack = Stack(2, options.hidden, options.hidden, LSTMCell, "unrolled")
        x = torch.randn(options.batch, steps, options.hidden, requires_grad=True)
        run = both_ways(stack, x, True)
        seconds = timed({"": run}, max(3, options.repeats // 2))[""]
        note = (
            f"{1000 * statistics.median(seconds) / steps:.2f} ms a step, {kept(stack, x) / steps / 1e6:.2f} MB a step"
        )
        table.add("bf16", f"ours, {steps} steps", seconds, stack.flops(options.batch * steps), note)
    for layers in (1, 2, 4):
        stack = Stack(layers, options.hidden, options.hidden, LSTMCell, "unrolled")
        x = torch.randn(options.batch, options.steps, options.hidden, requires_grad=True)
        seconds = timed({"": both_ways(stack, x, True)}, max(3, options.repeats // 2))[""]
        note = f"{1000 * statistics.median(seconds) / layers:.1f} ms a layer"
        table.add("bf16", f"ours, {layers} layers", seconds, stack.flops(options.batch * options.steps), note)


def kept(model: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for the way back, weights not counted."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x)
        del output
    return sum(found.values())


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["recurrent"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    torch.manual_seed(1)
    peaks = {"bf16": peak(torch.bfloat16), "fp32": peak(torch.float32)}
    machine = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    print(f"{machine}; product of 2048 x 2048: bf16 {peaks['bf16']:.0f}, fp32 {peaks['fp32']:.0f} GFLOP/s")
    table = Table(peaks)
    {"recurrent": recurrent}[options.what](options, table)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {memory:.2f} GB")
    if options.json:
        found = {"machine": machine, "peaks": peaks, "peak_memory_gb": memory, "lines": table.lines}
        part = options.json.with_name(options.json.name + ".part")
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf8")
        part.replace(options.json)


if __name__ == "__main__":
    main()
