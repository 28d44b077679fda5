"""The tasks: sequences whose answer, asked at the end, lies far back.

Shapes: **T** steps, **B** sequences, **E** inputs, **V** outputs.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.hessian_free import ConvexLoss, softmax_cross_entropy, squared_error

MARKS, DISTRACTORS = 2, 4


class Task(NamedTuple):
    """What is read, what is asked, and when it counts as learnt."""

    inputs: int
    outputs: int
    sequences: Callable[[int, int], tuple[Tensor, Tensor]]  # (B, T) -> fresh x (T, B, E) and targets (B, ...)
    loss: ConvexLoss
    error: Callable[[Tensor, Tensor], float]  # of predictions (B, V) and targets
    measure: str  # the error's name
    guessing: float  # the error of one who has read nothing
    solved: float  # below this error it is learnt


def adding(cases: int, length: int) -> tuple[Tensor, Tensor]:
    """The adding problem: x (T, B, 2), at every step a number from U[0, 1] and a mark, 0 or 1; the sum (B, 1).

    Two numbers are marked, one in the first tenth and one in the rest of the first half; their sum is asked (Hochreiter
    & Schmidhuber 1997, experiment 4; Martens & Sutskever 2011). To say 1 always has the squared error 2 / 12.
    """
    numbers, marks = torch.rand(length, cases), torch.zeros(length, cases)
    for begin, end in ((0, length // 10), (length // 10, length // 2)):
        marks.scatter_(0, torch.randint(begin, end, (1, cases)), 1.0)
    return torch.stack([numbers, marks], dim=2), (numbers * marks).sum(dim=0)[:, None]


def temporal_order(cases: int, length: int) -> tuple[Tensor, Tensor]:
    """Temporal order: x (T, B, 6), one-hot symbols, two marks first and four distractors; the class (B,) of four.

    A mark stands in the second tenth and one in the sixth, distractors elsewhere; which marks, and in which order, is
    asked (Hochreiter & Schmidhuber 1997, experiment 6a; Martens & Sutskever 2011).
    """
    symbols = torch.randint(MARKS, MARKS + DISTRACTORS, (length, cases))  # (T, B)
    marks = torch.randint(MARKS, (2, cases))
    for tenth, mark in zip((1, 5), marks, strict=True):
        places = torch.randint(tenth * length // 10, (tenth + 1) * length // 10, (1, cases))
        symbols.scatter_(0, places, mark[None])
    return F.one_hot(symbols, MARKS + DISTRACTORS).float(), MARKS * marks[0] + marks[1]


def mean_square(predictions: Tensor, targets: Tensor) -> float:
    """The mean squared error of values (B, 1)."""
    return float(F.mse_loss(predictions, targets))


def share_wrong(predictions: Tensor, targets: Tensor) -> float:
    """The share of wrong answers of logits (B, V) to classes (B,)."""
    return float((predictions.argmax(dim=1) != targets).float().mean())


TASKS = {
    "adding": Task(2, 1, adding, squared_error(), mean_square, "squared error", 1 / 6, 0.01),
    "temporal-order": Task(6, 4, temporal_order, softmax_cross_entropy(), share_wrong, "share wrong", 3 / 4, 0.01),
}
