"""How much a translation model has to compute: multiply-adds, counted from the shapes of its weights.

What is counted: every product of a weight matrix with the words that it reads, the output layer among them, and the
two products of attention, of queries with keys and of weights with values. What is not: look-ups of embeddings,
element-wise operations (gates, peepholes, softmax, dropout), padding, and the optimiser. Training takes every product
three times: forward, back to its input, and back to its weight.
"""

from collections.abc import Iterable
from typing import NamedTuple

from nmt.batches import Batch
from nmt.model.seq2seq import Seq2Seq
from nmt.tokenizer import PAD

PART = {  # what a parameter's product is read by, by the beginning of its name
    "encoder.": "source",
    "decoder.attention.key": "source",
    "decoder.attention.query": "target",
    "decoder.attention.energy": "",  # one of the two products of attention
    "decoder.attention.summary": "sentence",
    "decoder.bridge.": "sentence",
    "decoder.": "target",
    "output.": "target",
    "source_embedding.": "",
    "target_embedding.": "",
}


class Words(NamedTuple):
    """What a batch holds; EOS is a word."""

    sentences: int
    source: int
    target: int
    pairs: int  # of a source word with a target word of the same sentence
    source_padded: int = 0
    target_padded: int = 0

    @property
    def fill(self) -> tuple[float, float]:
        """The share of real words on either side."""
        return self.source / self.source_padded, self.target / self.target_padded


def total(parts: Iterable[Words]) -> Words:
    """The words of several batches."""
    return Words(*map(sum, zip(*parts, strict=True)))


def count(batch: Batch) -> Words:
    """The words of a batch."""
    target = (batch.target_out != PAD).sum(1)  # (B,)
    return Words(
        len(target),
        int(batch.source_lengths.sum()),
        int(target.sum()),
        int((batch.source_lengths * target).sum()),
        batch.source.numel(),
        batch.target_out.numel(),
    )


class Work(NamedTuple):
    """Multiply-adds of a forward pass for each thing that is read."""

    sentence: int
    source: int
    target: int
    pair: int

    def forward(self, words: Words) -> float:
        """Floating-point operations, two to a multiply-add, to read the words once."""
        each = self.sentence * words.sentences + self.source * words.source
        return 2.0 * (each + self.target * words.target + self.pair * words.pairs)

    def training(self, words: Words) -> float:
        """Those of forward and backward."""
        return 3 * self.forward(words)


def work(model: Seq2Seq) -> Work:
    """The multiply-adds of a model."""
    found = {"sentence": 0, "source": 0, "target": 0, "": 0}
    for name, weight in model.named_parameters(remove_duplicate=False):
        if weight.dim() == 2 and "peephole" not in name:
            found[_part(name)] += weight.numel()
    del found[""]
    return Work(**found, pair=_attention(model))


def _part(name: str) -> str:
    fitting = [beginning for beginning in PART if name.startswith(beginning)]
    assert fitting, f"{name} is a product of no known part"
    return PART[max(fitting, key=len)]


def _attention(model: Seq2Seq) -> int:
    """Multiply-adds for a query and a memory: the width of keys, and of values."""
    attention = model.decoder.attention
    if not hasattr(attention, "project"):
        return 0
    energy = getattr(attention, "energy", None)
    keys = energy.in_features if energy is not None else model.decoder.layers[0].output_size
    return int(keys) + int(attention.size)
