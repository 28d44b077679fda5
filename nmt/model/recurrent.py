"""Recurrence over time: a layer, in one or both directions, over sentences of unequal length.

A layer runs in one of three ways, all of one result; `path` says which.

- *fused*: torch's own kernel for whole sequences (oneDNN on a CPU, cuDNN on a GPU), where it has the very cell.
- *unrolled*: our back-propagation through time (`bptt.py`), for every single cell.
- *loop*: the cell as its page has it, step by step, W x included, left to autograd: for deep transitions and zoneout;
  and it can be differentiated twice and forwards, which curvature needs (`looped`).

The fused kernels know nothing of padding; packing would, but leaves the fast kernels. So padding is made harmless by
one more input column, which is 1 on padding and 0 on words, with the fixed weights -PADDING into the LSTM's input gate
and +PADDING into its forget gate. On padding then i = 0 and f = 1 exactly, and c(t) = 1 * c(t-1) + 0 * g: a forward
layer carries its last true c over the padding behind it, and a backward layer, which meets the padding first, stays at
zero until the last word. (A GRU puts all of its state out, so its last is looked up, and it reads backwards what was
reversed row by row.) Results are exact, and no row depends on the length of another. The other ways do not read
padding at all.

Shapes: **B** sentences, **T** length, **N** words, **E** input size, **H** cells, **O** outputs of a cell, **D**
directions (1 or 2).
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import native
from nmt.model.bptt import Reading, reading, unroll
from nmt.model.cells import Cell, DeepTransition, GRUCell, LSTMCell, RNNCell, State, like
from nmt.model.kernels import Call, in_fp16, plainly
from nmt.model.products import has_bf16_kernels

# cuDNN wants all weights of a layer in one buffer; torch puts them there at each call, and warns of it.
warnings.filterwarnings("ignore", "RNN module weights")

WIDE = 512  # cells of an LSTM layer from which on, in float32, our own way back by our own kernels is the faster
PADDING = 1e4  # sigmoid(-1e4) == 0 and sigmoid(1e4) == 1 in every floating-point format used here

Path = Literal["fused", "unrolled", "loop"]
WAYS: dict[str, str] = {
    "fused": "torch's fused kernel",
    "unrolled": "our back-propagation through time",
    "loop": "step by step, left to autograd",
}
CellMaker = Callable[[int, int], Cell | DeepTransition]  # (input size, cells) -> a cell


class Layer(nn.Module):
    """One recurrent layer; if `bidirectional`, H cells read forwards and H backwards, their outputs side by side.

    In training, `recurrent_dropout` is the share of the state that the recurrence does not see, the same at every step
    of a sentence (Gal & Ghahramani 2016), and `zoneout` that which a step leaves as it was (Krueger et al. 2017, where
    translation takes the expectation).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bidirectional: bool = False,
        cell: CellMaker = LSTMCell,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
    ) -> None:
        super().__init__()
        cells = [cell(input_size, hidden_size) for _ in range(2 if bidirectional else 1)]
        self.cells = nn.ModuleList(cells)
        self.state = cells[0].state
        self.hidden_size, self.output_size = hidden_size, len(cells) * cells[0].output_size
        self.state_sizes = tuple(len(cells) * size for size in cells[0].state_sizes)
        self.recurrent_dropout, self.zoneout = recurrent_dropout, zoneout
        self.looped = False  # whether the plain loop must run, because more than one backward pass is wanted

    def path(self, device: torch.device, training: bool, reduced: bool) -> Path:
        """How it runs on this device, in training or not, in reduced precision (bf16, fp16) or not."""
        kind = type(self.cells[0])
        if self.looped or self.zoneout or kind is DeepTransition:
            return "loop"
        if training and self.recurrent_dropout:
            return "unrolled"
        if reduced and device.type == "cpu" and (training or not has_bf16_kernels()):
            return "unrolled"  # as fast as oneDNN's own or faster, whose way back is slow; and some CPUs have none
        wide = len(self.cells) * self.hidden_size >= WIDE
        if training and device.type == "cpu" and kind is LSTMCell and wide and native.library() is not None:
            return "unrolled"  # faster with our own kernels
        return "fused" if _has_kernel(self.cells[0], device) else "unrolled"

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read x (B, T, E); the outputs (B, T, D*O) and the state (B, D*O), ... after the last word of each row.

        `state` (B, O), ... is where a forward layer starts; a bidirectional one, or one given none, starts at zero.
        Without `lengths` (B,) every row is T long; with them, the outputs behind a row's last word mean nothing, and
        the state is that at its last word.
        """
        assert state is None or len(self.cells) == 1
        state = state or self.state._make(x.new_zeros(x.size(0), size) for size in self.state_sizes)
        path = self.path(x.device, self.training, torch.is_autocast_enabled(x.device.type))
        if path != "fused" or not _rounds_to_fp16(x.device):
            return self._read(path, x, state, lengths)
        call = plainly if isinstance(self.cells[0], RNNCell) else in_fp16
        with torch.autocast(x.device.type, enabled=False):
            return self._read(path, x.float(), like(state, (part.float() for part in state)), lengths, call)

    def _read(
        self, path: Path, x: Tensor, state: State, lengths: Tensor | None, call: Call = plainly
    ) -> tuple[Tensor, State]:
        """The same, run that way, its kernel called so."""
        if path == "fused" and isinstance(self.cells[0], LSTMCell):
            return self._fused_lstm(x, state, lengths, call)
        if lengths is None:
            lengths = torch.full((x.size(0),), x.size(1), device=x.device)
        outputs, finals = [], []
        for number, cell in enumerate(cast(list[Cell], self.cells)):
            parts = like(state, (part.chunk(len(self.cells), dim=1)[number] for part in state))
            stepped = partial(self._stepped, unrolled=path == "unrolled")
            read = partial(_fused, call=call) if path == "fused" else stepped
            output, final = read(cell, x, parts, lengths, backwards=number == 1)
            outputs.append(output)
            finals.append(final)
        return torch.cat(outputs, dim=2), like(state, (torch.cat(parts, dim=1) for parts in zip(*finals, strict=True)))

    def _fused_lstm(self, x: Tensor, state: State, lengths: Tensor | None, call: Call) -> tuple[Tensor, State]:
        """Both directions in one call, padding made harmless."""
        hidden_size, directions = self.hidden_size, len(self.cells)
        weights: list[Tensor] = [weight for cell in self.cells for weight in cell.parameters()]
        if lengths is not None and not x.is_cuda and bool((lengths == x.size(1)).all()):
            lengths = None  # there is no padding; a GPU is not asked, for the host would wait
        if lengths is not None:
            padding = torch.arange(x.size(1), device=x.device) >= lengths[:, None]  # (B, T)
            columns = 8 if x.is_cuda else 1  # tensor cores want widths in eights; the other seven say nothing
            x = torch.cat([x, padding[:, :, None].to(x.dtype).expand(-1, -1, columns)], dim=2)  # (B, T, E+columns)
            weights[::3] = [_with_padding_column(weight, columns) for weight in weights[::3]]
        flat: list[Tensor] = []
        for number in range(directions):
            input_weight, recurrent_weight, bias = weights[3 * number : 3 * number + 3]
            flat += [input_weight, recurrent_weight, bias, torch.zeros_like(bias)]  # torch has a second, of no use
        initial = [torch.stack(part.chunk(directions, dim=1)) for part in state]  # (D, B, H)
        options = True, 1, 0.0, self.training, directions == 2, True
        outputs, hidden, memory = call(torch.lstm, x, initial, flat, *options)
        if lengths is not None:
            last = (lengths - 1)[:, None, None].expand(-1, 1, hidden_size)
            forward_hidden = outputs[:, :, :hidden_size].gather(1, last)[:, 0]  # (B, H)
            hidden = torch.cat([forward_hidden[None], hidden[1:]])  # (D, B, H)
        return outputs, like(state, [_side_by_side(hidden), _side_by_side(memory)])

    def _stepped(
        self, cell: Cell | DeepTransition, x: Tensor, state: State, lengths: Tensor, backwards: bool, unrolled: bool
    ) -> tuple[Tensor, State]:
        """One direction, unrolled or in a loop."""
        mask = None
        if self.training and self.recurrent_dropout:
            mask = F.dropout(x.new_ones(x.size(0), cell.recurrent_size), self.recurrent_dropout)
        if unrolled:
            assert isinstance(cell, Cell)
            return in_reading_order(partial(unroll, cell, mask=mask), x, state, lengths, backwards)
        return in_reading_order(partial(_loop, cell, mask=mask, zone=self._zone), x, state, lengths, backwards)

    def _zone(self, before: Tensor, after: Tensor) -> Tensor:
        """What zoneout makes of a step (n, O): some of it, or of each a share, stays as it was before."""
        if not self.zoneout:
            return after
        if self.training:
            return torch.where(torch.rand_like(after) < self.zoneout, before, after)
        return torch.lerp(after, before.to(after.dtype), self.zoneout)


def recurrent_layers(model: nn.Module) -> list[Layer]:
    """All recurrent layers of a model."""
    return [module for module in model.modules() if isinstance(module, Layer)]


def in_reading_order(
    read: Callable[[Tensor, State, Reading], tuple[Tensor, State]],
    x: Tensor,
    state: State,
    lengths: Tensor,
    backwards: bool = False,
) -> tuple[Tensor, State]:
    """Have x (B, T, E) read from `state` on in one direction, words only, rows ending where they end.

    What reads is given the words (N, E) in the order of reading, and the state (B, O), ... in the order of its rows;
    it gives the outputs (N, O) and the state at the end likewise.
    """
    rows, steps, _ = x.shape
    order = reading(lengths, steps, backwards)
    words = x.flatten(0, 1).index_select(0, order.words)  # (N, E)
    outputs, final = read(words, like(state, (part.index_select(0, order.rows) for part in state)), order)
    outputs = outputs.new_zeros(rows * steps, outputs.size(1)).index_copy(0, order.words, outputs)
    back = order.rows.argsort()
    return outputs.unflatten(0, (rows, steps)), like(state, (part.index_select(0, back) for part in final))


def _has_kernel(cell: nn.Module, device: torch.device) -> bool:
    """Whether torch has the very cell, in a kernel that is faster than our own way."""
    if type(cell) is LSTMCell:
        return cell.peepholes is None and cell.projection is None
    if isinstance(cell, GRUCell) and cell.candidate_bias is None:
        return False
    return device.type == "cuda" and isinstance(cell, RNNCell | GRUCell)


def _rounds_to_fp16(device: torch.device) -> bool:
    """Whether torch would give cuDNN fp16 where bf16 is asked for: under autocast, whatever its type.

    Errors that go back through time are too small for fp16, and without a scaled loss they vanish in it. So for an LSTM
    or a GRU they are scaled here (`kernels.py`). A vanilla RNN, which has no gates that hold errors back, is given
    float32, whose products cuDNN may round to TF32.
    """
    reduced = device.type == "cuda" and torch.is_autocast_enabled("cuda")
    return reduced and torch.get_autocast_dtype("cuda") == torch.bfloat16


def _fused(cell: Cell, x: Tensor, state: State, lengths: Tensor, backwards: bool, call: Call) -> tuple[Tensor, State]:
    """torch's GRU or vanilla RNN in one direction; all of its state is put out, so the last is looked up there."""
    place = torch.arange(x.size(1), device=x.device).expand(x.size(0), -1)  # (B, T)
    if backwards:
        place = (lengths[:, None] - 1 - place).clamp(min=0)  # words last to first; what follows means nothing
        x = x.gather(1, place[:, :, None].expand_as(x))
    second = torch.zeros_like(cell.bias)
    if isinstance(cell, GRUCell):
        assert cell.candidate_bias is not None
        second = torch.cat([second[: 2 * cell.hidden_size], cell.candidate_bias])
    kernel = torch.gru if isinstance(cell, GRUCell) else torch.rnn_tanh  # both of one signature
    weights = [cell.input_weight, cell.recurrent_weight, cell.bias, second]
    initial, options = state.hidden[None].contiguous(), (True, 1, 0.0, cell.training, False, True)
    outputs, _ = call(kernel, x, [initial], weights, *options)
    last = (lengths - 1)[:, None, None].expand(-1, 1, outputs.size(2))
    final = outputs.gather(1, last)[:, 0]  # (B, H)
    return outputs.gather(1, place[:, :, None].expand_as(outputs)), like(state, [final])


