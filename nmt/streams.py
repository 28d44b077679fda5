"""What flows through the command line: lines in, files out that appear whole, and the formats of translations."""

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

if TYPE_CHECKING:
    from nmt.answers import Candidate, Translation

STDOUT = "standard output"
OPEN = re.compile(r"/(dev/(stdout|stderr|fd/\d+)|proc/[^/]+/fd/\d+)$")  # names of what this process has open


def called(name: str) -> str:
    """What a file to read is called in errors."""
    return "standard input" if name == "-" else name


@contextmanager
def reading(name: str) -> Iterator[Iterable[str]]:
    """Lines of a file, plain or .gz, or of standard input, split at line feeds only.

    ValueError names a line that is not UTF-8, and a file that is cut short.
    """
    if name == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed: give a file, or a pipe")
        yield _decoded(sys.stdin.buffer, "standard input")
        return
    with gzip.open(name) if name.endswith(".gz") else Path(name).open("rb") as stream:
        yield _decoded(stream, name)  # type: ignore[arg-type]  # a GzipFile is as binary


def _decoded(stream: BinaryIO, name: str) -> Iterator[str]:
    for number, raw in enumerate(_raw(stream, name), 1):
        try:
            line = raw.decode("utf8").removesuffix("\n").removesuffix("\r")
            yield line if number > 1 else line.removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            coding = "utf-16" if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
            raise ValueError(
                f"{name}:{number} is not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1}): "
                f"convert it, perhaps with `iconv -f {coding} -t utf-8`"
            ) from error


def _raw(stream: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        yield from stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} is cut short or not gzip ({error}): copy it again") from error


@contextmanager
def writing(name: str) -> Iterator[TextIO]:
    """Standard output, or a file that appears whole when all is written, compressed if it is called .gz.

    What is no file, or is open already (/dev/stdout, /dev/fd/63), is written to as it comes, at its end.
    """
    from nmt.checkpoint import whole

    path = Path(name).resolve()
    if name == "-":
        sys.stdout.reconfigure(encoding="utf8", newline="\n")  # type: ignore[union-attr]
        with naming(STDOUT):
            yield sys.stdout
    elif OPEN.match(str(Path(name).absolute())) or (Path(name).exists() and not Path(name).is_file()):
        with naming(name), Path(name).open("a", encoding="utf8", newline="\n") as output:
            yield output
    else:
        plain = Path.open if path.suffix != ".gz" else gzip.open
        with whole(path) as beside, plain(beside, "wt", encoding="utf8", newline="\n") as output:
            yield output


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say where it was that writing failed: a full disk does not."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename:
            raise
        raise OSError(error.errno, f"cannot write it: {error.strerror or error}", name) from error


def in_step(*named: tuple[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """The lines of several named streams that answer each other line by line.

    ValueError, with file and line, where one ends before another.
    """
    names = [called(name) for name, _ in named]
    for number, found in enumerate(zip_longest(*(lines for _, lines in named)), 1):
        if None in found:
            ended = names[found.index(None)]
            longer, line = next((name, line) for name, line in zip(names, found, strict=True) if line is not None)
            raise ValueError(
                f"{ended} ends after line {number - 1}, but {longer}:{number} reads {line[:80]!r}: each line needs its "
                "line in the other file, a blank one for nothing"
            )
        yield found


def write_text(number: int, answer: "Translation", output: TextIO, *, with_links: bool = False) -> None:
    """The best translation, and behind it, if asked for, which words belong together: `text ||| 0-0 1-2`."""
    output.write((f"{_field(answer.text)} ||| {_links(answer.candidates[0])}" if with_links else answer.text) + "\n")


def write_n_best(number: int, answer: "Translation", output: TextIO, *, with_links: bool = False) -> None:
    """All candidates, as Moses lists them, links in the last field; lines count from 0, scores are natural logarithms.

    Of pieces, `length` has EOS too.
    """
    for candidate in answer.candidates:
        features = f"log_prob= {candidate.log_prob:.4f} length= {len(candidate.pieces) + 1}"
        links = f" ||| {_links(candidate)}" if with_links else ""
        output.write(f"{number} ||| {_field(candidate.text)} ||| {features} ||| {candidate.score:.4f}{links}\n")


def _field(text: str) -> str:
    """A text as a field between bars: its own bars, three in a row, are spelt as Moses spells them."""
    return text.replace("|||", "&#124;" * 3)


def write_json(number: int, answer: "Translation", output: TextIO, *, with_n_best: bool = False) -> None:
    """All there is to know of a line; `alignment[t]` is the source piece that target piece t looked at most.

    A number one past the last piece is the end of the sentence. `word_alignment` is of the words of source and text,
    and `risk` names what looks wrong (see nmt/risk.py).
    """
    from nmt.risk import flags

    candidates = [
        {
            "translation": candidate.text,
            "score": candidate.score,
            "log_prob": candidate.log_prob,
            "tokens": candidate.pieces,
            "alignment": None if candidate.alignment is None else candidate.alignment.argmax(1).tolist(),
            "word_alignment": None if candidate.links is None else _links(candidate),
            "risk": flags(answer.source_pieces, candidate.pieces, candidate.log_prob, candidate.alignment),
        }
        for candidate in answer.candidates
    ]
    line = {"line": number, "source": answer.source, "source_tokens": answer.source_pieces, **candidates[0]}
    if with_n_best:
        line["n_best"] = candidates
    output.write(json.dumps(line, ensure_ascii=False) + "\n")


def _links(candidate: "Candidate") -> str:
    from nmt.alignment import pharaoh

    return pharaoh(candidate.links or [])
