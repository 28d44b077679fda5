"""The best of a large vocabulary, found in half the time that topk and argmax take on a CPU, or by our own kernels.

Shapes: see nmt/search.py.
"""

import torch
from torch import Tensor

from nmt import native
from nmt.search import Candidates, Moment, best

COLUMN = 16  # elements that are compared before the best are looked for


class Found(Candidates):
    """Candidates that our own kernel has found, and parts."""

    def parted(self, width: int, size: int, eos: int) -> tuple[Candidates, Candidates]:
        """As others are, but that ends are (B, 0) also where none is among the first K."""
        opened, ends = native.parted(*self, width, size, eos)
        return Candidates(*opened), Candidates(*ends)


def best_by_kernel(before: Tensor, log_probs: Tensor, size: int, words: Tensor | None = None) -> Found:
    """As `best` (but for ties), by our own kernel; of log-probabilities of `words` (N, V), if not of all there are."""
    reach = min(size + 1, log_probs.size(2))
    return Found(*native.best(before, log_probs, reach, min(2 * size, reach * before.size(1)), words))


def best_of_columns(before: Tensor, log_probs: Tensor, size: int, moment: Moment) -> Candidates:
    """As `best` (but for ties), which of a hypothesis's tokens needs the K + 1 most probable.

    Tokens that are V / 16 apart make a column. The columns with the K + 1 largest maxima hold all that is needed: a
    token of any other column has K + 1 above it.
    """
    if size < native.MANY and native.serves(log_probs):
        return best_by_kernel(before, log_probs, size)
    columns = log_probs.size(2) // COLUMN
    if log_probs.is_cuda or log_probs.size(2) % COLUMN or columns < 8 * (size + 1):
        return best(before, log_probs, size, moment)
    tallest = log_probs.unflatten(2, (COLUMN, columns)).amax(2).topk(size + 1).indices  # (B, W, K+1)
    first = torch.arange(0, log_probs.size(2), columns, device=log_probs.device)  # of each row of columns
    tokens = (tallest[..., None] + first).flatten(2)  # (B, W, 16 (K+1))
    found = best(before, log_probs.gather(2, tokens), size, moment)
    places = found.parents * tokens.size(2) + found.tokens
    return found._replace(tokens=tokens.flatten(1).gather(1, places))


def most_probable(log_probs: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
    """The largest of log-probabilities (B, W, V) and their tokens, (B, W) each: the argmax, but for ties."""
    if native.serves(log_probs):
        values, places = native.largest(log_probs, 1)
        return values[..., 0], places[..., 0]
    columns = log_probs.size(2) // COLUMN
    if log_probs.is_cuda or log_probs.size(2) % COLUMN or columns < COLUMN:
        return log_probs.max(2)
    tallest = log_probs.unflatten(2, (COLUMN, columns)).amax(2).argmax(2, keepdim=True)  # (B, W, 1)
    tokens = tallest + torch.arange(0, log_probs.size(2), columns, device=log_probs.device)  # (B, W, 16)
    values, places = log_probs.gather(2, tokens).max(2, keepdim=True)
    return values[..., 0], tokens.gather(2, places)[..., 0]
