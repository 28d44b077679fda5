"""What may be said next: rules, which write -inf over log-probabilities (B, W, V) before the search chooses among them.

A rule that forces tokens is built around the others, for what is asked for by name is said at the model's own price,
whatever they forbid. Shapes: see nmt/search.py; T pieces said so far.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nmt.search import Moment, Rule


def minimum_length(minimums: Sequence[int], eos: int, device: torch.device) -> Rule:
    """No EOS before a sentence has its minimum of pieces."""
    fewest, last = torch.tensor(minimums, device=device), max(minimums, default=0)

    def rule(log_probs: Tensor, moment: Moment) -> None:
        if moment.length <= last:
            early = fewest[moment.sentences] >= moment.length  # (B,)
            log_probs[:, :, eos].masked_fill_(early[:, None], -math.inf)

    return rule


def no_repeat(size: int) -> Rule:
    """No n = `size` pieces in a row twice (Paulus et al. 2018, section 2.5). Needs a state of `Recording`."""

    def rule(log_probs: Tensor, moment: Moment) -> None:
        said: Tensor = moment.state.said.view(*log_probs.shape[:2], -1)[:, :, 1:]  # (B, W, T)
        later = said[:, :, size - 1 :]  # (B, W, T - n + 1) the last piece of each n-gram
        if not (count := later.size(2)):
            return
        same = torch.ones_like(later, dtype=torch.bool)
        for place in range(size - 1):
            same &= said[:, :, place : place + count] == said[:, :, count + place, None]
        log_probs.scatter_add_(2, later, torch.zeros_like(later, dtype=log_probs.dtype).masked_fill_(same, -math.inf))

    return rule


def forced_prefix(prefixes: Sequence[Sequence[int]], others: Sequence[Rule], device: torch.device) -> Rule:
    """First a sentence's prefix, of any length, and no choice; from there on what the other rules leave."""
    longest = max(map(len, prefixes), default=0)
    padded = [[*prefix, *[-1] * (longest - len(prefix))] for prefix in prefixes]
    tokens = torch.tensor(padded, dtype=torch.long, device=device)  # (B, longest)

    def rule(log_probs: Tensor, moment: Moment) -> None:
        if moment.length > longest:
            apply(others, log_probs, moment)
            return
        wanted = tokens[moment.sentences, moment.length - 1]  # (B,) -1 where the prefix is over
        index = wanted.clamp(min=0)[:, None, None].expand(-1, log_probs.size(1), 1)  # (B, W, 1)
        held, asked = (wanted >= 0)[:, None, None], log_probs.gather(2, index)
        apply(others, log_probs, moment)
        price = asked.where(held, log_probs.gather(2, index))
        log_probs.masked_fill_(held, -math.inf).scatter_(2, index, price)

    return rule


def apply(rules: Sequence[Rule], log_probs: Tensor, moment: Moment) -> None:
    """One after another."""
    for rule in rules:
        rule(log_probs, moment)
