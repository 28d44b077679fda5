"""One time step of each recurrent cell: the equations as the papers print them.

A cell is a module `(x, state) -> state`; its state is a NamedTuple of tensors, batch first, and what the layer above
and the next step read comes first in it. What runs over whole sequences takes its weights from here (`recurrent.py`,
`bptt.py`), so that this page is also the oracle for it.

A cell may be given a `mask` (B, R): what its recurrent weights read of the state before is multiplied by it, which is
variational dropout of the recurrence when the same mask serves every step (Gal & Ghahramani 2016).

Shapes: **B** sentences, **E** input size, **H** cells, **O** outputs (H, or less by a projection), **R** what the
recurrence reads of them, **G** gates: all rows of the input weight together.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HiddenState(NamedTuple):
    """What a vanilla RNN and a GRU carry from one step to the next."""

    hidden: Tensor  # (B, O) h(t)


class LSTMState(NamedTuple):
    """What an LSTM carries from one step to the next."""

    hidden: Tensor  # (B, O) h(t), what the layer above and the next step read
    cell: Tensor  # (B, H) c(t), the linear memory


Linear = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, weight, bias) -> x weight' + bias
State = HiddenState | LSTMState
AnyState = TypeVar("AnyState", bound=State)


def like(state: AnyState, parts: Iterable[Tensor]) -> AnyState:
    """A state of the same kind, made of these parts."""
    return type(state)(*parts)


class Cell(nn.Module):
    """What all cells share: W (G, E) for the input, U (G, R) for the recurrence, b (G), and their start."""

    blocks: ClassVar[int]  # gates and candidates: G = blocks * H
    state: ClassVar[type[HiddenState] | type[LSTMState]]

    def __init__(self, input_size: int, hidden_size: int, recurrent_size: int = 0) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.recurrent_size = recurrent_size or hidden_size
        self.input_weight = nn.Parameter(torch.empty(self.blocks * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(self.blocks * hidden_size, self.recurrent_size))
        self.bias = nn.Parameter(torch.empty(self.blocks * hidden_size))

    def reset_parameters(self) -> None:
        """Glorot input weights, an orthogonal recurrence per gate, biases 0."""
        for gate in range(self.blocks):
            rows = slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)
            if self.input_size:
                nn.init.xavier_uniform_(self.input_weight.data[rows])
            nn.init.orthogonal_(self.recurrent_weight.data[rows])
        nn.init.zeros_(self.bias)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The widths of the state's tensors."""
        return (self.output_size, self.hidden_size)[: len(self.state._fields)]

    def zero_state(self, rows: int) -> State:
        """The state before the first word: `rows` rows of zeros."""
        return self.state._make(self.bias.new_zeros(rows, size) for size in self.state_sizes)

    @property
    def input_bias(self) -> Tensor:
        """What is added to W x at once: b (G)."""
        return self.bias

    def normed(self, sums: Tensor) -> Tensor:
        """What becomes of W x + b (N, G) before the state is added: it stays as it is."""
        return sums

    def products(self, x: Tensor, linear: Linear = F.linear) -> Tensor:
        """What the input says to every gate, W x + b: (N, E) -> (N, G). Of all time steps at once, if you like."""
        return self.normed(linear(x, self.input_weight, self.input_bias))

    def recurrent(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """What the recurrent weights read: the first R of h(t-1) (B, O), times the mask."""
        read = hidden[:, : self.recurrent_size]
        return read if mask is None else read * mask


class RNNCell(Cell):
    """The vanilla RNN: g(t) = W x(t) + U h(t-1) + b, h(t) = tanh(g(t)), as the lecture has it.

    Elman 1990 and Mikolov et al. 2010 squash by the logistic function.
    """

    blocks, state = 1, HiddenState

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.reset_parameters()

    def forward(self, x: Tensor, state: HiddenState, mask: Tensor | None = None) -> HiddenState:
        """Read x (B, E) in `state`; the state after it."""
        read = self.recurrent(state.hidden, mask)
        return HiddenState((self.products(x) + F.linear(read, self.recurrent_weight)).tanh())


class LSTMCell(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, o = sigmoid(W x + U h(t-1) + b), g = tanh(W x + U h(t-1) + b), each with rows of its own in the matrices;
    c(t) = f * c(t-1) + i * g; h(t) = o * tanh(c(t)). The rows stand in the order i, f, g, o, as in torch.nn.LSTM.

    With `peepholes` (Gers & Schmidhuber 2000; Sak et al. 2014, eq. 1-6) the gates also look at the memory: w_i * c(t-1)
    is added within i, w_f * c(t-1) within f and w_o * c(t) within o.

    With a `projection` (LSTMP: Sak et al. 2014, eq. 7 ff. of arXiv 1402.1128) m(t) = o * tanh(c(t)) is not put out
    itself, but r(t) = P m(t), of that size, which the recurrence reads in place of h; with an `extra_projection`, p(t)
    of that size stands beside it, which the layers above read and the recurrence does not: h(t) = [r(t), p(t)].
    """

    blocks, state = 4, LSTMState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        peepholes: bool = False,
        projection: int = 0,
        extra_projection: int = 0,
    ) -> None:
        if extra_projection and not projection:
            raise ValueError(f"extra_projection {extra_projection} stands beside a projection, which is 0")
        super().__init__(input_size, hidden_size, projection)
        self.peepholes = nn.Parameter(torch.empty(3, hidden_size)) if peepholes else None  # of i, f and o
        self.projection = nn.Parameter(torch.empty(projection + extra_projection, hidden_size)) if projection else None
        self.output_size = projection + extra_projection if projection else hidden_size
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As all cells, but forgetting starts at bias 1, peepholes at 0 and projections as Glorot has it."""
        super().reset_parameters()
        self.add_forget_bias(1.0)
        if self.peepholes is not None:
            nn.init.zeros_(self.peepholes)
        if self.projection is not None:
            nn.init.xavier_uniform_(self.projection)

    def add_forget_bias(self, value: float) -> None:
        """Start by remembering (Jozefowicz et al. 2015)."""
        self.bias.data[self.hidden_size : 2 * self.hidden_size] += value

    def forward(self, x: Tensor, state: LSTMState, mask: Tensor | None = None) -> LSTMState:
        """Read x (B, E) in `state`; the state after it."""
        read = self.recurrent(state.hidden, mask)
        i, f, g, o = (self.products(x) + F.linear(read, self.recurrent_weight)).chunk(4, dim=1)
        if self.peepholes is not None:
            i, f = i + self.peepholes[0] * state.cell, f + self.peepholes[1] * state.cell
        cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
        if self.peepholes is not None:
            o = o + self.peepholes[2] * cell
        hidden = o.sigmoid() * cell.tanh()
        return LSTMState(hidden if self.projection is None else F.linear(hidden, self.projection), cell)


class LectureLSTMCell(LSTMCell):
    """The LSTM of the lecture: its input is not squashed, and its output is as a whole.

    g(t) = W x(t) + U h(t-1) + b, i, f, o = sigmoid(W x + U h(t-1) + b); c(t) = f * c(t-1) + i * g(t);
    h(t) = tanh(o * c(t)).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)

    def forward(self, x: Tensor, state: LSTMState, mask: Tensor | None = None) -> LSTMState:
        """Read x (B, E) in `state`; the state after it."""
        read = self.recurrent(state.hidden, mask)
        i, f, g, o = (self.products(x) + F.linear(read, self.recurrent_weight)).chunk(4, dim=1)
        cell = f.sigmoid() * state.cell + i.sigmoid() * g
        return LSTMState((o.sigmoid() * cell).tanh(), cell)


class LayerNormLSTMCell(LSTMCell):
    """The LSTM with its sums normalised over the units (Ba et al. 2016, eq. 20-22).

    The gates are LN(W x) + LN(U h(t-1)) + b, each norm over all four with gains of its own; h(t) = o * tanh(LN(c(t))).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.input_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.recurrent_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.cell_gain = nn.Parameter(torch.ones(hidden_size))
        self.cell_bias = nn.Parameter(torch.zeros(hidden_size))

    @property
    def input_bias(self) -> Tensor:
        """None: b is added to what is normed."""
        return torch.zeros_like(self.bias)

    def normed(self, sums: Tensor) -> Tensor:
        """LN(W x) + b (N, G)."""
        return F.layer_norm(sums, sums.shape[-1:], self.input_gain, self.bias).to(sums.dtype)

    def forward(self, x: Tensor, state: LSTMState, mask: Tensor | None = None) -> LSTMState:
        """Read x (B, E) in `state`; the state after it."""
        sums = F.linear(self.recurrent(state.hidden, mask), self.recurrent_weight)
        i, f, g, o = (self.products(x) + F.layer_norm(sums, sums.shape[1:], self.recurrent_gain)).chunk(4, dim=1)
        cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
        normed = F.layer_norm(cell, cell.shape[1:], self.cell_gain, self.cell_bias)
        return LSTMState(o.sigmoid() * normed.tanh(), cell)


class GRUCell(Cell):
    """The gated recurrent unit (Cho et al. 2014, eq. 5-8), its rows in the order r, z, n.

    r, z = sigmoid(W x + U h(t-1) + b); h(t) = z * h(t-1) + (1 - z) * n. The reset gate r is applied `before` the
    recurrent product, n = tanh(W x + U (r * h(t-1)) + b), as Cho et al. have it; or `after` it,
    n = tanh(W x + b + r * (U h(t-1) + b_n)), as torch and cuDNN do, with a bias b_n of its own.
    """

    blocks, state = 3, HiddenState

    def __init__(self, input_size: int, hidden_size: int, *, reset: str = "after") -> None:
        if reset not in ("after", "before"):
            raise ValueError(f"the reset gate is applied after or before the product, not {reset!r}")
        super().__init__(input_size, hidden_size)
        self.candidate_bias = nn.Parameter(torch.zeros(hidden_size)) if reset == "after" else None
        self.reset_parameters()

    def forward(self, x: Tensor, state: HiddenState, mask: Tensor | None = None) -> HiddenState:
        """Read x (B, E) in `state`; the state after it."""
        read, size = self.recurrent(state.hidden, mask), 2 * self.hidden_size
        gates, candidate = self.products(x).split([size, self.hidden_size], dim=1)
        gate_weight, candidate_weight = self.recurrent_weight.split([size, self.hidden_size])
        r, z = (gates + F.linear(read, gate_weight)).sigmoid().chunk(2, dim=1)
        if self.candidate_bias is None:
            n = (candidate + F.linear(r * read, candidate_weight)).tanh()
        else:
            n = (candidate + r * F.linear(read, candidate_weight, self.candidate_bias)).tanh()
        return HiddenState(z * state.hidden + (1 - z) * n)


class DeepTransition(nn.Module):
    """Several cells within one step: the first reads the input, each further one only the state (Pascanu et al. 2014).

    They are as many layers between one word and the next, where a stack has them between a word and its output.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        first = cells[0]
        self.state, self.state_sizes, self.hidden_size = first.state, first.state_sizes, first.hidden_size
        self.output_size, self.recurrent_size = first.output_size, first.recurrent_size

    def forward(self, x: Tensor, state: State, mask: Tensor | None = None) -> State:
        """Read x (B, E) in `state`; the state after the last cell. The mask is for the first."""
        for number, cell in enumerate(self.cells):
            state = cell(x[:, : cell.input_size], state, None if number else mask)
        return state
