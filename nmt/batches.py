"""From pairs of text to padded batches of ids: encoded once to disk, grouped by length, resumable to the batch.

Legend: **B** sentences, **S** source length, **T** target length, **W** target words; every length counts the EOS.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt import corpus
from nmt.corpus import DataOptions, Pair, Report
from nmt.tokenizer import BOS, EOS, PAD, Tokenizer

Ids = Sequence[int] | NDArray[Any]
Item = TypeVar("Item")

TABLE_FORMAT = "nmt table 3"  # part of every cache key: change it when the table or the encoding changes
CHUNK = 16_384  # pairs read, encoded and written at a time


class Batch(NamedTuple):
    """What one training step reads; all int64."""

    source: Tensor  # (B, S) ids, EOS last, then PAD
    source_lengths: Tensor  # (B,) EOS counted
    target_in: Tensor  # (B, T) what the decoder reads: BOS first
    target_out: Tensor  # (B, T) what it must say: EOS last, then PAD
    words: Tensor  # (W,) places in target_out, row after row, of what is no PAD


def collate(pairs: Sequence[tuple[Ids, Ids]], multiple: int = 1) -> Batch:
    """Pad pairs of ids, given without BOS and EOS; S and T are rounded up to a `multiple`."""
    source, source_lengths = padded([source for source, _ in pairs], multiple)
    target_out, target_lengths = padded([target for _, target in pairs], multiple)
    target_in = np.full_like(target_out, PAD)
    target_in[:, 0] = BOS
    steps = np.arange(1, target_out.shape[1])  # step t reads what step t-1 said, but for the EOS
    target_in[:, 1:] = np.where(steps < target_lengths[:, None], target_out[:, :-1], PAD)
    words = np.flatnonzero(target_out != PAD)
    return Batch(*map(torch.from_numpy, (source, source_lengths, target_in, target_out, words)))


def collate_sources(sources: Sequence[Ids], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Pad sources alone, as translating needs them: ids (B, S) with EOS last, and lengths (B,)."""
    ids, lengths = padded(sources, multiple)
    return torch.from_numpy(ids), torch.from_numpy(lengths)


