"""Translating: sentences a second in batch, milliseconds one at a time, at every length, memory on endless input.

Pieces are those of the translations, without EOS. Useful work is counted as if every hypothesis of a beam were as long
as the translation that is returned. A model of random weights never ends by itself: then each translation is made as
long as its source.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, get_args

from arguments import whole

from benchmarks.measure import Report, multiplies_bf16, synchronise, timed
from benchmarks.models import add_model_options, model_folder, never_ending, saved_model
from benchmarks.processes import nmt, watch
from benchmarks.work import Words, work
from nmt import translator as translators
from nmt.answers import Translation
from nmt.batches import collate_sources
from nmt.checkpoint import SavedModel
from nmt.decoding import decode
from nmt.evaluation import check_counts, evaluate, read_lines
from nmt.quickstart import shipped
from nmt.search import SearchOptions
from nmt.tokenizer import BOS, EOS, PAD, UNK
from nmt.translator import Translator

LENGTHS = (10, 25, 50, 100, 200)
TOGETHER = 16  # sentences, when lengths are compared


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    add_model_options(parser)
    parser.add_argument("-s", "--source", metavar="FILE", help="text; default: the test text of the quick-start corpus")
    parser.add_argument("-r", "--reference", metavar="FILE", help="its translation, for BLEU")
    parser.add_argument("--precision", nargs="+", metavar="NAME", help="default: all that this machine has")
    parser.add_argument("--beam-size", type=whole(1), nargs="+", default=[5, 1], metavar="K", help="default: 5 and 1")
    parser.add_argument(
        "--batch-tokens",
        type=whole(1),
        nargs="+",
        default=[4096, 16384, 65536],
        metavar="N",
        help="the best one counts",
    )
    parser.add_argument("--most", type=whole(1), default=1000, metavar="LINES", help="lines of the text; default: 1000")
    parser.add_argument("--singly", type=whole(0), default=100, metavar="LINES", help="one at a time; default: 100")
    parser.add_argument("--repeats", type=whole(1), default=3, help="default: 3")
    parser.add_argument("--lengths", type=whole(1), nargs="*", default=LENGTHS, help="pieces; default: 10 to 200")
    parser.add_argument(
        "--lines", type=whole(1), nargs="*", default=[], metavar="N", help="memory of `nmt translate` on so many lines"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """In batch, one at a time, at every length, on endless input."""
    with tempfile.TemporaryDirectory() as folder:
        saved = saved_model(options, Path(folder))
        lines = read_lines(options.source or str(shipped("quickstart") / "test.en"))
        reference = read_lines(options.reference) if options.reference else []
        if reference:
            check_counts(lines, [reference])
        lines, reference = lines[: options.most], reference[: options.most]
        if not options.model:
            report.say("random weights: every translation is made as long as its source")
            never_ending(saved.model)
        kinds = precisions(options, report)
        for beam in options.beam_size:
            precise: float | None = None
            for precision in kinds:
                bench = Bench(saved, search(options, saved, beam), precision, report)
                answers = bench.in_batch(lines, options)
                if reference:
                    precise = bench.bleu(answers, reference, precise)
                if options.singly:
                    bench.singly(lines[: options.singly])
        growth(options, report, saved, lines, kinds[0])
    for count in options.lines:
        endless(options, report, count)


def search(options: argparse.Namespace, saved: SavedModel, beam: int) -> SearchOptions:
    """The model's own way to search, with this beam; of a random model, translations as long as their sources."""
    own = SearchOptions(**{**saved.config.get("search", {}), "beam_size": beam, "n_best": 1})
    return own if options.model else replace(own, max_length_ratio=1.0, max_length_offset=0)


def precisions(options: argparse.Namespace, report: Report) -> list[Any]:
    """Those asked for, or all that the translator offers and this machine has; fp32 first."""
    if options.precision:
        return list(options.precision)
    absent = {"auto"} if multiplies_bf16(report.device) else {"auto", "bf16"}
    if "bf16" in absent:
        report.say("bf16: not in hardware here, so not measured")
    absent |= {"int8"} if report.device.type != "cpu" else set()
    offered = (name for name in get_args(translators.Precision) if name not in absent)
    return sorted(offered, key=lambda name: name != "fp32")


