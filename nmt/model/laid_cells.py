"""The cells of a translation model laid out for decoding: what words say to them, and their steps.

Shapes: **N** words or rows, **E** input, **H** hidden size, **G** sums of a cell's gates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from nmt import native
from nmt.model.cells import Cell, LSTMCell, LSTMState, State, like
from nmt.model.equations import Unrolled, equations_of
from nmt.model.products import Own, Packed, Precision, Product, own_lstm, pack, product, serves_int8
from nmt.states import select

Pack = Callable[..., Product]  # (weight, bias, bounded=..., widths=...)
TABLE = 1 << 28  # bytes of the largest table of words
AT_ONCE = 16  # words whose product takes as long as that of one: the time is that of reading the weight


class Words:
    """W e(y) + b of words y; from a table, on a CPU once what was asked for took as long as it would.

    In float32; by our own kernel in int8, and in fp16 if `halved`. Words are ids of the vocabulary: a table is read
    without asking whether it has them.
    """

    def __init__(
        self, embedding: Tensor, weight: Tensor, bias: Tensor | None, precision: Precision, halved: bool = False
    ) -> None:
        self.embedding, self.weight, self.bias, self.halved = embedding, weight, bias, halved
        self.direct = Own(weight, bias) if serves_int8(precision) else Packed(weight, bias)
        self.asked, self.table = 0, embedding.new_empty(0)
        self.fits = (2 if halved else 4) * embedding.size(0) * weight.size(0) <= TABLE
        if embedding.is_cuda and self.fits:
            self._look_up()

    def _look_up(self) -> None:
        """Make the table."""
        self.fits = False  # one thread makes it; the others go on without until it is there
        if isinstance(self.direct, Own):
            self.table = self._own(self.direct, self.embedding)
            return
        table = product(self.embedding, self.weight)
        self.table = table if self.bias is None else table.add_(self.bias)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens (N,), or (N, 1), -> (N, G)."""
        tokens = tokens.flatten()
        if self.table.size(0):
            return self.table.index_select(0, tokens)
        self.asked += max(tokens.size(0), AT_ONCE)
        if self.fits and self.asked >= len(self.embedding):
            self._look_up()
        embedded = self.embedding.index_select(0, tokens)
        return self._own(self.direct, embedded) if isinstance(self.direct, Own) else self.direct(embedded)

    def _own(self, product: Own, embedded: Tensor) -> Tensor:
        return product(embedded, "halved" if self.halved else "plain")

    def told(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same of tokens (N,) as rows of a matrix, and which they are; None for all, in order."""
        return (self.table, tokens) if self.table.size(0) else (self(tokens), None)

    def looked_up(self, tokens: Tensor, order: Tensor, parts: int) -> tuple[Tensor, Tensor]:
        """A matrix whose rows have what words say, each in so many parts, and for the parts in this order their rows.

        Part p of word n of the tokens (N,) is number n * parts + p in the order.
        """
        if self.table.size(0):
            return self.table, tokens[order // parts] * parts + order % parts
        return self(tokens), order


class CellStep:
    """The step of a cell that is given what its input says."""

    def __init__(self, cell: Cell, pack: Pack) -> None:
        self.cell, (self.equations, self.weights) = cell, equations_of(cell)
        matrices = self.equations.matrices(self.weights)
        self.times = tuple(pack(matrix, None, bounded=is_bounded(cell)) for matrix in matrices)

    def __call__(self, sums: Tensor, state: State, which: Tensor | None = None, rows: Tensor | None = None) -> State:
        """After a step, from rows `which` (N,) of W x + b, or all of it (N, G), and so `rows` of the state."""
        sums, state = sums if which is None else sums.index_select(0, which), select(state, rows, None)
        read = state.hidden[:, : self.cell.recurrent_size]
        gates = sums.new_empty(sums.size(0), self.equations.kept(self.cell.hidden_size)[0])
        after = like(state, (torch.empty_like(part) for part in state))
        self.equations.step(self.cell.normed(sums), Unrolled(read, state, gates, after), self.weights, self.times)
        return after


class LSTMStep:
    """The step of a plain LSTM, in the room of its sums, for nothing is kept for a way back."""

    def __init__(self, times: Product) -> None:
        self.times = times

    def __call__(self, sums: Tensor, state: State, which: Tensor | None = None, rows: Tensor | None = None) -> State:
        """As `CellStep`, of W x + b `of_input`, which is written over."""
        before: LSTMState = select(state, rows, None)
        sums = self.times.plus(before.hidden, sums if which is None else sums.index_select(0, which))
        size = before.cell.size(1)
        i, f, o, g = sums.split(size, dim=1)
        sums[:, : 3 * size].sigmoid_()
        cell = torch.mul(f, before.cell).addcmul_(i, g.tanh_())
        return LSTMState(cell.tanh().mul_(o), cell)


class OwnLSTMStep:
    """The same in int8 by our own kernel."""

    def __init__(self, cell: LSTMCell) -> None:
        self.weight = own_lstm([together(cell.recurrent_weight)])

    def __call__(self, sums: Tensor, state: State, which: Tensor | None = None, rows: Tensor | None = None) -> State:
        """As `CellStep`, of W x + b `of_input`."""
        before = cast(LSTMState, state)
        return LSTMState(*self.weight.step([before.hidden], before.cell, sums.half(), which, rows))


Step = CellStep | LSTMStep | OwnLSTMStep


def step_of(cell: Cell, precision: Precision) -> Step:
    """A cell's step, laid out."""
    if not is_plain(cell):
        return CellStep(cell, partial(pack, precision=precision))
    plain = cast(LSTMCell, cell)
    if serves_int8(precision):
        return OwnLSTMStep(plain)
    return LSTMStep(pack(together(plain.recurrent_weight), None, precision, bounded=True))


def is_plain(cell: Cell) -> bool:
    """Whether it is an LSTM as torch has it."""
    return type(cell) is LSTMCell and cell.peepholes is None and cell.projection is None


def together(part: Tensor) -> Tensor:
    """A weight or bias (4H, ...) of an LSTM's gates i, f, g, o as i, f, o, g: a sigmoid squashes the first three."""
    i, f, g, o = part.detach().chunk(4)
    return torch.cat([i, f, o, g])


def of_input(cell: Cell, precision: Precision) -> tuple[Tensor, Tensor]:
    """W (G, E) and b (G) of W x + b, as the step of a cell laid out takes it.

    The gates of a plain LSTM are `together`, or as our own kernel has them.
    """
    weight, bias = cell.input_weight.detach(), cell.input_bias.detach()
    if not is_plain(cell):
        return weight, bias
    if serves_int8(precision):
        return native.in_blocks(together(weight), cell.hidden_size), native.in_blocks(together(bias), cell.hidden_size)
    return together(weight), together(bias)


def is_bounded(cell: Cell) -> bool:
    """Whether its output lies within [-1, 1], given a state that does."""
    return not (isinstance(cell, LSTMCell) and cell.projection is not None)


def within_bounds(cells: Sequence[Cell], residual: bool) -> list[bool]:
    """The same of each layer of a stack: what a residual adds up may leave [-1, 1]."""
    return [is_bounded(cell) and not (number and residual) for number, cell in enumerate(cells)]
