"""Lexical constraints: phrases that must appear in a translation.

A beam of the best alone would drop hypotheses that pay for a phrase early. So its places are dealt among banks of
hypotheses that have said equally much of the phrases: dynamic beam allocation (Post & Vilar 2018), in the batched form
of Hu et al. 2019 (each bank's best, then each bank's second best, ...). How far a phrase has come is read off what was
said, so phrases may overlap and start over within themselves.

Shapes: see nmt/search.py; M phrases per sentence, L pieces of the longest, T pieces said so far, R candidates of a row.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nmt.rules import apply
from nmt.search import Candidates, Choice, Moment, Rule


class Progress(NamedTuple):
    """How far hypotheses have come."""

    phrases: Tensor  # (B, M, L) filled up with -1
    sizes: Tensor  # (B, M) pieces of each, 0 for none
    met: Tensor  # (B, W, M) whether the phrase was said
    alive: Tensor  # (B, W, M, L) whether the last l pieces said are the phrase's first l, for l below its size

    @property
    def missing(self) -> Tensor:
        """Pieces (B, W) of the phrases that are not met."""
        return self.sizes[:, None].masked_fill(self.met, 0).sum(2)

    @property
    def need(self) -> Tensor:
        """Pieces (B, W) that suffice to meet all: to end the phrase that has come furthest, then say the others."""
        lengths = torch.arange(self.alive.size(3), device=self.alive.device)
        furthest = (self.alive * lengths).amax(3).masked_fill(self.met, 0).amax(2)  # (B, W)
        return self.missing - furthest

    def need_after(self, tokens: Tensor) -> Tensor:
        """`need` (B, W, R) once each of these tokens (B, W, R) is said too."""
        lengths = torch.arange(1, self.alive.size(3) + 1, device=tokens.device)
        goes_on = self.alive[:, :, None] & (self.phrases[:, None, None] == tokens[..., None, None])  # (B, W, R, M, L)
        come = (goes_on * lengths).amax(4)  # (B, W, R, M)
        met = self.met[:, :, None] | (come == self.sizes[:, None, None])
        missing = self.sizes[:, None, None].masked_fill(met, 0).sum(3)
        return missing - come.masked_fill(met, 0).amax(3)


def progress(said: Tensor, phrases: Tensor, sizes: Tensor) -> Progress:
    """Read off what was said (B, W, T) how far phrases (B, M, L) of these sizes (B, M) have come."""
    longest, spoken = phrases.size(2), said.size(2)
    alive = torch.zeros(*said.shape[:2], *phrases.shape[1:], dtype=torch.bool, device=said.device)
    for length in range(min(longest, spoken + 1)):
        tail = said[:, :, None, spoken - length :]  # (B, W, 1, l)
        alive[..., length] = (tail == phrases[:, None, :, :length]).all(3) & (sizes[:, None] > length)
    windows = torch.nn.functional.pad(said, (0, longest), value=-2).unfold(2, longest, 1)  # (B, W, T + 1, L)
    wanted = phrases[:, None, :, None]  # (B, 1, M, 1, L)
    met = ((windows[:, :, None] == wanted) | (wanted < 0)).all(4).any(3)  # (B, W, M)
    return Progress(phrases, sizes, met, alive)


class Constraints:
    """The phrases of each sentence, as a rule and as a choice; both need a state of `Recording`."""

    def __init__(self, constraints: Sequence[Sequence[Sequence[int]]], device: torch.device) -> None:
        constraints = [list(dict.fromkeys(map(tuple, sentence))) for sentence in constraints]  # said twice is said
        most = max(map(len, constraints), default=0)
        longest = max((len(phrase) for phrases in constraints for phrase in phrases), default=0)
        phrases = [[*sentence, *[()] * (max(1, most) - len(sentence))] for sentence in constraints]
        rows = [[[*phrase, *[-1] * (max(1, longest) - len(phrase))] for phrase in sentence] for sentence in phrases]
        sizes = [[len(phrase) for phrase in sentence] for sentence in phrases]
        self.phrases = torch.tensor(rows, dtype=torch.long, device=device)  # (B, M, L)
        self.sizes = torch.tensor(sizes, dtype=torch.long, device=device)  # (B, M)

    def now(self, moment: Moment, width: int) -> Progress:
        """How far each of W hypotheses has come."""
        said = moment.state.said.view(len(moment.sentences), width, -1)[:, :, 1:]
        return progress(said, self.phrases[moment.sentences], self.sizes[moment.sentences])

    def rule(self, others: Sequence[Rule], limits: Sequence[int], eos: int, device: torch.device) -> Rule:
        """No end before every phrase is said, and in time nothing else, so that no translation lacks any.

        A limit must leave room for all phrases one after another. Where phrases overlap, translations that would have
        room only thanks to that are not found.
        """
        most = torch.tensor(limits, device=device)

        def rule(log_probs: Tensor, moment: Moment) -> None:
            now = self.now(moment, log_probs.size(1))
            pieces = now.phrases.flatten(1)[:, None].expand(-1, log_probs.size(1), -1)  # (B, W, M * L)
            words, after = pieces.clamp(min=0), now.need_after(pieces)
            asked = log_probs.gather(2, words)
            apply(others, log_probs, moment)
            price = asked.where(after < now.need[..., None], log_probs.gather(2, words))
            room = (most[moment.sentences] - moment.length).clamp(min=0)[:, None]  # (B, 1) once the next piece is said
            price = price.masked_fill((pieces < 0) | (after > room[..., None]), -math.inf)
            log_probs.masked_fill_((now.missing > room)[..., None], -math.inf)
            log_probs[:, :, eos].masked_fill_(now.missing > 0, -math.inf)
            log_probs.scatter_reduce_(2, words, price, "amax")

        return rule

    def choice(self) -> Choice:
        """Each row's best and all that bring a phrase on, dealt from the banks in turn."""

        def choose(before: Tensor, log_probs: Tensor, size: int, moment: Moment) -> Candidates:
            now = self.now(moment, before.size(1))
            pieces = now.phrases.flatten(1)[:, None].expand(-1, before.size(1), -1)  # (B, W, M * L)
            words = pieces.clamp(min=0)
            onward = (now.need_after(pieces) < now.need[..., None]) & (log_probs.gather(2, words) > -math.inf)
            first = torch.full_like(onward, -math.inf, dtype=log_probs.dtype).masked_fill_(onward, 1)
            reach = min(size + 1 + now.phrases.size(1), log_probs.size(2))
            tokens = log_probs.scatter_reduce(2, words, first, "amax").topk(reach).indices  # (B, W, R)
            # Sentences with more phrases beside this one must not lengthen its rows.
            own = size + 1 + (now.sizes > 0).sum(1)  # (B,)
            spare = torch.arange(reach, device=own.device) >= own[:, None, None]  # (B, 1, R)
            scores = (before[:, :, None] + log_probs.gather(2, tokens)).masked_fill(spare, -math.inf)
            count = min(2 * size, before.size(1) * reach)
            order = deal(scores.flatten(1), now.need_after(tokens).flatten(1))[:, :count]  # (B, C)
            parts = scores.flatten(1).gather(1, order), tokens.flatten(1).gather(1, order), order // reach
            return Candidates(*parts)

        return choose


def deal(scores: Tensor, need: Tensor) -> Tensor:
    """The order (B, C) in which candidates are kept: by their rank in their bank, which is those that need as much.

    Of equal ranks those that need less go first; what is impossible goes last.
    """
    by_score = scores.argsort(dim=1, descending=True, stable=True)
    banks, order = need.gather(1, by_score).sort(dim=1, stable=True)  # each bank best first
    order = by_score.gather(1, order)
    place = torch.arange(scores.size(1), device=scores.device).expand_as(banks)
    fresh = torch.ones_like(banks, dtype=torch.bool)
    fresh[:, 1:] = banks[:, 1:] != banks[:, :-1]
    rank = place - place.where(fresh, 0).cummax(dim=1).values
    rank = rank.masked_fill(scores.gather(1, order) == -math.inf, scores.size(1))
    return order.gather(1, rank.argsort(dim=1, stable=True))
