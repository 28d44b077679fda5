"""Text on its way to the model: encoding, the table on disk, epochs of a big generated corpus, how training starts."""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from arguments import whole

from benchmarks.measure import Report, timed
from benchmarks.processes import BenchmarkError, forget_peak, nmt, peak_memory, watch
from benchmarks.text import add_text_options, data_options, generated, learn, read
from benchmarks.work import count, total
from nmt.batches import BatchLoader, EncodedCorpus, TokenBatches, encode_corpus
from nmt.corpus import DataOptions, Pair


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    add_text_options(parser)
    parser.add_argument("--pairs", type=whole(1), default=2_000_000, metavar="N", help="generated; default: 2,000,000")
    parser.add_argument("--batch-tokens", type=whole(1), default=2048, metavar="N", help="default: 2048")
    parser.add_argument("--batches", type=whole(1), default=2000, metavar="N", help="that are loaded; default: 2000")
    parser.add_argument("--repeats", type=whole(1), default=3, help="default: 3")
    parser.add_argument("--folder", type=Path, help="where the corpus is generated for a while; default: $TMPDIR")


def run(options: argparse.Namespace, report: Report) -> None:
    """Encoding, table, epochs, start."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        small = data_options(options, folder)
        pairs = read(small)
        tokenizers = learn(pairs, options.vocabulary or (8000 if options.corpus else 2000), folder)
        encoding(report, tokenizers.source, [pair.source for pair in pairs], options.repeats)
        stem = folder / "generated"
        write(stem, small, pairs, options)
        big = replace(small, train=str(stem))
        forget_peak()
        start = time.perf_counter()
        table, _ = encode_corpus(big.train, "train", big, *tokenizers)
        seconds = time.perf_counter() - start
        note = f"{options.pairs / seconds:,.0f} pairs/s, {peak_memory():.2f} GB"
        report.time(
            "", f"table of {options.pairs:,} pairs", [seconds], 0, note, pairs_per_second=options.pairs / seconds
        )
        epochs(options, report, table)
        starting(options, report, big, folder)


def encoding(report: Report, tokenizer: Any, lines: list[str], repeats: int) -> None:
    """Sentencepiece alone, on one core and on all."""
    for threads in sorted({1, os.cpu_count() or 1}):
        seconds = timed({"": partial(tokenizer.encode, lines, threads=threads)}, repeats, 1)[""]
        rate = len(lines) / statistics.median(seconds)
        name = f"encoding {len(lines):,} lines, {threads} thread{'s' * (threads > 1)}"
        report.time("", name, seconds, 0, f"{rate:,.0f} lines/s", lines_per_second=rate)


def write(stem: Path, data: DataOptions, pairs: list[Pair], options: argparse.Namespace) -> None:
    """A generated corpus."""
    files = [stem.with_suffix(f".{language}") for language in data.languages]
    with files[0].open("w", encoding="utf8") as source, files[1].open("w", encoding="utf8") as target:
        for pair in generated(pairs, options.pairs, options.seed):
            source.write(pair.source + "\n")
            target.write(pair.target + "\n")


def epochs(options: argparse.Namespace, report: Report, table: EncodedCorpus) -> None:
    """Sorting once, shuffling every epoch, and loading batches."""
    forget_peak()
    made: list[TokenBatches] = []

    def sort() -> None:
        made[:] = [TokenBatches(table.source_lengths, table.target_lengths, options.batch_tokens, options.seed)]

    for name, run in (("sorting into batches", sort), ("shuffling an epoch", lambda: made[0].epoch(1))):
        seconds = timed({"": run}, options.repeats, 1)[""]
        each = statistics.median(seconds) / len(table) * 1e6
        report.time("", name, seconds, 0, f"{each:.3f} s for a million pairs", seconds_per_million_pairs=each)
    most, loader = min(options.batches, len(made[0])), BatchLoader(table, made[0])
    start = time.perf_counter()
    batches = [batch for batch, _ in zip(loader, range(most), strict=False)]
    seconds_loading = time.perf_counter() - start
    rate, words = most / seconds_loading, total(map(count, batches))
    note = f"{rate:,.0f} batches/s, {words.target / seconds_loading:,.0f} target words/s; fill %.0f and %.0f %%"
    note = note % tuple(100 * side for side in words.fill)
    figures = {"batches_per_second": rate, "words_per_second": words.target / seconds_loading, "fill": words.fill}
    report.time("", f"loading {most:,} batches", [seconds_loading], 0, f"{note}, {peak_memory():.2f} GB", **figures)


def starting(options: argparse.Namespace, report: Report, data: DataOptions, folder: Path) -> None:
    """`nmt train` for one update of a tiny network, in a process of its own: with a table to make, and with it made."""
    few = folder / "few"
    write(few, data, read(data)[:50], argparse.Namespace(pairs=50, seed=1))
    flags = {
        "data.train": data.train,
        "data.validation": few,
        "data.source_language": data.source_language,
        "data.target_language": data.target_language,
        "data.cache": folder / "cache-of-start",
        "tokenizer.vocab_size": options.vocabulary or (8000 if options.corpus else 2000),
        "model.embedding_size": 16,
        "model.hidden_size": 16,
        "training.max_steps": 1,
        "training.validation_metric": "loss",
    }
    for number, name in enumerate(("training starts, text new", "training starts, text encoded before")):
        arguments = [f"--{flag}={value}" for flag, value in flags.items()]
        found = watch(nmt("train", *arguments, "--output", folder / f"model{number}"))
        begun = [seconds for seconds, line in found.lines if line.startswith("model:")]
        if not begun:
            raise BenchmarkError(f"nmt train did not say when it began: {found.text[-200:]}")
        note = f"until the first update; {found.peak:.2f} GB at most until the end"
        report.time("", name, begun, 0, note, peak_memory_gb=found.peak)
