"""Where the decoder looks: `(query, memory) -> context, weights`.

Each kind is a module with the same three parts, so that the decoder never asks which it has: `prepare` makes the memory
once per sentence, `early` is what the first decoder layer reads, and `forward` answers queries. A decoder without
attention is a null object: its context has width zero.

Shapes: **B** sentences, **S** source length, **Q** queries per sentence (hypotheses times target words), **M** memory
size, **H** query size, **A** attention size, **C** context size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Memory(NamedTuple):
    """What the decoder may read of a sentence; one row per sentence however many hypotheses read it."""

    values: Tensor  # (B, S, C)
    keys: Tensor  # (B, S, A)
    mask: Tensor  # (B, S) true on words


class NoContext(nn.Module):
    """No attention: the decoder knows only the state that it starts from (Sutskever et al. 2014)."""

    size = early_size = 0

    def prepare(self, outputs: Tensor, mask: Tensor, vector: Tensor) -> Memory:
        """Keep nothing of outputs (B, S, M), mask (B, S) and vector (B, W)."""
        return Memory(outputs[:, :0, :0], outputs[:, :0, :0], mask[:, :0])

    def summarise(self, memory: Memory, vector: Tensor) -> Tensor:
        """What the decoder's first state is made of, if it is not copied: the vector (B, W)."""
        return vector

    def early(self, memory: Memory, queries: int) -> Tensor:
        """What the first decoder layer reads beside the word before: (B, Q, 0)."""
        return memory.values.new_zeros(memory.values.size(0), queries, 0)

    def weigh(self, query: Tensor, memory: Memory) -> Tensor:
        """Query (B, Q, H) -> how much of each of no values: (B, Q, 0)."""
        return query[:, :, :0]

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Query (B, Q, H) -> context (B, Q, 0), weights (B, Q, 0)."""
        return query[:, :, :0], query[:, :, :0]


class FixedContext(nn.Module):
    """The same vector at every step, for every layer and for the output: c = tanh(V h).

    Cho et al. 2014, appendix A.1.1.
    """

    def __init__(self, vector_size: int, size: int) -> None:
        super().__init__()
        self.size = self.early_size = size
        self.summary = nn.Linear(vector_size, size)

    def prepare(self, outputs: Tensor, mask: Tensor, vector: Tensor) -> Memory:
        """Summarise the encoder's final state, vector (B, W)."""
        values = self.summary(vector).tanh()[:, None]  # (B, 1, C)
        return Memory(values, values[:, :, :0], mask[:, :0])

    def summarise(self, memory: Memory, vector: Tensor) -> Tensor:
        """The summary c (B, C): h'(0) = tanh(V' c) (Cho et al. 2014, appendix A.1.2)."""
        return memory.values[:, 0]

    def early(self, memory: Memory, queries: int) -> Tensor:
        """The vector again: (B, Q, C)."""
        return memory.values.expand(-1, queries, -1)

    def weigh(self, query: Tensor, memory: Memory) -> Tensor:
        """Query (B, Q, H) -> all of the one value: (B, Q, 1)."""
        return query.new_ones(*query.shape[:2], 1)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Query (B, Q, H) -> context (B, Q, C), weights (B, Q, 0): nothing is looked at."""
        return self.early(memory, query.size(1)), query[:, :, :0]


class Attention(nn.Module):
    """What the kinds of attention share: softmax of scores over the words of the source, and their weighted mean."""

    early_size = 0

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.size = memory_size

    def project(self, outputs: Tensor) -> Tensor:
        """Keys (B, S, A) of the encoder's outputs (B, S, M), made once per sentence."""
        return outputs

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores (B, Q, S) of queries (B, Q, H) against keys (B, S, A)."""
        return query @ keys.transpose(1, 2)

    def prepare(self, outputs: Tensor, mask: Tensor, vector: Tensor) -> Memory:
        """Project outputs (B, S, M) once; the vector (B, W) is of no use here."""
        return Memory(outputs, self.project(outputs), mask)

    def summarise(self, memory: Memory, vector: Tensor) -> Tensor:
        """What the decoder's first state is made of, if it is not copied: the vector (B, W)."""
        return vector

    def early(self, memory: Memory, queries: int) -> Tensor:
        """Nothing: the first layer's state is the query, so it runs before the context is known. (B, Q, 0)."""
        return memory.values.new_zeros(memory.values.size(0), queries, 0)

    def weigh(self, query: Tensor, memory: Memory) -> Tensor:
        """Query (B, Q, H) -> how much of each value (B, Q, S): 0 on padding, 1 together."""
        scores = self.score(query, memory.keys).float().masked_fill(~memory.mask[:, None], -torch.inf)
        return scores.softmax(dim=2)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Query (B, Q, H) -> context (B, Q, C), weights (B, Q, S)."""
        weights = self.weigh(query, memory)
        return weights.to(memory.values.dtype) @ memory.values, weights


class DotAttention(Attention):
    """score(q, m) = q.m / sqrt(H) (Luong et al. 2015, section 3.1, scaled as in Vaswani et al. 2017)."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__(query_size, memory_size)
        if query_size != memory_size:
            raise ValueError(
                f"dot attention needs an encoder as wide as the decoder, not {memory_size} and {query_size}: "
                "make them equal or use model.attention general"
            )
        self.scale: float = query_size**-0.5

    def project(self, outputs: Tensor) -> Tensor:
        """The outputs themselves, scaled."""
        return outputs * self.scale


class GeneralAttention(Attention):
    """score(q, m) = q.(W m) (Luong et al. 2015, section 3.1); W m is made once per sentence."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__(query_size, memory_size)
        self.key = nn.Linear(memory_size, query_size, bias=False)

    def project(self, outputs: Tensor) -> Tensor:
        """W m."""
        projected: Tensor = self.key(outputs)
        return projected


class AdditiveAttention(Attention):
    """score(q, m) = v.tanh(W q + U m) (Bahdanau et al. 2015, appendix A.1.2); A = H."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__(query_size, memory_size)
        self.key = nn.Linear(memory_size, query_size)
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.energy = nn.Linear(query_size, 1, bias=False)

    def project(self, outputs: Tensor) -> Tensor:
        """U m."""
        projected: Tensor = self.key(outputs)
        return projected

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """v.tanh(W q + U m)."""
        hidden = (self.query(query)[:, :, None] + keys[:, None]).tanh()  # (B, Q, S, A)
        scores: Tensor = self.energy(hidden)[..., 0]
        return scores
