"""A model laid out for decoding whose output layer knows only the words that may be said (`nmt/shortlist.py`).

Shapes: **B** sentences, **S** source length, **N** rows (hypotheses of all sentences), **V** vocabulary, **V'** what is
left of it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nmt.model.laid import DecodingState, LaidModel, log_softmax_


class NarrowedState(NamedTuple):
    """The model's state, and what each sentence may say."""

    inner: DecodingState
    memory: Tensor  # (B, 1, V') 0 for a word that the sentence may use, else -inf

    @property
    def alignment(self) -> Tensor:
        """(N, S) what the last word looked at."""
        return self.inner.alignment


class NarrowedModel:
    """A stepper over a vocabulary of V' words: the model given that no sentence uses any but its own.

    Args:
        model: What reads source and words.
        ids: (V') the words, by their ids in the whole vocabulary: here they are numbered from 0 in this order.
        allowed: (B, V') those that each sentence of the batch may use; at least one.
    """

    def __init__(self, model: LaidModel, ids: Tensor, allowed: Tensor) -> None:
        self.model, self.ids, self.allowed, self.output = model, ids, allowed, model.rows.some(ids)

    def start(self, source: Tensor, lengths: Tensor) -> NarrowedState:
        """As `LaidModel.start`."""
        barred = torch.zeros(self.allowed.shape).masked_fill_(~self.allowed, -math.inf)
        return NarrowedState(self.model.start(source, lengths), barred[:, None])

    def step(self, tokens: Tensor, state: NarrowedState) -> tuple[Tensor, NarrowedState]:
        """Read one word per row (N,); log-probabilities of the next (N, V'), in float32, and the state after it."""
        readout, inner = self.model.read(self.ids.index_select(0, tokens), state.inner)
        logits = self.output(readout)  # (N, V')
        logits.view(state.memory.size(0), -1, logits.size(1)).add_(state.memory)
        return log_softmax_(logits), NarrowedState(inner, state.memory)
