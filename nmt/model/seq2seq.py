"""The translation model: embeddings, encoder, decoder, output layer.

Shapes: **B** sentences, **S** source length, **T** target length, **N** rows (hypotheses), **E** embedding,
**R** readout (= E), **V** vocabulary.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.attention import (
    AdditiveAttention,
    Attention,
    DotAttention,
    FixedContext,
    GeneralAttention,
    NoContext,
)
from nmt.model.cells import (
    Cell,
    DeepTransition,
    GRUCell,
    LayerNormLSTMCell,
    LectureLSTMCell,
    LSTMCell,
    RNNCell,
    like,
)
from nmt.model.decoder import Bridge, Decoder, DecoderState, MaxoutReadout, PlainReadout, TanhReadout
from nmt.model.encoder import Encoder

CellKind = Literal["rnn", "lstm", "lecture-lstm", "layer-norm-lstm", "gru"]
CELLS: dict[str, type[RNNCell | LSTMCell | GRUCell]] = {
    "rnn": RNNCell,
    "lstm": LSTMCell,
    "lecture-lstm": LectureLSTMCell,
    "layer-norm-lstm": LayerNormLSTMCell,
    "gru": GRUCell,
}
AttentionKind = Literal["none", "dot", "general", "additive"]
ATTENTIONS: dict[str, type[Attention]] = {
    "dot": DotAttention,
    "general": GeneralAttention,
    "additive": AdditiveAttention,
}
READOUTS: dict[str, type[TanhReadout | MaxoutReadout | PlainReadout]] = {
    "tanh": TanhReadout,
    "maxout": MaxoutReadout,
    "none": PlainReadout,
}


@dataclass(frozen=True)
class ModelOptions:
    """The shape of the network.

    Attributes:
        cell: The recurrent cell: rnn (tanh), lstm, lecture-lstm (input not squashed, h = tanh(o * c)), layer-norm-lstm
            (Ba et al. 2016) or gru.
        peepholes: Whether the gates of an lstm see its memory (Sak et al. 2014).
        projection: Width that the output of an lstm is projected to for the recurrence (LSTMP: `LSTMCell`), both
            directions of an encoder together; 0 for none.
        extra_projection: Width of a second projection, which the layers above read and the recurrence does not.
        reset: Where a gru applies its reset gate: after the recurrent product (torch, cuDNN) or before it (Cho et al.
            2014).
        transition: Cells within a step; those from the second on read the state alone (Pascanu et al. 2014).
        forget_bias: What is added to the forget gates' bias at the start.
        embedding_size: Width of word embeddings and of the readout.
        hidden_size: Cells per layer; in a bidirectional encoder, both directions together.
        encoder_layers: Encoder layers.
        decoder_layers: Decoder layers.
        bidirectional: Whether the encoder reads in both directions.
        reverse_source: Whether the encoder reads last word first (Sutskever et al. 2014).
        residual: Whether layers from the second on add their input to their output.
        attention: How the decoder looks at the source; with none, it has only the encoder's final state.
        context: Without attention, where that state goes: the decoder's initial state (Sutskever et al. 2014), or that
            and every step (Cho et al. 2014).
        context_size: Width of the vector given at every step; 0 for hidden_size.
        bridge: From the encoder's final state to the decoder's first: copy, linear, or copy where shapes agree.
        readout: What the output layer reads: tanh of a layer over the last layer and the context; maxout of these and
            the word before (Cho et al. 2014); or none, just what is there (Sutskever et al. 2014).
        dropout: On embeddings, between layers and before the readout.
        recurrent_dropout: On what the recurrence reads of its state, the same at every step (Gal & Ghahramani 2016).
        zoneout: Probability that a unit of the state stays as it was for a step (Krueger et al. 2017).
        word_dropout: Probability that a word's whole embedding is dropped, on both sides (Sennrich & Zhang 2019).
        tie_embeddings: Share the output layer with the target embedding, or (joint vocabulary) all three.
        init_range: Start all weights uniform in [-x, x]; 0 for each part's own start (cells: Glorot
            and orthogonal).
    """

    cell: CellKind = "lstm"
    peepholes: bool = False
    projection: int = 0
    extra_projection: int = 0
    reset: Literal["after", "before"] = "after"
    transition: int = 1
    forget_bias: float = 1.0
    embedding_size: int = 512
    hidden_size: int = 512
    encoder_layers: int = 2
    decoder_layers: int = 2
    bidirectional: bool = True
    reverse_source: bool = False
    residual: bool = False
    attention: AttentionKind = "general"
    context: Literal["initial", "every-step"] = "initial"
    context_size: int = 0
    bridge: Literal["auto", "copy", "linear"] = "auto"
    readout: Literal["tanh", "maxout", "none"] = "tanh"
    dropout: float = 0.3
    recurrent_dropout: float = 0.0
    zoneout: float = 0.0
    word_dropout: float = 0.0
    tie_embeddings: Literal["none", "target", "all"] = "target"
    init_range: float = 0.0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ModelOptions).items():
            if get_args(kind) and getattr(self, name) not in get_args(kind):
                raise ValueError(f"model.{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)}")
        for name in ("embedding_size", "hidden_size", "encoder_layers", "decoder_layers", "transition"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("dropout", "recurrent_dropout", "zoneout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} is a probability below 1, not {getattr(self, name)}")
        for name in ("context_size", "init_range", "projection", "extra_projection"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} must be at least 0, not {getattr(self, name)}")
        if self.context_size and self.context != "every-step":
            raise ValueError("model.context_size is for model.context every-step: leave it at 0")
        if self.context == "every-step" and self.attention != "none":
            raise ValueError("model.context every-step is for model.attention none: attention gives every step its own")
        self._check_cell()

    def _check_cell(self) -> None:
        """Refuse what this cell has not."""
        has = {"lstm": {"peepholes", "projection", "extra_projection", "forget_bias"}, "gru": {"reset"}}
        has["lecture-lstm"] = has["layer-norm-lstm"] = {"forget_bias"}
        for name in ("peepholes", "projection", "extra_projection", "reset", "forget_bias"):
            value, usual = getattr(self, name), ModelOptions.__dataclass_fields__[name].default
            if value != usual and name not in has.get(self.cell, set()):
                owners = " or ".join(cell for cell in has if name in has[cell])
                raise ValueError(
                    f"model.{name} is for model.cell {owners}, not {self.cell}: leave it at {str(usual).lower()}"
                )
        if self.extra_projection and not self.projection:
            raise ValueError("model.extra_projection stands beside model.projection, which is 0")
        if self.projection >= self.hidden_size:
            raise ValueError(
                f"model.projection makes the output narrower than model.hidden_size {self.hidden_size}, "
                f"which {self.projection} does not"
            )

    def check_encoder(self) -> None:
        """Refuse what an encoder cannot be; a language model, which has none, may be so."""
        for name in ("hidden_size", "projection", "extra_projection"):
            if self.bidirectional and getattr(self, name) % 2:
                raise ValueError(f"a bidirectional encoder needs an even model.{name}, not {getattr(self, name)}")
        if self.bidirectional and self.extra_projection and self.bridge == "copy":
            raise ValueError(
                "model.bridge copy would mix up the two projections of a bidirectional encoder: use model.bridge linear"
            )


class Embedding(nn.Module):
    """Word ids -> vectors; in training, whole words are dropped with the given probability."""

    def __init__(self, vocabulary: int, size: int, word_dropout: float, weight: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, size).uniform_(-0.1, 0.1)) if weight is None else weight
        self.word_dropout = word_dropout

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> (B, T, E)."""
        embedded = F.embedding(ids, self.weight)
        if not self.training or not self.word_dropout:
            return embedded
        kept = torch.rand(ids.shape, device=ids.device) >= self.word_dropout  # (B, T)
        return embedded * (kept[:, :, None] / (1 - self.word_dropout)).to(embedded.dtype)


