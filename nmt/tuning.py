"""Decoding options tuned on development text: what is tried, which is best, and the model folder that keeps it.

Axes are swept one after the other, each at the best of those before: weights (best checkpoint or the mean of several,
where a run has both), beam size, length (penalty or reward), coverage. Of equals the first tried wins, so what a folder
has stays where nothing is better. No test text is read.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from nmt import checkpoint, corpus
from nmt.averaging import checkpoint_weights, kept_checkpoints
from nmt.checkpoint import SavedModel
from nmt.evaluation import Score, evaluate
from nmt.model.seq2seq import Seq2Seq
from nmt.search import SearchOptions
from nmt.translator import Translator

Change = dict[str, Any]  # of search options
Measure = Callable[[str, SearchOptions], Score]  # BLEU of weights, by name, under a search


@dataclass(frozen=True)
class Sweep:
    """What is tried. Empty leaves an option as it is."""

    beam_sizes: tuple[int, ...] = (1, 2, 5, 8, 12)
    length_penalties: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    length_rewards: tuple[float, ...] = (0.2, 0.5, 1.0)  # in place of a penalty
    coverage_penalties: tuple[float, ...] = (0.0, 0.1, 0.3)

    def axes(self, normalization: str, *, attention: bool) -> list[list[Change]]:
        """The changes along each axis; penalties are exponents of the model's `normalization`, or of gnmt's."""
        divided = "gnmt" if normalization == "none" else normalization
        lengths: list[Change] = [
            {"normalization": divided, "length_penalty": penalty, "length_reward": 0.0}
            for penalty in self.length_penalties
        ]
        lengths += [
            {"normalization": "none", "length_penalty": 0.0, "length_reward": reward} for reward in self.length_rewards
        ]
        beams: list[Change] = [{"beam_size": size} for size in self.beam_sizes]
        coverages: list[Change] = [{"coverage_penalty": penalty} for penalty in self.coverage_penalties]
        return [beams, lengths, coverages if attention else []]


class Trial(NamedTuple):
    """One search over the development text."""

    weights: str
    search: SearchOptions
    bleu: Score
    seconds: float


def sweep(
    start: SearchOptions,
    weights: Sequence[str],
    axes: Sequence[Sequence[Change]],
    measure: Measure,
    report: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """All that was tried, in order, nothing twice; `start` with the first of the weights comes first."""
    trials: dict[tuple[str, SearchOptions], Trial] = {}

    def attempt(name: str, search: SearchOptions) -> None:
        if (name, search) not in trials:
            begun = time.perf_counter()
            bleu = measure(name, search)
            trials[name, search] = Trial(name, search, bleu, time.perf_counter() - begun)
            report(trials[name, search])

    for name in weights:
        attempt(name, start)
    for axis in axes:
        base = best(list(trials.values()))
        for change in axis:
            attempt(base.weights, replace(base.search, **change))
    return list(trials.values())


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest BLEU; of equals the first."""
    return max(trials, key=lambda trial: trial.bleu.score)


# ---- the model folder ----


class Tuning(NamedTuple):
    """A model folder that is tuned."""

    folder: Path
    saved: SavedModel[Seq2Seq]
    weights: dict[str, Mapping[str, Tensor]]  # by name, the folder's first
    start: SearchOptions  # the folder's

    @classmethod
    def load(cls, folder: str | Path, device: torch.device) -> "Tuning":
        """Read a model folder."""
        saved = checkpoint.load(folder, device)
        found = saved.config.get("search", {}) | {"n_best": 1, "diverse_groups": 1}
        return cls(Path(folder), saved, weight_choices(Path(folder), saved.model), SearchOptions(**found))

    def axes(self, what: Sweep) -> list[list[Change]]:
        """What is tried on this model."""
        return what.axes(self.start.normalization, attention=self.saved.config["model"]["attention"] != "none")

    def measuring(self, sources: Sequence[str], references: Sequence[Sequence[str]], **options: Any) -> Measure:
        """BLEU on this text; `options` are those of a translator."""
        language = str(self.saved.config["data"]["target_language"])

        def measure(name: str, search: SearchOptions) -> Score:
            self.saved.model.load_state_dict(self.weights[name])
            translator = Translator(self.saved.model, self.saved.tokenizers, search, **options)
            hypotheses = [answer.text for answer in translator.translate(sources)]
            return evaluate(hypotheses, references, ("bleu",), language=language)[0]

        return measure

    def store(self, trials: Sequence[Trial], text: str, command: str) -> None:
        """Make the best trial the folder's: config.yaml's search, the weights if others won, info.json's record.

        The record keeps the search of before any tuning, by which `nmt train` knows its own folder again. Scores that
        were measured otherwise are set apart. Each file is written whole, and no score stands beside what it was not
        measured with, even if writing stops in between.
        """
        winner, first = best(trials), trials[0]
        other_weights = winner.weights != first.weights
        info, scores = dict(self.saved.info), dict(self.saved.info.get("scores", {}))
        if (winner.weights, winner.search) != (first.weights, first.search):
            info["scores_before_tuning"] = info.get("scores_before_tuning") or scores
            checkpoint.save_info({**info, "scores": {}}, self.folder)
            scores = {}
        if other_weights:
            self.saved.model.load_state_dict(self.weights[winner.weights])
            checkpoint.save_weights(self.saved.model, self.folder)
        config = {**self.saved.config, "search": asdict(winner.search)}
        checkpoint.write_whole(
            self.folder / checkpoint.CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        )
        untuned = info.get("tuning", {}).get("search_before", self.saved.config.get("search", {}))
        info["tuning"] = {"text": text, "command": command, "weights": winner.weights, "search_before": untuned}
        info["tuning"] |= {"score": asdict(winner.bleu), "before": asdict(first.bleu), "trials": len(trials)}
        checkpoint.save_info({**info, "scores": {**scores, "development": [asdict(winner.bleu)]}}, self.folder)


def weight_choices(folder: Path, model: Seq2Seq) -> dict[str, Mapping[str, Tensor]]:
    """The folder's weights, first; and where they are the best checkpoint of its run or the mean of several, both."""
    own = {name: value.clone() for name, value in model.state_dict().items()}
    if not (folder / "training" / "last.ckpt").is_file() or len(kept := kept_checkpoints(folder)) < 2:
        return {"saved": own}
    states = [checkpoint_weights(one.path) for one in kept]
    run = {"best checkpoint": states[0], f"mean of the {len(kept)} best": checkpoint.average(states)}
    same = [name for name, state in run.items() if all(torch.equal(own[key].cpu(), state[key]) for key in own)]
    return {"saved": own} if not same else {same[0]: own, **{name: run[name] for name in run if name != same[0]}}


# ---- the text ----


def refuse_test(tuning: Tuning, files: Sequence[str | Path]) -> None:
    """ValueError for a file that the model was tested on, by its name in the config or by what it holds."""
    data = tuning.saved.config["data"]
    languages = data["source_language"], data["target_language"]
    known = {path.resolve() for source in corpus.sources(data.get("test") or []) for path in _files(source, languages)}
    recorded = " ".join(tuning.saved.info.get("text", {}).get("test", []))
    for file in map(Path, files):
        if file.resolve() in known or _digest(file) in recorded:
            raise ValueError(f"{file} is text that {tuning.folder} was tested on: tune on development text")


def _files(source: str, languages: tuple[str, str]) -> tuple[Path, ...]:
    """Those of a source that are still there."""
    try:
        return () if source.startswith("hf:") else corpus.files(source, languages)
    except (OSError, ValueError):
        return ()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
