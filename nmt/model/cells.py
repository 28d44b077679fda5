"""One time step of each recurrent cell: the equations as the papers print them.

A cell is a module `(x, state) -> state`; its state is a NamedTuple of tensors, batch first. What runs over whole
sequences is `recurrent.py`, which takes its weights from here, so that this page is also the oracle for it.

Shapes: **B** sentences, **E** input size, **H** hidden size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LSTMState(NamedTuple):
    """What an LSTM carries from one step to the next."""

    hidden: Tensor  # (B, H) h(t), what the layer above and the next step read
    cell: Tensor  # (B, H) c(t), the linear memory


class LSTMCell(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, o = sigmoid(W x + U h(t-1) + b), g = tanh(W x + U h(t-1) + b), each with rows of its own in the matrices;
    c(t) = f * c(t-1) + i * g; h(t) = o * tanh(c(t)). The rows stand in the order i, f, g, o, as in torch.nn.LSTM.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.input_weight = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot input weights, an orthogonal recurrence per gate, biases 0 but the forget gate's, which is 1."""
        for gate in range(4):
            rows = slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)
            nn.init.xavier_uniform_(self.input_weight.data[rows])
            nn.init.orthogonal_(self.recurrent_weight.data[rows])
        nn.init.zeros_(self.bias)
        self.set_forget_bias(1.0)

    def set_forget_bias(self, value: float) -> None:
        """Start by remembering (Jozefowicz et al. 2015)."""
        nn.init.constant_(self.bias.data[self.hidden_size : 2 * self.hidden_size], value)

    def zero_state(self, rows: int) -> LSTMState:
        """The state before the first word: `rows` rows of zeros."""
        zeros = self.bias.new_zeros(rows, self.hidden_size)
        return LSTMState(zeros, zeros)

    def forward(self, x: Tensor, state: LSTMState) -> LSTMState:
        """Read x (B, E) in `state`; the state after it."""
        gates = F.linear(x, self.input_weight, self.bias) + F.linear(state.hidden, self.recurrent_weight)  # (B, 4H)
        i, f, g, o = gates.chunk(4, dim=1)
        cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
        return LSTMState(o.sigmoid() * cell.tanh(), cell)
