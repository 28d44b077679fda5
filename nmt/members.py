"""The models that translate together: one or several (an ensemble), and a language model that may stand beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nmt import checkpoint
from nmt.checkpoint import Tokenizers
from nmt.model.language_model import LanguageModel
from nmt.model.seq2seq import Seq2Seq

Folders = str | Path | Sequence[str | Path]


class Members(NamedTuple):
    """What model folders hold."""

    models: tuple[Seq2Seq, ...]
    language_model: LanguageModel | None
    tokenizers: Tokenizers  # which all share
    config: dict[str, Any]  # of the first


def load_members(folders: Folders, language_model: str | Path | None, device: torch.device) -> Members:
    """Read the folders of translators and of a language model. Errors as `check_members`."""
    check_members(folders, language_model)
    saved = [checkpoint.load(folder, device) for folder in listed(folders)]
    beside = checkpoint.load_language_model(language_model, device).model if language_model else None
    return Members(tuple(one.model for one in saved), beside, saved[0].tokenizers, saved[0].config)


def check_members(folders: Folders, language_model: str | Path | None = None) -> None:
    """Refuse models that cannot speak together, without reading their weights.

    Raises ValueError for a folder of the wrong kind or of other vocabularies than the first, and what
    `checkpoint.read_folder` raises.
    """
    first, *others = listed(folders)
    for folder in (first, *others):
        checkpoint.require(folder, checkpoint.TRANSLATOR)
    if language_model:
        checkpoint.require(language_model, checkpoint.LANGUAGE_MODEL)
    if not others and not language_model:
        return
    tokenizers = Tokenizers.load(Path(first))
    for folder in others:
        if any(one.digest != two.digest for one, two in zip(tokenizers, Tokenizers.load(Path(folder)), strict=True)):
            raise ValueError(
                f"{first} and {folder} have different vocabularies, so they cannot translate together: train them with "
                f"one, as --tokenizer.model {first} lets the second"
            )
    if language_model and Tokenizers.load(Path(language_model)).target.digest != tokenizers.target.digest:
        raise ValueError(
            f"{language_model} has another vocabulary than the target side of {first}: train the language model with "
            f"--tokenizer.model {first}"
        )


def listed(folders: Folders) -> list[str | Path]:
    """One folder, or several, as a list."""
    return [folders] if isinstance(folders, str | Path) else list(folders)