class Bench:
    """One model, one search, one precision."""

    def __init__(self, saved: SavedModel, search: SearchOptions, precision: Any, report: Report) -> None:
        self.saved, self.search, self.precision, self.report = saved, search, precision, report
        self.name = f"beam {search.beam_size}" if search.beam_size > 1 else "greedy"
        self.kind = self.translator().precision

    def translator(self, **named: Any) -> Translator:
        """With a search of its own if one is given."""
        model = self.saved.model.to(self.report.device)
        search = named.pop("search", self.search)
        return Translator(model, self.saved.tokenizers, search, precision=self.precision, **named)

    def in_batch(self, lines: list[str], options: argparse.Namespace) -> list[Translation]:
        """Sentences a second at each size of batch; the answers."""
        answers: list[Translation] = []
        rates = {}
        for tokens in options.batch_tokens:
            translator = self.translator(batch_tokens=tokens)
            answers = everything(translator, lines)  # warms up
            run = partial(everything, translator, lines)
            seconds = timed({"": run}, options.repeats, 0, self.report.device)[""]
            rates[tokens] = statistics.median(seconds)
            self._say(f"{self.name}, batches of {tokens}", lines, answers, seconds)
        best = min(rates, key=lambda tokens: rates[tokens])
        self.report.say(f"     {self.name}: best with batches of {best}: {len(lines) / rates[best]:,.1f} sentences/s")
        return answers

    def _say(self, name: str, lines: list[str], answers: list[Translation], seconds: list[float]) -> None:
        pieces = sum(len(answer.candidates[0].pieces) for answer in answers)
        median = statistics.median(seconds)
        flops = work(self.saved.model).forward(words(answers, self.search.beam_size))
        figures = {"sentences_per_second": len(lines) / median, "pieces_per_second": pieces / median}
        note = f"{figures['sentences_per_second']:,.1f} sentences/s, {figures['pieces_per_second']:,.0f} pieces/s"
        self.report.time(self.kind, name, seconds, flops, note, pieces=pieces, **figures)

    def bleu(self, answers: list[Translation], reference: list[str], precise: float | None) -> float:
        """BLEU, and how far it is from that of fp32, which is returned."""
        [score] = evaluate([answer.text for answer in answers], [reference], metrics=("bleu",))
        apart = None if precise is None else score.score - precise
        note = "" if apart is None else f", {apart:+.2f} against the first precision"
        self.report.say(
            f"{self.kind:4} {self.name}: BLEU {score.score:.2f}{note} ({score.signature})",
            kind=self.kind,
            name=f"{self.name}, BLEU",
            bleu=score.score,
            against_first=apart,
        )
        return score.score if precise is None else precise

    def singly(self, lines: list[str]) -> None:
        """Milliseconds of a sentence that comes alone."""
        translator, seconds = self.translator(), []
        for line in chain(islice(lines, 3), lines):
            start = time.perf_counter()
            list(translator.translate([line]))
            synchronise(self.report.device)
            seconds.append(time.perf_counter() - start)
        seconds = sorted(seconds[-len(lines) :])
        mean = sum(seconds) / len(seconds)
        late = 1000 * seconds[int(0.95 * len(seconds))]
        note = f"of {len(seconds)} lines; mean {1000 * mean:.1f} ms, 95 % within {late:.1f} ms"
        self.report.time(self.kind, f"{self.name}, one at a time", seconds, 0, note, mean_ms=1000 * mean, p95_ms=late)


def everything(translator: Translator, lines: list[str]) -> list[Translation]:
    """All translations."""
    return list(translator.translate(lines))


def words(answers: Sequence[Translation], beam: int) -> Words:
    """What was read: EOS counted, a translation once for each hypothesis of the beam."""
    lengths = [(len(answer.source_pieces) + 1, beam * (len(answer.candidates[0].pieces) + 1)) for answer in answers]
    source, target = map(sum, zip(*lengths, strict=True))
    return Words(len(lengths), source, target, sum(one * other for one, other in lengths))


def growth(options: argparse.Namespace, report: Report, saved: SavedModel, lines: list[str], precision: Any) -> None:
    """Time of a piece as sentences and their translations grow together; it should stay the same."""
    never_ending(saved.model)
    for beam in options.beam_size:
        bench = Bench(saved, search(options, saved, beam), precision, report)
        for length in options.lengths:
            texts = [long_line(saved, lines, length, start) for start in range(TOGETHER)]
            limited = replace(bench.search, max_length=length, max_length_ratio=1e3)
            run = partial(together, bench.translator(search=limited), texts)
            seconds = timed({"": run}, options.repeats, 1, report.device)[""]
            piece = 1000 * statistics.median(seconds) / length
            note = f"{piece:.2f} ms for a piece of all {TOGETHER}"
            report.time(bench.kind, f"{bench.name}, {length} pieces", seconds, 0, note, ms_per_piece=piece)


def together(translator: Translator, lines: list[str]) -> None:
    """Search for the translations of all lines in one batch, which a translator would divide among the cores."""
    rows = translator.tokenizers.source.encode(lines)
    source, lengths = (part.to(translator.device) for part in collate_sources(rows))
    decode(translator.stepper, source, lengths, translator.search, bos=BOS, eos=EOS, banned=(PAD, BOS), unknown=UNK)


def long_line(saved: SavedModel, lines: list[str], length: int, start: int) -> str:
    """Lines joined until they have so many pieces, from the `start`-th on; cut there."""
    pieces: list[int] = []
    tokenizer = saved.tokenizers.source
    for line in islice(chain.from_iterable(repeat(lines)), start, None):
        pieces += tokenizer.encode([line])[0]
        if len(pieces) >= length:
            return str(tokenizer.decode([pieces[:length]])[0])
    raise AssertionError("unreachable")


def endless(options: argparse.Namespace, report: Report, count: int) -> None:
    """Memory of `nmt translate` in a process of its own, reading generated lines."""
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(options, Path(folder))
        lines = read_lines(options.source or str(shipped("quickstart") / "train.en"))
        text = islice(chain.from_iterable(repeat(lines)), count)
        command = nmt("translate", "-m", model, "-b", "1", "--max-length", "3", "-q")
        found = watch(command, text, keep=10)
        note = f"{count / found.seconds:,.0f} lines/s, {found.peak:.3f} GB"
        report.time("", f"nmt translate, {count:,} lines", [found.seconds], 0, note, peak_memory_gb=found.peak)
