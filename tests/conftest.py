"""A toy language and a model that has learnt it, for every test that needs a real model folder."""

import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from nmt import checkpoint, config
from nmt.fit import fit

COUNTS = {"one": "ein", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
SIZES = {"big": "große", "small": "kleine", "old": "alte", "new": "neue"}
COLOURS = {"red": "rot", "blue": "blau", "green": "grün", "black": "schwarz", "white": "weiß"}
THINGS = {"boats": "Boote", "dogs": "Hunde", "cats": "Katzen", "cars": "Autos", "trees": "Bäume"}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are faster on one thread, and equal from run to run."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def logger():
    """The program's log as pytest captures it, whatever the command line has made of it before."""
    log = logging.getLogger("nmt")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.INFO)
    return log


class Toy(NamedTuple):
    """A corpus of a language translated word for word, and flags for a tiny model of it."""

    folder: Path
    flags: list[str]

    def under(self, flags: Sequence[str]) -> list[str]:
        """Its own flags that none of these says otherwise, and then these."""
        said = {flag.partition("=")[0] for flag in flags}
        return [*(flag for flag in self.flags if flag.partition("=")[0] not in said), *flags]

    def text(self, name: str) -> list[str]:
        return (self.folder / name).read_text(encoding="utf8").splitlines()


def write_corpus(prefix: Path, pairs: list[tuple[str, str]]) -> None:
    for side, language in enumerate(("en", "de")):
        prefix.with_suffix(f".{language}").write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf8")


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    folder = tmp_path_factory.mktemp("toy")
    draw = random.Random(1)
    pairs = []
    for _ in range(320):
        words = [draw.choice(sorted(table.items())) for table in (COUNTS, SIZES, COLOURS, THINGS)]
        pairs.append(tuple(" ".join(side) for side in zip(*words, strict=True)))
    write_corpus(folder / "train", pairs[:300])
    write_corpus(folder / "val", pairs[300:])
    options = {
        "data.train": folder / "train",
        "data.validation": folder / "val",
        "data.cache": folder / "cache",
        "data.workers": 1,
        "tokenizer.vocab_size": 60,
        "model.embedding_size": 64,
        "model.hidden_size": 64,
        "model.encoder_layers": 1,
        "model.decoder_layers": 1,
        "model.dropout": 0.0,
        "training.batch_tokens": 100,
        "training.learning_rate": 0.01,
        "training.warmup_steps": 10,
        "training.label_smoothing": 0.0,
        "training.guide_updates": 0,
        "training.max_epochs": 8,
        "training.precision": "fp32",
    }
    return Toy(folder, [f"--{name}={value}" for name, value in options.items()])


@pytest.fixture(scope="session")
def trained(toy) -> Path:
    """A model folder; it is shared, so copy what you would change."""
    folder = toy.folder / "model"
    fit(config.read([], [*toy.flags, "--output", str(folder)]), device="cpu")
    return folder


def remade(folder: Path, target: Path, change) -> Path:
    """A copy of a model folder, its weights changed."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("training"))
    saved = checkpoint.load(target)
    with torch.no_grad():
        change(saved.model)
    checkpoint.save_weights(saved.model, target)
    return target


def shaken(seed: int):
    """Weights that are half noise: a model that is sure of nothing."""

    def change(model) -> None:
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.mul_(0.6).add_(0.15 * torch.randn_like(weight))

    return change


@pytest.fixture(scope="session")
def unsure(trained, tmp_path_factory) -> Path:
    """A model that makes mistakes, and to which searches differ; shared too."""
    return remade(trained, tmp_path_factory.mktemp("unsure") / "model", shaken(1))
