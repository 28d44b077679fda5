"""The way back through each cell, derived by hand from the equations of `cells.py`.

A step of a cell is written here once more, for speed: into buffers, keeping what the way back needs. That way is the
lecture's: from the derivative of the loss E by the state after a step come the *errors* of the step (its derivatives by
the gates' sums) and the derivative by the state before it. Whatever in those formulas no error enters is a *slope*, and
slopes are computed for all steps at once (or for as many as stay in the cache: `bptt.py`) before the first error is
carried back; so a step back is one product and a few multiplications. The gradient of a weight is the sum over time of
error times what the weight has read: one product for all those steps.

In all of it d_x is dE/dx, and W, U, b and the gates' order are those of the cell.

Shapes: **N** words of the batch, all steps together, **n** rows running at a step, **H** cells, **G** gates' sums,
**O** outputs, **R** what the recurrence reads.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.model.cells import Cell, GRUCell, LayerNormLSTMCell, LectureLSTMCell, LSTMCell, RNNCell
from nmt.model.products import Product, Repeated, product

Parts = tuple[Tensor, ...]  # a state, hidden first; or slopes; or weights
Times = tuple[Repeated | Product, ...]  # products with the matrices of a cell
Before = tuple[Tensor, tuple[Tensor | None, ...]]  # d_read (n, R), and d of the rest of the state before, if any


class Unrolled(NamedTuple):
    """What a cell read and computed, at a step (n rows) or at all steps together (N rows)."""

    read: Tensor  # (N, R) what the recurrent weights read of the state before
    before: Parts  # (N, O), ... the state before
    gates: Tensor  # (N, K) what the cell keeps of its gates
    after: Parts  # (N, O), ... the state after


class Equations(Protocol):
    """A cell's step and the way back through it."""

    def kept(self, hidden_size: int) -> tuple[int, int]:
        """The widths of what is kept of a step, and of its errors."""

    def matrices(self, weights: Parts) -> Parts:
        """What every step multiplies by; the way back multiplies by each transposed."""

    def step(self, products: Tensor, at: Unrolled, weights: Parts, times: Times) -> None:
        """One step: given the products W x + b (n, G), which may be written over, and `at`'s read and
        before, write its gates and after.
        """

    def slopes(self, every: Unrolled, weights: Parts) -> Parts:
        """What the way back needs, of all steps at once."""

    def back(self, slopes: Parts, d: Parts, errors: Tensor, weights: Parts, times: Times) -> Before:
        """One step back: from d (n, O), ... after it, write its errors; return d_read and d of the state before.

        The latter leaves out what came by way of `read`, and is None where that is all.
        """

    def gradients(self, every: Unrolled, slopes: Parts, errors: Tensor) -> tuple[Tensor, Parts]:
        """d_products (N, G), and the gradients of the weights, summed over time."""


class RNNEquations:
    """h = tanh(s), s = W x + b + U h(t-1): d_s = d_h (1 - h^2)."""

    def kept(self, hidden_size: int) -> tuple[int, int]:
        """Nothing of the step, since h says it all; d_s."""
        return 0, hidden_size

    def matrices(self, weights: Parts) -> Parts:
        """U."""
        return weights[:1]

    def step(self, products: Tensor, at: Unrolled, weights: Parts, times: Times) -> None:
        """h = tanh(s)."""
        torch.tanh(times[0].plus(at.read, products), out=at.after[0])

    def slopes(self, every: Unrolled, weights: Parts) -> Parts:
        """H, which says what 1 - h^2 is."""
        return (every.after[0],)

    def back(self, slopes: Parts, d: Parts, errors: Tensor, weights: Parts, times: Times) -> Before:
        """d_h(t-1) = d_s U."""
        return times[0](_of_tanh(d[0], slopes[0], errors)), (None,)

    def gradients(self, every: Unrolled, slopes: Parts, errors: Tensor) -> tuple[Tensor, Parts]:
        """d_U = sum of d_s h(t-1)."""
        return errors, (product(errors.t(), every.read.t()),)


