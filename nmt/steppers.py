"""Steppers made of steppers: several models as one, a language model beside, a record of what was said.

Each keeps the contract of `Stepper` in nmt/search.py: a state of NamedTuples and tuples with one row per hypothesis,
one per sentence under `memory`; `alignment`; log-probabilities of at most 0, which the search may write into.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from nmt.search import Stepper

Space = Literal["linear", "log"]
UNSEEN = 1e-6  # of attention is as good as none: keeps the logarithm of what no word looked at finite


class Rounded:
    """A model whose products torch rounds to bf16 by itself (autocast): what bf16 is where weights are not laid out."""

    def __init__(self, model: Stepper[Any], kind: str) -> None:
        self.model, self.kind = model, kind

    def start(self, source: Tensor, lengths: Tensor) -> Any:
        """The model's start, so rounded."""
        with torch.autocast(self.kind, torch.bfloat16):
            return self.model.start(source, lengths)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The model's step, so rounded."""
        with torch.autocast(self.kind, torch.bfloat16):
            return self.model.step(tokens, state)


class EnsembleState(NamedTuple):
    """The states of all members, and where they looked on average."""

    members: tuple[Any, ...]
    alignment: Tensor  # (N, S) of the members that look anywhere


class Ensemble:
    """Models that share both vocabularies, as one.

    In linear space the mean of their probabilities; in log space the geometric mean, which is not normalised again: it
    sums to less than 1 where members disagree.
    """

    def __init__(self, members: Sequence[Stepper[Any]], space: Space = "linear") -> None:
        if not members:
            raise ValueError("an ensemble needs at least one model")
        if space not in ("linear", "log"):
            raise ValueError(f"an ensemble averages in linear or log space, not {space!r}")
        self.members, self.space = tuple(members), space

    def start(self, source: Tensor, lengths: Tensor) -> EnsembleState:
        """All members read the source (B, S)."""
        return self._state([member.start(source, lengths) for member in self.members])

    def step(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """Read one token per row (N,); the mean (N, V) of what the members say of the next."""
        steps = [member.step(tokens, own) for member, own in zip(self.members, state.members, strict=True)]
        mean, *others = (log_probs for log_probs, _ in steps)
        for log_probs in others:
            check_sizes(mean, log_probs, "the models of an ensemble")
            mean = torch.logaddexp(mean, log_probs) if self.space == "linear" else mean + log_probs
        if others:
            mean = mean - math.log(len(steps)) if self.space == "linear" else mean / len(steps)
            mean = mean.clamp_(max=0)  # the bound of the search must hold to the last bit
        return mean, self._state([own for _, own in steps])

    def _state(self, members: list[Any]) -> EnsembleState:
        looks = [member.alignment for member in members if member.alignment.size(1)]
        mean = sum(looks[1:], looks[0]) / len(looks) if looks else members[0].alignment
        return EnsembleState(tuple(members), mean)


class FusionState(NamedTuple):
    """A model's state and its language model's."""

    model: Any
    language_model: Any
    alignment: Tensor  # (N, S) the model's


class ShallowFusion:
    """log P(y | x) + w log P_LM(y): a language model of the target has a say in each word (Gulcehre et al. 2015).

    That sum is what hypotheses call their log_prob; score the output with the model alone for the model's own. It is no
    distribution, but never above 0, so the search may stop by its bound: which is why w must not be negative.
    """

    def __init__(self, model: Stepper[Any], language_model: Stepper[Any], weight: float) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of a language model is at least 0 and finite, not {weight}")
        self.model, self.language_model, self.weight = model, language_model, weight

    def start(self, source: Tensor, lengths: Tensor) -> FusionState:
        """Both start, the language model from nothing but the number of sentences."""
        state = self.model.start(source, lengths)
        return FusionState(state, self.language_model.start(source, lengths), state.alignment)

    def step(self, tokens: Tensor, state: FusionState) -> tuple[Tensor, FusionState]:
        """Read one token per row (N,); the weighted sum (N, V)."""
        log_probs, model = self.model.step(tokens, state.model)
        if not self.weight:  # 0 times a logarithm of 0 is no number
            return log_probs, FusionState(model, state.language_model, model.alignment)
        language, language_model = self.language_model.step(tokens, state.language_model)
        check_sizes(log_probs, language, "the model and its language model")
        return log_probs.add(language, alpha=self.weight), FusionState(model, language_model, model.alignment)


def check_sizes(one: Tensor, other: Tensor, who: str) -> None:
    """Refuse to add up what different vocabularies say."""
    if one.size(1) != other.size(1):
        raise ValueError(
            f"{who} must share the target vocabulary, not have {one.size(1):,} and {other.size(1):,} pieces: "
            "train them with the same tokenizer"
        )


class Recorded(NamedTuple):
    """A model's state, and what rules and penalties need of the past."""

    state: Any
    alignment: Tensor  # (N, S) the model's
    said: Tensor  # (N, t) BOS first
    coverage: Tensor  # (N, S) the sum of all alignments
    memory: Tensor  # (B, S) true on words, or (B, 0) from a model without attention


class Recording:
    """A model that remembers what was said and where it looked; for searches with options that ask for it."""

    def __init__(self, model: Stepper[Any]) -> None:
        self.model = model

    def start(self, source: Tensor, lengths: Tensor) -> Recorded:
        """Nothing said, nothing looked at."""
        state = self.model.start(source, lengths)
        places = torch.arange(state.alignment.size(1), device=lengths.device)  # (S,)
        nowhere, nothing = torch.zeros_like(state.alignment, dtype=torch.float32), lengths.new_empty(len(lengths), 0)
        return Recorded(state, state.alignment, nothing, nowhere, places < lengths[:, None])

    def step(self, tokens: Tensor, state: Recorded) -> tuple[Tensor, Recorded]:
        """The model's step, written down."""
        log_probs, own = self.model.step(tokens, state.state)
        said = torch.cat([state.said, tokens[:, None]], dim=1)
        return log_probs, Recorded(own, own.alignment, said, state.coverage + own.alignment, state.memory)


def coverage(state: Recorded) -> Tensor:
    """sum_i log min(sum_j p_ij, 1) over the source's pieces i, its EOS among them: (N,), 0 at best.

    Wu et al. 2016, section 7. A piece that was not looked at counts as log 1e-6, and no less.
    """
    width = len(state.coverage) // len(state.memory)
    seen = state.coverage.clamp(UNSEEN, 1).log().unflatten(0, (-1, width))  # (B, W, S)
    total: Tensor = seen.masked_fill(~state.memory[:, None], 0).sum(2).flatten()
    return total
