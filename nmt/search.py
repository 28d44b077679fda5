"""Beam search: the most probable translations under any model that can say how probable the next token is.

This file has the options, what a model must offer, the candidate step and the stopping rule. Rules say what may be said
next (nmt/rules.py); something else than the best may be kept (nmt/constraints.py, nmt/diversity.py); nmt/decoding.py
puts them together from the options.

Shapes: B sentences, S source length, T target length, K beam (W as it is now), V vocabulary, N rows of one model step,
C candidates. Groups of a diverse beam search count as sentences that share a memory: B is then sentences times groups.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from nmt.states import leaving, select

Normalization = Literal["gnmt", "power", "none"]


class Looking(Protocol):
    """The one field of a model's state that the search reads."""

    @property
    def alignment(self) -> Tensor:
        """(N, S) where on the source the last step looked; (N, 0) from a model without attention."""


State = TypeVar("State", bound=Looking)


class Stepper(Protocol[State]):
    """All that the search knows of a model.

    A state is any nesting of NamedTuples and tuples of tensors. What lies under a field named `memory` has one row per
    sentence and is only read by a step, but the search writes over what `start` gave it; every other tensor has one row
    per hypothesis, but those of a `Picked`, which has the rows' numbers. The rows of a sentence lie together, so that
    row n of N belongs to the memory's row n // (N // B).
    """

    def start(self, source: Tensor, lengths: Tensor) -> State:
        """The state before BOS is read, one hypothesis per sentence, from source ids (B, S) of these lengths (B,)."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token per row (N,); give the log-probabilities of the next (N, V): float32, none above 0.

        They are the search's from then on: it writes -inf over what may not be said. V may be a part of the vocabulary;
        all ids that go in and out are then places in that part. (Of `Offering` each row has a part of its own, and ids
        are the vocabulary's: its search has a choice, a pick and an `end` to match; see nmt/offers.py.)
        """


@dataclass(frozen=True)
class SearchOptions:
    """How to search. Lengths are in pieces; |Y| is the length of a translation Y with its EOS counted.

    Translations are ranked by log P(Y) / divisor(|Y|) + length_reward |Y| + coverage_penalty c(Y).
    """

    beam_size: int = 5  # open hypotheses per sentence; 1 is greedy search
    n_best: int = 1  # translations returned per sentence
    length_penalty: float = 1.0  # the exponent a; 0 ranks by log P(Y) alone
    normalization: Normalization = "gnmt"  # divisor ((5 + |Y|) / 6)^a (Wu et al. 2016, section 7), |Y|^a, or none: 1
    length_reward: float = 0.0  # nats per piece (Murray & Chiang 2018, who divide by nothing beside it)
    coverage_penalty: float = 0.0  # times c(Y) = sum_i log min(sum_j p_ij, 1) over source pieces i (Wu et al. 2016)
    early_stopping: bool = True  # stop once beam_size hypotheses have ended, even if an open one could still win
    max_length: int | None = None  # pieces before EOS, whatever the source
    max_length_ratio: float = 2.0  # pieces before EOS, per piece of the source (its EOS counted) ...
    max_length_offset: int = 10  # ... and on top of these
    min_length: int = 0  # pieces before EOS, but never more than max_length
    min_length_ratio: float = 0.0  # pieces before EOS, per piece of the source (its EOS counted)
    no_repeat_ngram: int = 0  # no n pieces in a row twice in a translation; 0 allows it
    allow_unknown: bool = False  # whether UNK may be said
    diverse_groups: int = 1  # groups of beam_size / groups hypotheses that avoid each other (Vijayakumar et al. 2018)
    diversity: float = 0.5  # nats off a token for each earlier group's hypothesis that says it at the same place

    def __post_init__(self) -> None:
        floors = {"beam_size": 1, "n_best": 1, "length_penalty": 0, "length_reward": -math.inf, "coverage_penalty": 0}
        floors |= {"max_length": 1, "max_length_ratio": 0, "max_length_offset": 0, "min_length": 0}
        floors |= {"min_length_ratio": 0, "no_repeat_ngram": 0, "diverse_groups": 1, "diversity": 0}
        for name, floor in floors.items():
            value = getattr(self, name)
            if value is not None and not (floor <= value < math.inf and value > -math.inf):
                least = f"at least {floor} and " if floor > -math.inf else ""
                raise ValueError(f"{name} must be {least}finite, got {value}")
        if self.length_penalty > 10:  # the divisor of a long translation would be no float32 any more
            raise ValueError(f"length_penalty must be at most 10, got {self.length_penalty}")
        if self.n_best > self.beam_size:
            raise ValueError(f"n_best is {self.n_best}, more than the {self.beam_size} of beam_size: widen the beam")
        if self.beam_size % self.diverse_groups:
            raise ValueError(
                f"diverse_groups is {self.diverse_groups}, which does not divide beam_size {self.beam_size}"
            )
        if self.normalization not in get_args(Normalization):
            known = ", ".join(get_args(Normalization))
            raise ValueError(f"normalization is one of {known}, not {self.normalization!r}")

    def limit(self, source_length: int) -> int:
        """The most pieces a translation may have before its EOS, which is then forced at the price the model asks."""
        relative = max(int(self.max_length_ratio * source_length + self.max_length_offset), self.minimum(source_length))
        return relative if self.max_length is None else min(relative, self.max_length)

    def minimum(self, source_length: int) -> int:
        """The fewest pieces a translation must have before its EOS; a `max_length` below it goes before."""
        return max(self.min_length, int(self.min_length_ratio * source_length))

    def divisor(self, length: int) -> float:
        """What log P(Y) is divided by to rank translations of this length |Y|; at least 1, never falls with length."""
        if self.normalization == "none":
            return 1.0
        base = length if self.normalization == "power" else (5 + length) / 6
        return float(base**self.length_penalty)


