"""The model folder: everything that translating needs, in files that can run no code.

info.json           format version, vocabulary sizes, scores with their signatures, fingerprints of the text
config.yaml         the options that it was trained with; `model` and `search` are read back, the rest is for people
model.safetensors   the weights
tokenizer.spm       the vocabulary; source.spm and target.spm where each side has its own
shortlist.safetensors   which target pieces may translate which source piece, of use only to `nmt translate --shortlist`
README.md           the model card
training/           checkpoints and logs, of use only to resume or extend the run
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from nmt.model.language_model import LanguageModel, build_language_model
from nmt.model.seq2seq import ModelOptions, Seq2Seq, build_model
from nmt.tokenizer import Tokenizer

FORMAT = 1
TRANSLATOR, LANGUAGE_MODEL = "translation", "language-model"  # the tasks of a config
NOISE = ("dropout", "recurrent_dropout", "word_dropout", "init_range", "forget_bias")  # of no consequence once trained
INFO, CONFIG, WEIGHTS, CARD = "info.json", "config.yaml", "model.safetensors", "README.md"


AnyModel = TypeVar("AnyModel", Seq2Seq, LanguageModel)


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


class SavedModel(NamedTuple, Generic[AnyModel]):
    """What a model folder holds."""

    model: AnyModel
    tokenizers: Tokenizers
    config: dict[str, Any]
    info: dict[str, Any]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`; it takes that name when it is whole, and goes when it is not. OSError names it."""
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if error.filename not in (None, str(beside)):
            raise
        raise OSError(error.errno, f"cannot write it: {error.strerror or error}", str(path)) from error
    except SafetensorError as error:
        raise OSError(f"{path}: cannot write it: {_first_line(error)}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf8", newline="\n")


def save_weights(model: Seq2Seq | LanguageModel, folder: Path) -> None:
    """Write the weights, whole or not at all."""
    with whole(folder / WEIGHTS) as beside:
        save_model(model, str(beside))
        beside.chmod(0o666 & ~_umask())  # safetensors leaves them to their owner alone


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors by name, whole or not at all."""
    with whole(path) as beside:
        save_file(tensors, str(beside))
        beside.chmod(0o666 & ~_umask())


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
    whole_config = isinstance(config, dict) and {"model", "seed"} <= config.keys()  # seed is written last
    if not isinstance(info, dict) or not whole_config:
        raise ValueError(f"{folder}: {INFO} or {CONFIG} is damaged: copy the folder again")
    if info.get("format") != FORMAT:
        raise ValueError(
            f"{folder} has format {info.get('format')}, this version reads {FORMAT}: use the nmt that wrote it"
        )
    return config, info


def task(folder: str | Path) -> str:
    """What a model folder is for: TRANSLATOR or LANGUAGE_MODEL. Errors as `read_folder`."""
    config, _ = read_folder(folder)
    return str(config.get("task", TRANSLATOR))


def require(folder: str | Path, wanted: str) -> None:
    """ValueError for a folder whose task is not the one wanted. Errors as `read_folder`."""
    if task(folder) == wanted:
        return
    if wanted == TRANSLATOR:
        raise ValueError(
            f"{folder} holds a language model, not a translator: `nmt score -m {folder} -i TEXT` says what it finds "
            "probable"
        )
    raise ValueError(
        f"{folder} holds a translator, not a language model: train one with `nmt train --task language-model`"
    )


def load(folder: str | Path, device: str | torch.device = "cpu") -> SavedModel[Seq2Seq]:
    """Read a translator's folder, the model in evaluation mode on `device`. Errors as `read_folder`."""
    require(folder, TRANSLATOR)
    return _load(folder, lambda options, sizes: build_model(options, *sizes), device)


def load_language_model(folder: str | Path, device: str | torch.device = "cpu") -> SavedModel[LanguageModel]:
    """Read a language model's folder, the model in evaluation mode on `device`. Errors as `read_folder`."""
    require(folder, LANGUAGE_MODEL)
    return _load(folder, lambda options, sizes: build_language_model(options, sizes[1]), device)


