"""Which target pieces may translate a source piece: with so few to choose from, the output layer is small.

IBM Model 1 (Brown et al. 1993, section 4) learns t(target piece | source piece) from the training text. The likeliest
of each source piece, and the most frequent of all, are what may be said of a sentence (Jean et al. 2015, section 3.3).

Shapes: **B** sentences, **S** source length, **V** pieces of a vocabulary, **V'** those that may be said,
**U** pairs of pieces, **T** target positions, **M** links.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nmt import checkpoint
from nmt.batches import EncodedCorpus, Ids
from nmt.checkpoint import Tokenizers
from nmt.tokenizer import EOS, PAD

log = logging.getLogger("nmt")

FILE = "shortlist.safetensors"
BEST, FREQUENT = 50, 100  # pieces kept of each source piece, and of all: see docs/benchmarks.md
ITERATIONS = 5
LINKS = 1 << 26  # of the sample that is learnt from, some 200,000 pairs: half a minute and 500 MB
BLOCK = 1 << 20  # links counted at a time


class Shortlist(NamedTuple):
    """What may be said of a sentence: what translates each of its pieces, and what is common."""

    best: Tensor  # (V, k) int32 target ids, of each source id; PAD where there are fewer
    common: Tensor  # (V,) bool; PAD, UNK, BOS and EOS among them, so that they keep their ids where few words are left

    def candidates(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Of source ids (B, S) with their EOS and PAD: ids (V'), rising, and which each sentence may use (B, V').

        The ids are all that any of the sentences may use; what a sentence may does not depend on the others.
        """
        allowed = self.common.repeat(len(source), 1)  # (B, V)
        allowed.scatter_(1, self.best[source].flatten(1).long(), True)
        ids = allowed.any(dim=0).nonzero().squeeze(1)  # (V')
        return ids, allowed.index_select(1, ids)

    def plus(self, other: "Shortlist") -> "Shortlist":
        """What either allows."""
        if all(map(torch.equal, self, other)):
            return self
        return Shortlist(torch.cat([self.best, other.best], dim=1), self.common | other.common)


