"""Where the time of an update goes, by named parts of the model, forward and backward together.

The parts of a forward pass are marked by ranges around modules; an operation of the backward pass belongs to the part
whose operation it undoes, which autograd's sequence numbers say. Time in no operation at all (Python between them)
belongs to the innermost range around it, or to the rest.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

import nmt.training
from benchmarks.measure import Report
from nmt.batches import BatchLoader
from nmt.model.recurrent import Layer

REST = "rest"
PARTS = (
    "recurrence",
    "input products",
    "attention",
    "readout",
    "output layer and loss",
    "optimiser",
    "data",
    REST,
)


class Profile(Callback):
    """Marks the parts of the model that is trained while it is entered, and sums their times."""

    def __init__(self, device: torch.device, warm_up: int = 3) -> None:
        self.device, self.warm_up = device, warm_up
        self.seconds: dict[str, float] = {}
        self.operations: dict[str, float] = {}
        self.stack = ExitStack()

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Put ranges around the parts."""
        model: Any = module.model
        self._mark(nmt.training, "cross_entropy", "output layer and loss")
        self._mark(BatchLoader, "__iter__", "data", _iterating)
        self._mark(module, "training_step", REST)
        self._mark(module, "backward", REST)
        self._mark(module, "configure_gradient_clipping", "optimiser")
        self._mark(model.output, "forward", "output layer and loss")
        self._mark(model.decoder.readout, "forward", "readout")
        for name in ("prepare", "forward"):
            self._mark(model.decoder.attention, name, "attention")
        for layer in model.modules():
            if isinstance(layer, Layer):
                self._mark(layer, "forward", "recurrence")
                for cell in layer.cells:
                    if hasattr(cell, "products"):
                        self._mark(cell, "products", "input products")

    def _mark(self, owner: Any, name: str, part: str, how: Callable[..., Any] | None = None) -> None:
        marked = (how or _calling)(getattr(owner, name), part)
        self.stack.enter_context(patch.object(owner, name, marked))

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Begin after some updates to warm up."""
        if trainer.global_step == self.warm_up:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
            self.running = self.stack.enter_context(profile(activities=kinds))

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Sum up."""
        self.stack.close()
        events, on_gpu = self.running.events() or [], self.device.type == "cuda"
        self.seconds, self.operations = shares(events, on_gpu)

    def show(self, report: Report) -> None:
        """A line for each part."""
        every = sum(self.seconds.values())
        for part in PARTS:
            share = self.seconds.get(part, 0.0) / every
            report.say(f"    {part:<24} {share:6.1%}", kind="profile", name=part, share=share)
        largest = sorted(self.operations.items(), key=lambda one: -one[1])[:6]
        report.say("    of the rest: " + ", ".join(f"{name} {own / every:.1%}" for name, own in largest))


def shares(events: Any, on_gpu: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each part, and of each operation of the rest: own times, on the GPU or on the CPU.

    What is listed as of the GPU itself, kernels and ranges, is in the times of the operations that asked for it.
    """
    events = [event for event in events if event.device_type == DeviceType.CPU]
    found: dict[str, float] = defaultdict(float)
    rest: dict[str, float] = defaultdict(float)
    parts_of_sequence = {
        event.sequence_nr: part_of(event)
        for event in events
        if event.sequence_nr >= 0 and not any(map(undoes, above(event)))
    }
    for event in events:
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        part = part_of(event, parts_of_sequence)
        found[part] += own / 1e6
        if part == REST:
            rest["Python" if event.name == REST else event.name.rpartition(": ")[2]] += own / 1e6
    return dict(found), dict(rest)


def part_of(event: Any, parts_of_sequence: dict[int, str] | None = None) -> str:
    """The part that an operation belongs to: that of the innermost range around it, or of what it undoes."""
    for around in above(event):
        if around.name in PARTS:
            return str(around.name)
        if around.name.startswith("Optimizer.step"):
            return "optimiser"
        if parts_of_sequence is not None and undoes(around):
            return parts_of_sequence.get(around.sequence_nr, REST)
    return REST


def above(event: Any) -> Iterator[Any]:
    """An operation and all that it runs within, innermost first."""
    while event is not None:
        yield event
        event = event.cpu_parent


def undoes(event: Any) -> bool:
    """Whether it is a step of the backward pass."""
    return str(event.name).startswith("autograd::engine::evaluate_function")


def _calling(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    def marked(*arguments: Any, **named: Any) -> Any:
        with record_function(part):
            return function(*arguments, **named)

    return marked


def _iterating(function: Callable[..., Iterator[Any]], part: str) -> Callable[..., Iterator[Any]]:
    def marked(*arguments: Any) -> Iterator[Any]:
        iterator = function(*arguments)
        while True:
            with record_function(part):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    return marked