class Hypothesis(NamedTuple):
    """A finished translation."""

    tokens: tuple[int, ...]  # without BOS and EOS
    score: float  # what ranks it: log_prob over the divisor of its length, with its reward and penalty
    log_prob: float  # natural log, EOS included: the sum of what the stepper said
    alignment: Tensor | None = None  # (T, S) where each token looked, padding cut off; None if not asked for


class Moment(NamedTuple):
    """What a rule or a choice may look at."""

    state: Any  # the stepper's, after it read the last tokens
    sentences: Tensor  # (B,) their places in the batch
    length: int  # |Y| of a translation that ends now


class Candidates(NamedTuple):
    """Hypotheses one token longer, the ones to keep first."""

    log_probs: Tensor  # (B, C)
    tokens: Tensor  # (B, C) the last of each
    parents: Tensor  # (B, C) which of the sentence's W hypotheses each extends

    def parted(self, width: int, size: int, eos: int) -> tuple["Candidates", "Candidates"]:
        """The first K = `size` that stay open, and what ends of the first K; parents are rows, W = `width` a sentence.

        The other log-probabilities of the ends (B, K) are -inf; on a CPU, where looks are cheap, none are (B, 0).
        """
        is_end = self.tokens == eos  # (B, C)
        opening = min(size, is_end.size(1) - width)
        first_rows = torch.arange(0, is_end.size(0) * width, width, device=is_end.device)
        parts = self.log_probs, self.tokens, self.parents + first_rows[:, None]
        if not is_end.is_cuda and not is_end.any():
            return Candidates(*(part[:, :opening] for part in parts)), Candidates(*(part[:, :0] for part in parts))
        open_ = is_end.sort(dim=1, stable=True).indices[:, :opening]  # (B, K), in their order
        ends = Candidates(*(part[:, :size] for part in (parts[0].where(is_end, -math.inf), *parts[1:])))
        return Candidates(*(part.gather(1, open_) for part in parts)), ends


class Frontier(NamedTuple):
    """The sentences still searched. All has one row per sentence, so that `select` lets the finished ones go."""

    log_probs: Tensor  # (B, W) of the open hypotheses; -inf where a sentence has fewer
    tokens: Tensor  # (B, W) the last token of each
    best: Tensor  # (B, n_best) scores of the best translations so far, -inf where there are fewer
    ends: Tensor  # (B,) how many hypotheses have ended
    sentences: Tensor  # (B,) their places in the batch
    longest: Tensor  # (B,) |Y| of a translation as long as the limit allows
    divisors: Tensor  # (B,) of such a translation


