"""The recurrence alone: layers forward and backward, beside torch's own LSTM (oneDNN on a CPU, cuDNN on a GPU)."""

import argparse
import statistics
from functools import partial
from typing import Any

import torch
from arguments import whole
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.measure import Report, Run, multiplies_bf16, timed
from nmt.model.cells import GRUCell, LectureLSTMCell, LSTMCell, RNNCell
from nmt.model.recurrent import CellMaker, Layer
from nmt.model.recurrent import Path as Way


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument("--batch", type=whole(1), default=128, metavar="ROWS", help="default: 128")
    parser.add_argument("--steps", type=whole(2), default=20, help="words of a row; default: 20")
    parser.add_argument("--hidden", type=whole(1), default=512, help="cells; default: 512")
    parser.add_argument("--repeats", type=whole(1), default=7, help="default: 7")


class Stack(nn.Module):
    """Layers on top of each other, as in the encoder, run in a given way or in the one that they choose here."""

    def __init__(self, layers: int, inputs: int, hidden: int, cell: CellMaker, way: Way | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = Layer(inputs, hidden, cell=cell)
            if way:
                layer.path = lambda *_: way  # type: ignore[method-assign]
            self.layers.append(layer)
            inputs = layer.output_size

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Outputs of the top layer."""
        for layer in self.layers:
            x, _ = layer(x, None, lengths)
        return x


def products(model: nn.Module) -> int:
    """Weights that every word is multiplied by."""
    return sum(weight.numel() for name, weight in model.named_parameters() if weight.dim() == 2 and "peep" not in name)


def both_ways(model: nn.Module, x: Tensor, bf16: bool, *inputs: Any) -> Run:
    """Forward, and backward to the weights and the input."""

    def run() -> None:
        x.grad = None
        model.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
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
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[0].data


def run(options: argparse.Namespace, report: Report) -> None:
    """A stack of two layers, forward and backward, by its cells, against its steps, and against its layers."""
    rows, steps = options.batch, options.steps
    lengths = (0.4 * steps + torch.arange(rows) * 0.6 * steps / rows).ceil().long().clamp(max=steps)
    fill = int(lengths.sum()) / (rows * steps)
    print(f"{rows} rows of {steps} steps, {options.hidden} cells, two layers; padded: {fill:.0%} filled")
    kinds = ["bf16", "fp32"] if multiplies_bf16(report.device) else ["fp32"]
    for kind in kinds:
        cells(options, report, kind, lengths)
    growth(options, report, kinds[0])


def cells(options: argparse.Namespace, report: Report, kind: str, lengths: Tensor) -> None:
    """Every cell, beside torch's LSTM."""
    hidden, device = options.hidden, report.device
    x = torch.randn(options.batch, options.steps, hidden, device=device, requires_grad=True)
    every, filled = options.batch * options.steps, int(lengths.sum())
    stack, wide = partial(Stack, 2, hidden), f"{2 * hidden} cells"
    ours: Way = "unrolled"
    models: dict[str, tuple[nn.Module, int, str]] = {
        "torch.nn.LSTM": (TorchLSTM(hidden, hidden, 2), every, ""),
        "ours": (stack(hidden, LSTMCell, ours), every, "torch.nn.LSTM"),
        "ours, the way chosen here": (stack(hidden, LSTMCell), every, "torch.nn.LSTM"),
        "torch.nn.LSTM, padded and packed": (TorchLSTM(hidden, hidden, 2), filled, ""),
        "ours, padded": (stack(hidden, LSTMCell, ours), filled, "torch.nn.LSTM, padded and packed"),
        "ours, peepholes": (stack(hidden, partial(LSTMCell, peepholes=True), ours), every, "ours"),
        "ours, lecture's LSTM": (stack(hidden, LectureLSTMCell, ours), every, ""),
        "ours, GRU": (stack(hidden, GRUCell, ours), every, ""),
        "ours, vanilla RNN": (stack(hidden, RNNCell, ours), every, ""),
        f"torch.nn.LSTM, {wide}": (TorchLSTM(hidden, 2 * hidden, 2), every, ""),
        f"ours, {wide}": (stack(2 * hidden, LSTMCell, ours), every, f"torch.nn.LSTM, {wide}"),
        f"ours, {wide} projected to {hidden}": (
            *(stack(2 * hidden, partial(LSTMCell, projection=hidden), ours), every),
            f"ours, {wide}",
        ),
    }
    runs = {
        name: both_ways(
            model.to(device), x, kind == "bf16", *([lengths.to(device)] if words == filled != every else [])
        )
        for name, (model, words, _) in models.items()
    }
    seconds = timed(runs, options.repeats, device=device)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    for name, (model, words, other) in models.items():
        note = f"{middle[name] / middle[other]:.2f} x {other}" if other else ""
        report.time(kind, name, seconds[name], 6.0 * words * products(model), note)


def growth(options: argparse.Namespace, report: Report, kind: str) -> None:
    """Time and memory as sentences get longer, and as layers are added: both should grow in proportion."""
    rows, hidden, bf16 = options.batch, options.hidden, kind == "bf16"
    settings = [(2, options.steps * times // 2) for times in (1, 2, 4, 8, 16)]
    settings += [(layers, options.steps) for layers in (1, 2, 4)]
    for layers, steps in settings:
        stack = Stack(layers, hidden, hidden, LSTMCell, "unrolled").to(report.device)
        x = torch.randn(rows, steps, hidden, device=report.device, requires_grad=True)
        seconds = timed({"": both_ways(stack, x, bf16)}, max(3, options.repeats // 2), device=report.device)[""]
        piece = 1000 * statistics.median(seconds) / steps / layers
        figures = {"ms_per_step_and_layer": piece, "mb_per_step": kept(stack, x, bf16) / steps / 1e6}
        note = f"{piece:.2f} ms a step and layer, {figures['mb_per_step']:.2f} MB a step"
        name = f"ours, {layers} layer{'s' * (layers > 1)}, {steps} steps"
        report.time(kind, name, seconds, 6.0 * rows * steps * products(stack), note, **figures)


def kept(model: nn.Module, x: Tensor, bf16: bool) -> int:
    """Bytes that a forward pass keeps for the way back, weights not counted."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            output = model(x)
        del output
    return sum(found.values())
