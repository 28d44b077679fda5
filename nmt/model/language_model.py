"""A recurrent language model (Mikolov et al. 2010): how probable each word is after all that came before it.

The layers, the readout and the output of a decoder, with no source to look at.

Shapes: **N** rows (streams, sentences or hypotheses), **T** length, **E** embedding, **H** hidden size, **R** readout
(= E), **V** vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from nmt.model.cells import State, like
from nmt.model.decoder import MaxoutReadout, PlainReadout, TanhReadout
from nmt.model.recurrent import Layer, dropout
from nmt.model.seq2seq import READOUTS, Embedding, ModelOptions, build_cell, start_weights


class LanguageState(NamedTuple):
    """All that a language model carries from word to word."""

    layers: tuple[State, ...]  # per layer, (N, H), ...
    alignment: Tensor  # (N, 0) there is no source to look at

    def detach(self) -> "LanguageState":
        """The same state, through which no error goes back."""
        return self._replace(layers=tuple(like(layer, (part.detach() for part in layer)) for layer in self.layers))


class LanguageModel(nn.Module):
    """Embedding, stacked recurrent layers, readout, output; a stepper: `start` and `step` are all that search needs."""

    def __init__(
        self,
        embedding: Embedding,
        layers: Sequence[Layer],
        readout: TanhReadout | MaxoutReadout | PlainReadout,
        output: nn.Linear,
        *,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding, self.readout, self.output = embedding, readout, output
        self.layers = nn.ModuleList(layers)
        self.residual, self.dropout = residual, dropout

    def start(self, source: Tensor, lengths: Tensor) -> LanguageState:
        """The state before BOS, which is zero, of as many rows as `source` (N, S) has; nothing else of it is read."""
        zeros = self.output.weight.new_zeros
        layers = [
            layer.state._make(zeros(source.size(0), size) for size in layer.state_sizes)
            for layer in self.layers
            if isinstance(layer, Layer)
        ]
        return LanguageState(tuple(layers), zeros(source.size(0), 0))

    def forward(self, tokens: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        """Read tokens (N, T) from `state` on; the readout (N, T, R), which `output` makes logits, and the state after.

        A sentence begins with BOS and its end is said, never read: so it was learnt.
        """
        embedded = self.embedding(tokens)  # (N, T, E)
        x, finals = embedded, []
        for number, (layer, before) in enumerate(zip(self.layers, state.layers, strict=True)):
            outputs, after = layer(dropout(x, self.dropout, self.training), before)  # (N, T, H)
            x = outputs + x if self.residual and number else outputs
            finals.append(after)
        x = dropout(x, self.dropout, self.training)
        readout: Tensor = self.readout(x, x[:, :, :0], embedded)  # (N, T, R)
        return readout, state._replace(layers=tuple(finals))

    def step(self, tokens: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        """Read one token per row (N,); log-probabilities of the next (N, V), in float32, and the state after it."""
        readout, state = self(tokens[:, None], state)
        return self.output(readout[:, 0]).float().log_softmax(dim=1), state


def build_language_model(options: ModelOptions, vocabulary: int) -> LanguageModel:
    """The language model of `options`, of which it has the decoder's; weights drawn from torch's global generator."""
    size = options.embedding_size
    embedding = Embedding(vocabulary, size, options.word_dropout)
    layers, width = [], size
    for _ in range(options.decoder_layers):
        cell = partial(build_cell, options, 1)
        layers.append(Layer(width, options.hidden_size, False, cell, options.recurrent_dropout, options.zoneout))
        width = layers[-1].output_size
    readout = READOUTS[options.readout](width, 0, size, size)
    output = nn.Linear(size, vocabulary)
    nn.init.zeros_(output.bias)
    model = LanguageModel(embedding, layers, readout, output, residual=options.residual, dropout=options.dropout)
    start_weights(model, options)
    if options.tie_embeddings != "none":
        output.weight = embedding.weight
    return model
