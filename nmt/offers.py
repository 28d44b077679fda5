"""A search that asks of each hypothesis for its few best words only, where a model can find them without the rest.

What the whole vocabulary is worth is then never written down. For searches whose one rule is that some ids are silent.

Shapes: see nmt/search.py; R words offered, the first of which is EOS.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from nmt import native
from nmt.columns import best_by_kernel
from nmt.search import Candidates, Moment, Stepper, best
from nmt.states import Picked


@runtime_checkable
class Offerer(Stepper[Any], Protocol):
    """A stepper that can do that."""

    def offers(self, count: int, silent: int) -> bool:
        """Whether it finds the `count` best words but so many silent ones by themselves."""

    def offer(self, tokens: Tensor, state: Any, count: int, end: int, silent: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Read one token per row (N,): log-probabilities and words (N, 1 + count), and the state after it.

        First the word `end`, and then the best of the others but those that are silent (M,), the best first.
        """


class Offered(NamedTuple):
    """A model's state, and what it offered."""

    inner: Any
    words: Picked  # (N, R), of which no rows are taken

    @property
    def alignment(self) -> Tensor:
        """(N, S) what the last word looked at."""
        found: Tensor = self.inner.alignment
        return found


class Offering:
    """A stepper that says what the words it offers are worth, (N, R); EOS stands first."""

    def __init__(self, model: Offerer, count: int, end: int, silent: Tensor) -> None:
        """As for `Offerer.offer`."""
        self.model, self.count, self.end, self.silent = model, count, end, silent

    def start(self, source: Tensor, lengths: Tensor) -> Offered:
        """The model's start, nothing offered."""
        return Offered(self.model.start(source, lengths), Picked(lengths.new_empty(len(lengths), 0)))

    def step(self, tokens: Tensor, state: Offered) -> tuple[Tensor, Offered]:
        """The model's step."""
        log_probs, words, inner = self.model.offer(tokens, state.inner, self.count, self.end, self.silent)
        return log_probs, Offered(inner, Picked(words))


def offered(stepper: Stepper[Any], count: int, end: int, silent: Sequence[int]) -> Offering | None:
    """A stepper of the `count` best words and EOS, if this one can offer them."""
    if not isinstance(stepper, Offerer) or not stepper.offers(count, len(silent)):
        return None
    return Offering(stepper, count, end, torch.tensor(silent, dtype=torch.long))


def best_offered(before: Tensor, log_probs: Tensor, size: int, moment: Moment) -> Candidates:
    """As `best`, of log-probabilities (B, W, R) of the words offered."""
    if native.serves(log_probs):
        return best_by_kernel(before, log_probs, size, moment.state.words.whole)
    found = best(before, log_probs, size, moment)
    places = found.parents * log_probs.size(2) + found.tokens
    return found._replace(tokens=moment.state.words.whole.view(places.size(0), -1).gather(1, places))


def most_probable_offered(log_probs: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
    """As `most_probable`, of the words offered."""
    values, places = log_probs.max(2, keepdim=True)
    return values[..., 0], moment.state.words.whole.view_as(log_probs).gather(2, places)[..., 0]
