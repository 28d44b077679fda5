"""Back-propagation through time, full and written out: a cell is unrolled, and errors are carried back through it.

The steps of all sentences are taken together, one after the other, and what they compute is kept; then, last step
first, the errors of each are written down, and the gradient of every weight is summed over time in one product (the
lecture's slides on BPTT; Werbos 1990; products as in Appleyard et al. 2016). How, `equations.py` says. Long texts are
gone back through in blocks of `BLOCK` words, whose sums are added.

Rows of unequal length need neither masks nor padding. They are sorted by length, longest first, so the rows still
running at a step are the first n; and the words of a batch stand in the order of reading: all first words, then all
second ones.

Shapes: **B** sentences, **T** length, **N** words, **n** rows running at a step, **G** gates' sums, **O** outputs,
**R** what the recurrence reads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nmt.model.cells import Cell, State
from nmt.model.equations import Equations, Parts, Times, Unrolled, equations_of
from nmt.model.native_equations import NativeLSTMEquations, fastest
from nmt.model.products import Repeated, linear

BLOCK = 4096  # words whose slopes are computed together: few enough to stay in a CPU's cache


class Reading(NamedTuple):
    """In which order the N words of a batch are read."""

    counts: list[int]  # per step, the rows still running: they sum to N
    rows: Tensor  # (B,) the sentences, longest first
    words: Tensor  # (N,) where in (B * T) each word stands
    rank: Tensor  # (N,) in which of `rows`
    before: Tensor  # (N,) where the state before it stands: 0 ... B-1 are the initial ones, B + n is that after word n
    last: Tensor  # (B,) which word is the last of each row, in the order of `rows`


def reading(lengths: Tensor, steps: int, backwards: bool = False) -> Reading:
    """The order for sentences of the given lengths (B,), at least 1, padded to `steps`; or for their words reversed."""
    ordered, rows = lengths.sort(descending=True, stable=True)
    running = torch.arange(steps, device=lengths.device)[:, None] < ordered  # (T, B)
    counts = running.sum(dim=1)
    start = counts.cumsum(dim=0) - counts  # (T,) the first word of each step
    step, rank = running.nonzero(as_tuple=True)  # (N,) each
    place = ordered[rank] - 1 - step if backwards else step
    before = torch.where(step > 0, rows.numel() + start[(step - 1).clamp(min=0)] + rank, rank)
    last = start[ordered - 1] + torch.arange(rows.numel(), device=lengths.device)
    return Reading([count for count in counts.tolist() if count], rows, rows[rank] * steps + place, rank, before, last)


def unroll(cell: Cell, x: Tensor, state: State, order: Reading, mask: Tensor | None) -> tuple[Tensor, State]:
    """Read words x (N, E), in the order of reading, from `state` (B, O) on; the outputs (N, O), the state at the end.

    The rows of the states, and of the mask (B, R), are in the order of `order.rows`. Under autocast, products are in
    its type, and the memory of an LSTM in float32.
    """
    equations, weights = equations_of(cell)
    products = cell.products(x, linear)  # (N, G) of all steps, in one
    equations = fastest(equations, products)
    kind = products.dtype
    wide = torch.float32 if kind.itemsize < 4 else kind
    initial = state[0].to(kind), *(part.to(wide) for part in state[1:])
    given = *initial, *(weight.to(kind) for weight in weights)
    mask = None if mask is None else mask.to(kind)
    with torch.autocast(x.device.type, enabled=False):
        outputs, *rest = _Unroll.apply(  # type: ignore[no-untyped-call]
            equations, order, mask, len(initial), products, *given
        )
    return outputs, cell.state(outputs.index_select(0, order.last), *rest)


def run(
    equations: Equations,
    weights: Parts,
    times: Times,
    products: Tensor,
    initial: Parts,
    order: Reading,
    mask: Tensor | None = None,
) -> tuple[Tensor, Parts]:
    """All steps of a cell, from the products (N, G) of all words: its gates (N, K), and the states after them."""
    gates = products.new_empty(products.size(0), equations.kept(initial[-1].size(1))[0])
    after = tuple(part.new_empty(products.size(0), part.size(1)) for part in initial)
    state = initial
    for sums, kept, *written in zip(*(part.split(order.counts) for part in (products, gates, *after)), strict=True):
        before = tuple(part if part.size(0) == sums.size(0) else part[: sums.size(0)] for part in state)
        state = tuple(written)
        equations.step(sums, Unrolled(_read(before[0], weights, mask), before, kept, state), weights, times)
    return gates, after


class _Unroll(torch.autograd.Function):
    """(products, initial state, weights) -> (all outputs (N, O), the final state's other parts (B, H))."""

    @staticmethod
    def forward(
        ctx: Any,
        equations: Equations,
        order: Reading,
        mask: Tensor | None,
        parts: int,
        products: Tensor,
        *given: Tensor,
    ) -> tuple[Tensor, ...]:
        initial, weights = given[:parts], given[parts:]
        times = tuple(Repeated(matrix, len(order.rows), len(order.counts)) for matrix in equations.matrices(weights))
        gates, after = run(equations, weights, times, products, initial, order, mask)
        ctx.equations, ctx.order, ctx.mask, ctx.parts = equations, order, mask, parts
        ctx.save_for_backward(gates, *after, *given)
        return after[0], *(part.index_select(0, order.last) for part in after[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, *d_final: Tensor) -> tuple[Tensor | None, ...]:
        equations, order, mask, parts = ctx.equations, ctx.order, ctx.mask, ctx.parts
        gates, *rest = ctx.saved_tensors
        after, initial, weights = tuple(rest[:parts]), tuple(rest[parts : 2 * parts]), tuple(rest[2 * parts :])
        times = tuple(
            Repeated(matrix.t(), len(order.rows), len(order.counts)) for matrix in equations.matrices(weights)
        )
        opening = torch.zeros_like(initial[0]), *d_final  # what each row's last step is told from behind
        d: Parts = tuple(part[:0] for part in opening)
        blocks = _blocks(order.counts)
        words = [sum(counts) for counts in blocks]
        places = (order.before - len(order.rows)).clamp_(min=0)  # among those after words
        split = [part.split(words) for part in (d_outputs.contiguous(), places, order.rank, gates, *after)]
        d_products: list[Tensor] = []
        d_weights: list[Parts] = []
        for counts, d_output, earlier, rank, kept, *states in reversed(list(zip(blocks, *split, strict=True))):
            first = counts is blocks[0]
            before = tuple(_before(earlier, first, *both) for both in zip(initial, after, strict=True))  # of this block
            masks = None if mask is None else mask.index_select(0, rank)
            every = Unrolled(_read(before[0], weights, masks), before, kept, tuple(states))
            slopes = equations.slopes(every, weights)
            errors = kept.new_empty(kept.size(0), equations.kept(initial[-1].size(1))[1])
            steps = list(zip(*(part.split(counts) for part in (d_output, errors, *slopes)), strict=True))
            if isinstance(equations, NativeLSTMEquations):
                d = equations.back_through(d, opening, steps, times, mask)
            else:
                for d_out, written, *now in reversed(steps):
                    d = _back(equations, d, opening, d_out, tuple(now), written, weights, times, mask)
            d_sums, found = equations.gradients(every, slopes, errors)
            d_products.append(d_sums)
            d_weights.append(found)
        if len(blocks) == 1:
            return None, None, None, None, *d_products, *d, *d_weights[0]
        summed = (torch.stack(found).sum(dim=0) for found in zip(*d_weights, strict=True))
        return None, None, None, None, torch.cat(d_products[::-1]), *d, *summed


def _back(
    equations: Equations,
    d: Parts,
    opening: Parts,
    d_output: Tensor,
    slopes: Parts,
    errors: Tensor,
    weights: Parts,
    times: tuple[Repeated, ...],
    mask: Tensor | None,
) -> Parts:
    """One step back: from d after it (n, O), ... and its output's own d_output, d before it; the errors are written.

    Rows that end at this step were not running behind it: `opening` says what they are told.
    """
    count, running = d_output.size(0), d[0].size(0)
    if count > running:
        d = tuple(torch.cat([part, new[running:count]]) for part, new in zip(d, opening, strict=True))
    d_read, (d_hidden, *d_rest) = equations.back(slopes, (d[0] + d_output, *d[1:]), errors, weights, times)
    if mask is not None:
        d_read = d_read * mask[:count]
    if d_read.size(1) < d_output.size(1):
        d_read = F.pad(d_read, (0, d_output.size(1) - d_read.size(1)))
    return d_read if d_hidden is None else d_read + d_hidden, *(part for part in d_rest if part is not None)


def _before(places: Tensor, first: bool, initial: Tensor, after: Tensor) -> Tensor:
    """The states before some words (N, O), which stand in these places (N,) after words, but before the first words."""
    found = after.index_select(0, places)
    if first:
        found[: initial.size(0)] = initial
    return found


def _blocks(counts: list[int]) -> list[list[int]]:
    """Steps, given by their rows, in stretches of at most BLOCK words, or of one step."""
    blocks: list[list[int]] = [[]]
    for count in counts:
        if blocks[-1] and sum(blocks[-1]) + count > BLOCK:
            blocks.append([])
        blocks[-1].append(count)
    return blocks


def _read(hidden: Tensor, weights: Parts, mask: Tensor | None) -> Tensor:
    """What the recurrent weights read of the state before (n, O): (n, R)."""
    read = hidden if hidden.size(1) == weights[0].size(1) else hidden[:, : weights[0].size(1)]
    return read if mask is None else read * mask[: read.size(0)]
