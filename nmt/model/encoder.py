"""The encoder: source words in, one output per word and a final state out.

Shapes: **B** sentences, **S** source length, **E** embedding, **M** outputs (hidden size times directions).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.model.cells import LSTMState
from nmt.model.recurrent import Layer, dropout


class Encoded(NamedTuple):
    """A batch of encoded sentences."""

    outputs: Tensor  # (B, S, M) the top layer, word by word, in the order of the source
    mask: Tensor  # (B, S) true on words
    final: tuple[LSTMState, ...]  # per layer, (B, M): the state at the last word of each sentence


class Encoder(nn.Module):
    """Stacked recurrent layers, in one or both directions; `hidden_size` counts both directions together.

    With `reverse_source` the words are read last to first, the end-of-sentence mark still last (Sutskever et al. 2014,
    section 3.3). Residuals add a layer's input to its output from the second layer on.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        layers: int,
        *,
        bidirectional: bool = False,
        reverse_source: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if bidirectional and hidden_size % 2:
            raise ValueError(f"a bidirectional encoder needs an even model.hidden_size, not {hidden_size}")
        size = hidden_size // 2 if bidirectional else hidden_size
        self.layers = nn.ModuleList(
            Layer(hidden_size if number else input_size, size, bidirectional) for number in range(layers)
        )
        self.reverse_source, self.residual, self.dropout = reverse_source, residual, dropout
        self.output_size = hidden_size

    def forward(self, embedded: Tensor, lengths: Tensor) -> Encoded:
        """Encode embedded words (B, S, E) of sentences of the given lengths (B,)."""
        mask = torch.arange(embedded.size(1), device=embedded.device) < lengths[:, None]  # (B, S)
        order = _reading_order(lengths, embedded.size(1))[:, :, None] if self.reverse_source else None  # (B, S, 1)
        x = embedded if order is None else embedded.gather(1, order.expand_as(embedded))
        final = []
        for number, layer in enumerate(self.layers):
            x = dropout(x, self.dropout, self.training)
            outputs, state = layer(x, lengths=lengths)  # (B, S, M)
            x = outputs + x if self.residual and number else outputs
            final.append(state)
        outputs = x if order is None else x.gather(1, order.expand_as(x))
        return Encoded(outputs, mask, tuple(final))


def _reading_order(lengths: Tensor, steps: int) -> Tensor:
    """(B, S) the position to read at each step when all words but the last are read backwards; its own inverse."""
    position = torch.arange(steps, device=lengths.device).expand(lengths.size(0), -1)
    mirrored = lengths[:, None] - 2 - position
    return torch.where(mirrored >= 0, mirrored, position)
