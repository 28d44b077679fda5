"""A translation model laid out for decoding: the `start` and `step` of `Seq2Seq` in as little work as they can be done.

- Weights are laid out once, in the arithmetic asked for (`products.py`).
- What a word says to the first layer, W e(y) + b, is looked up in a table, once that pays.
- What the context c = sum_s a_s m_s says to a reader is W c = sum_s a_s (W m_s); each W m_s is made once per sentence,
  but where one hypothesis alone reads it, on a CPU.
- In int8, where one hypothesis alone reads a sentence, our own kernel multiplies attention's queries, not its keys:
  they are the values then. It also finds the best words (`offer`) without writing what the others are worth.
- The encoder is the model's own where torch has a kernel for its layers that reads whole sentences (cuDNN, and oneDNN
  in float32); else ours (`laid_encoder.py`).

So a step is a product in the first layer, two in each further one (by our own kernel in int8, and with a context, one),
one in the readout, one in the output layer and, where keys are the values, one of the query.

Shapes: **B** sentences, **S** source length, **K** hypotheses of a sentence, **N** rows (B * K), **G** sums of a reader
(a layer's gates, or the readout), **X** its input, **C** context, **R** readout, **V** vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from nmt import native
from nmt.model.attention import Attention, DotAttention, FixedContext, GeneralAttention, Memory
from nmt.model.cells import Cell, DeepTransition, LSTMCell, LSTMState, State
from nmt.model.decoder import MaxoutReadout, PlainReadout, TanhReadout
from nmt.model.laid_cells import Pack, Words, is_plain, of_input, step_of, together, within_bounds
from nmt.model.laid_encoder import LaidEncoder, WholeEncoder
from nmt.model.products import Own, Precision, Rows, in_fp16, own_lstm, pack, product, serves_int8
from nmt.model.recurrent import Layer
from nmt.model.seq2seq import Seq2Seq
from nmt.states import Picked


class DecodingMemory(NamedTuple):
    """What all hypotheses of a sentence read; one row per sentence."""

    source: Memory  # values and keys in fp16 where our own kernel reads them in int8
    early: Tensor  # (B, 1, G) what a context that is the same at every step says to the first layer; 0 from others
    said: tuple[Tensor, ...]  # (B, S, G) what each value says to each reader of the context; nothing to a `LoneReader`


class DecodingState(NamedTuple):
    """All that is carried from word to word."""

    layers: Picked  # per layer, (N, H), ...
    alignment: Tensor  # (N, S) what the last word looked at; width 0 without attention
    memory: DecodingMemory


class Reader:
    """W x + U c + b of something that reads x (N, X) and the context c (N, C); `squash` asks for tanh of it."""

    def __init__(
        self, weight: Tensor, bias: Tensor, context: int, pack: Pack, bounded: bool, heard: bool, squash: bool = False
    ) -> None:
        """Of a weight (G, X + C) and a bias (G); `bounded` and `heard` say whether x and c lie within [-1, 1]."""
        of_x, of_context = weight.detach().split([weight.size(1) - context, context], dim=1)
        self.of_x, self.squash = pack(of_x, bias.detach(), bounded=bounded), squash
        self.of_context = pack(of_context, None, bounded=heard) if context else lambda values: values @ of_context.t()
        self.narrow = squash and isinstance(self.of_x, Own) and weight.size(0) % native.PANEL == 0

    def said(self, values: Tensor) -> Tensor:
        """What each value of the context (B, S, C) says: (B, S, G); in fp16 where our own kernel reads it."""
        if self.narrow and isinstance(self.of_context, Own):
            return self.of_context.halved(values)
        said: Tensor = self.of_context(values.flatten(0, 1))
        return said.view(*values.shape[:2], said.size(-1))

    def __call__(self, x: Tensor, weights: Tensor, said: Tensor) -> Tensor:
        """The sums (N, G), from x (N, X) and how much of each value the context is, weights (B, K, S)."""
        sums = self.of_x(x)
        if self.narrow:
            return native.weigh(weights, said, sums)
        sums = sums.view(*weights.shape[:2], -1).baddbmm_(weights, said).flatten(0, 1)
        return sums.tanh_() if self.squash else sums


class LoneReader:
    """The same of a context that one hypothesis alone reads: less work than what each of its values says."""

    def __init__(
        self, weight: Tensor, bias: Tensor, context: int, pack: Pack, bounded: bool, heard: bool, squash: bool = False
    ) -> None:
        self.of_both = pack(
            weight.detach(), bias.detach(), bounded=bounded and heard, widths=[weight.size(1) - context, context]
        )
        self.squash = squash

    def said(self, values: Tensor) -> Tensor:
        """Nothing: (B, S, 0)."""
        return values[:, :, :0]

    def __call__(self, x: Tensor, weights: Tensor, context: Tensor) -> Tensor:
        """The sums (N, G), from x (N, X) and the context (N, C)."""
        if isinstance(self.of_both, Own):
            return self.of_both.of([x, context], "squashed" if self.squash else "plain")
        sums = self.of_both(torch.cat([x, context], dim=1))
        return sums.tanh_() if self.squash else sums


Lay = Callable[..., Reader | LoneReader]  # of a weight and a bias


class Upper:
    """A layer above the first."""

    def __init__(self, cell: Cell, below: bool, lay: Lay, precision: Precision) -> None:
        """`below` says whether the output of the layer below lies within [-1, 1]."""
        self.reader, self.step = lay(*of_input(cell, precision), bounded=below), step_of(cell, precision)
        self.said = self.reader.said

    def __call__(self, x: Tensor, weights: Tensor, said: Tensor, state: State, rows: Tensor | None) -> State:
        """Its next state from `rows` of that before, the output (N, X) below and what the reader is told."""
        return self.step(self.reader(x, weights, said), state, None, rows)


class OwnUpper:
    """The same of a plain LSTM by our own kernel: one product with all that it reads, and what its values say added.

    What it reads is rounded to levels of the largest of all of it.
    """

    def __init__(self, cell: LSTMCell, context: int, shared: bool) -> None:
        weight, bias = together(cell.input_weight), together(cell.input_bias)
        of_x, of_context = weight.split([weight.size(1) - context, context], dim=1)
        before = together(cell.recurrent_weight)
        self.weight = own_lstm([of_x, before] if shared else [of_x, of_context, before], bias)
        self.of_context = Own(native.in_blocks(of_context, cell.hidden_size), None) if shared else None

    def said(self, values: Tensor) -> Tensor:
        """What each value of the context (B, S, C) says: (B, S, G), in fp16; nothing to one that is not shared."""
        return values[:, :, :0] if self.of_context is None else self.of_context.halved(values)

    def __call__(self, x: Tensor, weights: Tensor, said: Tensor, state: State, rows: Tensor | None) -> State:
        """As `Upper`."""
        hidden, memory = cast(LSTMState, state)
        if self.of_context is None:
            return LSTMState(*self.weight.step([x, said, hidden], memory, rows=rows))
        return LSTMState(*self.weight.step([x, hidden], memory, native.weigh(weights, said), rows=rows))


class TanhRead:
    """`TanhReadout`, laid out: (N, H), words (N,), weights (B, K, S), said (B, S, R) or context (N, C) -> (N, R)."""

    def __init__(self, readout: TanhReadout, embedding: Tensor, lay: Lay, precision: Precision) -> None:
        self.reader = lay(readout.weight, readout.bias, squash=True)
        self.said = self.reader.said

    def __call__(self, x: Tensor, tokens: Tensor, weights: Tensor, said: Tensor) -> Tensor:
        """tanh(W [h, c] + b)."""
        return self.reader(x, weights, said)


class MaxoutRead:
    """`MaxoutReadout`, laid out; what the word before says is looked up."""

    def __init__(self, readout: MaxoutReadout, embedding: Tensor, lay: Lay, precision: Precision) -> None:
        weight, of_word = readout.weight.detach().tensor_split([-embedding.size(1)], dim=1)
        self.reader = lay(weight, readout.bias)
        self.words, self.said = Words(embedding, of_word, None, precision), self.reader.said

    def __call__(self, x: Tensor, tokens: Tensor, weights: Tensor, said: Tensor) -> Tensor:
        """The larger of each pair of sums."""
        sums = self.reader(x, weights, said).add_(self.words(tokens))
        return sums.view(len(sums), -1, 2).amax(dim=2)


class PlainRead:
    """`PlainReadout`: the last layer's output and the context itself."""

    def __init__(self, *_: object) -> None:
        pass

    def said(self, values: Tensor) -> Tensor:
        """The values as they are."""
        return values

    def __call__(self, x: Tensor, tokens: Tensor, weights: Tensor, said: Tensor) -> Tensor:
        """[h, c]."""
        return torch.cat([x, said if said.dim() == 2 else (weights @ said).flatten(0, 1)], dim=1)


