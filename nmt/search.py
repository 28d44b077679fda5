"""Beam search: the most probable translations under any model that can say how probable the next token is.

Shapes: B sentences, S source length, T target length, K beam (W as it is now), V vocabulary, N rows of one model step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import torch
from torch import Tensor

Normalization = Literal["gnmt", "power"]


class Looking(Protocol):
    """The one field of a model's state that the search reads."""

    @property
    def alignment(self) -> Tensor:
        """(N, S) where on the source the last step looked; (N, 0) from a model without attention."""


State = TypeVar("State", bound=Looking)


class Stepper(Protocol[State]):
    """All that the search knows of a model.

    A state is any nesting of NamedTuples and tuples of tensors. What lies under a field named `memory` is only read and
    has one row per sentence; every other tensor has one row per hypothesis. The rows of a sentence lie together, so
    that row n of N belongs to the memory's row n // (N // B).
    """

    def start(self, source: Tensor, lengths: Tensor) -> State:
        """The state before BOS is read, one hypothesis per sentence, from source ids (B, S) of these lengths (B,)."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token per row (N,); give the log-probabilities of the next (N, V): float32, none above 0."""


@dataclass(frozen=True)
class SearchOptions:
    """How to search. Lengths are in pieces; |Y| is the length of a translation Y with its EOS counted."""

    beam_size: int = 5  # open hypotheses per sentence; 1 is greedy search
    n_best: int = 1  # translations returned per sentence
    length_penalty: float = 1.0  # the exponent a; 0 ranks by log P(Y) alone
    normalization: Normalization = "gnmt"  # log P(Y) over ((5 + |Y|) / 6)^a (Wu et al. 2016, section 7), or |Y|^a
    max_length: int | None = None  # pieces before EOS, whatever the source
    max_length_ratio: float = 2.0  # pieces before EOS, per piece of the source (its EOS counted) ...
    max_length_offset: int = 10  # ... and on top of these

    def __post_init__(self) -> None:
        floors = {"beam_size": 1, "n_best": 1, "length_penalty": 0, "max_length": 1}
        for name, floor in (floors | {"max_length_ratio": 0, "max_length_offset": 0}).items():
            value = getattr(self, name)
            if value is not None and not floor <= value < math.inf:
                raise ValueError(f"{name} must be at least {floor} and finite, got {value}")
        if self.n_best > self.beam_size:
            raise ValueError(f"n_best is {self.n_best}, more than the {self.beam_size} of beam_size: widen the beam")
        if self.normalization not in get_args(Normalization):
            known = " or ".join(get_args(Normalization))
            raise ValueError(f"normalization is {known}, not {self.normalization!r}; length_penalty 0 turns it off")

    def limit(self, source_length: int) -> int:
        """The most pieces a translation may have before its EOS, which is then forced at the price the model asks."""
        relative = int(self.max_length_ratio * source_length + self.max_length_offset)
        return relative if self.max_length is None else min(relative, self.max_length)

    def divisor(self, length: int) -> float:
        """What log P(Y) is divided by to rank translations of this length |Y|; never falls with length."""
        base = length if self.normalization == "power" else (5 + length) / 6
        return float(base**self.length_penalty)


class Hypothesis(NamedTuple):
    """A finished translation."""

    tokens: tuple[int, ...]  # without BOS and EOS
    score: float  # what ranks it: log_prob over the divisor of its length
    log_prob: float  # natural log, EOS included
    alignment: Tensor | None = None  # (T, S) where each token looked, padding cut off; None if not asked for


class Beam(NamedTuple):
    """The open hypotheses."""

    log_probs: Tensor  # (B, W) best first; -inf where a sentence has fewer
    tokens: Tensor  # (B, W) the last token of each
    nodes: Tensor  # (B, W) where the history holds that token


class Finished(NamedTuple):
    """The best translations found so far, best first."""

    scores: Tensor  # (B, n_best) -inf where there are fewer
    log_probs: Tensor  # (B, n_best)
    nodes: Tensor  # (B, n_best) where the history holds the last token before EOS
    ends: Tensor  # (B,) how many hypotheses have ended, the forgotten ones too


class Frontier(NamedTuple):
    """The sentences still searched. All has one row per sentence, so that `select` lets the finished ones go."""

    beam: Beam
    finished: Finished
    sentences: Tensor  # (B,) their places in the batch
    limits: Tensor  # (B,) pieces before EOS
    divisors: Tensor  # (B,) of a translation as long as the limit allows


