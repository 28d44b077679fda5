"""Recurrence over time: a layer, in one or both directions, over sentences of unequal length.

Whole sequences run through torch's fused LSTM (oneDNN on a CPU, cuDNN on a GPU), which knows nothing of padding;
packing would, but leaves the fast kernels. So padding is made harmless by one more input column, which is 1 on padding
and 0 on words, with the fixed weight -PADDING into the input gate and +PADDING into the forget gate. On padding then
i = 0 and f = 1 exactly, and c(t) = 1 * c(t-1) + 0 * g: a forward layer carries its last true c over the padding behind
it, and a backward layer, which meets the padding first, stays at zero until the last word. Results are exact, and no
row depends on the length of another.

Shapes: **B** sentences, **T** length, **E** input size, **H** hidden size, **D** directions (1 or 2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.cells import LSTMCell, LSTMState

PADDING = 1e4  # sigmoid(-1e4) == 0 and sigmoid(1e4) == 1 in every floating-point format used here


class Layer(nn.Module):
    """One recurrent layer; if `bidirectional`, H cells read forwards and H backwards, their outputs side by side."""

    def __init__(self, input_size: int, hidden_size: int, bidirectional: bool = False) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.cells = nn.ModuleList(LSTMCell(input_size, hidden_size) for _ in range(directions))
        self.hidden_size, self.output_size = hidden_size, directions * hidden_size

    def forward(
        self, x: Tensor, state: LSTMState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, LSTMState]:
        """Read x (B, T, E); the outputs (B, T, D*H) and the state (B, D*H) after the last word of each row.

        `state` (B, H) is where a forward layer starts; a bidirectional one, or one given none, starts at zero. Without
        `lengths` (B,) every row is T long; with them, the outputs behind a row's last word mean nothing, and the state
        is that at its last word.
        """
        assert state is None or len(self.cells) == 1
        weights: list[Tensor] = [weight for cell in self.cells for weight in cell.parameters()]
        if lengths is not None:
            padding = torch.arange(x.size(1), device=x.device) >= lengths[:, None]  # (B, T)
            x = torch.cat([x, padding[:, :, None].to(x.dtype)], dim=2)  # (B, T, E+1)
            weights[::3] = [_with_padding_column(weight) for weight in weights[::3]]
        outputs, hidden, cell = _fused(x, state or self._zero_state(x), weights, self.training)
        if lengths is not None:
            last = (lengths - 1)[:, None, None].expand(-1, 1, self.hidden_size)
            forward_hidden = outputs[:, :, : self.hidden_size].gather(1, last)[:, 0]  # (B, H)
            hidden = torch.cat([forward_hidden[None], hidden[1:]])  # (D, B, H)
        return outputs, LSTMState(_side_by_side(hidden), _side_by_side(cell))

    def _zero_state(self, x: Tensor) -> LSTMState:
        zeros = x.new_zeros(x.size(0), self.output_size)
        return LSTMState(zeros, zeros)


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Drop whole features of x (B, T, E): one mask (B, 1, E) for all steps of a sentence (Gal & Ghahramani 2016).

    It also draws T times fewer random numbers, which on a CPU are a tenth of a training step.
    """
    if not training or not probability:
        return x
    return x * F.dropout(x.new_ones(x.size(0), 1, x.size(2)), probability)


def _side_by_side(states: Tensor) -> Tensor:
    """(D, B, H) -> (B, D*H)."""
    return states.transpose(0, 1).flatten(1)


def _with_padding_column(weight: Tensor) -> Tensor:
    """(4H, E) -> (4H, E+1): close the input gate and open the forget gate where the last input is 1."""
    hidden_size = weight.size(0) // 4
    column = weight.new_zeros(weight.size(0), 1)
    column[:hidden_size] = -PADDING
    column[hidden_size : 2 * hidden_size] = PADDING
    return torch.cat([weight, column], dim=1)


def _fused(x: Tensor, state: LSTMState, weights: list[Tensor], training: bool) -> tuple[Tensor, Tensor, Tensor]:
    """torch's fused layer, given (input weight, recurrent weight, bias) per direction; outputs, h and c (D, B, H)."""
    directions = len(weights) // 3
    flat: list[Tensor] = []
    for number in range(directions):
        input_weight, recurrent_weight, bias = weights[3 * number : 3 * number + 3]
        flat += [input_weight, recurrent_weight, bias, torch.zeros_like(bias)]  # torch has a second bias, of no use
    initial = [torch.stack(part.chunk(directions, dim=1)) for part in state]  # (D, B, H)
    return torch.lstm(x, initial, flat, True, 1, 0.0, training, directions == 2, True)
