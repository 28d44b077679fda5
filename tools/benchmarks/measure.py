"""How the benchmarks measure: clocks, the peak of the machine, and the lines that they print and keep.

A figure with a spread is the median of several timed runs; of recurrences, which take turns, so that a disturbance
meets all alike. Rates are set against the peak of a large matrix product, measured in the same run.
"""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import whole_peak
from nmt import native
from nmt.model.products import Repeated
from nmt.training import choose_precision

Run = Callable[[], object]
CPU = torch.device("cpu")


# ---- time


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done all that it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(runs: dict[str, Run], repeats: int, warm_up: int = 2, device: torch.device = CPU) -> dict[str, list[float]]:
    """Seconds of each repeat of each run, after some to warm up; the runs take turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-warm_up, repeats):
        for name, run in runs.items():
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            if number >= 0:
                found[name].append(time.perf_counter() - start)
    return found


def spread(values: Sequence[float]) -> float:
    """From the least to the greatest, as a share of the median."""
    return (max(values) - min(values)) / statistics.median(values)


# ---- the machine


def peaks(device: torch.device, size: int = 2048) -> dict[str, float]:
    """GFLOP/s of a product of square matrices, by precision; bf16 only where the device multiplies it in hardware.

    In fp32 a CPU has two libraries, torch's choice and oneDNN: the peak is that of the faster.
    """
    found: dict[str, list[float]] = {}
    x, y = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    laid = Repeated(y, size, 2)  # for more than one product, so by oneDNN on a CPU
    ways: dict[str, Run] = {"torch fp32": lambda: x @ y, "oneDNN fp32": lambda: laid(x)}
    if multiplies_bf16(device):
        x16, y16 = x.bfloat16(), y.bfloat16()
        ways["torch bf16"] = lambda: x16 @ y16
    found = timed(ways, 9, device=device)
    rates = {name: 2 * size**3 / statistics.median(seconds) / 1e9 for name, seconds in found.items()}
    kinds = sorted({name.split()[1] for name in ways})
    return {kind: max(rate for name, rate in rates.items() if name.endswith(kind)) for kind in kinds}


def multiplies_bf16(device: torch.device) -> bool:
    """Whether training would choose bf16 here."""
    return choose_precision("auto", device) == "bf16-mixed"


def describe(device: torch.device) -> str:
    """The machine in a line."""
    name = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    capability = torch.backends.cpu.get_cpu_capability()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kernels = "torch's kernels alone" if native.library() is None else "our own kernels and torch's"
    threads = f"{torch.get_num_threads()} threads on {cores} cores"
    return f"{name} ({capability}), {threads}, torch {torch.__version__}, {kernels}"


# ---- what is printed and kept


class Report:
    """Prints a line per figure, and keeps what it printed."""

    def __init__(self, peaks: dict[str, float], device: torch.device = CPU) -> None:
        self.peaks, self.device = peaks, device
        self.lines = list[dict[str, Any]]()

    def introduce(self, machine: str) -> None:
        """The machine and its peaks."""
        rates = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in self.peaks.items())
        print(f"{machine}\nproduct of 2048 x 2048 matrices: {rates} GFLOP/s", flush=True)
        if "bf16" not in self.peaks:
            print("no bf16 in hardware here, so no share of its peak", flush=True)

    def say(self, text: str, **figures: Any) -> None:
        """A line, with the figures in it for programs."""
        print(text, flush=True)
        if figures:
            self.lines.append(figures)

    def time(
        self, kind: str, name: str, seconds: Sequence[float], flops: float = 0.0, note: str = "", **figures: Any
    ) -> None:
        """The median of `seconds`, their spread, and the rate that so many multiplications and additions make of it."""
        median, wide, share = statistics.median(seconds), spread(seconds), ""
        line = {"kind": kind, "name": name, "ms": 1000 * median, "spread": wide, "repeats": len(seconds), **figures}
        if flops:
            rate = flops / median / 1e9
            line |= {"gflops": rate, "of_peak": rate / self.peaks[kind] if kind in self.peaks else None}
            share = f"{rate:7.1f} GFLOP/s {self.of_peak(kind, rate)}"
        duration = f"{1000 * median:9.1f} ms +-{wide / 2:4.0%}"
        self.say(f"{kind:4} {name:<38} {duration} {share}  {note}".rstrip(), **line)

    def of_peak(self, kind: str, rate: float) -> str:
        """A rate as a share of the peak, where that was measured."""
        return f"{rate / self.peaks[kind]:4.0%} of peak" if kind in self.peaks else ""

    def write(self, path: Path, command: str, machine: str) -> None:
        """All that was kept, as JSON, whole or not at all."""
        found = {"command": command, "date": datetime.date.today().isoformat(), "machine": machine}
        found |= {"peaks_gflops": self.peaks, "peak_memory_gb": whole_peak(), "lines": self.lines}
        beside = path.with_name(path.name + ".part")
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
        beside.replace(path)
