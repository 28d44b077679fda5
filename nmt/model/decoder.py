"""The decoder: a bridge from the encoder's final state, then stacked recurrent layers that predict the target.

The first layer's state is the query; what attention answers feeds the layers above and the output (Chen et al. 2018,
RNMT+), never the first layer, so no step waits for the output of the step before: in training the whole target runs
through fused kernels at once. A step of translating is the same code with T = 1.

Shapes: **B** sentences, **N** rows (hypotheses; K per sentence, side by side), **T** target length, **E** embedding,
**H** hidden size, **R** readout, **L** layers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.model.attention import Attention, FixedContext, Memory, NoContext
from nmt.model.cells import LSTMState
from nmt.model.encoder import Encoded
from nmt.model.recurrent import Layer, dropout


class DecoderState(NamedTuple):
    """All that a decoder carries from word to word."""

    layers: tuple[LSTMState, ...]  # per layer, (N, H)
    alignment: Tensor  # (N, S) what the last word looked at; width 0 without attention
    memory: Memory  # one row per sentence: N = K * B


class Bridge(nn.Module):
    """From the encoder's final states to the decoder's first: a copy layer by layer where shapes agree, else linear.

    The linear bridge reads the (h, c) of all layers together; h goes through tanh, the range of an LSTM's output.
    """

    def __init__(self, encoder_layers: int, encoder_size: int, layers: int, size: int, kind: str = "auto") -> None:
        super().__init__()
        agree = (encoder_layers, encoder_size) == (layers, size)
        if kind == "copy" and not agree:
            raise ValueError(
                f"model.bridge copy needs an encoder shaped like the decoder, not {encoder_layers} layers of "
                f"{encoder_size} and {layers} of {size}: make them equal or use model.bridge linear"
            )
        self.layers = layers
        linear = kind == "linear" or not agree
        self.linear = nn.Linear(2 * encoder_layers * encoder_size, 2 * layers * size) if linear else None

    def forward(self, final: tuple[LSTMState, ...]) -> tuple[LSTMState, ...]:
        """Per encoder layer (h, c) (B, M) -> per decoder layer (h, c) (B, H)."""
        if self.linear is None:
            return final
        parts = self.linear(vector(final)).chunk(2 * self.layers, dim=1)  # 2L of (B, H)
        return tuple(LSTMState(h.tanh(), c) for h, c in zip(parts[::2], parts[1::2], strict=True))


def vector(final: tuple[LSTMState, ...]) -> Tensor:
    """The vector that a sentence is compressed into: all layers' (h, c) side by side (B, 2*L*M)."""
    return torch.cat([part for state in final for part in state], dim=1)


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
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.bridge, self.attention = bridge, attention
        first = Layer(input_size + attention.early_size, hidden_size)
        above = [Layer(hidden_size + attention.size, hidden_size) for _ in range(layers - 1)]
        self.layers = nn.ModuleList([first, *above])
        self.readout = nn.Linear(hidden_size + attention.size, readout_size)
        self.residual, self.dropout = residual, dropout

    def start(self, encoded: Encoded) -> DecoderState:
        """The state before the first word, with one row per sentence."""
        memory = self.attention.prepare(encoded.outputs, encoded.mask, vector(encoded.final))
        alignment = encoded.outputs.new_zeros(memory.mask.shape)
        return DecoderState(self.bridge(encoded.final), alignment, memory)

    def forward(self, embedded: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read embedded target words (N, T, E) from `state` on; the readout (N, T, R) and the state after the last."""
        rows, steps, _ = embedded.shape
        queries = rows // state.memory.values.size(0) * steps  # per sentence: K*T
        early = self.attention.early(state.memory, queries).reshape(rows, steps, -1)  # (N, T, C)
        x = torch.cat([embedded, early.to(embedded.dtype)], dim=2)
        x, first = self.layers[0](dropout(x, self.dropout, self.training), state.layers[0])  # (N, T, H)
        query = x.reshape(-1, queries, x.size(2))  # (B, K*T, H)
        context, weights = self.attention(query, state.memory)
        context, weights = context.reshape(rows, steps, -1), weights.reshape(rows, steps, -1)
        finals = [first]
        for layer, before in zip(self.layers[1:], state.layers[1:], strict=True):
            read = torch.cat([x, context.to(x.dtype)], dim=2)  # (N, T, H+C)
            outputs, after = layer(dropout(read, self.dropout, self.training), before)
            x = outputs + x if self.residual else outputs
            finals.append(after)
        readout = self.readout(dropout(torch.cat([x, context.to(x.dtype)], dim=2), self.dropout, self.training))
        return readout.tanh(), DecoderState(tuple(finals), weights[:, -1], state.memory)
