"""How good translations are: BLEU, chrF and TER as sacrebleu computes them, with their signatures."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

METRICS = ("bleu", "chrf", "ter")


@dataclass(frozen=True)
class Score:
    """One figure for a whole corpus, in percent. Of BLEU and chrF more is better, of TER less."""

    name: str
    score: float
    signature: str  # how it was computed: two scores compare only where their signatures agree


def evaluate(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = METRICS,
    *,
    lowercase: bool = False,
    language: str = "",
    tokenize: str | None = None,
) -> list[Score]:
    """Score hypotheses against one or more sets of references, each set with one line per hypothesis.

    BLEU splits words by `tokenize` (13a, intl, char, zh, ja-mecab, ...), or else as the target `language` needs it: zh,
    ja and ko have their own. TER ignores case, as is its custom. Raises ValueError if there is nothing to score, if
    line counts differ, or if a metric or tokenizer is unknown.
    """
    check_counts(hypotheses, references)
    scores = []
    for metric in build_metrics(metrics, lowercase, language, tokenize):
        result = metric.corpus_score(hypotheses, references)
        scores.append(Score(result.name, result.score, str(metric.get_signature())))
    return scores


def check_counts(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    called: tuple[str, str] = ("hypotheses", "the file of translations"),
) -> None:
    """Refuse what sacrebleu would cut to the shorter side without a word; `called` are the lines, and their file."""
    if not hypotheses:
        raise ValueError(f"no {called[0]} to score: {called[1]} is empty")
    if not references:
        raise ValueError("no references to score against: give at least one set")
    for number, lines in enumerate(references, start=1):
        if len(lines) != len(hypotheses):
            where = f" in set {number}" if len(references) > 1 else ""
            raise ValueError(
                f"{len(hypotheses)} {called[0]} but {len(lines)} references{where}: line i of one must translate the "
                "same sentence as line i of the other, and a blank translation still needs its line"
            )


def build_metrics(metrics: Sequence[str], lowercase: bool, language: str, tokenize: str | None) -> list["Metric"]:
    """The sacrebleu metrics of these names."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    for name in metrics:
        if name not in METRICS:
            raise ValueError(f"metric {name!r} is unknown; known are {', '.join(METRICS)}")
    if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"tokenizer {tokenize!r} is unknown; sacrebleu knows {', '.join(sorted(BLEU.TOKENIZERS))}")
    known: dict[str, Callable[[], Metric]] = {
        "bleu": lambda: BLEU(lowercase=lowercase, tokenize=tokenize, trg_lang=language),
        "chrf": lambda: CHRF(lowercase=lowercase),
        "ter": TER,
    }
    return [known[name]() for name in metrics]


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, plain or .gz, or of standard input for `-`, split at line feeds.

    A BOM, and CR before LF, go. ValueError for a line that is not UTF-8, and for a .gz that is none.
    """
    piped = str(path) == "-"
    if piped and sys.stdin is None:
        raise ValueError("standard input is closed: give a file, or a pipe")
    data = sys.stdin.buffer.read() if piped else Path(path).read_bytes()
    if str(path).endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is cut short or not gzip ({error}): copy it again") from error
    try:
        lines = [line.removesuffix("\r") for line in data.decode("utf-8").removeprefix("\ufeff").split("\n")]
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        name = "standard input" if piped else path
        coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        raise ValueError(
            f"{name}:{line}: byte 0x{byte:02x} is not UTF-8: convert it, perhaps with `iconv -f {coding} -t utf-8`"
        ) from None
    return lines[:-1] if lines[-1] == "" else lines


def render(scores: Sequence[Score]) -> str:
    """A table for people, a line per metric."""
    return "\n".join(f"{score.name + ' ':<6}{score.score:7.2f}  {score.signature}" for score in scores)


def to_json(scores: Sequence[Score]) -> str:
    """JSON lines for programs, a line per metric."""
    return "\n".join(json.dumps(asdict(score)) for score in scores)
