"""What another translator is told, how it is installed and run; `opennmt` and `joeynmt` are the two.

Both are of early 2024 and ask for libraries of their time. They are installed without their own requirements, which
are listed here as far as training and translating need them, beside the torch that we run on.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks.processes import BenchmarkError, Watched, watch

OURS = {"PYTHONPATH", "THP_MEM_ALLOC_ENABLE"}  # variables that are not passed on: others run as they come
TORCH = f"torch=={torch.__version__.partition('+')[0]}"


class Setting(NamedTuple):
    """What every system is told."""

    folder: Path  # with train.src, train.tgt, test.src, few.src in pieces, and vocabulary.txt
    hidden: int
    embedding: int
    layers: int
    attention: str  # general or none
    sentences: int  # of a batch
    updates: int
    every: int  # updates between two lines of the log
    longest: int  # pieces of a translation
    threads: int


class Speed(NamedTuple):
    """How fast a text was translated."""

    seconds: float  # without start-up
    sentences: int
    pieces: int


@dataclass(frozen=True)
class System:
    """A translator in an environment of its own."""

    name: str
    package: str
    needs: tuple[str, ...]
    absent: tuple[str, ...] = ()  # modules that it imports and here never calls
    attentions: tuple[str, ...] = ("general", "none")

    def train(self, python: Path, setting: Setting) -> list[float]:
        """Target words a second of each stretch of updates, the first left out."""
        rates = self.rates(self.start(self.training(python, setting), setting).text)[1:]
        if not rates:
            raise BenchmarkError(f"{self.name} logged no speed: ask for at least two stretches of updates")
        return rates

    def translate(self, python: Path, setting: Setting, name: str, beam: int, batch: int) -> Speed:
        """Translate name.src in batches of so many sentences."""
        command, output = self.translating(python, setting, name, beam, batch)
        output.unlink(missing_ok=True)
        text = self.start(command, setting).text
        lines = output.read_text(encoding="utf8").split("\n")[:-1]
        return Speed(self.duration(text, len(lines)), len(lines), sum(len(line.split()) for line in lines))

    def start(self, command: Sequence[str | Path], setting: Setting) -> Watched:
        """Run it, on so many threads. Its checkpoints are its own, so they are loaded as they are."""
        threads = str(setting.threads)
        own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        given = {name: value for name, value in os.environ.items() if name not in OURS}
        return watch(command, cwd=setting.folder, env={**given, **own})

    def training(self, python: Path, setting: Setting) -> list[str | Path]:
        """The command that trains."""
        raise NotImplementedError

    def translating(
        self, python: Path, setting: Setting, name: str, beam: int, batch: int
    ) -> tuple[list[str | Path], Path]:
        """The command that translates, and the file that it writes."""
        raise NotImplementedError

    def rates(self, log: str) -> list[float]:
        """Target words a second, of every line of the log that says them."""
        raise NotImplementedError

    def duration(self, log: str, lines: int) -> float:
        """Seconds that so many lines took, start-up excluded."""
        raise NotImplementedError


def written(path: Path, options: dict[str, Any]) -> Path:
    """A file of options, written."""
    path.write_text(yaml.safe_dump(options, sort_keys=False, allow_unicode=True), encoding="utf8")
    return path


def environment(system: System, folder: Path) -> Path:
    """The Python of the system's own environment, made at the first call. BenchmarkError without a package index."""
    home = folder / system.package.replace("==", "-")
    python, done = home / "bin" / "python", home / "installed"
    wanted = "\n".join((system.package, *system.needs))
    if done.exists() and done.read_text() == wanted:
        return python
    print(f"installing {system.package} into {home} ...", flush=True)
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        watch([sys.executable, "-m", "venv", "--clear", home])
        watch([*pip, *system.needs])
        watch([*pip, "--no-deps", system.package])
    except BenchmarkError as error:
        raise BenchmarkError(
            f"cannot install {system.package}: it needs a Python package index; check the network, or PIP_INDEX_URL "
            f"and PIP_FIND_LINKS if yours is a mirror. pip said: {str(error).rpartition(': ')[2]}"
        ) from error
    [packages] = home.glob("lib/python*/site-packages")
    for module in system.absent:
        (packages / f"{module}.py").write_text('"""Imported, and not called, where only text in pieces is read."""\n')
    done.write_text(wanted)
    return python
