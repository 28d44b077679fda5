"""Taking rows of a model's state, which is any nesting of tuples of tensors.

What lies under a field named `memory` has one row per sentence, and every other tensor one per hypothesis; but of what
is `Picked` only the rows' numbers are taken, and it stays as it is.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Picked(NamedTuple):
    """Rows of what a state has one of per hypothesis, not yet taken: for a step that reads them where they lie."""

    whole: Any
    rows: Any = None  # (N,) their numbers; None for all, in order

    def taken(self) -> Any:
        """The rows themselves."""
        return select(self.whole, self.rows, None)


class Leaving(NamedTuple):
    """Which sentences of a batch go on: the last take the places of those that leave, and only they are moved."""

    order: list[int]  # the sentences that stay, as they stand now
    places: Tensor  # (M,) where sentences are moved to
    moved: Tensor  # (M,) and which they are

    def close(self, part: Tensor) -> Tensor:
        """The rows of those that stay, of a tensor that has one per sentence and is written over."""
        if len(self.moved):
            part.index_copy_(0, self.places, part.index_select(0, self.moved))
        return part[: len(self.order)]


def leaving(over: list[bool], device: torch.device) -> Leaving | None:
    """How the sentences that are over leave; None if none is."""
    staying = [place for place, gone in enumerate(over) if not gone]
    if len(staying) == len(over):
        return None
    late = [place for place in staying if place >= len(staying)]
    order = [late.pop() if over[place] else place for place in range(len(staying))]
    places = [place for place, sentence in enumerate(order) if place != sentence]
    moves = torch.tensor([places, [order[place] for place in places]], dtype=torch.long, device=device)
    return Leaving(order, *moves)


def select(state: Any, rows: Tensor | Leaving | None, sentences: Tensor | Leaving | None) -> Any:
    """The state of these rows and, under `memory`, of these sentences; None leaves all as it is, uncopied.

    A memory that sentences leave is written over.
    """
    if rows is None:
        return state
    if isinstance(state, Picked):
        return Picked(state.whole, rows if state.rows is None else select(state.rows, rows, None))
    if isinstance(state, Tensor):
        return state.index_select(0, rows) if isinstance(rows, Tensor) else rows.close(state)
    if not hasattr(state, "_fields"):
        return tuple(select(part, rows, sentences) for part in state)
    parts = zip(state._fields, state, strict=True)
    return type(state)(*(select(part, sentences if name == "memory" else rows, sentences) for name, part in parts))
