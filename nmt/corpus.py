"""Parallel text, read pair by pair, with every fault named by file and line.

Lines end at a line feed and nowhere else: `str.splitlines` and text mode also break at a lone CR or U+2028, which
shifts all later pairs against each other.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

Languages = tuple[str, str]


class Pair(NamedTuple):
    """Two strings that are each other's translation."""

    source: str
    target: str


@dataclass(frozen=True)
class DataOptions:
    """What to learn from. A source is any of these, and each of the three lists may hold several.

    `path/train` for `path/train.en` and `path/train.de` (or `.gz`); `a.txt,b.txt`; `a.tsv` (source, tab, target);
    `a.jsonl` (keys `en` and `de`, or `source` and `target`, or `translation`); `hf:NAME[:CONFIG][@SPLIT]`, a Hugging
    Face data set by its name on the hub or its folder. A language model also takes a plain text file, a sentence a
    line, and of parallel text the target side.

    Attributes:
        train: sources to train on; a flag given again adds one.
        validation: sources to choose the best model by.
        test: sources to report on.
        source_language: code of the language translated from; ends the names of its files.
        target_language: code of the language translated into.
        max_length: pieces; a pair with more on either side, or a language model's sentence, is dropped and counted.
        workers: threads that encode; 0 is one per core.
        cache: folder for encoded text; by default $XDG_CACHE_HOME/nmt or ~/.cache/nmt.
    """

    train: str | list[str] = field(default_factory=list)
    validation: str | list[str] = field(default_factory=list)
    test: str | list[str] = field(default_factory=list)
    source_language: str = "en"
    target_language: str = "de"
    max_length: int = 200
    workers: int = 0
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError(f"data.max_length is {self.max_length}; a sentence has at least 1 piece")
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; it is 0 (one per core) or more")

    def check_sides(self) -> None:
        """ValueError for text that would be its own translation, because both languages are the same."""
        for source in [*sources(self.train), *sources(self.validation), *sources(self.test)]:
            told_apart = bool(two_files(source, self.languages)) or source.removesuffix(".gz").endswith(".tsv")
            if self.source_language == self.target_language and not told_apart:
                raise ValueError(
                    f"data.source_language and data.target_language are both {self.source_language}, so that {source} "
                    "would be its own translation: set both"
                )

    @property
    def languages(self) -> Languages:
        """The codes of (source, target)."""
        return self.source_language, self.target_language


@dataclass
class Report:
    """What became of the pairs that were read; counted up while they are."""

    read: int = 0
    blank: int = 0
    too_long: int = 0

    @property
    def kept(self) -> int:
        """Pairs that were neither blank nor too long."""
        return self.read - self.blank - self.too_long

    def __str__(self) -> str:
        dropped = f"{self.blank:,} with a blank side, {self.too_long:,} too long"
        return f"{self.read:,} pairs read, {self.kept:,} kept; dropped: {dropped}"


def sources(value: str | list[str]) -> list[str]:
    """The list of sources that an option gives, which may be one plain string."""
    return [value] if isinstance(value, str) else list(value)


def read_pairs(source: str, languages: Languages, split: str, report: Report | None = None) -> Iterator[Pair]:
    """Yield the pairs of one source, line by line; a pair with a blank side is dropped and counted in `report`.

    `split` (train, validation, test) says which part of an `hf:` source is meant. Raises FileNotFoundError,
    IsADirectoryError, ConnectionError or ValueError, each in one line with the file, the line and the way out.
    """
    report = Report() if report is None else report
    kept = 0
    for pair in all_pairs(source, languages, split):
        report.read += 1
        if is_blank(pair):
            report.blank += 1
        else:
            kept += 1
            yield pair
    if not kept:
        raise nothing_in(source)


def all_pairs(source: str, languages: Languages, split: str) -> Iterator[Pair]:
    """Pairs of one source, one for each line or row, blank or not."""
    if source.startswith("hf:"):
        return hub_pairs(source, languages, split)
    paths = files(source, languages)
    return aligned(*paths) if len(paths) == 2 else rows(paths[0], languages)


def is_blank(pair: Pair) -> bool:
    """Whether either side says nothing."""
    return not pair.source.strip() or not pair.target.strip()


def nothing_in(source: str) -> ValueError:
    """The error for a source without a usable pair."""
    return ValueError(f"{source} has no usable pair: it is empty, or one side of every line is blank")