def padded(rows: Sequence[Ids], multiple: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows with EOS and then PAD behind them (B, L), and their lengths (B,)."""
    assert rows, "a batch has at least one row"
    lengths = np.fromiter(map(len, rows), np.int64, len(rows)) + 1
    width = round_up(int(lengths.max()), multiple)
    ids = np.full((len(rows), width), PAD, np.int64)
    ids[np.arange(width) < lengths[:, None] - 1] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    ids[np.arange(len(rows)), lengths - 1] = EOS
    return ids, lengths


def round_up(value: Any, multiple: int) -> Any:
    """The next multiple, of a number or of each number in an array."""
    return -(-value // multiple) * multiple


# ---- the encoded corpus ----


class EncodedCorpus:
    """Pairs as ids, without BOS and EOS, in an Arrow file that is memory-mapped: only pages that are read take memory.

    Attributes:
        source_lengths: (N,) EOS counted.
        target_lengths: (N,) EOS counted.
        report: what became of the pairs read.
    """

    def __init__(self, path: Path) -> None:
        from datasets import Dataset

        self.report = Report(**json.loads(path.with_suffix(".json").read_text(encoding="utf8")))
        table = Dataset.from_file(str(path)).data
        source, target = (table.column(name).chunks for name in ("source", "target"))
        self.chunks = [(buffers(one), buffers(other)) for one, other in zip(source, target, strict=True)]
        self.starts = np.cumsum([0] + [len(source[0]) - 1 for source, _ in self.chunks])  # first row of each chunk
        self.source_lengths, self.target_lengths = (
            np.concatenate([np.diff(chunk[side][0]) for chunk in self.chunks]) + 1 for side in (0, 1)
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def rows(self, indices: Iterable[int] | NDArray[np.int64]) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """The pairs at these indices, as views of the file."""
        indices = np.asarray(indices, np.int64)
        numbers = np.searchsorted(self.starts, indices, side="right") - 1
        return [
            (cut(source, row), cut(target, row))
            for (source, target), row in zip(
                (self.chunks[number] for number in numbers), (indices - self.starts[numbers]).tolist(), strict=True
            )
        ]


def buffers(column: Any) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The (offsets, values) of an Arrow list column."""
    return column.offsets.to_numpy(), column.values.to_numpy()


def cut(side: tuple[NDArray[np.int32], NDArray[np.int32]], row: int) -> NDArray[np.int32]:
    """One row of a list column."""
    offsets, ids = side
    return ids[offsets[row] : offsets[row + 1]]


def encode_corpus(
    sources: str | list[str], split: str, data: DataOptions, source_tokenizer: Tokenizer, target_tokenizer: Tokenizer
) -> tuple[EncodedCorpus, Report]:
    """Encode sources into one table on disk, or find it there from an earlier call.

    The table is named by all that shapes it: the bytes of the files, the options and the tokenizers. Raises what
    `corpus.read_pairs` raises, and ValueError where no source is given or every pair is too long.
    """
    names = corpus.sources(sources)
    if not names:
        raise ValueError(f"data.{split} names no corpus")
    tokenizers = source_tokenizer, target_tokenizer
    path = cache_folder(data) / f"{cache_key(names, split, data, tokenizers)}.arrow"
    table = open_table(path)
    if table is None:
        write_table(path, names, split, data, tokenizers)
        table = EncodedCorpus(path)
    return table, table.report


def cache_folder(data: DataOptions) -> Path:
    """Where encoded tables are kept."""
    if data.cache is not None:
        return Path(data.cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nmt"


def cache_key(names: list[str], split: str, data: DataOptions, tokenizers: tuple[Tokenizer, Tokenizer]) -> str:
    """A digest of all that decides what the table holds."""
    contents = [corpus.fingerprint(name, data.languages, split) for name in names]
    options = [str(data.max_length), *(tokenizer.digest for tokenizer in tokenizers)]
    return hashlib.sha256("\n".join([TABLE_FORMAT, *contents, *options]).encode()).hexdigest()[:32]


def open_table(path: Path) -> EncodedCorpus | None:
    """The table if it is there and whole."""
    from pyarrow import ArrowInvalid

    try:
        table = EncodedCorpus(path)
    except (OSError, ArrowInvalid, ValueError, TypeError):  # absent, or cut short
        return None
    return table if len(table) == table.report.kept else None


def write_table(
    path: Path, names: list[str], split: str, data: DataOptions, tokenizers: tuple[Tokenizer, Tokenizer]
) -> None:
    """Read, encode and write chunk by chunk to a file beside `path`, which takes its name once it is whole."""
    from datasets import Features, Sequence, Value
    from datasets.arrow_writer import ArrowWriter

    report = Report()
    pairs = (pair for name in names for pair in corpus.read_pairs(name, data.languages, split, report))
    features = Features({"source": Sequence(Value("int32")), "target": Sequence(Value("int32"))})
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        with ArrowWriter(path=str(beside), features=features) as writer:
            for source, target in encoded(pairs, data, tokenizers, report):
                writer.write_batch({"source": source, "target": target})
            if not report.kept:
                raise ValueError(
                    f"data.{split} has no pair to learn from: each of its {report.too_long} has a side of more than "
                    f"data.max_length = {data.max_length} pieces"
                )
            writer.finalize()
        path.with_suffix(".json").write_text(json.dumps(asdict(report)), encoding="utf8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def encoded(
    pairs: Iterator[Pair], data: DataOptions, tokenizers: tuple[Tokenizer, Tokenizer], report: Report
) -> Iterator[tuple[list[list[int]], list[list[int]]]]:
    """Chunks of ids, all sources and all targets; pairs longer than `max_length` are dropped and counted.

    Threads, not processes: sentencepiece encodes outside Python's lock, at some 400,000 lines a second on one core.
    """
    threads = data.workers or os.cpu_count() or 1
    while chunk := list(islice(pairs, CHUNK)):
        sides = (
            tokenizer.encode(lines, threads=threads)
            for tokenizer, lines in zip(tokenizers, zip(*chunk, strict=True), strict=True)
        )
        kept = [pair for pair in zip(*sides, strict=True) if max(map(len, pair)) <= data.max_length]
        report.too_long += len(chunk) - len(kept)
        if kept:
            source, target = zip(*kept, strict=True)
            yield list(source), list(target)


# ---- batches of like length ----


class TokenBatches:
    """Which pairs form which batch, in each epoch, on each rank.

    Pairs are sorted by length on both sides and cut where the budget of `tokens` is full, counted in pieces of the
    larger side with padding, B * max(S, T), both rounded up to a `multiple`; a pair beyond the budget is alone. Each
    epoch draws anew which of the pairs of equal lengths go together, and the order of the batches; `(seed, epoch)`
    decides both, on every rank alike. The number of batches is the same in every epoch.

    Ranks take neighbours in the sorted order, so that each step is like work for all. Where the batches do not divide
    by `world`, the last step takes the `world` longest batches, some of which come twice in that epoch.
    """

    def __init__(
        self,
        source_lengths: NDArray[Any],
        target_lengths: NDArray[Any],
        tokens: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        max_sentences: int | None = None,
        shuffle: bool = True,
        multiple: int = 1,
    ) -> None:
        assert 0 <= rank < world
        assert len(source_lengths) == len(target_lengths) > 0
        self.seed, self.rank, self.world, self.shuffle, self.multiple = seed, rank, world, shuffle, multiple
        self.key = length_key(np.asarray(source_lengths, np.int64), np.asarray(target_lengths, np.int64))
        longest = round_up(np.maximum(source_lengths, target_lengths).astype(np.int64), multiple)
        order = np.argsort(self.key, kind="stable")
        self.ends = batch_ends(longest[order], tokens, max_sentences or len(order))

    def __len__(self) -> int:
        return -(-len(self.ends) // self.world)

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        """The batches of this rank in an epoch: arrays of indices of pairs."""
        random = np.random.default_rng((self.seed, number))
        drawn = random.permutation(len(self.key)) if self.shuffle else np.arange(len(self.key))
        order = drawn[np.argsort(self.key[drawn], kind="stable")]  # equal lengths stay as drawn
        batches = np.split(order, self.ends[:-1])
        steps = random.permutation(len(self)) if self.shuffle else np.arange(len(self))
        return [batches[self.turn(step)] for step in steps]

    def turn(self, step: int) -> int:
        """The batch, counted in sorted order, of this rank at a step."""
        first = min(step * self.world, max(len(self.ends) - self.world, 0))
        return int(first + self.rank) % len(self.ends)


def length_key(source: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number to sort by: target length, then source length, rising and falling by turns to keep neighbours alike."""
    width = int(source.max()) + 1
    return target * width + np.where(target % 2 == 0, source, width - 1 - source)


def batch_ends(longest: NDArray[np.int64], tokens: int, most: int) -> NDArray[np.int64]:
    """Where each batch ends if pairs of these lengths, in this order, are taken while count * longest <= tokens."""
    ends = [0]
    while (start := ends[-1]) < len(longest):
        window = np.maximum.accumulate(longest[start : start + min(most, max(1, tokens // int(longest[start])))])
        fitting = np.searchsorted(window * np.arange(1, len(window) + 1), tokens, side="right")
        ends.append(start + max(1, int(fitting)))
    return np.array(ends[1:], np.int64)


class Planned(Protocol):
    """What a loader deals out: the same number of batches in every epoch, each named by indices of some kind."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Sequence[Any]:
        """The batches of this epoch, in order."""


class Loader(Generic[Item]):
    """Batches, epoch after epoch, for a training loop; its state says exactly which batch comes next.

    Each iteration is one epoch. One that was cut short is not taken up again, unless its state was loaded.
    """

    def __init__(self, batches: Planned) -> None:
        self.batches = batches
        self.epoch, self.position, self.resumed = 0, 0, False

    def batch(self, indices: Any) -> Item:
        """The batch that an epoch's plan names by these indices."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Item]:
        if self.position and not self.resumed:
            self.set_epoch(self.epoch + 1)
        self.resumed = False
        epoch, start = self.epoch, self.position
        for position, indices in enumerate(self.batches.epoch(epoch)[start:], start + 1):
            batch = self.batch(indices)
            # Counted before it is handed out: a loop that knows the length never asks for what follows the last one.
            self.epoch, self.position = (epoch, position) if position < len(self) else (epoch + 1, 0)
            yield batch

    def set_epoch(self, number: int) -> None:
        """Go to the start of an epoch; in the epoch it already is in, stay."""
        if number != self.epoch:
            self.epoch, self.position = number, 0

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches have been handed out."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self.epoch, self.position, self.resumed = state["epoch"], state["position"], True


class BatchLoader(Loader[Batch]):
    """Batches of pairs."""

    def __init__(self, table: EncodedCorpus, batches: TokenBatches) -> None:
        super().__init__(batches)
        self.table, self.multiple = table, batches.multiple

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The pairs at these indices."""
        return collate(self.table.rows(indices), self.multiple)
