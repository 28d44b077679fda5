"""The encoder of a translation model laid out for decoding (`laid.py`): as it is, or step by step.

Shapes: **B** sentences, **T** source length, **D** directions, **H** hidden size of one, **N** words, **G** sums of a
cell's gates in all directions, **E** input.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import cast

import torch
from torch import Tensor

from nmt import native
from nmt.model.bptt import Reading, run
from nmt.model.cells import Cell, LSTMCell, LSTMState, State, like
from nmt.model.encoder import Encoded, Encoder, encode
from nmt.model.laid_cells import CellStep, Pack, Words, is_plain, of_input, together, within_bounds
from nmt.model.products import Own, Precision, own_lstm, pack, serves_int8
from nmt.model.recurrent import Layer, in_reading_order, tf32
from nmt.model.seq2seq import Seq2Seq

SMALL = 1 << 18  # elements of a weight in int8 whose product takes less time than the call


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


class LSTMLayer:
    """The same of plain LSTMs, a step of all directions at once and in the same room.

    Padding is read as words are, and what comes of it is left out.
    """

    def __init__(self, cells: list[Cell], sums: Callable[[Tensor], Tensor], precision: Precision) -> None:
        """`sums` are W x + b of words x (N, E) for all directions, each as `of_input` has it: (N, G)."""
        self.sums, self.size, self.directions = sums, cells[0].hidden_size, len(cells)
        weights = [together(cast(LSTMCell, cell).recurrent_weight) for cell in cells]
        self.own = [own_lstm([weight]) for weight in weights] if serves_int8(precision) else []
        self.times = [] if self.own else [pack(weight, None, precision, bounded=True) for weight in weights]
        self.alone = self.times  # those of a single sentence
        if len(cells) > 1 and precision == "int8" and not self.own and weights[0].numel() <= SMALL:
            self.alone = [pack(torch.block_diag(*weights), None, precision, bounded=True)]

    def __call__(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Read x (B, T, E), rows of these lengths (B,): outputs (B, T, D*H) and the states at the end (B, D*H)."""
        rows, steps, directions = *x.shape[:2], self.directions
        places = reading_places(lengths, steps, directions)  # (B, T, D)
        row, direction = torch.arange(rows)[:, None, None], torch.arange(directions)
        to = order = ((row * steps + places) * directions + direction).permute(1, 2, 0).flatten(1)  # (T, D*B)
        if isinstance(self.sums, Words):
            sums, order = self.sums.looked_up(x.flatten(), order, directions)
        elif isinstance(self.sums, Own):
            sums = self.sums(x.flatten(0, 1), "halved")
        else:
            sums = self.sums(x.flatten(0, 1))
        sums = sums.view(-1, sums.size(1) // directions)
        of_row = direction * rows + row  # (B, 1, D)
        last = (lengths[:, None, None] * directions * rows + of_row).flatten()
        if self.own:
            outputs, cell = native.lstm_layer(self.own, sums, order, to)
            hidden = outputs.index_select(0, to.flatten()[last - to.size(1)])
        else:
            states, cell = self._read(sums, order)
            outputs = states.index_select(0, ((places + 1) * directions * rows + of_row).flatten())
            hidden = states.index_select(0, last)
        final = LSTMState(hidden.view(rows, -1), cell.index_select(0, last).view(rows, -1))
        return outputs.view(rows, steps, -1), final

    def _read(self, sums: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """All states, from the zero state on, ((T+1)*D*B, H) each; of each step the sums (N*D, 4H) in this order."""
        directions, rows = self.directions, order.size(1)
        gates, cell = sums.new_empty(rows, 4 * self.size), sums.new_zeros(len(order) + 1, rows, self.size)
        hidden = torch.zeros_like(cell)
        squashed, (i, f, o, g) = gates[:, : 3 * self.size], gates.split(self.size, dim=1)
        sentences, times = rows // directions, self.alone if rows == directions else self.times
        each = gates.view(len(times), sentences, -1).unbind()
        read = hidden.view(len(times) * len(hidden), sentences, -1).unbind()
        parts = (part.unbind() for part in (order, cell, cell[1:], hidden[1:]))
        for step, (which, before, after, said) in enumerate(zip(*parts, strict=False)):
            torch.index_select(sums, 0, which, out=gates)
            for place, (multiply, to) in enumerate(zip(times, each, strict=True), len(times) * step):
                multiply.plus(read[place], to)
            squashed.sigmoid_()
            torch.mul(f, before, out=after).addcmul_(i, g.tanh_())
            torch.tanh(after, out=said).mul_(o)
        return hidden.view(-1, self.size), cell.view(-1, self.size)


def reading_places(lengths: Tensor, steps: int, directions: int) -> Tensor:
    """(B, T, D) where each direction stands at each step, the second being backwards; and at which step at each place.

    Padding is read in its place.
    """
    step = torch.arange(steps, device=lengths.device).expand(len(lengths), -1)  # (B, T)
    mirrored = lengths[:, None] - 1 - step
    return torch.stack([step, mirrored.where(mirrored >= 0, step)][:directions], dim=2)


class LaidEncoder:
    """An encoder, laid out; what a word says to the first layer is looked up."""

    def __init__(self, encoder: Encoder, embedding: Tensor, precision: Precision) -> None:
        self.reverse_source, self.residual = encoder.reverse_source, encoder.residual
        packed, self.layers = partial(pack, precision=precision), list[LaidLayer | LSTMLayer]()
        cells = [cast(list[Cell], list(layer.cells)) for layer in cast(list[Layer], encoder.layers)]  # by direction
        self.bounded = within_bounds([both[0] for both in cells], self.residual)
        for both, below in zip(cells, [False, *self.bounded], strict=False):
            own = is_plain(both[0]) and serves_int8(precision)
            words = partial(Words, embedding, precision=precision, halved=own)
            lay = partial(packed, bounded=below) if self.layers else words
            parts = [of_input(cell, precision) for cell in both]
            if is_plain(both[0]):
                self.layers.append(LSTMLayer(both, lay(*map(torch.cat, zip(*parts, strict=True))), precision))
            else:
                self.layers.append(LaidLayer(both, [lay(*part) for part in parts], packed))

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
