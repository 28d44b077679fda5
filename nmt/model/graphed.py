"""A decoding step as one CUDA graph, for on a GPU it takes longer to start the kernels of a step than to run them.

A graph has fixed shapes and addresses. So the number of sentences is rounded up to a power of two and the length of the
source to a multiple of 16; what a step reads is copied to where the graph of that shape reads it (the memory of the
source only when it is another), and what it says is copied out. Padding changes nothing: each row is computed by itself
and attention gives what is masked a weight of 0.

Shapes: **B** sentences, **S** source length, **K** hypotheses of a sentence, **N** rows (B * K).
"""

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor

from nmt.model.attention import Memory
from nmt.model.cells import State, like
from nmt.model.laid import DecodingMemory, DecodingState, LaidModel
from nmt.states import Picked

AFTER = 16  # steps of a shape before it gets a graph, which takes about as long to make
MOST = 32  # graphs that are kept


class Shape(NamedTuple):
    """What a graph has room for."""

    sentences: int
    width: int  # hypotheses of each
    source: int


class GraphedModel:
    """A stepper: a model laid out, whose step becomes a graph for shapes that come often, the oldest giving way."""

    def __init__(self, model: LaidModel, after: int = AFTER) -> None:
        self.model, self.after, self.lock = model, after, Lock()
        self.seen, self.graphs = Counter[Shape](), dict[Shape, Graph]()

    def start(self, source: Tensor, lengths: Tensor) -> DecodingState:
        """As `LaidModel.start`."""
        return self.model.start(source, lengths)

    def step(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """As `LaidModel.step`; one thread at a time, without autocast, whose casts a graph would not keep."""
        with self.lock, torch.autocast(tokens.device.type, enabled=False):
            return self._step(tokens, state)

    def _step(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        sentences, source = state.memory.source.values.shape[:2]
        room = 1 << (sentences - 1).bit_length()
        shape = Shape(room, len(tokens) // sentences, -(-source // 16) * 16 if looks(state.memory) else source)
        self.seen[shape] += 1
        if shape not in self.graphs:
            if self.seen[shape] <= self.after:
                return self.model.step(tokens, state)
            if len(self.graphs) == MOST:
                oldest = next(iter(self.graphs))
                del self.graphs[oldest], self.seen[oldest]
            self.graphs[shape] = Graph(self.model, shape, state)
        return self.graphs[shape](tokens, state)


class Graph:
    """A step of one shape. On a CPU, which has no graphs, it is the same step with the same padding."""

    def __init__(self, model: LaidModel, shape: Shape, example: DecodingState) -> None:
        rows, device = shape.sentences * shape.width, example.memory.source.values.device
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        layers = each(example.layers.whole, lambda part: part.new_zeros(rows, part.size(1)))
        self.state = DecodingState(Picked(layers), example.alignment[:0], roomy(example.memory, shape))
        self.copied: Callable[[], Tensor | None] = lambda: None  # whose memory, for as long as it is searched
        self.model = model
        self.graph: Any = None
        self.found: Any = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._capture()

    def _step(self) -> tuple[Tensor, DecodingState]:
        return self.model.step(self.tokens, self.state)

    def _capture(self) -> None:
        """Record a step, after one on the same stream, whose libraries are then ready."""
        stream = torch.cuda.Stream()
        self.graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step()
            self.graph.capture_begin(capture_error_mode="thread_local")
            self.found = self._step()
            self.graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)

    def __call__(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """The step of tokens (N,) and a state of at most this shape."""
        rows = len(tokens)
        if self.copied() is not state.memory.source.values:
            self._copy(state.memory)
        self.tokens[:rows].copy_(tokens)
        for mine, theirs in zip(self.state.layers.whole, state.layers.taken(), strict=True):
            for part, given in zip(mine, theirs, strict=True):
                part[:rows].copy_(given)
        if self.graph is None:
            self.found = self._step()
        else:
            self.graph.replay()
        log_probs, after = self.found
        layers = Picked(each(after.layers.whole, lambda part: part[:rows].clone()))
        alignment = after.alignment[:rows, : state.memory.source.mask.size(1)].clone()
        return log_probs[:rows].clone(), DecodingState(layers, alignment, state.memory)

    def _copy(self, memory: DecodingMemory) -> None:
        """The source's memory; what it does not fill is 0, and masked."""
        mine = self.state.memory
        pairs = [*zip(mine.source, memory.source, strict=True), *zip(mine.said, memory.said, strict=True)]
        for part, given in [*pairs, (mine.early, memory.early)]:
            part.zero_()
            part[: given.size(0), : given.size(1)].copy_(given)
        self.copied = ref(memory.source.values)


def looks(memory: DecodingMemory) -> bool:
    """Whether the model has attention; then all of the memory but `early` is as long as the source."""
    return memory.source.mask.size(1) > 0


def each(layers: tuple[State, ...], change: Callable[[Tensor], Tensor]) -> tuple[State, ...]:
    """Every part of every layer's state, changed."""
    return tuple(like(layer, map(change, layer)) for layer in layers)


def roomy(memory: DecodingMemory, shape: Shape) -> DecodingMemory:
    """A memory of this shape, all zeros."""

    def wide(part: Tensor) -> Tensor:
        length = shape.source if looks(memory) else part.size(1)
        return part.new_zeros(shape.sentences, length, *part.shape[2:])

    early = memory.early.new_zeros(shape.sentences, *memory.early.shape[1:])
    return DecodingMemory(Memory(*map(wide, memory.source)), early, tuple(map(wide, memory.said)))
