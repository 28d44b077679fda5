"""One path per row: greedy search, which takes the most probable token each time, and sampling, which draws it.

Shapes: see nmt/search.py; W paths per sentence.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nmt.rules import apply
from nmt.search import (
    Bonus,
    Candidates,
    History,
    Hypothesis,
    Key,
    Moment,
    Rule,
    SearchOptions,
    Stepper,
    end_here,
    score,
)
from nmt.states import leaving, select


@dataclass(frozen=True)
class SamplingOptions:
    """How to draw. A token is drawn from those that both limits leave, as probable as temperature makes it."""

    samples: int = 1  # translations drawn per sentence; two may be the same
    temperature: float = 1.0  # divides log-probabilities; below 1 favours the probable
    top_k: int = 0  # only the k most probable tokens (Fan et al. 2018); 0 for all
    top_p: float = 1.0  # only the fewest tokens that have p of the probability (Holtzman et al. 2020)
    seed: int = 0  # with the sentence's number, decides all that is drawn for it

    def __post_init__(self) -> None:
        for name, floor in {"samples": 1, "top_k": 0, "seed": 0}.items():
            if getattr(self, name) < floor:
                raise ValueError(f"{name} must be at least {floor}, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature must be above 0 and finite, got {self.temperature}: a beam_size of 1 is greedy"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")


Pick = Callable[[Tensor, Moment], tuple[Tensor, Tensor]]  # of log-probabilities (B, W, V) one each, and its token


def draw(log_probs: Tensor, uniform: Tensor, options: SamplingOptions) -> Tensor:
    """Tokens (B, W) from log-probabilities (B, W, V): their distribution inverted at `uniform` (B, W), in [0, 1)."""
    scores = log_probs / options.temperature
    if options.top_k or options.top_p < 1:
        scores, tokens = scores.topk(min(options.top_k or scores.size(2), scores.size(2)))  # most probable first
    else:
        tokens = torch.arange(scores.size(2), device=scores.device).expand_as(scores)
    chances = scores.double().softmax(2)
    if options.top_p < 1:
        chances = chances.masked_fill(chances.cumsum(2) - chances >= options.top_p, 0)
    reached = chances.cumsum(2)
    places = torch.searchsorted(reached, uniform[..., None] * reached[..., -1:], right=True)
    return tokens.gather(2, places.clamp(max=scores.size(2) - 1))[..., 0]


def drawing(options: SamplingOptions, numbers: Sequence[int], limits: Sequence[int], device: torch.device) -> Pick:
    """Draws for sentences of these numbers, each from a stream of its own: whatever it is batched with.

    Sample n draws the same whether it is one of n or of many.
    """
    streams = [np.random.default_rng([options.seed, number]) for number in numbers]
    uniform = torch.zeros(len(numbers), options.samples, max(limits, default=0) + 1, dtype=torch.double)
    for row, stream, limit in zip(uniform, streams, limits, strict=True):
        row[:, : limit + 1] = torch.from_numpy(stream.random((options.samples, limit + 1)))
    uniform = uniform.to(device)

    def pick(log_probs: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        tokens = draw(log_probs, uniform[moment.sentences, :, moment.length - 1], options)
        return log_probs.gather(2, tokens[..., None])[..., 0], tokens

    return pick


class Paths(NamedTuple):
    """The paths of the sentences still followed."""

    tokens: Tensor  # (B, W) the last token of each
    log_probs: Tensor  # (B, W)
    ended: Tensor  # (B, W)
    sentences: Tensor  # (B,) their places in the batch


@torch.inference_mode()
def follow(
    stepper: Stepper[Any],
    source: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    *,
    bos: int,
    eos: int,
    end: int | None = None,
    limits: Sequence[int],
    pick: Pick,
    width: int = 1,
    rules: Sequence[Rule] = (),
    bonus: Bonus | None = None,
    distinct: Key | None = None,
    with_alignment: bool = False,
) -> list[list[Hypothesis]]:
    """The `width` translations per sentence of source ids (B, S) that `pick` makes token by token, best first.

    A path ends at its EOS, or at its sentence's limit, at the price of EOS; a sentence leaves when all its paths have
    ended. Log-probabilities are what the stepper said of the tokens taken, whatever rules and `pick` left out; those of
    EOS stand in column `end`, if it is not the EOS.
    Translations that agree under `distinct` count once. Raises ValueError if the model gives NaN.
    """
    batch, device = len(lengths), source.device
    state, sentences = stepper.start(source, lengths), list(range(batch))
    owners = torch.arange(batch, device=device)
    state = select(state, owners.repeat_interleave(width) if width > 1 else None, None)
    start = torch.zeros(batch, width, device=device)
    paths = Paths(torch.full_like(start, bos, dtype=torch.long), start, start.bool(), owners)
    history, length = History(batch * width, device), 0
    while sentences:
        length += 1
        log_probs, state = stepper.step(paths.tokens.flatten(), state)
        log_probs, moment = log_probs.view(len(sentences), width, -1), Moment(state, paths.sentences, length)
        apply(rules, log_probs, moment)
        done = [limits[sentence] < length for sentence in sentences]
        if any(done):
            end_here(log_probs, done, eos if end is None else end)
        paths, ends = extend(paths, *pick(log_probs, moment), eos)
        rows = torch.arange(ends.numel(), device=device).view_as(ends)
        if any(done) or bool(ends.any()):  # the step's one look at the device
            ended = Candidates(paths.log_probs.where(ends, -math.inf), paths.tokens, rows)
            history.end(score(ended, moment, options, bonus), ended, sentences)
            done = [a or b for a, b in zip(done, paths.ended.all(1).tolist(), strict=True)]
            if gone := leaving(done, device):
                sentences = [sentences[place] for place in gone.order]
                paths, rows = select((paths, rows), torch.tensor(gone.order, dtype=torch.long, device=device), None)
                state = select(state, rows.flatten(), gone)
        history.add(rows.flatten(), paths.tokens.flatten(), state.alignment if with_alignment else None)
    serial = count()
    return history.read(lengths.tolist(), width, 1, distinct or (lambda tokens: next(serial)))


def extend(paths: Paths, log_probs: Tensor, tokens: Tensor, eos: int) -> tuple[Paths, Tensor]:
    """Each path with one more of these tokens (B, W), at their log-probabilities, and which of them (B, W) end by that.

    What has ended goes on for as long as its sentence is followed, and counts no more.
    """
    total = paths.log_probs + log_probs
    ends = tokens == eos
    if tokens.size(1) > 1:
        ends = ends & ~paths.ended
    return paths._replace(tokens=tokens, log_probs=total, ended=paths.ended | ends), ends
