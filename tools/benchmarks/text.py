"""The text that is trained on and translated: a corpus of yours, or the quick-start corpus that ships."""

import argparse
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from arguments import whole

from nmt import corpus
from nmt.batches import EncodedCorpus, encode_corpus
from nmt.checkpoint import Tokenizers
from nmt.corpus import DataOptions, Pair
from nmt.quickstart import shipped
from nmt.tokenizer import TokenizerOptions, train_tokenizer


class Text(NamedTuple):
    """A corpus, its vocabulary, and its table of ids."""

    data: DataOptions
    tokenizers: Tokenizers
    table: EncodedCorpus


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Which text."""
    parser.add_argument(
        "--corpus",
        metavar="STEM",
        help="parallel text as data.train names it: multi30k/train for train.en and train.de; default: the "
        "quick-start corpus that ships",
    )
    parser.add_argument("--source-language", default="en", metavar="CODE", help="default: en")
    parser.add_argument("--target-language", default="de", metavar="CODE", help="default: de")
    parser.add_argument(
        "--vocabulary",
        type=whole(1),
        metavar="PIECES",
        help="default: 8000, and 2000 for the quick-start corpus",
    )


def data_options(options: argparse.Namespace, cache: Path) -> DataOptions:
    """The corpus, encoded into a cache of our own."""
    stem = options.corpus or str(shipped("quickstart") / "train")
    return DataOptions(
        stem,
        source_language=options.source_language,
        target_language=options.target_language,
        cache=str(cache / "cache"),
    )


def read(data: DataOptions) -> list[Pair]:
    """All pairs of a corpus. OSError or ValueError say what is missing or wrong."""
    return [pair for name in corpus.sources(data.train) for pair in corpus.read_pairs(name, data.languages, "train")]


def learn(pairs: Iterable[Pair], vocabulary: int, folder: Path) -> Tokenizers:
    """A joint vocabulary, written to folder/tokenizer.spm."""
    sides = (side for pair in pairs for side in pair)
    return Tokenizers(*[train_tokenizer(sides, TokenizerOptions(vocab_size=vocabulary), folder / "tokenizer.spm")] * 2)


def prepare(options: argparse.Namespace, folder: Path) -> Text:
    """Learn the vocabulary and encode the corpus, all within a folder."""
    data = data_options(options, folder)
    tokenizers = learn(read(data), options.vocabulary or (8000 if options.corpus else 2000), folder)
    table, report = encode_corpus(data.train, "train", data, *tokenizers)
    print(f"{data.train}: {report}; {tokenizers.source.size:,} pieces in the vocabulary")
    return Text(data, tokenizers, table)


def generated(pairs: list[Pair], count: int, seed: int) -> Iterator[Pair]:
    """So many pairs, drawn from these with repetition."""
    draw = random.Random(seed)
    return (draw.choice(pairs) for _ in range(count))
