"""The encoder: source words in, one output per word and a final state out.

Shapes: **B** sentences, **S** source length, **E** embedding, **M** outputs (hidden size times directions).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.model.cells import LSTMCell, State
from nmt.model.recurrent import CellMaker, Layer, dropout


class Encoded(NamedTuple):
    """A batch of encoded sentences."""

    outputs: Tensor  # (B, S, M) the top layer, word by word, in the order of the source
    mask: Tensor  # (B, S) true on words
    final: tuple[State, ...]  # per layer, (B, M), ...: the state at the last word of each sentence


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
        cell: CellMaker = LSTMCell,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
    ) -> None:
        super().__init__()
        size = hidden_size // 2 if bidirectional else hidden_size
        self.output_size = input_size
        stack = []
        for _ in range(layers):
            layer = Layer(self.output_size, size, bidirectional, cell, recurrent_dropout, zoneout)
            stack.append(layer)
            self.output_size = layer.output_size
        self.layers = nn.ModuleList(stack)
        self.state_sizes = tuple(layer.state_sizes for layer in stack)
        self.reverse_source, self.residual, self.dropout = reverse_source, residual, dropout

    def forward(self, embedded: Tensor, lengths: Tensor) -> Encoded:
        """Encode embedded words (B, S, E) of sentences of the given lengths (B,)."""
        drop = partial(dropout, probability=self.dropout, training=self.training)
        return encode(self.layers, embedded, lengths, self.reverse_source, self.residual, drop)


def encode(
    layers: Iterable[Callable[..., tuple[Tensor, State]]],
    x: Tensor,
    lengths: Tensor,
    reverse_source: bool,
    residual: bool,
    drop: Callable[[Tensor], Tensor] = lambda x: x,
) -> Encoded:
    """Encode words x (B, S, E), as the first layer reads them, of sentences of the given lengths (B,)."""
    mask = torch.arange(x.size(1), device=x.device) < lengths[:, None]  # (B, S)
    order = _reading_order(lengths, x.size(1))[:, :, None] if reverse_source else None  # (B, S, 1)
    x = x if order is None else x.gather(1, order.expand_as(x))
    final = []
    for number, layer in enumerate(layers):
        outputs, state = layer(drop(x), lengths=lengths)  # (B, S, M)
        x = outputs + x if residual and number else outputs
        final.append(state)
    outputs = x if order is None else x.gather(1, order.expand_as(x))
    return Encoded(outputs, mask, tuple(final))


def _reading_order(lengths: Tensor, steps: int) -> Tensor:
    """(B, S) the position to read at each step when all words but the last are read backwards; its own inverse."""
    position = torch.arange(steps, device=lengths.device).expand(lengths.size(0), -1)
    mirrored = lengths[:, None] - 2 - position
    return torch.where(mirrored >= 0, mirrored, position)