READS = {TanhReadout: TanhRead, MaxoutReadout: MaxoutRead, PlainReadout: PlainRead}


class LaidModel:
    """A stepper: a model, encoder and decoder laid out."""

    def __init__(self, model: Seq2Seq, precision: Precision, shared: bool = True) -> None:
        """`shared` says whether several hypotheses are to read each sentence; what is said is nearly the same."""
        decoder, embedding = model.decoder, model.target_embedding.weight.detach()
        layers = cast(list[Layer], model.encoder.layers)
        fused = all(layer.path(embedding.device, False, False) == "fused" for layer in layers)
        if embedding.is_cuda or (fused and precision == "fp32"):
            self.encoder: WholeEncoder | LaidEncoder = WholeEncoder(model, precision)
        else:
            self.encoder = LaidEncoder(model.encoder, model.source_embedding.weight.detach(), precision)
        self.decoder, self.attention, self.residual = decoder, decoder.attention, decoder.residual
        self.dots = isinstance(self.attention, DotAttention | GeneralAttention) and native.serves(embedding)
        self.halved = self.dots and precision == "int8"
        self.shared = shared or embedding.is_cuda or not isinstance(self.attention, Attention)
        self.queries: Own | None = None
        if self.halved and not self.shared and isinstance(self.attention, GeneralAttention):
            # q.(W m) = (W^T q).m: one row is multiplied, not each of a sentence's, and keys are the values
            self.queries = Own(self.attention.key.weight.t().contiguous(), None)
        packed = partial(pack, precision=precision)
        cells = cast(list[Cell], [layer.cells[0] for layer in cast(list[Layer], decoder.layers)])
        self.first, self.precision = step_of(cells[0], precision), precision
        weight, bias = of_input(cells[0], precision)
        of_word, self.of_early = weight.tensor_split([embedding.size(1)], dim=1)
        self.words = Words(embedding, of_word, bias, precision, halved=is_plain(cells[0]) and serves_int8(precision))
        bounded = within_bounds(cells, self.residual)
        heard = isinstance(self.attention, FixedContext) or self.encoder.bounded[-1]
        lay = partial(Reader if self.shared else LoneReader, context=self.attention.size, pack=packed, heard=heard)
        self.uppers = [self._upper(cell, below, lay) for cell, below in zip(cells[1:], bounded, strict=False)]
        kind = type(decoder.readout)
        self.readout = READS[kind](decoder.readout, embedding, partial(lay, bounded=bounded[-1]), precision)
        self.rows = Rows(model.output.weight, model.output.bias, precision, bounded=kind is TanhReadout)
        self.output = self.rows.all()

    def _upper(self, cell: Cell, below: bool, lay: Lay) -> Upper | OwnUpper:
        if self.attention.size and is_plain(cell) and serves_int8(self.precision):
            return OwnUpper(cast(LSTMCell, cell), self.attention.size, self.shared)
        return Upper(cell, below, lay, self.precision)

    def start(self, source: Tensor, lengths: Tensor) -> DecodingState:
        """Encode ids (B, S) of these lengths (B,); the state before the first target word."""
        layers, alignment, memory = self.decoder.start(self.encoder(source, lengths), self.prepare)
        said = tuple(reader.said(memory.values) for reader in (*self.uppers, self.readout))
        early = product(self.attention.early(memory, 1)[:, 0], self.of_early)[:, None]  # (B, 1, G)
        if self.halved:
            values = in_fp16(memory.values)
            memory = Memory(values, memory.keys if self.queries is None else values, memory.mask)
        return DecodingState(Picked(layers), alignment, DecodingMemory(memory, early, said))

    def prepare(self, outputs: Tensor, mask: Tensor, vector: Tensor) -> Memory:
        """As the attention does; where our own kernel reads them in int8, keys are in fp16, or none are made."""
        if self.queries is not None:
            return Memory(outputs.contiguous(), outputs[:, :, :0], mask)
        values, keys, mask = (part.contiguous() for part in self.attention.prepare(outputs, mask, vector))
        return Memory(values, in_fp16(keys) if self.halved else keys, mask)

    def step(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """Read one token per row (N,); log-probabilities of the next (N, V), in float32, and the state after it."""
        logits, state = self.logits(tokens, state)
        return log_softmax_(logits), state

    def offers(self, count: int, silent: int) -> bool:
        """Whether our own kernel finds the `count` best words but so many silent ones by themselves: in int8."""
        return isinstance(self.output, Own) and count < min(native.MANY, self.output.weight.rows - silent)

    def offer(
        self, tokens: Tensor, state: DecodingState, count: int, end: int, silent: Tensor
    ) -> tuple[Tensor, Tensor, DecodingState]:
        """As `step`, but of each row only the log-probabilities of the best words, and the words (N, 1 + count).

        First the word `end`, and then the best of the others but those that are silent (M,), the best first.
        """
        readout, state = self.read(tokens, state)
        assert isinstance(self.output, Own)
        return *self.output.weight.offer(readout, count, end, silent), state

    def look(self, query: Tensor, source: Memory) -> tuple[Tensor, Tensor | None]:
        """How much queries (B, K, H) look at each value (B, K, S); and, where one is alone, what they see (B*K, C)."""
        values = None if self.shared else source.values
        if self.queries is not None:
            query = self.queries(query.flatten(0, 1)).view(*query.shape[:2], -1)
        if self.dots:
            return native.attend(query, source.keys, source.mask, values)
        weights = self.attention.weigh(query, source)
        return weights, None if values is None else (weights @ values).flatten(0, 1)

    def logits(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """The same, before the softmax."""
        readout, state = self.read(tokens, state)
        return self.output(readout), state

    def read(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """What the output layer reads (N, R)."""
        source, early, said = state.memory
        batch = source.values.size(0)
        if self.attention.early_size:
            sums, which = self.words(tokens), None  # (N, G)
            sums.view(batch, -1, sums.size(1)).add_(early)
        else:
            sums, which = self.words.told(tokens)  # (.., G), (N,)
        before, rows = state.layers
        layers = [self.first(sums, before[0], which, rows)]
        x = layers[0].hidden  # (N, H)
        weights, context = self.look(x.view(batch, -1, x.size(1)), source)  # (B, K, S), (N, C)
        if context is not None:
            said = (context,) * len(said)
        for upper, own, heard in zip(self.uppers, before[1:], said, strict=False):
            layers.append(upper(x, weights, heard, own, rows))
            x = layers[-1].hidden + x if self.residual else layers[-1].hidden
        alignment = weights.flatten(0, 1)[:, : source.mask.size(1)]  # (N, S)
        after = DecodingState(Picked(tuple(layers)), alignment, state.memory)
        return self.readout(x, tokens, weights, said[-1]), after


def log_softmax_(logits: Tensor) -> Tensor:
    """Log-probabilities (N, V) of logits; on a CPU in their place, which is half as much to write."""
    if native.serves(logits):
        return native.log_softmax_(logits)
    return torch.log_softmax(logits, 1, out=None if logits.is_cuda else logits)


def lay_out(model: Seq2Seq, precision: Precision, shared: bool = True) -> LaidModel | Seq2Seq:
    """A model ready to decode on its device, in this arithmetic.

    It is left as it is where a step is more than a single cell's (deep transition, zoneout). Later changes of the
    model's weights may or may not be seen. ValueError for weights that are NaN or infinite and to be int8.
    """
    if precision == "int8" and not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise ValueError("the model has weights that are NaN or infinite: look at its loss")
    return LaidModel(model, precision, shared) if can_be_laid_out(model) else model


def can_be_laid_out(model: Seq2Seq) -> bool:
    """Whether `lay_out` changes anything."""
    layers = cast(list[Layer], [*model.encoder.layers, *model.decoder.layers])
    return all(type(layer.cells[0]) is not DeepTransition and not layer.zoneout for layer in layers)
