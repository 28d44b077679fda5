"""A translation model laid out for decoding: the `start` and `step` of `Seq2Seq` in as little work as they can be done.

- Weights are laid out once, in the arithmetic asked for (`products.py`).
- What a word says to the first layer, W e(y) + b, is looked up in a table, once that pays.
- What the context c = sum_s a_s m_s says to a reader is W c = sum_s a_s (W m_s); each W m_s is made once per sentence.
- The encoder is the model's own where torch has a kernel for its layers that reads whole sentences (oneDNN, cuDNN), but
  not in bf16 on a CPU, where ours is the faster.

So a step is a product in the first layer, two in each further one, one in the readout and one in the output layer.

Shapes: **B** sentences, **S** source length, **K** hypotheses of a sentence, **N** rows (B * K), **G** sums of a reader
(a layer's gates, or the readout), **X** its input, **C** context, **R** readout, **V** vocabulary.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from nmt.model.attention import FixedContext, Memory
from nmt.model.bptt import Reading, run
from nmt.model.cells import Cell, DeepTransition, LSTMCell, LSTMState, State, like
from nmt.model.decoder import MaxoutReadout, PlainReadout, TanhReadout
from nmt.model.encoder import Encoded, Encoder, encode
from nmt.model.equations import Unrolled, equations_of
from nmt.model.products import Packed, Precision, Quantised, Rows, pack, product
from nmt.model.recurrent import Layer, in_reading_order, tf32
from nmt.model.seq2seq import Seq2Seq

Pack = Callable[..., Packed | Quantised]  # (weight, bias, bounded=...)
TABLE = 1 << 28  # bytes of the largest table of words
AT_ONCE = 16  # words whose product takes as long as that of one: the time is that of reading the weight


class DecodingMemory(NamedTuple):
    """What all hypotheses of a sentence read; one row per sentence."""

    source: Memory
    early: Tensor  # (B, 1, G) what a context that is the same at every step says to the first layer; 0 from others
    said: tuple[Tensor, ...]  # (B, S, G) what each value says to each reader of the context


class DecodingState(NamedTuple):
    """All that is carried from word to word."""

    layers: tuple[State, ...]  # per layer, (N, H), ...
    alignment: Tensor  # (N, S) what the last word looked at; width 0 without attention
    memory: DecodingMemory


class Words:
    """W e(y) + b of words y, in float32; from a table, on a CPU once what was asked for took as long as it would."""

    def __init__(self, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.embedding, self.weight, self.bias = embedding, weight, bias
        self.direct, self.asked, self.table = Packed(weight, bias), 0, embedding.new_empty(0)
        self.fits = 4 * embedding.size(0) * weight.size(0) <= TABLE
        if embedding.is_cuda and self.fits:
            self._look_up()

    def _look_up(self) -> None:
        """Make the table."""
        self.fits = False  # one thread makes it; the others go on without until it is there
        table = product(self.embedding, self.weight)
        self.table = table if self.bias is None else table.add_(self.bias)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens (N,), or (N, 1), -> (N, G)."""
        tokens = tokens.flatten()
        if len(self.table):
            return self.table.index_select(0, tokens)
        self.asked += max(len(tokens), AT_ONCE)
        if self.fits and self.asked >= len(self.embedding):
            self._look_up()
        return self.direct(self.embedding.index_select(0, tokens))


class Reader:
    """W x + U c + b of something that reads x (N, X) and the context c (N, C)."""

    def __init__(self, weight: Tensor, bias: Tensor, context: int, pack: Pack, bounded: bool, heard: bool) -> None:
        """Of a weight (G, X + C) and a bias (G); `bounded` and `heard` say whether x and c lie within [-1, 1]."""
        of_input, of_context = weight.detach().split([weight.size(1) - context, context], dim=1)
        self.of_input = pack(of_input, bias.detach(), bounded=bounded)
        self.of_context = pack(of_context, None, bounded=heard) if context else lambda values: values @ of_context.t()

    def said(self, values: Tensor) -> Tensor:
        """What each value of the context (B, S, C) says: (B, S, G)."""
        said: Tensor = self.of_context(values.flatten(0, 1))
        return said.view(*values.shape[:2], said.size(-1))

    def __call__(self, x: Tensor, weights: Tensor, said: Tensor) -> Tensor:
        """The sums (N, G), from x (N, X) and how much of each value the context is, weights (B, K, S)."""
        return self.of_input(x).view(*weights.shape[:2], -1).baddbmm_(weights, said).flatten(0, 1)