class History:
    """Every hypothesis ever opened: a node with its last token and the node before. Node 0 is BOS, its own parent.

    A step writes its nodes once and copies nothing; only what is returned is ever read back.
    """

    def __init__(self, device: torch.device) -> None:
        self.size = 1
        self.parents = [torch.zeros(1, dtype=torch.long, device=device)]  # (B * K,) per step
        self.tokens = [torch.zeros(1, dtype=torch.long, device=device)]  # (B * K,) per step
        self.looks: list[Tensor] = []  # (B * K, S) per step, if alignments are asked for; none for node 0

    def add(self, beam: Beam, looks: Tensor | None) -> Tensor:
        """Write down hypotheses that still carry their parents' nodes; gives their own (B, K)."""
        start, self.size = self.size, self.size + beam.nodes.numel()
        self.parents.append(beam.nodes.flatten())
        self.tokens.append(beam.tokens.flatten())
        self.looks += [] if looks is None else [looks]
        return torch.arange(start, self.size, device=beam.nodes.device).view_as(beam.nodes)

    def paths(self, nodes: Tensor) -> Tensor:
        """The nodes from BOS to each of these (...), as (..., steps): opened by as many 0 as a path is shorter."""
        parents, path = torch.cat(self.parents), [nodes]
        for _ in self.parents[1:]:
            path.append(parents[path[-1]])
        return torch.stack(path[::-1], dim=-1)

    def read(self, found: Finished, lengths: Tensor) -> list[list[Hypothesis]]:
        """The translations found, their alignments cut to the lengths (B,) of the sources."""
        paths, tokens = self.paths(found.nodes).cpu(), torch.cat(self.tokens).cpu()
        looks = torch.cat(self.looks).cpu() if self.looks else None
        scores, log_probs, widths = found.scores.tolist(), found.log_probs.tolist(), lengths.tolist()
        hypotheses: list[list[Hypothesis]] = [[] for _ in scores]
        for sentence, rank in (found.scores > -math.inf).nonzero().tolist():
            path = paths[sentence, rank]
            path = path[path > 0]  # (T,)
            look = None if looks is None else looks[path - 1, : widths[sentence]]  # (T, S)
            hypotheses[sentence].append(
                Hypothesis(tuple(tokens[path].tolist()), scores[sentence][rank], log_probs[sentence][rank], look)
            )
        return hypotheses


def select(state: Any, rows: Tensor | None, sentences: Tensor | None) -> Any:
    """The state of these rows and, under `memory`, of these sentences; None leaves all as it is, uncopied."""
    if rows is None:
        return state
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if not hasattr(state, "_fields"):
        return tuple(select(part, rows, sentences) for part in state)
    parts = zip(state._fields, state, strict=True)
    return type(state)(*(select(part, sentences if name == "memory" else rows, sentences) for name, part in parts))


def grow(beam: Beam, log_probs: Tensor, size: int, barred: Tensor, at_limit: Tensor) -> tuple[Beam, Tensor]:
    """Extend each hypothesis by each token that leaves it open, keep the K = `size` best; give the parent (B, K) too.

    The new hypotheses still carry their parents' nodes; a sentence at its limit (B,) gets none. `log_probs` is
    (B, W, V) for a beam W wide: 1 at first, then K, or less where there are fewer candidates.
    """
    # One parent keeps at most K children, and at most len(barred) are barred, EOS among them: its R best suffice.
    reach = min(size + len(barred), log_probs.size(2))
    scores, tokens = log_probs.topk(reach)  # (B, W, R)
    closed = torch.isin(tokens, barred) | at_limit[:, None, None]  # (B, W, R)
    candidates = (beam.log_probs[:, :, None] + scores).masked_fill(closed, -math.inf).flatten(1)  # (B, W * R)
    scores, chosen = candidates.topk(min(size, candidates.size(1)))  # (B, K)
    parents = chosen // reach  # (B, K)
    return Beam(scores, tokens.flatten(1).gather(1, chosen), beam.nodes.gather(1, parents)), parents


def finish(finished: Finished, ended: Tensor, nodes: Tensor, divisor: float) -> Finished:
    """Add hypotheses that end now: their log-probabilities (B, W), -inf for none, and last nodes (B, W)."""
    scores, kept = torch.cat([finished.scores, ended / divisor], dim=1).topk(finished.scores.size(1))  # (B, n_best)
    return Finished(
        scores,
        torch.cat([finished.log_probs, ended], dim=1).gather(1, kept),
        torch.cat([finished.nodes, nodes], dim=1).gather(1, kept),
        finished.ends + (ended > -math.inf).sum(1),
    )