class Seq2Seq(nn.Module):
    """A recurrent encoder-decoder; a stepper: `start` and `step` are all that search needs of it."""

    def __init__(
        self,
        source_embedding: Embedding,
        target_embedding: Embedding,
        encoder: Encoder,
        decoder: Decoder,
        output: nn.Linear,
    ) -> None:
        super().__init__()
        self.source_embedding, self.target_embedding = source_embedding, target_embedding
        self.encoder, self.decoder, self.output = encoder, decoder, output

    def start(self, source: Tensor, lengths: Tensor) -> DecoderState:
        """Encode ids (B, S), EOS last and counted in lengths (B,), then PAD; the state before the first target word."""
        return self.decoder.start(self.encoder(self.source_embedding(source), lengths))

    def forward(self, source: Tensor, lengths: Tensor, target_in: Tensor, truncate: int = 0) -> Tensor:
        """Teacher forcing: the readout (B, T, R) for each of target_in (B, T); `output` makes it logits.

        With `truncate` no error goes back through the decoder's recurrence over the border between one stretch of so
        many words and the next (truncated back-propagation through time: Williams & Peng 1990).
        """
        state, readouts = self.start(source, lengths), []
        for embedded in self.target_embedding(target_in).split(truncate or target_in.size(1), dim=1):
            readout, state = self.decoder(embedded, state)
            state = detach(state)
            readouts.append(readout)
        return torch.cat(readouts, dim=1)

    def read(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read tokens (N, T) from `state` on; the readout (N, T, R), which becomes logits, and the state after."""
        readout, state = self.decoder(self.target_embedding(tokens), state)
        return readout, state

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read one token per row (N,); log-probabilities of the next (N, V), in float32, and the state after it."""
        readout, state = self.read(tokens[:, None], state)
        return self.output(readout[:, 0]).float().log_softmax(dim=1), state


def detach(state: DecoderState) -> DecoderState:
    """The same state, through whose recurrent part no error goes back; the memory of the source is as it was."""
    return state._replace(layers=tuple(like(layer, (part.detach() for part in layer)) for layer in state.layers))


def build_model(options: ModelOptions, source_vocabulary: int, target_vocabulary: int) -> Seq2Seq:
    """The model of `options`, its weights drawn from torch's global generator."""
    options.check_encoder()
    if options.tie_embeddings == "all" and source_vocabulary != target_vocabulary:
        raise ValueError(
            f"model.tie_embeddings all needs one vocabulary for both sides, not {source_vocabulary} and "
            f"{target_vocabulary} pieces: use tokenizer.joint true or model.tie_embeddings target"
        )
    size = options.embedding_size
    source = Embedding(source_vocabulary, size, options.word_dropout)
    shared = source.weight if options.tie_embeddings == "all" else None
    target = Embedding(target_vocabulary, size, options.word_dropout, shared)
    noise = {"recurrent_dropout": options.recurrent_dropout, "zoneout": options.zoneout}
    encoder = Encoder(
        size,
        options.hidden_size,
        options.encoder_layers,
        bidirectional=options.bidirectional,
        reverse_source=options.reverse_source,
        residual=options.residual,
        dropout=options.dropout,
        cell=partial(build_cell, options, 2 if options.bidirectional else 1),
        **noise,
    )
    decoder = _build_decoder(options, encoder, noise)
    output = nn.Linear(size, target_vocabulary)
    nn.init.zeros_(output.bias)
    model = Seq2Seq(source, target, encoder, decoder, output)
    start_weights(model, options)
    if options.tie_embeddings != "none":
        output.weight = target.weight
    return model


def start_weights(model: nn.Module, options: ModelOptions) -> None:
    """Draw all weights uniformly if `init_range` says so, and set the forget gates' bias."""
    if options.init_range:
        for name, parameter in model.named_parameters():
            if not name.endswith("gain"):  # of a norm, which stays 1
                nn.init.uniform_(parameter, -options.init_range, options.init_range)
    for module in model.modules():
        if isinstance(module, LSTMCell):
            module.add_forget_bias(options.forget_bias - (0.0 if options.init_range else 1.0))


def build_cell(options: ModelOptions, directions: int, input_size: int, hidden_size: int) -> Cell | DeepTransition:
    """One direction of a layer; where there are two, each has half of the projection."""
    own: dict[str, Any] = {}
    if options.cell == "lstm":
        own = {"peepholes": options.peepholes, "projection": options.projection // directions}
        own["extra_projection"] = options.extra_projection // directions
    elif options.cell == "gru":
        own = {"reset": options.reset}
    cells = [CELLS[options.cell](0 if n else input_size, hidden_size, **own) for n in range(options.transition)]
    return DeepTransition(cells) if len(cells) > 1 else cells[0]


def _build_decoder(options: ModelOptions, encoder: Encoder, noise: dict[str, float]) -> Decoder:
    size, hidden = options.embedding_size, options.hidden_size
    output_size = options.projection + options.extra_projection or hidden
    layer = (output_size, hidden)[: len(CELLS[options.cell].state._fields)]
    sizes, whole = (layer,) * options.decoder_layers, sum(map(sum, encoder.state_sizes))
    attention = _build_attention(options, whole, output_size, encoder.output_size)
    if options.bridge == "copy" and encoder.state_sizes != sizes:
        raise ValueError(
            "model.bridge copy needs an encoder shaped like the decoder, "
            f"not {options.encoder_layers} layers of {hidden} "
            f"and {options.decoder_layers} of {hidden}: make them equal or use model.bridge linear"
        )
    mixed = options.bidirectional and options.extra_projection > 0  # what each direction recurs on lies apart
    linear = options.bridge == "linear" or encoder.state_sizes != sizes or mixed
    fixed = isinstance(attention, FixedContext)
    return Decoder(
        size,
        hidden,
        options.decoder_layers,
        size,
        bridge=Bridge(sizes, (attention.size if fixed else whole) if linear else 0),
        attention=attention,
        readout=READOUTS[options.readout],
        residual=options.residual,
        dropout=options.dropout,
        cell=partial(build_cell, options, 1),
        **noise,
    )


def _build_attention(
    options: ModelOptions, vector_size: int, query_size: int, memory_size: int
) -> NoContext | FixedContext | Attention:
    if options.attention != "none":
        return ATTENTIONS[options.attention](query_size, memory_size)
    if options.context == "every-step":
        return FixedContext(vector_size, options.context_size or options.hidden_size)
    return NoContext()