def fingerprint(source: str, languages: Languages, split: str) -> str:
    """A digest of what a source holds: the bytes of its files, wherever they lie, or the data set's own fingerprint.

    Where the languages choose among its columns they belong to it.
    """
    chosen = " ".join(languages)
    if source.startswith("hf:"):
        return f"{chosen} {load_hub(source, split)._fingerprint}"
    digests = [chosen] if source.removesuffix(".gz").endswith(".jsonl") else []
    for path in files(source, languages):
        with path.open("rb") as file:
            digests.append(path.suffix + hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(digests)


# ---- files ----


def files(source: str, languages: Languages) -> tuple[Path, ...]:
    """The file of a table, or the files of the two sides, all of which exist."""
    if parts := two_files(source, languages):
        if len(parts) != 2:
            raise ValueError(f"{source} names {len(parts)} files; a corpus is two: SOURCE,TARGET")
        for part in parts:
            if part.removesuffix(".gz").endswith((".tsv", ".jsonl")):
                raise ValueError(
                    f"{source}: {part} has both sides in it, and is none itself; several such files are [{source}], or "
                    "the same option again for each"
                )
        return tuple(existing([part]) for part in parts)
    if source.removesuffix(".gz").endswith((".tsv", ".jsonl")):
        return (existing([source]),)
    if Path(source).is_dir():
        raise IsADirectoryError(f"{source} is a folder: name its corpus, as {source.rstrip('/')}/train")
    refuse_format(source)
    for language in languages:
        if Path(source).is_file() and source.removesuffix(".gz").endswith("." + language):
            raise FileNotFoundError(f"{source} is one side: leave out .{language}, both languages' endings are added")
    sides = [[f"{source}.{language}", f"{source}.{language}.gz"] for language in languages]
    return existing(sides[0], sides[1]), existing(sides[1], sides[0])


def two_files(source: str, languages: Languages) -> list[str]:
    """The files of a source that names both, SOURCE,TARGET; none for one whose own name has a comma, or has none."""
    whole = [source, *(f"{source}.{language}{end}" for language in languages for end in ("", ".gz"))]
    if "," not in source or any(Path(name).is_file() for name in whole):
        return []
    return [part.strip() for part in source.split(",")]


def refuse_format(source: str) -> None:
    """ValueError for a file of a format that is not read."""
    suffix = Path(source.removesuffix(".gz")).suffix.lower()
    if Path(source).is_file() and suffix in (".tmx", ".csv", ".parquet", ".json", ".xml", ".xlsx", ".arrow", ".zip"):
        raise ValueError(
            f"{source}: {suffix[1:]} is not read here; make it .tsv (source, tab, target), .jsonl, two plain text "
            "files, or give parquet, json and csv as a data set (hf:FOLDER)"
        )


def existing(names: list[str], other_side: Sequence[str] = ()) -> Path:
    """The first of the names that is a file; the files of the other side were not meant."""
    for path in map(Path, names):
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder, not a file")
        if path.is_file():
            return path
    raise FileNotFoundError(f"there is no {' or '.join(names)}{nearest(Path(names[0]), other_side)}")


def nearest(path: Path, but: Sequence[str] = ()) -> str:
    """A hint at the file that may have been meant, none of those in `but`."""
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return f": {path.parent} is not a folder"
    there = {other.name for other in path.parent.iterdir()} - {Path(name).name for name in but}
    close = get_close_matches(path.name, sorted(there), n=1)
    return f"; did you mean {path.with_name(close[0])}?" if close else ""


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file, plain or .gz, without their ends (LF or CRLF) and without a byte order mark."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield text(line, path, number)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is cut short or not gzip ({error}): copy it again") from error


def text(line: bytes, path: Path, number: int) -> str:
    """One line decoded."""
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        decoded = line.decode("utf-8")
    except UnicodeDecodeError as error:
        coding = "utf-16" if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        raise ValueError(
            f"{path}:{number} is not UTF-8: its byte {error.start + 1} is 0x{line[error.start]:02x}. "
            f"Convert the file, perhaps with `iconv -f {coding} -t utf-8`"
        ) from error
    if "\0" in decoded:
        raise ValueError(f"{path}:{number} has a NUL character: the file is binary, UTF-16 or damaged, not UTF-8 text")
    return decoded.removesuffix("\n").removesuffix("\r")


def aligned(source: Path, target: Path) -> Iterator[Pair]:
    """Pairs of two files whose lines answer each other."""
    for number, (left, right) in enumerate(zip_longest(lines(source), lines(target)), 1):
        if left is None:
            raise not_parallel(source, target, ended=source, longer=target, number=number, line=right)
        if right is None:
            raise not_parallel(source, target, ended=target, longer=source, number=number, line=left)
        yield Pair(left, right)