def _loop(
    cell: nn.Module,
    words: Tensor,
    state: State,
    order: Reading,
    mask: Tensor | None,
    zone: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, State]:
    """The cell, step by step, over words (N, E) in the order of reading: outputs (N, O), and the state at the end."""
    every: list[State] = []
    last = state
    for read in words.split(order.counts):
        before = like(state, (part[: read.size(0)] for part in last))
        after = cell(read, before, None if mask is None else mask[: read.size(0)])
        last = like(state, (zone(*parts) for parts in zip(before, after, strict=True)))
        every.append(last)
    joined = [torch.cat(parts) for parts in zip(*every, strict=True)]  # (N, O), ...
    return joined[0], like(state, (part.index_select(0, order.last) for part in joined))


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Drop whole features of x (B, T, E): one mask (B, 1, E) for all steps of a sentence (Gal & Ghahramani 2016).

    It also draws T times fewer random numbers, which on a CPU are a tenth of a training step.
    """
    if not training or not probability:
        return x
    return x * F.dropout(x.new_ones(x.size(0), 1, x.size(2)), probability)


def _side_by_side(states: Tensor) -> Tensor:
    """(D, B, H) -> (B, D*H)."""
    return states.transpose(0, 1).flatten(1)


def _with_padding_column(weight: Tensor, columns: int) -> Tensor:
    """(4H, E) -> (4H, E+1) or wider: close the input gate and open the forget gate where the input E+1 is 1."""
    hidden_size = weight.size(0) // 4
    more = weight.new_zeros(weight.size(0), columns)
    more[:hidden_size, 0] = -PADDING
    more[hidden_size : 2 * hidden_size, 0] = PADDING
    return torch.cat([weight, more], dim=1)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether cuDNN may round fp32 to 10 bits where it multiplies, meanwhile."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