class LSTMEquations:
    """c = f c(t-1) + i g, m = o tanh(c): with d_m given, d_c += d_m o (1 - tanh^2 c), and then

    d_i = d_c g, d_f = d_c c(t-1), d_g = d_c i, d_o = d_m tanh c, d_c(t-1) = d_c f; times i (1 - i), ..., 1 - g^2, they
    are the errors of the sums. Peepholes send those of i and f on to c(t-1), that of o to c. A projection h = P m gives
    d_m = d_h P. In the lecture's LSTM g is its own sum, and h = tanh(o c) gives d_c += d_h (1 - h^2) o and
    d_o = d_h (1 - h^2) c.
    """

    def __init__(self, *, lecture: bool = False, peepholes: bool = False, projection: int = 0) -> None:
        self.lecture, self.peepholes, self.projection = lecture, peepholes, projection

    def kept(self, hidden_size: int) -> tuple[int, int]:
        """i, f, g, o and (not the lecture's) tanh c; the errors of the sums, and with a projection d_h."""
        return (4 if self.lecture else 5) * hidden_size, 4 * hidden_size + self.projection

    def matrices(self, weights: Parts) -> Parts:
        """U, and P."""
        return (weights[0], weights[-1]) if self.projection else weights[:1]

    def step(self, products: Tensor, at: Unrolled, weights: Parts, times: Times) -> None:
        """The step as the cell has it."""
        hidden, cell = at.after
        sums, size = times[0].plus(at.read, products), cell.size(1)
        i, f, g, o, *squashed = at.gates.chunk(at.gates.size(1) // size, dim=1)
        if self.peepholes:
            sums[:, :size].addcmul_(weights[1][0], at.before[1])
            sums[:, size : 2 * size].addcmul_(weights[1][1], at.before[1])
        torch.sigmoid(sums[:, : 2 * size], out=at.gates[:, : 2 * size])
        linear = sums[:, 2 * size : 3 * size]
        g.copy_(linear) if self.lecture else torch.tanh(linear, out=g)
        torch.mul(f, at.before[1], out=cell).addcmul_(i, g)
        if self.peepholes:
            sums[:, 3 * size :].addcmul_(weights[1][2], cell)
        torch.sigmoid(sums[:, 3 * size :], out=o)
        if self.lecture:
            torch.mul(o, cell, out=hidden).tanh_()
            return
        torch.tanh(cell, out=squashed[0])
        if self.projection:
            hidden.copy_(times[1](o * squashed[0]))
        else:
            torch.mul(o, squashed[0], out=hidden)

    def slopes(self, every: Unrolled, weights: Parts) -> Parts:
        """Of the errors by d_c and d_m (N, 4H), of d_c by d_m (N, H), and of d_c(t-1) by d_c (N, H)."""
        hidden, cell = every.after
        if not self.lecture:
            gates, squashed = every.gates.split([4 * cell.size(1), cell.size(1)], dim=1)
            return _lstm_slopes(gates, every.before[1], squashed)
        i, f, g, o = every.gates.chunk(4, dim=1)
        errors = torch.empty_like(every.gates)
        of_i, of_f, of_g, of_o = errors.chunk(4, dim=1)
        _of_sigmoid(g, i, of_i)
        _of_sigmoid(every.before[1].to(f.dtype), f, of_f)
        of_g.copy_(i)
        _of_sigmoid(_of_tanh(cell.to(o.dtype), hidden), o, of_o)
        return errors, _of_tanh(o, hidden), f

    def back(self, slopes: Parts, d: Parts, errors: Tensor, weights: Parts, times: Times) -> Before:
        """The errors, d_h(t-1) by the recurrence, d_c(t-1)."""
        (d_out, d_cell), size = d, d[1].size(1)
        if self.projection:
            errors[:, 4 * size :] = d_out
            d_out = times[1](d_out)
        of_errors, of_cell, forget = slopes
        error_o = torch.mul(d_out, of_errors[:, 3 * size :], out=errors[:, 3 * size : 4 * size])
        d_cell = torch.addcmul(d_cell, d_out, of_cell)
        if self.peepholes:
            d_cell.addcmul_(error_o, weights[1][2])
        above = errors[:, : 3 * size].view(-1, 3, size)
        torch.mul(d_cell[:, None], of_errors[:, : 3 * size].view(-1, 3, size), out=above)
        d_cell = d_cell * forget
        if self.peepholes:
            d_cell.addcmul_(above[:, 0], weights[1][0]).addcmul_(above[:, 1], weights[1][1])
        return times[0](errors[:, : 4 * size]), (None, d_cell)

    def gradients(self, every: Unrolled, slopes: Parts, errors: Tensor) -> tuple[Tensor, Parts]:
        """Of U; of the peepholes, each error times the memory it has seen; of P, d_h times m."""
        size = every.after[1].size(1)
        sums = errors[:, : 4 * size]
        found = [product(sums.t(), every.read.t())]
        if self.peepholes:
            seen = zip(sums.chunk(4, dim=1), (every.before[1], every.before[1], None, every.after[1]), strict=True)
            found.append(torch.stack([(error * memory).sum(0) for error, memory in seen if memory is not None]))
        if self.projection:
            output = every.gates[:, 3 * size : 4 * size] * every.gates[:, 4 * size :]
            found.append(product(errors[:, 4 * size :].t(), output.t()))
        return sums, tuple(found)


class GRUEquations:
    """h = z h(t-1) + (1 - z) n: d_z = d_h (h(t-1) - n), d_n = d_h (1 - z), d_h(t-1) = d_h z; with the reset gate after
    the product q = U h(t-1) + b_n, n = tanh(s + r q): d_s = d_n (1 - n^2), d_q = d_s r, d_r = d_s q.
    """

    def kept(self, hidden_size: int) -> tuple[int, int]:
        """r, z, n, q; the errors of r, z, q, n in this order, so that those of U's products stand together."""
        return 4 * hidden_size, 4 * hidden_size

    def matrices(self, weights: Parts) -> Parts:
        """U."""
        return weights[:1]

    def step(self, products: Tensor, at: Unrolled, weights: Parts, times: Times) -> None:
        """The step as the cell has it."""
        recurrent = times[0](at.read)
        r, z, n, q = at.gates.chunk(4, dim=1)
        size = r.size(1)
        torch.add(products[:, : 2 * size], recurrent[:, : 2 * size], out=at.gates[:, : 2 * size]).sigmoid_()
        torch.add(recurrent[:, 2 * size :], weights[1], out=q)
        torch.addcmul(products[:, 2 * size :], r, q, out=n).tanh_()
        torch.lerp(n, at.before[0], z, out=at.after[0])

    def slopes(self, every: Unrolled, weights: Parts) -> Parts:
        """Of the errors by d_h (N, 4H); z."""
        r, z, n, q = every.gates.chunk(4, dim=1)
        errors = torch.empty_like(every.gates)
        of_r, of_z, of_q, of_n = errors.chunk(4, dim=1)
        _of_tanh(1 - z, n, of_n)
        torch.mul(of_n, r, out=of_q)
        _of_sigmoid(of_n * q, r, of_r)
        _of_sigmoid(every.before[0] - n, z, of_z)
        return errors, z

    def back(self, slopes: Parts, d: Parts, errors: Tensor, weights: Parts, times: Times) -> Before:
        """The errors, d_h(t-1) by the recurrence, and directly."""
        size = d[0].size(1)
        torch.mul(d[0][:, None], slopes[0].view(-1, 4, size), out=errors.view(-1, 4, size))
        return times[0](errors[:, : 3 * size]), (d[0] * slopes[1],)

    def gradients(self, every: Unrolled, slopes: Parts, errors: Tensor) -> tuple[Tensor, Parts]:
        """Of U and b_n."""
        size = errors.size(1) // 4
        products = torch.cat([errors[:, : 2 * size], errors[:, 3 * size :]], dim=1)
        recurrent = product(errors[:, : 3 * size].t(), every.read.t())
        return products, (recurrent, errors[:, 2 * size : 3 * size].sum(0))


class ResetBeforeEquations:
    """The GRU of Cho et al. 2014, n = tanh(s), s = W x + b + U (r h(t-1)): d_s as above, d_(r h) = d_s U,
    d_r = d_(r h) h(t-1), and d_h(t-1) += d_(r h) r.
    """

    def kept(self, hidden_size: int) -> tuple[int, int]:
        """r, z, n; the errors of their sums."""
        return 3 * hidden_size, 3 * hidden_size

    def matrices(self, weights: Parts) -> Parts:
        """U of r and z, and U of n."""
        size = 2 * weights[0].size(1)
        return weights[0][:size], weights[0][size:]

    def step(self, products: Tensor, at: Unrolled, weights: Parts, times: Times) -> None:
        """The step as the cell has it."""
        r, z, n = at.gates.chunk(3, dim=1)
        size = 2 * r.size(1)
        torch.add(products[:, :size], times[0](at.read), out=at.gates[:, :size]).sigmoid_()
        torch.add(products[:, size:], times[1](r * at.read), out=n).tanh_()
        torch.lerp(n, at.before[0], z, out=at.after[0])

    def slopes(self, every: Unrolled, weights: Parts) -> Parts:
        """Of the errors of z and n by d_h, of that of r by d_(r h) (N, 3H); z; r."""
        r, z, n = every.gates.chunk(3, dim=1)
        errors = torch.empty_like(every.gates)
        of_r, of_z, of_n = errors.chunk(3, dim=1)
        _of_sigmoid(every.read, r, of_r)
        _of_sigmoid(every.before[0] - n, z, of_z)
        _of_tanh(1 - z, n, of_n)
        return errors, z, r

    def back(self, slopes: Parts, d: Parts, errors: Tensor, weights: Parts, times: Times) -> Before:
        """The errors, d_h(t-1) by the recurrence, and directly."""
        of_errors, z, r = slopes
        size = z.size(1)
        later = torch.mul(d[0][:, None], of_errors[:, size:].view(-1, 2, size))
        errors[:, size:] = later.flatten(1)
        d_reset = times[1](errors[:, 2 * size :])
        torch.mul(d_reset, of_errors[:, :size], out=errors[:, :size])
        return d_reset * r + times[0](errors[:, : 2 * size]), (d[0] * z,)

    def gradients(self, every: Unrolled, slopes: Parts, errors: Tensor) -> tuple[Tensor, Parts]:
        """Of U, whose rows for n have read r h(t-1)."""
        size = 2 * slopes[1].size(1)
        gates = product(errors[:, :size].t(), every.read.t())
        candidate = product(errors[:, size:].t(), (slopes[2] * every.read).t())
        return errors, (torch.cat([gates, candidate]),)


class LayerNormEquations:
    """The LSTM of Ba et al. 2016: sums are s = W' + a q^ with q = U h(t-1), and m = o tanh(y), y = a_c c^ + b_c.

    x^ = (x - mean) / deviation; back through it goes d_x = (d_x^ - mean(d_x^) - x^ mean(d_x^ x^)) / deviation.
    """

    def kept(self, hidden_size: int) -> tuple[int, int]:
        """i, f, g, o and q; the errors of the sums, of q, and of y."""
        return 8 * hidden_size, 9 * hidden_size

    def matrices(self, weights: Parts) -> Parts:
        """U."""
        return weights[:1]

    def step(self, products: Tensor, at: Unrolled, weights: Parts, times: Times) -> None:
        """The step as the cell has it."""
        hidden, cell = at.after
        _, recurrent_gain, cell_gain, cell_bias = weights
        size = cell.size(1)
        sums = at.gates[:, 4 * size :].copy_(times[0](at.read))
        gates = at.gates[:, : 4 * size]
        torch.add(products, F.layer_norm(sums, sums.shape[1:], recurrent_gain), out=gates)
        i, f, g, o = gates.chunk(4, dim=1)
        gates[:, : 2 * size].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.mul(f, at.before[1], out=cell).addcmul_(i, g)
        torch.mul(o, F.layer_norm(cell, (size,), cell_gain.to(cell), cell_bias.to(cell)).tanh_(), out=hidden)

    def slopes(self, every: Unrolled, weights: Parts) -> Parts:
        """Those of the LSTM, and both norms with their deviations."""
        cell = every.after[1]
        gates, sums = every.gates.split(4 * cell.size(1), dim=1)
        normed, cell_scale = _norm(cell)
        squashed = (normed * weights[2] + weights[3]).tanh()
        return *_lstm_slopes(gates, every.before[1], squashed), normed, cell_scale, *_norm(sums)

    def back(self, slopes: Parts, d: Parts, errors: Tensor, weights: Parts, times: Times) -> Before:
        """The errors, d_h(t-1) by the recurrence, d_c(t-1)."""
        of_errors, of_normed, forget, normed, cell_scale, sums, scale = slopes
        d_out, d_cell = d
        size = d_cell.size(1)
        torch.mul(d_out, of_errors[:, 3 * size :], out=errors[:, 3 * size : 4 * size])
        d_normed = torch.mul(d_out, of_normed, out=errors[:, 8 * size :])
        d_cell = d_cell + _norm_back(d_normed * weights[2], normed, cell_scale)
        above = errors[:, : 3 * size].view(-1, 3, size)
        torch.mul(d_cell[:, None], of_errors[:, : 3 * size].view(-1, 3, size), out=above)
        d_sums = _norm_back(errors[:, : 4 * size] * weights[1], sums, scale)
        errors[:, 4 * size : 8 * size] = d_sums
        return times[0](errors[:, 4 * size : 8 * size]), (None, d_cell * forget)

    def gradients(self, every: Unrolled, slopes: Parts, errors: Tensor) -> tuple[Tensor, Parts]:
        """Of U, and of the gains and the bias of the norms."""
        size = slopes[3].size(1)
        gates, sums, normed = errors.split([4 * size, 4 * size, size], dim=1)
        gains = (gates * slopes[5]).sum(0), (normed * slopes[3]).sum(0), normed.sum(0)
        return gates, (product(sums.t(), every.read.t()), *gains)


def _lstm_slopes(gates: Tensor, memory: Tensor, squashed: Tensor) -> Parts:
    """Of the errors by d_c and d_m (N, 4H), of what is squashed by d_m, and of d_c(t-1) by d_c (N, H).

    From i, f, g, o (N, 4H), c(t-1) and the squashed output of the memory, m = o * squashed (N, H).
    """
    i, f, g, o = gates.chunk(4, dim=1)
    errors, squashed = gates.new_empty(gates.shape), squashed.to(gates.dtype)
    of_i, of_f, of_g, of_o = errors.chunk(4, dim=1)
    _of_sigmoid(g, i, of_i)
    _of_sigmoid(memory.to(f.dtype), f, of_f)
    _of_tanh(i, g, of_g)
    _of_sigmoid(squashed, o, of_o)
    return errors, _of_tanh(o, squashed), f


def _of_sigmoid(d: Tensor, s: Tensor, out: Tensor) -> None:
    """Write d s (1 - s), in one pass; all are of one type."""
    torch.ops.aten.sigmoid_backward.grad_input(d, s, grad_input=out)


def _of_tanh(d: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """d (1 - y^2) in one pass, written to `out` or a new tensor; all are of one type."""
    out = torch.empty_like(y) if out is None else out
    torch.ops.aten.tanh_backward.grad_input(d, y, grad_input=out)
    return out


def _norm(x: Tensor, epsilon: float = 1e-5) -> tuple[Tensor, Tensor]:
    """(x - mean) / deviation of each row, and 1 / deviation (N, 1); epsilon is torch's."""
    x = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
    scale = (variance + epsilon).rsqrt()
    return (x - mean) * scale, scale


def _norm_back(d: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """d_x from d = d_x^."""
    return scale * (d - d.mean(1, keepdim=True) - normed * (d * normed).mean(1, keepdim=True))


def equations_of(cell: Cell) -> tuple[Equations, Parts]:
    """The equations of a cell, and those of its weights that they speak of: all but W and b, U first."""
    match cell:
        case LectureLSTMCell():
            return LSTMEquations(lecture=True), (cell.recurrent_weight,)
        case LayerNormLSTMCell():
            gains = cell.recurrent_gain, cell.cell_gain, cell.cell_bias
            return LayerNormEquations(), (cell.recurrent_weight, *gains)
        case LSTMCell(peepholes=peepholes, projection=projection):
            width = 0 if projection is None else cell.output_size
            weights = (weight for weight in (cell.recurrent_weight, peepholes, projection) if weight is not None)
            return LSTMEquations(peepholes=peepholes is not None, projection=width), tuple(weights)
        case GRUCell(candidate_bias=None):
            return ResetBeforeEquations(), (cell.recurrent_weight,)
        case GRUCell(candidate_bias=Tensor() as bias):
            return GRUEquations(), (cell.recurrent_weight, bias)
        case RNNCell():
            return RNNEquations(), (cell.recurrent_weight,)
    raise TypeError(f"no equations for {type(cell).__name__}")