class CellStep:
    """The step of a cell that is given what its input says."""

    def __init__(self, cell: Cell, pack: Pack) -> None:
        self.cell, (self.equations, self.weights) = cell, equations_of(cell)
        matrices = self.equations.matrices(self.weights)
        self.times = tuple(pack(matrix, None, bounded=is_bounded(cell)) for matrix in matrices)

    def __call__(self, sums: Tensor, state: State) -> State:
        """The state after a step, from W x + b (N, G)."""
        read = state.hidden[:, : self.cell.recurrent_size]
        gates = sums.new_empty(sums.size(0), self.equations.kept(self.cell.hidden_size)[0])
        after = like(state, (torch.empty_like(part) for part in state))
        self.equations.step(self.cell.normed(sums), Unrolled(read, state, gates, after), self.weights, self.times)
        return after


class LSTMStep(CellStep):
    """The same of a plain LSTM, in the room of its sums, for nothing is kept for a way back."""

    def __call__(self, sums: Tensor, state: State) -> State:
        """The state after a step, from W x + b (N, G), which is written over."""
        before, size = cast(LSTMState, state), self.cell.hidden_size
        sums = self.times[0].plus(before.hidden, sums)
        i, f, g, o = sums.chunk(4, dim=1)
        sums[:, : 2 * size].sigmoid_()
        cell = torch.mul(f, before.cell).addcmul_(i, g.tanh_())
        return LSTMState(cell.tanh().mul_(o.sigmoid_()), cell)


def step_of(cell: Cell, pack: Pack) -> CellStep:
    """A cell's step, laid out."""
    plain = type(cell) is LSTMCell and cell.peepholes is None and cell.projection is None
    return (LSTMStep if plain else CellStep)(cell, pack)


class TanhRead:
    """`TanhReadout`, laid out: (N, H), words (N,), weights (B, K, S), said (B, S, R) -> (N, R)."""

    def __init__(self, readout: TanhReadout, embedding: Tensor, lay: Callable[[Tensor, Tensor], Reader]) -> None:
        self.reader = lay(readout.weight, readout.bias)
        self.said = self.reader.said

    def __call__(self, x: Tensor, tokens: Tensor, weights: Tensor, said: Tensor) -> Tensor:
        """tanh(W [h, c] + b)."""
        return self.reader(x, weights, said).tanh_()


class MaxoutRead:
    """`MaxoutReadout`, laid out; what the word before says is looked up."""

    def __init__(self, readout: MaxoutReadout, embedding: Tensor, lay: Callable[[Tensor, Tensor], Reader]) -> None:
        weight, of_word = readout.weight.detach().tensor_split([-embedding.size(1)], dim=1)
        self.reader = lay(weight, readout.bias)
        self.words, self.said = Words(embedding, of_word, None), self.reader.said

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
        return torch.cat([x, (weights @ said).flatten(0, 1)], dim=1)


READS = {TanhReadout: TanhRead, MaxoutReadout: MaxoutRead, PlainReadout: PlainRead}


