"""Attention drawn to the diagonal over the first updates, until words have found what they translate.

Left to itself, attention may begin at the wrong end: a source that is read in both directions tells as much of its
order backwards as forwards, and which of the two a network takes up is chance. Mirrored, it hardly learns which word
says what.

Shapes: **B** sentences, **S** source length, **T** target length.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

WIDTH = 0.2  # of a sentence: so far from the diagonal the penalty is at 40 % of its most


class Pairs(Protocol):
    """What the guide reads of a batch."""

    @property
    def source_lengths(self) -> Tensor:
        """(B,) words, EOS counted."""

    @property
    def target_out(self) -> Tensor:
        """(B, T)."""

    @property
    def words(self) -> Tensor:
        """(W,) places in it, row after row, that are no padding."""


def off_diagonal(weights: Tensor, source_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """How much of each target word's attention (B, T, S) lies off the diagonal: (B, T), from 0 to 1.

    sum_s a_ts (1 - exp(-(s/S - t/T)^2 / 2 g^2)), with g of `WIDTH` (Tachibana et al. 2018, section 4.1).
    """
    target, source = (torch.arange(size, device=weights.device) for size in weights.shape[1:])
    apart = (source / source_lengths[:, None])[:, None] - (target / target_lengths[:, None])[:, :, None]  # (B, T, S)
    return (weights * (1 - torch.exp(-apart.square() / (2 * WIDTH**2)))).sum(2)


class Guide:
    """What training pays, over so many updates ever less, for attention off the diagonal; it listens to the attention.

    An attention that looks nowhere costs nothing.
    """

    def __init__(self, model: Any, updates: int) -> None:
        self.updates, self.looks = updates, list[Tensor]()  # (B, T, S) of a batch, stretch by stretch
        if updates:
            model.decoder.attention.register_forward_hook(self._look)

    def _look(self, attention: nn.Module, _inputs: object, found: tuple[Tensor, Tensor]) -> None:
        self.looks += [found[1]] if attention.training else []

    def penalty(self, update: int, batch: Pairs) -> Tensor | float:
        """Summed over the words of the batch that was read last."""
        looks, self.looks = self.looks, []
        share = 1 - update / max(self.updates, 1)
        if not looks or share <= 0:
            return 0.0
        real = torch.zeros_like(batch.target_out).flatten().index_fill(0, batch.words, 1).view_as(batch.target_out)
        apart = off_diagonal(torch.cat(looks, dim=1), batch.source_lengths, real.sum(1))  # (B, T)
        return share * (apart * real).sum()
