"""Running text for a language model: sentences encoded to disk one after another, dealt in parallel streams.

Legend: **B** streams or sentences, **T** steps.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt import corpus
from nmt.batches import CHUNK, Loader, TokenBatches, cache_folder, collate
from nmt.corpus import DataOptions, Languages, Report
from nmt.tokenizer import BOS, EOS, PAD, Tokenizer

TEXT_FORMAT = "nmt text 2"  # part of every cache key: change it when the file or the encoding changes


class Stretch(NamedTuple):
    """What one training step reads; int64.

    A sentence begins with BOS in what is read and ends with EOS in what is said, so the text runs on over its borders.
    """

    target_in: Tensor  # (B, T) what the model reads
    target_out: Tensor  # (B, T) what it must say, the token after; PAD where there is none
    words: Tensor  # (W,) places in target_out, row after row, of what is no PAD
    fresh: bool  # whether the rows begin here, from the zero state, and do not go on from the stretch before


def text_file(source: str, languages: Languages) -> Path | None:
    """The plain text file that a source names, itself or by the prefix of its target side; None for other formats."""
    of_tables = source.startswith("hf:") or source.removesuffix(".gz").endswith((".tsv", ".jsonl"))
    if of_tables or corpus.two_files(source, languages):
        return None
    corpus.refuse_format(source)
    side = f"{source}.{languages[1]}"
    return corpus.existing([name for name in (side, f"{side}.gz", source) if Path(name).is_file()] or [source, side])


def read_sentences(source: str, languages: Languages, split: str, report: Report | None = None) -> Iterator[str]:
    """Yield the sentences of one source: lines of plain text, or the target side of parallel text in another format.

    Blank ones are dropped and counted in `report`. Raises what `corpus.read_pairs` raises.
    """
    report = Report() if report is None else report
    path = text_file(source, languages)
    if path is None:
        yield from (pair.target for pair in corpus.read_pairs(source, languages, split, report))
        return
    blank, read = report.blank, report.read
    for line in corpus.lines(path):
        report.read += 1
        report.blank += not line.strip()
        if line.strip():
            yield line
    if report.read - read == report.blank - blank:
        raise ValueError(f"{path} has no sentence: it is empty, or every line is blank")


def fingerprint(source: str, languages: Languages, split: str) -> str:
    """A digest of what a source holds."""
    path = text_file(source, languages)
    if path is None:
        return corpus.fingerprint(source, languages, split)
    with path.open("rb") as file:
        return path.suffix + hashlib.file_digest(file, "sha256").hexdigest()


# ---- the encoded text ----


class EncodedText:
    """Sentences as ids, an EOS behind each, in a memory-mapped file: only pages that are read take memory.

    Attributes:
        ids: (N,) int32, the whole text.
        report: what became of the sentences read.
    """

    def __init__(self, path: Path) -> None:
        self.report = Report(**json.loads(path.with_suffix(".json").read_text(encoding="utf8")))
        self.ids: NDArray[np.int32] = np.memmap(path, np.int32, mode="r")

    def __len__(self) -> int:
        """Sentences."""
        return self.report.kept

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where the EOS of each sentence stands."""
        return np.flatnonzero(self.ids == EOS)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Of each sentence, EOS counted."""
        return np.diff(self.ends, prepend=-1)

    def sentences(self, indices: NDArray[np.int64]) -> list[NDArray[np.int32]]:
        """The sentences at these indices, without EOS, as views of the file."""
        starts = self.ends[indices] - self.lengths[indices] + 1
        return [self.ids[start:end] for start, end in zip(starts, self.ends[indices], strict=True)]


def encode_text(sources: str | list[str], split: str, data: DataOptions, tokenizer: Tokenizer) -> EncodedText:
    """Encode sources into one file on disk, or find it there from an earlier call.

    It is named by all that shapes it, as the tables of pairs are. Raises what `read_sentences` raises, and ValueError
    where no source is given or every sentence is too long.
    """
    names = corpus.sources(sources)
    if not names:
        raise ValueError(f"data.{split} names no text")
    contents = [fingerprint(name, data.languages, split) for name in names]
    key = "\n".join([TEXT_FORMAT, *contents, str(data.max_length), tokenizer.digest])
    path = cache_folder(data) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.ids"
    text = open_text(path)
    if text is None:
        write_text(path, names, split, data, tokenizer)
        text = EncodedText(path)
    return text


def open_text(path: Path) -> EncodedText | None:
    """The text if it is there and whole."""
    try:
        return EncodedText(path)
    except (OSError, ValueError, TypeError):  # absent, or its report cut short; the ids took their name when whole
        return None


def write_text(path: Path, names: list[str], split: str, data: DataOptions, tokenizer: Tokenizer) -> None:
    """Read, encode and write chunk by chunk to a file beside `path`, which takes its name once it is whole."""
    report = Report()
    sentences = chain.from_iterable(read_sentences(name, data.languages, split, report) for name in names)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            for ids in encoded(sentences, data, tokenizer, report):
                file.write(ids.tobytes())
        if not report.kept:
            raise ValueError(
                f"data.{split} has no sentence to learn from: each of its {report.too_long} has more than "
                f"data.max_length = {data.max_length} pieces"
            )
        path.with_suffix(".json").write_text(json.dumps(asdict(report)), encoding="utf8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def encoded(
    sentences: Iterator[str], data: DataOptions, tokenizer: Tokenizer, report: Report
) -> Iterator[NDArray[np.int32]]:
    """Chunks of ids, an EOS behind each sentence; those longer than `max_length` are dropped and counted."""
    threads = data.workers or os.cpu_count() or 1
    while chunk := list(islice(sentences, CHUNK)):
        rows = tokenizer.encode(chunk, threads=threads)
        kept = [row for row in rows if len(row) <= data.max_length]
        report.too_long += len(rows) - len(kept)
        yield np.fromiter(chain.from_iterable((*row, EOS) for row in kept), np.int32)


# ---- streams ----


class Stretches:
    """A text cut into streams of equal length, which are read side by side, `steps` tokens at a time.

    There are as many streams as `tokens` lets be read at once. The text keeps its order, the same in every epoch:
    stream r goes on where stream r - 1 ends, so that all but the few borders between streams is read as it was written.
    """

    def __init__(self, ids: NDArray[np.int32], tokens: int, steps: int) -> None:
        self.ids, self.steps = ids, steps
        self.width = -(-len(ids) // max(1, tokens // steps))  # of a stream
        self.streams = -(-len(ids) // self.width)

    def __len__(self) -> int:
        return -(-self.width // self.steps)

    def epoch(self, number: int) -> range:
        """The stretches of any epoch, by number."""
        return range(len(self))

    def stretch(self, number: int) -> Stretch:
        """Tokens [number * steps, (number + 1) * steps) of each stream, and those before them, which are read."""
        columns = np.arange(number * self.steps, min((number + 1) * self.steps, self.width))
        places = np.arange(self.streams)[:, None] * self.width + columns  # (B, T)
        last = len(self.ids) - 1
        said = np.where(places <= last, self.ids[np.minimum(places, last)], PAD)
        before = np.where(places <= last + 1, self.ids[np.clip(places - 1, 0, last)], PAD)
        read = np.where((before == EOS) | (places == 0), BOS, before)
        parts = read.astype(np.int64), said.astype(np.int64), np.flatnonzero(said != PAD)
        target_in, target_out, words = map(torch.from_numpy, parts)
        return Stretch(target_in, target_out, words, fresh=number == 0)


class StretchLoader(Loader[Stretch]):
    """The stretches of a text in their order, epoch after epoch."""

    def __init__(self, stretches: Stretches) -> None:
        super().__init__(stretches)
        self.stretches = stretches

    def batch(self, indices: Any) -> Stretch:
        """The stretch of this number."""
        return self.stretches.stretch(indices)


class SentenceLoader(Loader[Stretch]):
    """Sentences of like length, each by itself from the zero state: what a language model is judged by."""

    def __init__(self, text: EncodedText, tokens: int) -> None:
        super().__init__(TokenBatches(text.lengths, text.lengths, tokens, seed=0, shuffle=False))
        self.text = text

    def batch(self, indices: Any) -> Stretch:
        """The sentences at these indices, padded."""
        batch = collate([(row, row) for row in self.text.sentences(indices)])
        return Stretch(batch.target_in, batch.target_out, batch.words, fresh=True)