def advance(
    frontier: Frontier, log_probs: Tensor, length: int, options: SearchOptions, eos: int, barred: Tensor
) -> tuple[Frontier, Tensor, Tensor]:
    """One step: the frontier after it, the row each hypothesis (B, K) extends, and which sentences (B,) are done.

    `log_probs` is (B, W, V), `length` that of a translation which ends now. An end counts if it is among the K best of
    all extensions, those that end and those that stay open.
    """
    size, before = options.beam_size, frontier.beam
    at_limit = frontier.limits < length  # (B,)
    beam, parents = grow(before, log_probs, size, barred, at_limit)
    ended = before.log_probs + log_probs[:, :, eos]  # (B, W)
    extensions = torch.cat([ended, beam.log_probs], dim=1)  # (B, W + K)
    last_place = extensions.topk(min(size, extensions.size(1))).values[:, -1:]  # (B, 1)
    ended = ended.masked_fill(ended < last_place, -math.inf)
    finished = finish(frontier.finished, ended, before.nodes, options.divisor(length))
    settled = finished.scores[:, -1] >= beam.log_probs[:, 0] / frontier.divisors  # (B,)
    done = at_limit | settled | (finished.ends >= size)
    first_rows = torch.arange(0, ended.numel(), ended.size(1), device=ended.device)  # (B,)
    return frontier._replace(beam=beam, finished=finished), first_rows[:, None] + parents, done


def nothing_finished(batch: int, n_best: int, device: torch.device) -> Finished:
    """An empty list of translations for each sentence."""
    nowhere = torch.full((batch, n_best), -math.inf, device=device)
    nodes = torch.zeros_like(nowhere, dtype=torch.long)
    return Finished(nowhere, nowhere.clone(), nodes, nodes.sum(1))


def first_frontier(lengths: Tensor, options: SearchOptions, bos: int) -> Frontier:
    """Each sentence of the batch with one open hypothesis, which is BOS."""
    batch, device = len(lengths), lengths.device
    limits = [options.limit(length) for length in lengths.tolist()]
    roots = torch.zeros(batch, 1, dtype=torch.long, device=device)
    return Frontier(
        Beam(torch.zeros(batch, 1, device=device), torch.full_like(roots, bos), roots),
        nothing_finished(batch, options.n_best, device),
        torch.arange(batch, device=device),
        torch.tensor(limits, dtype=torch.long, device=device),
        torch.tensor([options.divisor(limit + 1) for limit in limits], device=device),
    )


@torch.inference_mode()
def beam_search(
    stepper: Stepper[State],
    source: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    *,
    bos: int,
    eos: int,
    banned: Sequence[int] = (),
    with_alignment: bool = False,
) -> list[list[Hypothesis]]:
    """The `n_best` translations of each sentence of source ids (B, S), best first; fewer only where no more were found.

    Each step extends all open hypotheses by one token, keeps the K best that stay open, and sets aside those that end.
    Tokens in `banned` (PAD, UNK, BOS) are never produced. A sentence is done when

    - its limit is reached: there every open hypothesis ends, at the price of its EOS; or
    - K hypotheses have ended: so a beam of 1 takes the most probable token each time and stops at EOS; or
    - no open hypothesis can overtake the n_best-th translation found. Going on only lowers a log-probability l <= 0,
      and only raises the divisor, up to d at the limit: l / d bounds every score still to come. The best open
      hypothesis has the greatest bound; once that is reached, going on would not change the answer.

    So a beam as wide as the space of translations finds the best there are, and each sentence is answered as if it were
    alone. Raises ValueError if the model gives NaN.
    """
    barred = torch.tensor([eos, *banned], device=source.device)
    state = stepper.start(source, lengths)
    frontier = first_frontier(lengths, options, bos)
    found = nothing_finished(len(lengths), options.n_best, source.device)
    history = History(source.device)
    length = 0
    while len(frontier.sentences) > 0:
        length += 1
        batch, width = frontier.beam.tokens.shape
        log_probs, state = stepper.step(frontier.beam.tokens.flatten(), state)
        frontier, rows, done = advance(frontier, log_probs.view(batch, width, -1), length, options, eos, barred)
        open_ = (~done).nonzero().squeeze(1)
        staying = None if len(open_) == batch else open_
        if staying is not None:
            for every, some in zip(found, frontier.finished, strict=True):
                every[frontier.sentences] = some
        frontier, rows = select((frontier, rows), staying, staying)
        state = select(state, rows.flatten(), staying)
        nodes = history.add(frontier.beam, state.alignment if with_alignment else None)
        frontier = frontier._replace(beam=frontier.beam._replace(nodes=nodes))
    if found.scores.isnan().any():
        raise ValueError("the model gave NaN log-probabilities: look at its training loss, or try another precision")
    return history.read(found, lengths)