def not_parallel(source: Path, target: Path, ended: Path, longer: Path, number: int, line: str) -> ValueError:
    """The error for two files of unequal length."""
    return ValueError(
        f"{source} and {target} are not parallel: {ended} ends after line {number - 1}, "
        f"but {longer}:{number} reads {line[:80]!r}. Each line needs its translation on the same line of the other "
        "file; look for a line lost or split earlier."
    )


def rows(path: Path, languages: Languages) -> Iterator[Pair]:
    """Pairs of a .tsv or .jsonl file; a blank line is a blank pair."""
    parse = json_pair if path.name.removesuffix(".gz").endswith(".jsonl") else tsv_pair
    for number, line in enumerate(lines(path), 1):
        yield parse(line, languages, f"{path}:{number}") if line.strip() else Pair("", "")


def tsv_pair(line: str, _languages: Languages, place: str) -> Pair:
    """Source, tab, target; quotes mean nothing."""
    columns = line.split("\t")
    if len(columns) != 2:
        raise ValueError(f"{place} has {len(columns)} column{'s' * (len(columns) > 1)}, not 2: source, tab, target")
    return Pair(*columns)


def json_pair(line: str, languages: Languages, place: str) -> Pair:
    """One JSON object."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place} is not a JSON object with the two sentences")
    return row_pair(row, columns(list(row), languages, place), languages, place)


# ---- rows with names: JSON lines and data sets ----


def columns(names: Sequence[str], languages: Languages, place: str) -> tuple[str, ...]:
    """The columns that hold the sentences: two, or the one that holds both."""
    for wanted in (languages, ("source", "target"), ("translation",)):
        if set(wanted) <= set(names):
            return wanted
    expected = f"{' and '.join(languages)}, source and target, or translation"
    raise ValueError(f"{place} has the fields {', '.join(names)}; expected {expected}")


def row_pair(row: Mapping[str, Any], names: tuple[str, ...], languages: Languages, place: str) -> Pair:
    """The two sentences of a row, each on one line."""
    if names == ("translation",):
        inner = row["translation"]
        if not isinstance(inner, Mapping) or not set(languages) <= set(inner):
            raise ValueError(f"{place} has no translation in both {' and '.join(languages)}: {str(inner)[:80]!r}")
        row, names = inner, languages
    return Pair(*(sentence(row[name], f"{place}, {name},") for name in names))


def sentence(value: object, place: str) -> str:
    """A value that must be text, on one line."""
    if not isinstance(value, str):
        raise ValueError(f"{place} is not text but {str(value)[:80]!r}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{place} has a NUL character or half a surrogate pair: {value[:80]!r}")
    return value.replace("\r\n", " ").replace("\r", " ").replace("\n", " ")


def load_hub(source: str, split: str) -> Any:
    """The `datasets.Dataset` behind `hf:NAME[:CONFIG][@SPLIT]`: memory-mapped, from the hub or a folder."""
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    name, _, chosen = source.removeprefix("hf:").partition("@")
    name, _, config = name.partition(":")
    split = chosen or split
    if not name:
        raise ValueError(f"{source} names no data set: it should read like hf:NAME, hf:NAME:CONFIG or hf:FOLDER")
    try:
        if any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json")):
            saved = datasets.load_from_disk(name)
        else:
            return datasets.load_dataset(name, config or None, split=split)
    except ConnectionError as error:
        raise ConnectionError(
            f"cannot reach the hub for {source}; check the name or the network, or use local files"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no data set {source}: {one_line(error)}") from error
    except (ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"cannot read {source}, split {split}: {one_line(error)}") from error
    return saved_split(saved, source, chosen, split)


def saved_split(saved: Any, source: str, chosen: str, split: str) -> Any:
    """The part of a saved data set that is `chosen` by name, or that the role, `split`, chooses if it has parts."""
    parts = saved if isinstance(saved, dict) else {}
    if not parts and not chosen:
        return saved
    if split not in parts:
        there = f"there are {', '.join(parts)}" if parts else "what was saved there is one data set, without splits"
        raise ValueError(f"cannot read {source}, split {split}: {there}")
    return parts[split]


def one_line(error: Exception) -> str:
    """What another library says, on one line."""
    return " ".join(str(error).split())


def hub_pairs(source: str, languages: Languages, split: str) -> Iterator[Pair]:
    """Pairs of a data set, a thousand rows in memory at a time."""
    dataset = load_hub(source, split)
    names = columns(dataset.column_names, languages, source)
    batches = dataset.select_columns(list(names)).iter(batch_size=1000)
    values = chain.from_iterable(zip(*(batch[name] for name in names), strict=True) for batch in batches)
    for number, row in enumerate(values, 1):
        yield row_pair(dict(zip(names, row, strict=True)), names, languages, f"{source}:{number}")
