"""`nmt tune`: the decoding options that serve a model best on development text, kept in its folder."""

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nmt.search_flags import add_machine_options, flag
from nmt.verbs import UsageError, add_verb, one_from_stdin

if TYPE_CHECKING:
    from nmt.tuning import Sweep, Trial, Tuning

log = logging.getLogger("nmt")

AXES = ("beam_sizes", "length_penalties", "length_rewards", "coverage_penalties")
USUAL = ("1,2,5,8,12", "0,0.5,1,1.5", "0.2,0.5,1, each in place of a penalty", "0,0.1,0.3, with attention")
COLUMNS = ("weights", "beam", "normalization", "penalty", "reward", "coverage", "BLEU", "seconds")


def add_tune(verbs: Any) -> None:
    """`nmt tune`."""
    verb = add_verb(verbs, tune, "find the beam size and penalties that are best on development text, and keep them")
    verb.add_argument("-m", "--model", required=True, metavar="FOLDER", help="the model folder, which keeps them")
    verb.add_argument("--data", metavar="SOURCE", help="development text, as data.validation: a prefix, a,b, .tsv ...")
    verb.add_argument("-s", "--source", metavar="FILE", help="or its source, and ...")
    verb.add_argument("-r", "--reference", action="append", default=[], metavar="FILE", help="... references")
    verb.add_argument("--dry-run", action="store_true", help="print what is found, and keep nothing")
    group = verb.add_argument_group("what is tried, one after the other, each at the best of those before")
    for name, kind, usual in zip(AXES, (int, float, float, float), USUAL, strict=True):
        group.add_argument(flag(name), type=_numbers(kind), metavar="X,...", help=f"default: {usual}")
    add_machine_options(verb)


def _numbers(kind: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    def parse(text: str) -> tuple[float, ...]:
        try:
            return tuple(kind(part) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 1,5,12") from error

    return parse


def tune(options: argparse.Namespace) -> None:
    """Sweep, print the table, and keep the winner."""
    from nmt.shortlist import load_shortlist
    from nmt.translator import choose_device
    from nmt.tuning import Tuning, sweep

    given = [bool(options.data), bool(options.source), bool(options.reference)]
    if given not in ([True, False, False], [False, True, True]):
        raise UsageError("tune needs development text: --data SOURCE, or -s FILE -r FILE")
    what = _sweep(options)
    tuning = Tuning.load(options.model, choose_device(options.device))
    if any(options.coverage_penalties or ()) and tuning.saved.config["model"]["attention"] == "none":
        raise UsageError(f"--coverage-penalties needs a model with attention, and {options.model} has none")
    sources, references = _text(options, tuning)
    settings: dict[str, Any] = {"precision": options.precision, "batch_tokens": options.batch_tokens}
    if options.shortlist:
        settings["shortlist"] = load_shortlist(options.model, tuning.saved.tokenizers)
    measure = tuning.measuring(sources, references, **settings)
    trials = sweep(tuning.start, list(tuning.weights), tuning.axes(what), measure, _log)
    print(table(trials))
    if options.dry_run:
        return
    tuning.store(trials, options.data or ",".join([options.source, *options.reference]), options.command)
    log.info("kept in %s", tuning.folder / "config.yaml")


def _sweep(options: argparse.Namespace) -> "Sweep":
    from nmt.search import SearchOptions
    from nmt.tuning import Sweep

    what = Sweep(**{name: value for name in AXES if (value := getattr(options, name)) is not None})
    try:
        for axis in what.axes("gnmt", attention=True):
            for change in axis:
                SearchOptions(**change)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return what


def _text(options: argparse.Namespace, tuning: "Tuning") -> tuple[list[str], list[list[str]]]:
    """Sources and sets of references, none of which the model was tested on."""
    from nmt import corpus, evaluation
    from nmt.tuning import refuse_test

    if options.source:
        files = [options.source, *options.reference]
        one_from_stdin(files)
        refuse_test(tuning, [file for file in files if file != "-"])
        sources = evaluation.read_lines(options.source)
        references = [evaluation.read_lines(name) for name in options.reference]
        evaluation.check_counts(sources, references, ("source sentences", "the source"))
        return sources, references
    data = tuning.saved.config["data"]
    languages = data["source_language"], data["target_language"]
    if options.data.startswith("hf:"):
        if options.data in corpus.sources(data.get("test") or []):
            raise ValueError(f"{options.data} is text that {options.model} was tested on: tune on development text")
    else:
        refuse_test(tuning, corpus.files(options.data, languages))
    pairs = list(corpus.read_pairs(options.data, languages, "validation"))
    return [pair.source for pair in pairs], [[pair.target for pair in pairs]]


def _log(trial: "Trial") -> None:
    log.info("%s", "  ".join(f"{name} {value}" for name, value in zip(COLUMNS, row(trial), strict=True)))


def row(trial: "Trial") -> tuple[str, ...]:
    """A trial as the columns of the table."""
    search = trial.search
    penalty = "" if search.normalization == "none" else f"{search.length_penalty:g}"
    ranking = search.normalization, penalty, f"{search.length_reward:g}", f"{search.coverage_penalty:g}"
    return trial.weights, str(search.beam_size), *ranking, f"{trial.bleu.score:.2f}", f"{trial.seconds:.1f}"


def table(trials: "Sequence[Trial]") -> str:
    """All trials, the winner marked by a star, and the signature of the metric."""
    from nmt.tuning import best

    winner = best(trials)
    rows = [COLUMNS, *map(row, trials)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    marks = [" ", *("*" if trial is winner else " " for trial in trials)]
    lines = [
        f"{mark} {line[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for mark, line in zip(marks, rows, strict=True)
    ]
    return "\n".join([*lines, winner.bleu.signature])