def _load(
    folder: str | Path, build: Callable[[ModelOptions, tuple[int, int]], AnyModel], device: str | torch.device
) -> SavedModel[AnyModel]:
    folder = Path(folder)
    config, info = read_folder(folder)
    tokenizers = Tokenizers.load(folder)
    sizes = {"source": tokenizers.source.size, "target": tokenizers.target.size}
    if sizes != info.get("vocabulary", sizes):
        raise ValueError(f"{folder}: its tokenizer.spm (or source.spm, target.spm) is damaged: copy the folder again")
    try:
        options = ModelOptions(**config["model"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} holds a model option of another nmt, or is damaged: {error}") from error
    with torch.device("meta"):  # to draw weights, which are then read, takes longer than all the rest
        model = build(options, (tokenizers.source.size, tokenizers.target.size))
    try:
        _fill(model, load_file(str(folder / WEIGHTS)))
    except (SafetensorError, RuntimeError) as error:
        message = (
            f"{folder / WEIGHTS} is damaged or does not fit {CONFIG} ({_first_line(error)}): copy the folder again"
        )
        raise ValueError(message) from error
    return SavedModel(model.to(device).eval(), tokenizers, config, info)


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model its weights, by name; what it shares stands in the file once. RuntimeError if they do not fit."""
    names = defaultdict[nn.Parameter, list[str]](list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    for shared in names.values():
        held = next((weights[name].float().clone() for name in shared if name in weights), None)  # not the file's pages
        weights |= {} if held is None else dict.fromkeys(shared, held)
    model.load_state_dict(weights, assign=True)
    for first, *others in names.values():
        for owner, _, leaf in (name.rpartition(".") for name in others):
            setattr(model.get_submodule(owner), leaf, model.get_parameter(first))


def other_network(
    old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = NOISE
) -> dict[str, tuple[Any, Any]]:
    """Options in which two configs' `model` differ, `free` ones left out: (old, new). None if they are one network."""
    before, after = (asdict(ModelOptions(**options)) for options in (old, new))
    names = [name for name in sorted(before) if before[name] != after[name] and name not in free]
    return {f"model.{name}": (before[name], after[name]) for name in names}


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several sets of weights, in the precision of the first."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _card(info: Mapping[str, Any]) -> str:
    """The model card."""
    languages = " to ".join(info.get("languages", ()))
    if "sentences" in info:
        title, text = f"A recurrent language model, {languages}", f"{info['sentences']:,} sentences"
        use = "It says how probable a sentence is: `nmt score -m THIS_FOLDER -i text`."
        warning = "It knows what text is like, not what is true or right."
    else:
        title, text = f"A recurrent translator, {languages}", f"{info['pairs']:,} pairs of sentences"
        use = """It translates text like
the text it was trained on, one sentence a line: `nmt translate -m THIS_FOLDER < input > output`."""
        warning = """Machine translations contain errors,
invented content among them: have them read before they matter."""
    return f"""# {title}

Trained on {text} with nmt {info["version"]}. {use}

{_results(info)}

Its options are in `config.yaml`; `info.json` holds these figures for programs. {warning}
"""


def _results(info: Mapping[str, Any]) -> str:
    """A table of scores, or that there are none."""
    mean = f"Its weights are the mean of those of {', '.join(info['averaged'])}." if "averaged" in info else ""
    if mean and not info.get("scores"):
        return f"{mean} It has not been evaluated."
    rows = [
        f"| {text} | {score['name']} | {score['score']:.2f} | `{score['signature']}` |"
        for text, found in info.get("scores", {}).items()
        for score in found
    ]
    return "\n".join(
        [*([mean, ""] if mean else []), "| text | metric | score | signature |", "|---|---|---|---|", *rows]
    )