Rule = Callable[[Tensor, Moment], None]  # writes -inf over what may not be said next, in log-probabilities (B, W, V)
Choice = Callable[[Tensor, Tensor, int, Moment], Candidates]  # `best` and what may take its place
Key = Callable[[tuple[int, ...]], Hashable]  # of a translation's tokens: those for which it agrees count as one
Bonus = Callable[[Any], Tensor]  # of the stepper's state: (N,), none above 0, added to the score of what ends now


class History:
    """Every hypothesis ever opened: a node with its last token and the node before; and every one that ended.

    A step writes its nodes once and copies nothing; only what is returned is ever read back.
    """

    def __init__(self, roots: int, device: torch.device, no_look: Tensor | None = None) -> None:
        self.roots = roots
        self.start, self.size = 0, roots  # nodes of the last step
        self.parents = [torch.arange(roots, device=device)]  # (B * K,) per step; roots, which are BOS, are their own
        self.tokens = [torch.zeros_like(self.parents[0])]  # (B * K,) per step
        self.looks = [] if no_look is None else [no_look]  # (B * K, S) per step, if they are asked for; first (0, S)
        self.ended: list[tuple[Tensor, Tensor, Tensor, list[int]]] = []  # scores, log-probabilities, nodes; sentences

    def add(self, rows: Tensor, tokens: Tensor, looks: Tensor | None) -> None:
        """Write down the hypotheses that extend these rows (N,) of the step before by these tokens (N,)."""
        self.parents.append(rows + self.start)
        self.tokens.append(tokens)
        self.looks += [] if looks is None else [looks]
        self.start, self.size = self.size, self.size + len(rows)

    def end(self, scores: Tensor, ends: Candidates, sentences: list[int]) -> None:
        """Write down the ends after rows of the step before, their scores (B, K) and whose they are (B,)."""
        self.ended.append((scores, ends.log_probs, ends.parents + self.start, sentences))

    def paths(self, nodes: Tensor) -> Tensor:
        """The nodes from a root to each of these (M,), as (M, steps): opened by as many roots as a path is shorter."""
        parents, path = torch.cat(self.parents), [nodes]
        while len(path) < len(self.parents):
            path.append(parents[path[-1]])
        return torch.stack(path[::-1], dim=1)

    def endings(self, most: float) -> tuple[list[int], list[float], list[float], Tensor]:
        """The `most` best per sentence: whose, score, log-probability and last node (M,) of each, best first."""
        scores = torch.cat([end[0].flatten() for end in self.ended]).cpu()
        log_probs = torch.cat([end[1].flatten() for end in self.ended]).cpu()
        nodes = torch.cat([end[2].flatten() for end in self.ended])
        if scores.isnan().any():
            raise ValueError("the model gave NaN log-probabilities: look at its loss, or try another precision")
        owners = [owner for end in self.ended for owner in end[3] for _ in range(end[0].size(1))]
        seen, order = Counter[int](), []
        for place in scores.argsort(descending=True, stable=True)[: (scores > -math.inf).sum()].tolist():
            seen[owners[place]] += 1
            order += [place] * (seen[owners[place]] <= most)
        found = [owners[place] for place in order], scores[order].tolist(), log_probs[order].tolist()
        return *found, nodes[torch.tensor(order, dtype=torch.long, device=nodes.device)]

    def read(self, lengths: list[int], n_best: int, groups: int, distinct: Key | None) -> list[list[Hypothesis]]:
        """The `n_best` translations per sentence, alignments cut to the sources' lengths."""
        found: list[dict[Hashable, Hypothesis]] = [{} for _ in lengths]
        if not self.ended:
            return [[] for _ in lengths]
        owners, scores, log_probs, nodes = self.endings(math.inf if distinct else n_best)
        paths = self.paths(nodes)
        tokens, lasting = torch.cat(self.tokens)[paths].tolist(), (paths >= self.roots).sum(1).tolist()
        paths, looks = paths.cpu(), torch.cat(self.looks).cpu() if self.looks else None
        for path, said, last, owner, score, log_prob in zip(
            paths, tokens, lasting, owners, scores, log_probs, strict=True
        ):
            sentence, first = owner // groups, len(said) - last
            words = tuple(said[first:])
            look = None if looks is None else looks[path[first:] - self.roots, : lengths[sentence]]  # (T, S)
            found[sentence].setdefault((distinct or tuple)(words), Hypothesis(words, score, log_prob, look))
        return [list(different.values())[:n_best] for different in found]


