"""The translation model: embeddings, encoder, decoder, output layer.

Shapes: **B** sentences, **S** source length, **T** target length, **N** rows (hypotheses), **E** embedding,
**R** readout (= E), **V** vocabulary.
"""

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

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
from nmt.model.cells import LSTMCell
from nmt.model.decoder import Bridge, Decoder, DecoderState
from nmt.model.encoder import Encoder

AttentionKind = Literal["none", "dot", "general", "additive"]
ATTENTIONS: dict[str, type[Attention]] = {
    "dot": DotAttention,
    "general": GeneralAttention,
    "additive": AdditiveAttention,
}


@dataclass(frozen=True)
class ModelOptions:
    """The shape of the network.

    Attributes:
        cell: The recurrent cell.
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
        dropout: On embeddings, between layers and before the readout.
        word_dropout: Probability that a word's whole embedding is dropped, on both sides (Sennrich & Zhang 2019).
        tie_embeddings: Share the output layer with the target embedding, or (joint vocabulary) all three.
        init_range: Start all weights uniform in [-x, x]; 0 for each part's own start (cells: Glorot
            and orthogonal).
    """

    cell: Literal["lstm"] = "lstm"
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
    dropout: float = 0.3
    word_dropout: float = 0.0
    tie_embeddings: Literal["none", "target", "all"] = "target"
    init_range: float = 0.0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ModelOptions).items():
            if get_args(kind) and getattr(self, name) not in get_args(kind):
                raise ValueError(f"model.{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)}")
        for name in ("embedding_size", "hidden_size", "encoder_layers", "decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("dropout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} is a probability below 1, not {getattr(self, name)}")
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(f"a bidirectional encoder needs an even model.hidden_size, not {self.hidden_size}")
        for name in ("context_size", "init_range"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} must be at least 0, not {getattr(self, name)}")
        if self.context_size and self.context != "every-step":
            raise ValueError("model.context_size is for model.context every-step: leave it at 0")
        if self.context == "every-step" and self.attention != "none":
            raise ValueError("model.context every-step is for model.attention none: attention gives every step its own")


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

    def forward(self, source: Tensor, lengths: Tensor, target_in: Tensor) -> Tensor:
        """Teacher forcing: the readout (B, T, R) for each of target_in (B, T); `output` makes it logits."""
        readout: Tensor
        readout, _ = self.decoder(self.target_embedding(target_in), self.start(source, lengths))
        return readout

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read one token per row (N,); log-probabilities of the next (N, V), in float32, and the state after it."""
        readout, state = self.decoder(self.target_embedding(tokens[:, None]), state)
        return self.output(readout[:, 0]).float().log_softmax(dim=1), state


def build_model(options: ModelOptions, source_vocabulary: int, target_vocabulary: int) -> Seq2Seq:
    """The model of `options`, its weights drawn from torch's global generator."""
    if options.tie_embeddings == "all" and source_vocabulary != target_vocabulary:
        raise ValueError(
            f"model.tie_embeddings all needs one vocabulary for both sides, not {source_vocabulary} and "
            f"{target_vocabulary} pieces: use tokenizer.joint true or model.tie_embeddings target"
        )
    size, hidden = options.embedding_size, options.hidden_size
    source = Embedding(source_vocabulary, size, options.word_dropout)
    shared = source.weight if options.tie_embeddings == "all" else None
    target = Embedding(target_vocabulary, size, options.word_dropout, shared)
    encoder = Encoder(
        size,
        hidden,
        options.encoder_layers,
        bidirectional=options.bidirectional,
        reverse_source=options.reverse_source,
        residual=options.residual,
        dropout=options.dropout,
    )
    decoder = Decoder(
        size,
        hidden,
        options.decoder_layers,
        size,
        bridge=Bridge(options.encoder_layers, hidden, options.decoder_layers, hidden, options.bridge),
        attention=_build_attention(options),
        residual=options.residual,
        dropout=options.dropout,
    )
    output = nn.Linear(size, target_vocabulary)
    nn.init.zeros_(output.bias)
    model = Seq2Seq(source, target, encoder, decoder, output)
    if options.init_range:
        _start_uniform(model, options.init_range)
    if options.tie_embeddings != "none":
        output.weight = target.weight
    return model


def _build_attention(options: ModelOptions) -> NoContext | FixedContext | Attention:
    if options.attention != "none":
        return ATTENTIONS[options.attention](options.hidden_size, options.hidden_size)
    if options.context == "every-step":
        vector_size = 2 * options.encoder_layers * options.hidden_size
        return FixedContext(vector_size, options.context_size or options.hidden_size)
    return NoContext()


def _start_uniform(model: nn.Module, limit: float) -> None:
    """All parameters uniform in [-limit, limit] (Sutskever et al. 2014, section 3.4), forget biases still 1."""
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -limit, limit)
    for module in model.modules():
        if isinstance(module, LSTMCell):
            module.set_forget_bias(1.0)
