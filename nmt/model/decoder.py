"""The decoder: a bridge from the encoder's final state, then stacked recurrent layers that predict the target.

The first layer's state is the query; what attention answers feeds the layers above and the output (Chen et al. 2018,
RNMT+), never the first layer, so no step waits for the output of the step before: in training the whole target runs
through each layer at once. A step of translating is the same code with T = 1.

Shapes: **B** sentences, **N** rows (hypotheses; K per sentence, side by side), **T** target length, **E** embedding,
**H** hidden size, **R** readout, **L** layers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.model.attention import Attention, FixedContext, Memory, NoContext
from nmt.model.cells import LSTMCell, State, like
from nmt.model.encoder import Encoded
from nmt.model.recurrent import CellMaker, Layer, dropout


class DecoderState(NamedTuple):
    """All that a decoder carries from word to word."""

    layers: tuple[State, ...]  # per layer, (N, H), ...
    alignment: Tensor  # (N, S) what the last word looked at; width 0 without attention
    memory: Memory  # one row per sentence: N = K * B


class Bridge(nn.Module):
    """From the encoder's final states to the decoder's first: copied layer by layer, or by a linear layer.

    The linear one reads a vector, such as the state of all layers; what becomes an h goes through tanh.
    """

    def __init__(self, sizes: tuple[tuple[int, ...], ...], vector_size: int = 0) -> None:
        """Into layers whose states have these sizes, from a vector of the given size; of 0 for a copy."""
        super().__init__()
        self.sizes = sizes
        self.linear = nn.Linear(vector_size, sum(map(sum, sizes))) if vector_size else None

    def forward(self, final: tuple[State, ...], vector: Tensor) -> tuple[State, ...]:
        """The encoder's states (B, M), ... per layer and the vector (B, W) -> the decoder's (B, H), ... per layer."""
        if self.linear is None:
            return final
        parts = iter(self.linear(vector).split([size for layer in self.sizes for size in layer], dim=1))
        states = []
        for layer in self.sizes:
            hidden, *rest = [next(parts) for _ in layer]
            states.append(like(final[0], [hidden.tanh(), *rest]))
        return tuple(states)


def vector(final: tuple[State, ...]) -> Tensor:
    """The vector that a sentence is compressed into: the states of all layers side by side (B, W)."""
    return torch.cat([part for state in final for part in state], dim=1)


class TanhReadout(nn.Linear):
    """What the output layer reads: tanh(W [h, c]) of the last layer's output and the context (Luong et al. 2015)."""

    def __init__(self, hidden_size: int, context_size: int, embedding_size: int, size: int) -> None:
        super().__init__(hidden_size + context_size, size)

    def forward(self, hidden: Tensor, context: Tensor, embedded: Tensor) -> Tensor:  # type: ignore[override]
        """(N, T, H), (N, T, C) and the word before (N, T, E) -> (N, T, R)."""
        return super().forward(torch.cat([hidden, context], dim=2)).tanh()


class PlainReadout(nn.Module):
    """The last layer's output and the context as they are (Sutskever et al. 2014)."""

    def __init__(self, hidden_size: int, context_size: int, embedding_size: int, size: int) -> None:
        super().__init__()
        if hidden_size + context_size != size:
            raise ValueError(
                f"model.readout none hands on {hidden_size + context_size} numbers, which is then also the "
                f"model.embedding_size, not {size}: set that, or use model.readout tanh"
            )

    def forward(self, hidden: Tensor, context: Tensor, embedded: Tensor) -> Tensor:
        """(N, T, H), (N, T, C) and the word before (N, T, E) -> (N, T, R)."""
        return torch.cat([hidden, context], dim=2)


class MaxoutReadout(nn.Linear):
    """The larger of each pair of s = O_h h + O_y e(y(t-1)) + O_c c (Cho et al. 2014, appendix A.1.2)."""

    def __init__(self, hidden_size: int, context_size: int, embedding_size: int, size: int) -> None:
        super().__init__(hidden_size + context_size + embedding_size, 2 * size)

    def forward(self, hidden: Tensor, context: Tensor, embedded: Tensor) -> Tensor:  # type: ignore[override]
        """(N, T, H), (N, T, C) and the word before (N, T, E) -> (N, T, R)."""
        sums = super().forward(torch.cat([hidden, context, embedded.to(hidden.dtype)], dim=2))  # (N, T, 2R)
        return sums.view(*sums.shape[:2], -1, 2).amax(dim=3)


class Decoder(nn.Module):
    """Bridge, recurrent layers, context and readout."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        layers: int,
        readout_size: int,
        *,
        bridge: Bridge,
        attention: NoContext | FixedContext | Attention,
        readout: type[TanhReadout | MaxoutReadout | PlainReadout] = TanhReadout,
        residual: bool = False,
        dropout: float = 0.0,
        cell: CellMaker = LSTMCell,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
    ) -> None:
        super().__init__()
        self.bridge, self.attention = bridge, attention
        stack, size = [], input_size + attention.early_size
        for _ in range(layers):
            stack.append(Layer(size, hidden_size, False, cell, recurrent_dropout, zoneout))
            size = stack[-1].output_size + attention.size
        self.layers = nn.ModuleList(stack)
        self.readout = readout(stack[-1].output_size, attention.size, input_size, readout_size)
        self.residual, self.dropout = residual, dropout

    def start(
        self, encoded: Encoded, prepare: Callable[[Tensor, Tensor, Tensor], Memory] | None = None
    ) -> DecoderState:
        """The state before the first word, with one row per sentence; `prepare` may stand in for the attention's."""
        whole = vector(encoded.final)
        memory = (prepare or self.attention.prepare)(encoded.outputs, encoded.mask, whole)
        alignment = encoded.outputs.new_zeros(memory.mask.shape)
        return DecoderState(self.bridge(encoded.final, self.attention.summarise(memory, whole)), alignment, memory)

    def forward(self, embedded: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read embedded target words (N, T, E) from `state` on; the readout (N, T, R) and the state after the last."""
        rows, steps, _ = embedded.shape
        queries = rows // state.memory.values.size(0) * steps  # per sentence: K*T
        early = self.attention.early(state.memory, queries).reshape(rows, steps, -1)  # (N, T, C)
        x = torch.cat([embedded, early.to(embedded.dtype)], dim=2)
        x, first = self.layers[0](dropout(x, self.dropout, self.training), state.layers[0])  # (N, T, H)
        query = x.reshape(-1, queries, x.size(2))  # (B, K*T, H)
        context, weights = self.attention(query, state.memory)
        context, weights = context.reshape(rows, steps, -1).to(x.dtype), weights.reshape(rows, steps, -1)
        finals = [first]
        for layer, before in zip(self.layers[1:], state.layers[1:], strict=True):
            read = torch.cat([x, context], dim=2)  # (N, T, H+C)
            outputs, after = layer(dropout(read, self.dropout, self.training), before)
            x = outputs + x if self.residual else outputs
            finals.append(after)
        dropped = [dropout(part, self.dropout, self.training) for part in (x, context)]
        readout: Tensor = self.readout(*dropped, embedded)
        return readout, DecoderState(tuple(finals), weights[:, -1], state.memory)