def ban(tokens: Tensor, log_probs: Tensor, moment: Moment) -> None:
    """A rule: never these tokens."""
    log_probs.index_fill_(2, tokens, -math.inf)


def end_here(log_probs: Tensor, at_limit: list[bool], eos: int) -> None:
    """Leave the sentences at their limit nothing of log-probabilities (B, W, V) but EOS, at the model's price."""
    places = torch.tensor([place for place, over in enumerate(at_limit) if over], device=log_probs.device)
    price = log_probs[places, :, eos]
    log_probs.index_fill_(0, places, -math.inf)[places, :, eos] = price


def best(before: Tensor, log_probs: Tensor, size: int, moment: Moment) -> Candidates:
    """The 2K best extensions of hypotheses (B, W) by tokens (B, W, V), best first: K = `size` of them stay open.

    One parent keeps at most K open children and one end, so its K + 1 best suffice; and W <= K parents have W ends.
    """
    reach = min(size + 1, log_probs.size(2))
    scores, tokens = log_probs.topk(reach)  # (B, W, R)
    candidates = (before[:, :, None] + scores).flatten(1)  # (B, W * R)
    candidates, chosen = candidates.topk(min(2 * size, candidates.size(1)))  # (B, C)
    return Candidates(candidates, tokens.flatten(1).gather(1, chosen), chosen // reach)


def advance(frontier: Frontier, candidates: Candidates, size: int, eos: int) -> tuple[Frontier, Tensor, Candidates]:
    """The frontier of the first K candidates that stay open, the rows (B, K) they extend, and the ends."""
    opened, ends = candidates.parted(frontier.tokens.size(1), size, eos)
    return frontier._replace(log_probs=opened.log_probs, tokens=opened.tokens), opened.parents, ends


def score(ends: Candidates, moment: Moment, options: SearchOptions, bonus: Bonus | None) -> Tensor:
    """What ranks translations (B, K) that end now; -inf where none does."""
    scores = ends.log_probs / options.divisor(moment.length) + options.length_reward * moment.length
    return scores if bonus is None else scores + bonus(moment.state)[ends.parents]


def finish(frontier: Frontier, scores: Tensor) -> Frontier:
    """The frontier after hypotheses with these scores (B, K), -inf for none, have ended."""
    merged = torch.cat([frontier.best, scores], dim=1)
    ends = frontier.ends + (scores != -math.inf).sum(1)  # NaN counts: it is reported once the search is over
    return frontier._replace(best=merged.topk(frontier.best.size(1)).values, ends=ends)


def settled(frontier: Frontier, length: int, size: int, options: SearchOptions) -> Tensor:
    """Which sentences (B,) are done: no open hypothesis can overtake the n_best-th translation, or K have ended.

    The proof: let an open hypothesis have log-probability l <= 0, and let it still become a translation Y of length
    n < |Y| <= M, where n is `length` and M what the limit allows. Each token adds at most 0, so log P(Y) <= l <= 0; the
    divisor d is positive and never falls, so log P(Y) / d(|Y|) <= l / d(|Y|) <= l / d(M). The coverage penalty adds at
    most 0. A reward r adds r |Y|, at most r M if r > 0 and r (n + 1) if not. So the score of Y is at most

        l / d(M) + max(r M, r (n + 1))

    which rises with l: the best open hypothesis bounds them all. What has ended stays, so once the n_best-th score has
    reached this bound, going on would not change the answer. (With nothing to open, l = -inf and the bound is reached.)
    The proof asks no more of a step than to be at most 0: it may be unnormalised, as in ensembles and fusion.
    """
    bounds = frontier.log_probs.amax(1) / frontier.divisors  # (B,)
    if options.length_reward > 0:
        bounds = bounds + options.length_reward * frontier.longest
    elif options.length_reward < 0:
        bounds = bounds + options.length_reward * (length + 1)
    done = frontier.best[:, -1] >= bounds
    return done | (frontier.ends >= size) if options.early_stopping else done


def first_frontier(limits: list[int], n_best: int, options: SearchOptions, bos: int, device: torch.device) -> Frontier:
    """Each sentence with one open hypothesis, which is BOS."""
    batch, longest = len(limits), [limit + 1 for limit in limits]
    return Frontier(
        torch.zeros(batch, 1, device=device),
        torch.full((batch, 1), bos, device=device),
        torch.full((batch, n_best), -math.inf, device=device),
        torch.zeros(batch, dtype=torch.long, device=device),
        torch.arange(batch, device=device) // options.diverse_groups,
        torch.tensor(longest, dtype=torch.long, device=device),
        torch.tensor([options.divisor(length) for length in longest], device=device),
    )


def go_on(
    frontier: Frontier, rows: Tensor, state: Any, done: list[bool], groups: int
) -> tuple[Frontier, Tensor, Any, list[int]]:
    """Go on with the sentences of which any group is not done.

    Their frontier, rows (B, K) and state, and the places where they stood, for their order is another.
    """
    over = [all(done[first : first + groups]) for first in range(0, len(done), groups)]
    gone = leaving(over, rows.device)
    if gone is None:
        return frontier, rows, select(state, rows.flatten(), None), list(range(len(done)))
    kept = [sentence * groups + group for sentence in gone.order for group in range(groups)]
    frontier, rows = select((frontier, rows), torch.tensor(kept, dtype=torch.long, device=rows.device), None)
    return frontier, rows, select(state, rows.flatten(), gone), kept


@torch.inference_mode()
def beam_search(
    stepper: Stepper[State],
    source: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    *,
    bos: int,
    eos: int,
    end: int | None = None,
    banned: Sequence[int] = (),
    rules: Sequence[Rule] = (),
    choose: Choice = best,
    bonus: Bonus | None = None,
    limits: Sequence[int] | None = None,
    distinct: Key | None = None,
    with_alignment: bool = False,
) -> list[list[Hypothesis]]:
    """The `n_best` translations of each sentence of source ids (B, S), best first; fewer only where no more were found.

    Each step extends all open hypotheses by one token, keeps K that stay open (the best, or what `choose` prefers), and
    sets aside those that end among the first K. Nothing `banned` (PAD, UNK, BOS) is said, nor what `rules` forbid. A
    sentence is done when its limit is reached, where every open hypothesis ends, at the price of its EOS; or when it is
    `settled`, whose proof is there. So a beam of 1 takes the most probable token each time and stops at EOS, one as
    wide as the space of translations finds the best there are, and each sentence is answered as if it were alone.

    EOS stands in column `end` of what the stepper says, if not at its id. Translations that agree under `distinct`
    count once; K of them must then be safe, not n_best. Raises ValueError if the model gives NaN.
    """
    device, groups, size = source.device, options.diverse_groups, options.beam_size // options.diverse_groups
    source_lengths = lengths.tolist()
    limits = [limit for limit in limits or map(options.limit, source_lengths) for _ in range(groups)]
    rules = [partial(ban, torch.tensor(banned, device=device)), *rules] if banned else rules
    frontier = first_frontier(limits, size if distinct else min(options.n_best, size), options, bos, device)
    state = select(stepper.start(source, lengths), frontier.sentences if groups > 1 else None, None)
    history = History(len(limits), device, state.alignment[:0] if with_alignment else None)
    sentences, length, anything = list(range(len(limits))), 0, False
    while sentences:
        length += 1
        log_probs, state = stepper.step(frontier.tokens.flatten(), state)
        log_probs, moment = log_probs.view(*frontier.tokens.shape, -1), Moment(state, frontier.sentences, length)
        for rule in rules:
            rule(log_probs, moment)
        done = [limits[sentence] < length for sentence in sentences]
        if any(done):
            end_here(log_probs, done, eos if end is None else end)
        candidates = choose(frontier.log_probs, log_probs, size, moment)
        frontier, rows, ends = advance(frontier, candidates, size, eos)
        # Until anything has ended, only limits make done, and `any` is the step's one look at the device.
        anything = anything or (ends.tokens.numel() > 0 and bool(ends.log_probs.ne(-math.inf).any()))
        if anything:
            scores = score(ends, moment, options, bonus)
            history.end(scores, ends, sentences)
            frontier = finish(frontier, scores)
            done = [a or b for a, b in zip(done, settled(frontier, length, size, options).tolist(), strict=True)]
        if all(done):
            break
        frontier, rows, state, kept = go_on(frontier, rows, state, done, groups)
        sentences = [sentences[place] for place in kept]
        history.add(rows.flatten(), frontier.tokens.flatten(), state.alignment if with_alignment else None)
    return history.read(source_lengths, options.n_best, groups, distinct)
