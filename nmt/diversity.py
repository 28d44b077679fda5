"""Diverse beam search: groups of hypotheses that avoid what earlier groups say (Vijayakumar et al. 2018, section 3).

Shapes: see nmt/search.py; B counts groups, K hypotheses are in each.
"""

import math

import torch
from torch import Tensor

from nmt.search import Candidates, Choice, Moment


def diverse(groups: int, strength: float) -> Choice:
    """A choice for `groups` groups per sentence; each avoids tokens that hypotheses before it have just said.

    Of the log-probability of a token, `strength` nats are taken per hypothesis of earlier groups that goes on with it
    at the same place (Hamming diversity). That steers the choice alone: hypotheses keep their log-probabilities.
    """

    def choose(before: Tensor, log_probs: Tensor, size: int, moment: Moment) -> Candidates:
        # The others have at most K (groups - 1) tokens to avoid, so as many more suffice; see `best`.
        reach = min(size * groups + 1, log_probs.size(2))
        scores, tokens = log_probs.topk(reach)  # (B, W, R)
        scores = (before[:, :, None] + scores).view(-1, groups, before.size(1) * reach)  # (sentences, groups, W * R)
        tokens = tokens.view_as(scores)
        said = tokens[:, 0, :0]  # (sentences, hypotheses of earlier groups)
        chosen = []
        for group in range(groups):
            repeats = (tokens[:, group, :, None] == said[:, None]).sum(2)  # (sentences, W * R)
            best = (scores[:, group] - strength * repeats).topk(min(2 * size, scores.size(2))).indices
            chosen.append(best)
            kept = best[:, :size]  # (sentences, K)
            alive = scores[:, group].gather(1, kept) > -math.inf
            said = torch.cat([said, tokens[:, group].gather(1, kept).masked_fill(~alive, -1)], dim=1)
        order = torch.stack(chosen, dim=1)  # (sentences, groups, C)
        parts = scores.gather(2, order), tokens.gather(2, order), order // reach
        return Candidates(*(part.flatten(0, 1) for part in parts))

    return choose
