"""The model folder: everything that translating needs, in files that can run no code.

info.json           format version, vocabulary sizes, scores with their signatures, fingerprint of the training text
config.yaml         the options that it was trained with; `model` and `search` are read back, the rest is for people
model.safetensors   the weights
tokenizer.spm       the vocabulary; source.spm and target.spm where each side has its own
README.md           the model card
training/           checkpoints and logs, of use only to resume; may be deleted
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor

from nmt.model.seq2seq import ModelOptions, Seq2Seq, build_model
from nmt.tokenizer import Tokenizer

FORMAT = 1
INFO, CONFIG, WEIGHTS, CARD = "info.json", "config.yaml", "model.safetensors", "README.md"


class Tokenizers(NamedTuple):
    """One tokenizer for each side; the same object where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Tokenizers":
        """Read a folder's tokenizer.spm, or its source.spm and target.spm."""
        joint = folder / "tokenizer.spm"
        if joint.exists() or not (folder / "source.spm").exists():
            return cls(*[Tokenizer.load(joint)] * 2)
        return cls(Tokenizer.load(folder / "source.spm"), Tokenizer.load(folder / "target.spm"))

    def save(self, folder: Path) -> None:
        """Write them under the names that `load` reads."""
        if self.source is self.target:
            self.source.save(folder / "tokenizer.spm")
        else:
            self.source.save(folder / "source.spm")
            self.target.save(folder / "target.spm")


class SavedModel(NamedTuple):
    """What a model folder holds."""

    model: Seq2Seq
    tokenizers: Tokenizers
    config: dict[str, Any]
    info: dict[str, Any]


def write_whole(path: Path, text: str) -> None:
    """Write a text file beside its place, then rename it: it appears whole or not at all."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf8", newline="\n")
    beside.replace(path)


def save_weights(model: Seq2Seq, folder: Path) -> None:
    """Write the weights, whole or not at all."""
    beside = folder / (WEIGHTS + ".part")
    save_model(model, str(beside))
    beside.replace(folder / WEIGHTS)


def save_info(info: Mapping[str, Any], folder: Path) -> None:
    """Write info.json and the model card that says the same to people."""
    write_whole(folder / CARD, _card(info))
    write_whole(folder / INFO, json.dumps({"format": FORMAT, **info}, indent=2, ensure_ascii=False) + "\n")


def read_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the info of a model folder. FileNotFoundError or ValueError say what is wrong with it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no model folder at {folder}: give the folder that `nmt train` wrote (its --output)")
    for name in (CONFIG, INFO, WEIGHTS):
        if not (folder / name).is_file():
            unfinished = (folder / "training").is_dir()
            way_out = "run the same `nmt train` again to finish it" if unfinished else "copy the whole folder again"
            raise FileNotFoundError(f"{folder} is not a complete model folder, it has no {name}: {way_out}")
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf8"))
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"{folder}: {INFO} or {CONFIG} is damaged ({_first_line(error)}): copy the folder again"
        ) from error
    if not isinstance(info, dict) or not isinstance(config, dict) or "model" not in config:
        raise ValueError(f"{folder}: {INFO} or {CONFIG} is damaged: copy the folder again")
    if info.get("format") != FORMAT:
        raise ValueError(
            f"{folder} has format {info.get('format')}, this version reads {FORMAT}: use the nmt that wrote it"
        )
    return config, info


def load(folder: str | Path, device: str | torch.device = "cpu") -> SavedModel:
    """Read a model folder, the model in evaluation mode on `device`. Errors as `read_folder`."""
    folder = Path(folder)
    config, info = read_folder(folder)
    tokenizers = Tokenizers.load(folder)
    try:
        options = ModelOptions(**config["model"])
    except TypeError as error:
        raise ValueError(
            f"{folder}/{CONFIG} has an unknown model option ({error}): use the nmt that wrote it"
        ) from error
    model = build_model(options, tokenizers.source.size, tokenizers.target.size)
    try:
        load_model(model, str(folder / WEIGHTS), device="cpu")
    except (SafetensorError, RuntimeError) as error:
        message = (
            f"{folder / WEIGHTS} is damaged or does not fit {CONFIG} ({_first_line(error)}): copy the folder again"
        )
        raise ValueError(message) from error
    return SavedModel(model.to(device).eval(), tokenizers, config, info)


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several sets of weights, in the precision of the first."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _card(info: Mapping[str, Any]) -> str:
    """The model card."""
    scores = "\n".join(
        f"| {text} | {score['name']} | {score['score']:.2f} | `{score['signature']}` |"
        for text, found in info.get("scores", {}).items()
        for score in found
    )
    languages = " to ".join(info.get("languages", ()))
    return f"""# A recurrent translator, {languages}

Trained on {info.get("pairs", "?"):,} pairs of sentences with nmt {info.get("version", "?")}. It translates text like
the text it was trained on, one sentence a line: `nmt translate -m THIS_FOLDER < input > output`.

| text | metric | score | signature |
|---|---|---|---|
{scores}

Its options are in `config.yaml`; `info.json` holds these figures for programs. Machine translations contain errors,
invented content among them: have them read before they matter.
"""