class LaidLayer:
    """An encoder layer: in each direction, all products with the input at once, and then step by step."""

    def __init__(self, cells: list[Cell], sums: Sequence[Callable[[Tensor], Tensor]], pack: Pack) -> None:
        """`sums` are W x + b of words x (N, E), for each direction."""
        self.sums, self.cells = sums, [CellStep(cell, pack) for cell in cells]

    def __call__(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Read x (B, T, E), rows of these lengths (B,): outputs (B, T, D*O) and the states at the end (B, D*O), ..."""
        found = []
        for number, (cell, sums) in enumerate(zip(self.cells, self.sums, strict=True)):
            read = partial(self._read, cell, sums)
            found.append(in_reading_order(read, x, cell.cell.zero_state(x.size(0)), lengths, backwards=number == 1))
        outputs, states = zip(*found, strict=True)
        final = like(states[0], (torch.cat(parts, dim=1) for parts in zip(*states, strict=True)))
        return torch.cat(outputs, dim=2), final

    def _read(
        self, cell: CellStep, sums: Callable[[Tensor], Tensor], words: Tensor, state: State, order: Reading
    ) -> tuple[Tensor, State]:
        products = cell.cell.normed(sums(words))
        _, after = run(cell.equations, cell.weights, cell.times, products, state, order)
        return after[0], like(state, (part.index_select(0, order.last) for part in after))


class LaidEncoder:
    """An encoder, laid out; what a word says to the first layer is looked up."""

    def __init__(self, encoder: Encoder, embedding: Tensor, precision: Precision) -> None:
        self.reverse_source, self.residual = encoder.reverse_source, encoder.residual
        packed, self.layers = partial(pack, precision=precision), list[LaidLayer]()
        cells = [cast(list[Cell], list(layer.cells)) for layer in cast(list[Layer], encoder.layers)]  # by direction
        self.bounded = within_bounds([both[0] for both in cells], self.residual)
        for both, below in zip(cells, [False, *self.bounded], strict=False):
            of_input = [(cell.input_weight.detach(), cell.input_bias.detach()) for cell in both]
            sums = [packed(*one, bounded=below) if self.layers else Words(embedding, *one) for one in of_input]
            self.layers.append(LaidLayer(both, sums, packed))

    def __call__(self, source: Tensor, lengths: Tensor) -> Encoded:
        """Encode ids (B, S) of these lengths (B,)."""
        return encode(self.layers, source[:, :, None], lengths, self.reverse_source, self.residual)


class WholeEncoder:
    """An encoder and its embedding as they are, where torch has kernels for whole sentences; bf16 on a GPU only."""

    def __init__(self, model: Seq2Seq, precision: Precision) -> None:
        self.embedding, self.encoder = model.source_embedding, model.encoder
        self.reduced = precision == "bf16"  # on a CPU it is not used for bf16
        cells = [cast(Cell, layer.cells[0]) for layer in cast(list[Layer], model.encoder.layers)]
        self.bounded = within_bounds(cells, model.encoder.residual)

    def __call__(self, source: Tensor, lengths: Tensor) -> Encoded:
        """Encode ids (B, S) of these lengths (B,); all in float32."""
        kind = source.device.type
        with (
            tf32(self.reduced) if kind == "cuda" else nullcontext(),
            torch.autocast(kind, torch.bfloat16, enabled=self.reduced),
        ):
            outputs, mask, final = self.encoder(self.embedding(source), lengths)
        return Encoded(outputs.float(), mask, tuple(like(state, (part.float() for part in state)) for state in final))


class LaidModel:
    """A stepper: a model, encoder and decoder laid out."""

    def __init__(self, model: Seq2Seq, precision: Precision) -> None:
        decoder, embedding = model.decoder, model.target_embedding.weight.detach()
        layers = cast(list[Layer], model.encoder.layers)
        fused = all(layer.path(embedding.device, False, False) == "fused" for layer in layers)
        if embedding.is_cuda or (fused and precision != "bf16"):
            self.encoder: WholeEncoder | LaidEncoder = WholeEncoder(model, precision)
        else:
            self.encoder = LaidEncoder(model.encoder, model.source_embedding.weight.detach(), precision)
        self.decoder, self.attention, self.residual = decoder, decoder.attention, decoder.residual
        packed = partial(pack, precision=precision)
        cells = cast(list[Cell], [layer.cells[0] for layer in cast(list[Layer], decoder.layers)])
        self.steps = [step_of(cell, packed) for cell in cells]
        of_word, self.of_early = cells[0].input_weight.detach().tensor_split([embedding.size(1)], dim=1)
        self.words = Words(embedding, of_word, cells[0].input_bias.detach())
        bounded = within_bounds(cells, self.residual)
        heard = isinstance(self.attention, FixedContext) or self.encoder.bounded[-1]
        lay = partial(Reader, context=self.attention.size, pack=packed, heard=heard)
        self.readers = [
            lay(cell.input_weight, cell.input_bias, bounded=below)
            for cell, below in zip(cells[1:], bounded, strict=False)
        ]
        kind = type(decoder.readout)
        self.readout = READS[kind](decoder.readout, embedding, partial(lay, bounded=bounded[-1]))
        self.rows = Rows(model.output.weight, model.output.bias, precision, bounded=kind is TanhReadout)
        self.output = self.rows.all()

    def start(self, source: Tensor, lengths: Tensor) -> DecodingState:
        """Encode ids (B, S) of these lengths (B,); the state before the first target word."""
        layers, alignment, memory = self.decoder.start(self.encoder(source, lengths))
        said = tuple(reader.said(memory.values) for reader in (*self.readers, self.readout))
        early = product(self.attention.early(memory, 1)[:, 0], self.of_early)[:, None]  # (B, 1, G)
        return DecodingState(layers, alignment, DecodingMemory(memory, early, said))

    def step(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """Read one token per row (N,); log-probabilities of the next (N, V), in float32, and the state after it."""
        logits, state = self.logits(tokens, state)
        return log_softmax_(logits), state

    def logits(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """The same, before the softmax."""
        readout, state = self.read(tokens, state)
        return self.output(readout), state

    def read(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """What the output layer reads (N, R)."""
        source, early, said = state.memory
        batch = source.values.size(0)
        sums = self.words(tokens)  # (N, G)
        if self.attention.early_size:
            sums.view(batch, -1, sums.size(1)).add_(early)
        layers = [self.steps[0](sums, state.layers[0])]
        x = layers[0].hidden  # (N, H)
        weights = self.attention.weigh(x.view(batch, -1, x.size(1)), source)  # (B, K, S)
        for reader, step, before, heard in zip(self.readers, self.steps[1:], state.layers[1:], said, strict=False):
            layers.append(step(reader(x, weights, heard), before))
            x = layers[-1].hidden + x if self.residual else layers[-1].hidden
        alignment = weights.flatten(0, 1)[:, : source.mask.size(1)]  # (N, S)
        return self.readout(x, tokens, weights, said[-1]), DecodingState(tuple(layers), alignment, state.memory)


def log_softmax_(logits: Tensor) -> Tensor:
    """Log-probabilities (N, V) of logits; on a CPU in their place, which is half as much to write."""
    return torch.log_softmax(logits, 1, out=None if logits.is_cuda else logits)


def is_bounded(cell: Cell) -> bool:
    """Whether its output lies within [-1, 1], given a state that does."""
    return not (isinstance(cell, LSTMCell) and cell.projection is not None)


def within_bounds(cells: Sequence[Cell], residual: bool) -> list[bool]:
    """The same of each layer of a stack: what a residual adds up may leave [-1, 1]."""
    return [is_bounded(cell) and not (number and residual) for number, cell in enumerate(cells)]


def lay_out(model: Seq2Seq, precision: Precision) -> LaidModel | Seq2Seq:
    """A model ready to decode on its device, in this arithmetic.

    It is left as it is where a step is more than a single cell's (deep transition, zoneout). Later changes of the
    model's weights may or may not be seen. ValueError for weights that are NaN or infinite and to be int8.
    """
    if precision == "int8" and not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise ValueError("the model has weights that are NaN or infinite: look at its loss")
    return LaidModel(model, precision) if can_be_laid_out(model) else model


def can_be_laid_out(model: Seq2Seq) -> bool:
    """Whether `lay_out` changes anything."""
    layers = cast(list[Layer], [*model.encoder.layers, *model.decoder.layers])
    return all(type(layer.cells[0]) is not DeepTransition and not layer.zoneout for layer in layers)
