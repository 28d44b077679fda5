"""The way through a plain LSTM and back, what is not a product in one call of our own kernel (`nmt/native`).

On a CPU it takes torch some seven passes over a step's numbers, and five on the way back, each with a call of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nmt.model.equations import Equations, LSTMEquations, Parts, Times, Unrolled
from nmt.native import training


class NativeLSTMEquations(LSTMEquations):
    """As `LSTMEquations`, of neither peepholes nor a projection; there are no slopes, for each is read but once."""

    def step(self, products: Tensor, at: Unrolled, weights: Parts, times: Times) -> None:
        """The step as the cell has it."""
        hidden, cell = at.after
        training.lstm_forward(times[0].plus(at.read, products), at.before[1].contiguous(), at.gates, cell, hidden)

    def slopes(self, every: Unrolled, weights: Parts) -> Parts:
        """What they would be made of: the gates and the memory before."""
        return every.gates, every.before[1]

    def back_through(
        self, d: Parts, opening: Parts, steps: Sequence[Parts], times: Times, mask: Tensor | None
    ) -> Parts:
        """All steps back, each of d by its outputs, the room for its errors, and its slopes: d before the first.

        `d` is that by the state after the last step, of the rows that run on; `opening` has what the others are told.
        A mask (B, H) is that of what the recurrence reads.
        """
        d_hidden, d_memory = d[0], torch.cat([d[1], opening[1][d[1].size(0) :]])  # (n, H), (B, H)
        for d_output, errors, gates, before in reversed(steps):
            training.lstm_backward(gates, before, d_output, d_hidden, d_memory, errors)
            d_hidden = times[0](errors) if mask is None else times[0](errors) * mask[: errors.size(0)]
        return d_hidden, d_memory[: d_hidden.size(0)]


def fastest(equations: Equations, products: Tensor) -> Equations:
    """These equations, or the same by our own kernel where it serves for such products."""
    plain = type(equations) is LSTMEquations and vars(equations) == vars(LSTMEquations())
    return NativeLSTMEquations() if plain and training.serves(products) else equations