def load_shortlist(folder: str | Path, tokenizers: Tokenizers) -> Shortlist:
    """Read that of a model folder. FileNotFoundError where there is none, ValueError where it is damaged."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {FILE}: {_way_to_one(Path(folder))}")
    try:
        found = Shortlist(**load_file(str(path)))
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{path} is damaged: remove it, and run the command that trained the model again") from error
    if (len(found.best), len(found.common)) != (tokenizers.source.size, tokenizers.target.size):
        raise ValueError(
            f"{path} is of another vocabulary: remove it, and run the command that trained the model again"
        )
    return found


def _way_to_one(folder: Path) -> str:
    """How a model folder comes to have a shortlist."""
    info = folder / checkpoint.INFO
    if info.is_file() and "averaged" in json.loads(info.read_text(encoding="utf8")):
        return "one of the models that it is the mean of had none; train that again, and average anew"
    return "run the command that trained it again, which will learn one"


def write_shortlist(folder: Path, corpus: EncodedCorpus, tokenizers: Tokenizers, base: str) -> None:
    """Learn that of a model folder from its training text; to a fine-tuned model's, its base's is added.

    Of a base that has none, the text it was trained on is not known, and nothing is written.
    """
    if base and not (Path(base) / FILE).is_file():
        log.info("no shortlist, for %s has none to add to", base)
        return
    found = learn(corpus, (tokenizers.source.size, tokenizers.target.size))
    if base:
        found = found.plus(load_shortlist(base, tokenizers))
    checkpoint.save_tensors(found._asdict(), folder / FILE)


def learn(corpus: EncodedCorpus, sizes: tuple[int, int], best: int = BEST, frequent: int = FREQUENT) -> Shortlist:
    """From encoded text and the sizes V of both vocabularies; of text with more than `LINKS`, from an even sample."""
    blocks, counts = [], np.zeros(sizes[1], np.int64)
    for pairs in sampled(corpus):
        blocks.append(links(pairs, sizes[1]))
        counts += np.bincount(np.concatenate([target for _, target in pairs]), minlength=sizes[1])
    common = torch.zeros(sizes[1], dtype=torch.bool)
    common[np.argsort(-counts, kind="stable")[:frequent]] = True
    common[: EOS + 1] = True
    return Shortlist(torch.from_numpy(likeliest(*model_1(blocks, sizes[1], ITERATIONS), sizes, best)), common)


def sampled(corpus: EncodedCorpus) -> Iterator[list[tuple[NDArray[np.int32], NDArray[np.int32]]]]:
    """Every n-th pair, so that they have no more than about `LINKS`, in blocks of about `BLOCK`."""
    total = int((corpus.source_lengths.astype(np.int64) * corpus.target_lengths).sum())
    rows = np.arange(0, len(corpus), -(-total // LINKS))
    for chosen in np.array_split(rows, min(len(rows), -(-min(total, LINKS) // BLOCK))):
        yield corpus.rows(chosen)


# ---- IBM Model 1 ----


class Links(NamedTuple):
    """Each target position of some pairs with each source position of its pair: the alignments there may be."""

    pairs: NDArray[np.int64]  # (U,) the distinct pairs of pieces, source * V + target, rising
    which: NDArray[np.int32]  # (M,) which of them each link is
    starts: NDArray[np.int64]  # (T,) the first link of each target position


def links(pairs: Sequence[tuple[Ids, Ids]], size: int) -> Links:
    """All of them, of pairs of ids and a target vocabulary of this size. EOS ends a source: Brown's empty word."""
    sources = np.concatenate([np.append(source, EOS) for source, _ in pairs])
    source_lengths = np.array([len(source) + 1 for source, _ in pairs])
    target_lengths = np.array([len(target) for _, target in pairs])
    widths = np.repeat(source_lengths, target_lengths)  # (T,) links of each target position
    starts = np.cumsum(widths) - widths
    first = np.repeat(np.cumsum(source_lengths) - source_lengths, target_lengths)  # (T,) where its source begins
    position = np.arange(widths.sum()) + np.repeat(first - starts, widths)  # (M,)
    target = np.repeat(np.concatenate([target for _, target in pairs]), widths)
    pairs_of_pieces, which = np.unique(sources[position].astype(np.int64) * size + target, return_inverse=True)
    return Links(pairs_of_pieces, which.astype(np.int32), starts)


def expected_counts(block: Links, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often each pair (U,) is linked: t of each shares a target position out among its source positions."""
    shares = probabilities[block.which]  # (M,)
    widths = np.diff(block.starts, append=len(shares))
    shares /= np.repeat(np.add.reduceat(shares, block.starts), widths)
    return np.bincount(block.which, shares, len(block.pairs)).astype(np.float64, copy=False)


def model_1(blocks: Sequence[Links], size: int, iterations: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The distinct pairs (U,), rising, and t of each, by expectation maximisation from t equal everywhere."""
    pairs = np.unique(np.concatenate([block.pairs for block in blocks]))
    places = [np.searchsorted(pairs, block.pairs) for block in blocks]
    source, probabilities = pairs // size, np.ones(len(pairs))
    for _ in range(iterations):
        counts = np.zeros(len(pairs))
        for block, place in zip(blocks, places, strict=True):
            counts[place] += expected_counts(block, probabilities[place])
        probabilities = counts / np.bincount(source, counts)[source]
    return pairs, probabilities


def likeliest(
    pairs: NDArray[np.int64], probabilities: NDArray[np.float64], sizes: tuple[int, int], best: int
) -> NDArray[np.int32]:
    """The likeliest targets of each source piece, likeliest first, PAD where there are fewer: (V, best)."""
    order = np.lexsort((-probabilities, pairs // sizes[1]))
    source, target = np.divmod(pairs[order], sizes[1])
    rank = np.arange(len(order)) - np.searchsorted(source, source)
    found = np.full((sizes[0], best), PAD, np.int32)
    kept = rank < best
    found[source[kept], rank[kept]] = target[kept]
    return found
