"""The way through a plain LSTM and back, what is not a product in one call of our own kernel (`nmt/native`).

On a CPU it takes torch some seven passes over a step's numbers, and five on the way back, each with a call of its own.
"""

from torch import Tensor

from nmt.model.equations import Before, Equations, LSTMEquations, Parts, Times, Unrolled
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

    def back(self, slopes: Parts, d: Parts, errors: Tensor, weights: Parts, times: Times) -> Before:
        """The errors, d_h(t-1) by the recurrence, d_c(t-1)."""
        gates, before = slopes
        d_before = training.lstm_backward(gates, before, d[0].contiguous(), d[1].contiguous(), errors)
        return times[0](errors), (None, d_before)


def fastest(equations: Equations, products: Tensor) -> Equations:
    """These equations, or the same by our own kernel where it serves for such products."""
    plain = type(equations) is LSTMEquations and vars(equations) == vars(LSTMEquations())
    return NativeLSTMEquations() if plain and training.serves(products) else equations
