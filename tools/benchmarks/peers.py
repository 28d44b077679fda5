"""OpenNMT-py and JoeyNMT beside us: the same pieces, network, batch and machine, one after the other, and the ratios.

Each trains the same number of updates and translates the same lines with what it has learnt; their speed is what their
own logs say, without start-up. Their input is in pieces already; ours is raw text, and tokenised on the way.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast, get_args

import torch
from arguments import whole

from benchmarks import text as texts
from benchmarks import train
from benchmarks.joeynmt import JOEYNMT
from benchmarks.measure import Report, multiplies_bf16, spread
from benchmarks.opennmt import OPENNMT
from benchmarks.processes import BenchmarkError
from benchmarks.systems import Setting, Speed, System, environment
from benchmarks.text import Text
from nmt import translator as translators
from nmt.answers import AnswerOptions
from nmt.evaluation import read_lines
from nmt.model.seq2seq import ModelOptions, Seq2Seq
from nmt.search import SearchOptions
from nmt.shortlist import learn
from nmt.tokenizer import EOS
from nmt.training import choose_precision
from nmt.translator import Translator

LISTED = "shortlist"
SYSTEMS = {"opennmt": OPENNMT, "joeynmt": JOEYNMT}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    texts.add_text_options(parser)
    parser.add_argument("--source", metavar="FILE", help="text to translate; default: the first lines of the corpus")
    parser.add_argument("--most", type=whole(1), default=1000, metavar="LINES", help="of it; default: 1000")
    parser.add_argument("--singly", type=whole(1), default=100, metavar="LINES", help="one at a time; default: 100")
    parser.add_argument("--peers", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS), help="default: all")
    parser.add_argument("--attention", default="general", choices=["general", "none"])
    parser.add_argument("--hidden", type=whole(1), default=512, help="default: 512")
    parser.add_argument("--embedding", type=whole(1), default=512, help="default: 512")
    parser.add_argument("--layers", type=whole(1), default=2, help="default: 2")
    parser.add_argument("--sentences", type=whole(1), default=128, help="of a training batch; default: 128")
    parser.add_argument("--updates", type=whole(1), default=400, help="default: 400")
    parser.add_argument("--every", type=whole(1), default=50, help="updates timed together; default: 50")
    parser.add_argument("--beam-size", type=whole(1), nargs="+", default=[5, 1], help="default: 5 and 1")
    parser.add_argument(
        "--batch-sizes",
        type=whole(1),
        nargs="+",
        default=[16, 64, 256],
        metavar="N",
        help="sentences; default: 16 64 256",
    )
    parser.add_argument("--longest", type=whole(1), default=100, help="pieces of a translation; default: 100")
    parser.add_argument(
        "--venvs", type=Path, default=Path("~/.cache/nmt-bench"), help="where they are installed; default: %(default)s"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """All of them in turn. BenchmarkError for a GPU: the others are set up for a CPU."""
    if report.device.type != "cpu":
        raise BenchmarkError("peers are compared on the CPU: leave out --device")
    if options.updates < 2 * options.every:
        raise BenchmarkError(
            f"--updates {options.updates} are no two stretches of --every {options.every}: make them more"
        )
    systems = [SYSTEMS[name] for name in options.peers]
    for system in systems:
        if options.attention not in system.attentions:
            report.say(f"{system.name} has no model with attention {options.attention}: left out")
    systems = [system for system in systems if options.attention in system.attentions]
    pythons = [environment(system, options.venvs.expanduser()) for system in systems]
    with tempfile.TemporaryDirectory() as name:
        text = texts.prepare(options, Path(name))
        setting = settings(options, Path(name))
        source = write_pieces(options, text, setting.folder)
        found: dict[str, Any] = {"ours": Ours(options, report, text, source)}
        found |= {system.name: Peer(system, python, setting) for system, python in zip(systems, pythons, strict=True)}
        training(report, found)
        translating(options, report, found)


def settings(options: argparse.Namespace, folder: Path) -> Setting:
    """What every system is told."""
    own = {name: getattr(options, name) for name in Setting._fields if hasattr(options, name)}
    return Setting(**{**own, "folder": folder, "threads": torch.get_num_threads()})


# ---- text


def write_pieces(options: argparse.Namespace, text: Text, folder: Path) -> list[str]:
    """The corpus, the text to translate and the vocabulary, in pieces, for the others; that text raw, for us."""
    pairs = texts.read(text.data)
    source = read_lines(options.source) if options.source else [pair.source for pair in pairs]
    source = source[: options.most]
    tokenizer = text.tokenizers.source
    sides = {
        "train.src": [pair.source for pair in pairs],
        "train.tgt": [pair.target for pair in pairs],
        **{f"{name}.{side}": source[:most] for side in ("src", "tgt") for name, most in parts(options).items()},
    }
    for name, lines in sides.items():
        rows = tokenizer.encode(lines, threads=torch.get_num_threads())
        (folder / name).write_text("".join(" ".join(tokenizer.pieces(row)) + "\n" for row in rows), encoding="utf8")
    pieces = [piece for piece in tokenizer.pieces(range(EOS + 1, tokenizer.size)) if piece.split() == [piece]]
    (folder / "vocabulary.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf8")
    (folder / "vocabulary.counted").write_text("".join(f"{piece}\t1\n" for piece in pieces), encoding="utf8")
    return source


def parts(options: argparse.Namespace) -> dict[str, int]:
    """The texts that are translated, and how many lines each has."""
    return {"test": options.most, "few": options.singly, "tiny": 2}


# ---- measuring


class Peer:
    """Another system, in its environment."""

    def __init__(self, system: System, python: Path, setting: Setting) -> None:
        self.system, self.python, self.setting = system, python, setting
        self.kinds = self.precisions = ["fp32"]

    def train(self, kind: str) -> list[float]:
        """Target words a second of each stretch of updates but the first."""
        return self.system.train(self.python, self.setting)

    def translate(self, kind: str, name: str, beam: int, batch: int) -> Speed:
        """One of the texts, in batches of so many sentences."""
        return self.system.translate(self.python, self.setting, name, beam, batch)


class Ours:
    """This translator, in this process."""

    def __init__(self, options: argparse.Namespace, report: Report, text: Text, source: list[str]) -> None:
        self.options, self.text, self.source, self.device = options, text, source, report.device
        offered = [name for name in get_args(translators.Precision) if name not in ("auto", "bf16")]
        in_hardware = ["bf16"] if multiplies_bf16(report.device) else []
        self.kinds, self.precisions = ["fp32", *in_hardware], [*offered, f"int8 {LISTED}", *in_hardware]
        self.model: Seq2Seq | None = None
        self.shortlist = learn(text.table, (text.tokenizers.source.size, text.tokenizers.target.size))

    def train(self, kind: str) -> list[float]:
        """Target words a second of each stretch of updates but the first; the last model is what translates."""
        options = self.options
        shape = ModelOptions(
            attention=options.attention,
            embedding_size=options.embedding,
            hidden_size=options.hidden,
            encoder_layers=options.layers,
            decoder_layers=options.layers,
            tie_embeddings="all",
        )
        precision = choose_precision(cast(Any, kind), self.device)
        loop = train.Loop(self.text, shape, precision, self.device, options.seed, 0, options.sentences)
        found = train.measure(loop, options.every, options.every, options.updates // options.every - 1)
        self.model = found.model.eval()
        return found.rates

    def translate(self, kind: str, name: str, beam: int, batch: int) -> Speed:
        """The same lines, in as many pieces as a batch of so many sentences of the mean length has.

        The kind is a precision, and whether with a shortlist.
        """
        precision, _, listed = kind.partition(" ")
        lines = self.source[: parts(self.options)[name]]
        lengths = map(len, self.text.tokenizers.source.encode(lines))
        tokens = batch * beam * math.ceil(statistics.mean(lengths) + 1)
        search = SearchOptions(beam_size=beam, max_length=self.options.longest, max_length_ratio=1e3)
        assert self.model is not None
        translator = Translator(
            self.model,
            self.text.tokenizers,
            search,
            precision=cast(Any, precision),
            batch_tokens=tokens,
            shortlist=self.shortlist if listed else None,
            answers=AnswerOptions(priced=False),
        )
        list(translator.translate(lines[:2]))  # no more than the others have had: two lines
        start = time.perf_counter()
        if batch == 1:
            answers = [answer for line in lines for answer in translator.translate([line])]
        else:
            answers = list(translator.translate(lines))
        seconds = time.perf_counter() - start
        return Speed(seconds, len(lines), sum(len(answer.candidates[0].pieces) for answer in answers))


def training(report: Report, found: dict[str, Any]) -> None:
    """Words a second, and ours over theirs."""
    speeds: dict[tuple[str, str], float] = {}
    for name, system in found.items():
        for kind in system.kinds:
            rates = system.train(kind)
            speeds[name, kind] = statistics.median(rates)
            report.say(
                f"{kind:4} {name:<12} trains {speeds[name, kind]:8,.0f} target words/s +-{spread(rates) / 2:3.0%}, "
                f"best stretch {max(rates):,.0f}",
                kind=kind,
                name=name,
                what="training",
                words_per_second=speeds[name, kind],
                best=max(rates),
                spread=spread(rates),
            )
    ratios(report, "training", speeds)


def translating(options: argparse.Namespace, report: Report, found: dict[str, Any]) -> None:
    """Sentences a second at each system's best size of batch, and one at a time; ours over theirs."""
    for beam in options.beam_size:
        what = f"beam {beam}" if beam > 1 else "greedy"
        batch: dict[tuple[str, str], float] = {}
        alone: dict[tuple[str, str], float] = {}
        for name, system in found.items():
            for kind in system.precisions:
                sizes = {size: system.translate(kind, "test", beam, size) for size in options.batch_sizes}
                best = fastest(sizes)
                passes = [system.translate(kind, "few", beam, 1) for _ in range(3)]
                single = sorted(passes, key=lambda each: each.seconds)[
                    1
                ]  # one sentence waits for all cores, so chance is large
                batch[name, kind] = sizes[best].sentences / sizes[best].seconds
                alone[name, kind] = single.sentences / single.seconds
                figures = {
                    "kind": kind,
                    "name": name,
                    "what": what,
                    "batch": best,
                    "ms": 1000 / alone[name, kind],
                    "sentences_per_second": batch[name, kind],
                    "pieces_per_second": sizes[best].pieces / sizes[best].seconds,
                    "pieces_per_sentence": sizes[best].pieces / sizes[best].sentences,
                }
                report.say(
                    f"{kind:4} {name:<12} {what}: {figures['sentences_per_second']:8,.1f} sentences/s "
                    f"({figures['pieces_per_second']:,.0f} pieces/s, {figures['pieces_per_sentence']:.1f} pieces a "
                    f"sentence) in batches of {best}; one at a time {figures['ms']:.1f} ms",
                    **figures,
                )
        ratios(report, what, batch)
        ratios(report, f"{what}, one at a time", alone)


def fastest(sizes: dict[int, Speed]) -> int:
    """The size of batch that gave the most sentences a second."""
    return max(sizes, key=lambda size: sizes[size].sentences / sizes[size].seconds)


def ratios(report: Report, what: str, speeds: dict[tuple[str, str], float]) -> None:
    """Ours over each of theirs."""
    for (name, _), speed in speeds.items():
        for (ours, kind), own in speeds.items():
            if name != "ours" == ours:
                text = f"     {what}: ours in {kind} is {own / speed:.2f} x {name}"
                report.say(text, kind=kind, name=name, what=f"{what}, ratio", ratio=own / speed)
