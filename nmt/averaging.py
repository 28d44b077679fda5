"""The mean of several models: of model folders, or of the best checkpoints of one run."""

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

import nmt
from nmt import checkpoint, shortlist
from nmt.checkpoint import SavedModel, Tokenizers
from nmt.shortlist import Shortlist

Weights = Mapping[str, Tensor]


class Kept(NamedTuple):
    """A checkpoint of a run."""

    path: Path
    score: float  # by which it was kept


def average_folders(folders: Sequence[str | Path], output: str | Path) -> None:
    """Write the mean of several models to a new folder. ValueError for models that cannot have one.

    Its shortlist allows what any of theirs does; it has none where one of them has none.
    """
    first, *rest = (_load(folder) for folder in folders)
    for folder, other in zip(folders[1:], rest, strict=True):
        _check_alike(folders[0], first, folder, other)
    states = [saved.model.state_dict() for saved in (first, *rest)]
    texts = [saved.info.get("text", {}) for saved in (first, *rest)]
    common = {split: text for split, text in texts[0].items() if all(other.get(split) == text for other in texts)}
    facts: dict[str, Any] = {"text": common} if common else {}
    steps = max(saved.info["steps"] for saved in (first, *rest))
    facts |= {"steps": steps, "averaged": [str(folder) for folder in folders]}
    _write(first, states, Path(output), facts, _shortlist(folders, first.tokenizers))


def average_run(folder: str | Path, output: str | Path, best: int = 0) -> None:
    """Write the mean of the `best` checkpoints that a run has kept, 0 for all of them, to a new folder.

    Its shortlist is the run's, if it has one.
    Raises ValueError for a folder without so many, FileNotFoundError for one that is no run.
    """
    saved, kept = _load(folder), kept_checkpoints(Path(folder))
    if len(kept) < max(best, 2):
        raise ValueError(
            f"{folder} has kept {len(kept)} checkpoints, too few for a mean of {best or 'several'}: train with a "
            "higher training.average, or name several models"
        )
    chosen = [one.path for one in kept[: best or len(kept)]]
    states = [checkpoint_weights(path) for path in chosen]
    names = [str(path) for path in chosen]
    facts: dict[str, Any] = {name: saved.info[name] for name in ("text", "steps") if name in saved.info}
    _write(saved, states, Path(output), {**facts, "averaged": names}, _shortlist([folder], saved.tokenizers))


def kept_checkpoints(folder: Path) -> list[Kept]:
    """The checkpoints that are left of a run, best first."""
    last = folder / "training" / "last.ckpt"
    if not last.is_file():
        raise FileNotFoundError(f"{folder} has no {last.relative_to(folder)} of its training: name several models")
    callbacks = _read(last)["callbacks"]
    state = next(state for name, state in callbacks.items() if name.startswith("BestCheckpoints"))
    more_is_better = state["monitor"] != "val_loss"
    found = [Kept(last.parent / Path(path).name, float(score)) for path, score in state["best_k_models"].items()]
    present = [kept for kept in found if kept.path.is_file()]
    return sorted(present, key=lambda kept: kept.score, reverse=more_is_better)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(f"{path} is damaged: copy the folder again") from error
    return found


def checkpoint_weights(path: Path) -> Weights:
    """The weights of a checkpoint of a run."""
    return {name.removeprefix("model."): value for name, value in _read(path)["state_dict"].items()}


def _load(folder: str | Path) -> SavedModel[Any]:
    if checkpoint.task(folder) == checkpoint.TRANSLATOR:
        return checkpoint.load(folder)
    return checkpoint.load_language_model(folder)


def _check_alike(folder: str | Path, saved: SavedModel[Any], other_folder: str | Path, other: SavedModel[Any]) -> None:
    """ValueError if the weights of one would mean something else in the other."""
    if type(saved.model) is not type(other.model):
        raise ValueError(f"{folder} and {other_folder} are not of one kind: a translator and a language model")
    if any(one.digest != two.digest for one, two in zip(saved.tokenizers, other.tokenizers, strict=True)):
        raise ValueError(
            f"{folder} and {other_folder} have different vocabularies, so their weights have no mean: train them with "
            f"one, as --tokenizer.model {folder} lets the second"
        )
    different = checkpoint.other_network(saved.config["model"], other.config["model"])
    if different:
        listing = ", ".join(f"{key} is {one!r} and {two!r}" for key, (one, two) in different.items())
        raise ValueError(
            f"{folder} and {other_folder} are different networks, so their weights have no mean: {listing}"
        )


def _shortlist(folders: Sequence[str | Path], tokenizers: Tokenizers) -> Shortlist | None:
    """What any of the models may say; None where that is not known of one."""
    if not all((Path(folder) / shortlist.FILE).is_file() for folder in folders):
        return None
    return reduce(Shortlist.plus, (shortlist.load_shortlist(folder, tokenizers) for folder in folders))


def _write(
    saved: SavedModel[Any], states: Sequence[Weights], output: Path, facts: dict[str, Any], words: Shortlist | None
) -> None:
    """A model folder with the mean of these weights and no scores, whole or not at all."""
    if output.exists():
        raise FileExistsError(f"{output} is there already: choose another -o")
    saved.model.load_state_dict(checkpoint.average(states))
    beside = output.with_name(f"{output.name}.{os.getpid()}.part")
    origin: dict[str, Any] = {
        name: saved.info[name] for name in ("languages", "pairs", "sentences", "vocabulary") if name in saved.info
    }
    try:
        beside.mkdir(parents=True)
        saved.tokenizers.save(beside)
        config = yaml.safe_dump({**saved.config, "output": str(output)}, sort_keys=False, allow_unicode=True)
        checkpoint.write_whole(beside / checkpoint.CONFIG, config)
        checkpoint.save_weights(saved.model, beside)
        if words is not None:
            checkpoint.save_tensors(words._asdict(), beside / shortlist.FILE)
        checkpoint.save_info({"version": nmt.__version__, **origin, **facts, "scores": {}}, beside)
        beside.replace(output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
