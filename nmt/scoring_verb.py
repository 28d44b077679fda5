"""`nmt score`: of pairs, of text, of an n-best list, of a phrase table."""

import argparse
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import tee, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nmt.streams import called, reading, writing
from nmt.verbs import UsageError, add_device_options, add_verb, one_from_stdin

if TYPE_CHECKING:
    from nmt.corpus import Pair
    from nmt.scoring import Scored, Scorer

log = logging.getLogger("nmt")


def add_score(verbs: Any) -> None:
    """`nmt score`."""
    verb = add_verb(verbs, score, "say how probable text is: pairs, sentences, an n-best list, a phrase table")
    verb.add_argument("-m", "--model", action="append", default=[], metavar="FOLDER", help="a model folder; repeatable")
    verb.add_argument(
        "--reverse-model",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a model that translates the other way, which scores the source; repeatable",
    )
    verb.add_argument("-s", "--source", metavar="FILE", help="source sentences, of --target or of --n-best")
    verb.add_argument("-t", "--target", metavar="FILE", help="their translations, to be scored")
    verb.add_argument("-i", "--input", metavar="FILE", help="sentences, to be scored by a language model")
    verb.add_argument("--n-best", metavar="FILE", help="`i ||| hypothesis ||| features ||| score`, to gain features")
    verb.add_argument("--phrase-table", metavar="FILE", help="`source ||| target ||| scores ...`, to gain a column")
    verb.add_argument(
        "--weights", metavar="NAME=X,...", help="rank an n-best list by this sum of its features, new ones included"
    )
    verb.add_argument("-o", "--output", default="-", metavar="FILE", help="default: standard output")
    verb.add_argument("--jsonl", action="store_true", help="print objects with pieces and their log-probabilities")
    verb.add_argument("--batch-tokens", type=int, default=4096, metavar="N", help="pieces scored at once")
    add_device_options(verb)


def score(options: argparse.Namespace) -> None:
    """Score what is given."""
    _check_usage(options)
    weights = None
    if options.weights is not None:
        from nmt.rescoring import parse_weights

        weights = parse_weights(options.weights)
    scorers = _scorers(options)
    with ExitStack() as streams:
        lines = {
            name: streams.enter_context(reading(getattr(options, name)))
            for name in ("source", "target", "input", "n_best", "phrase_table")
            if getattr(options, name)
        }
        output = streams.enter_context(writing(options.output))
        if options.n_best or options.phrase_table:
            output.writelines(line + "\n" for line in _rewritten(options, lines, scorers, weights))
        else:
            _score_lines(options, _pairs(options, lines), scorers, output)


def _check_usage(options: argparse.Namespace) -> None:
    """Exactly one thing to score, and only options that concern it."""
    kinds = {"-t": options.target, "-i": options.input, "--n-best": options.n_best}
    given = [flag for flag, value in (kinds | {"--phrase-table": options.phrase_table}).items() if value]
    if len(given) != 1 or bool(options.source) != (given[0] in ("-t", "--n-best")):
        raise UsageError(
            "score needs one of: pairs (-s FILE -t FILE), text (-i FILE), a list (--n-best FILE -s FILE), a table "
            "(--phrase-table FILE)"
        )
    one_from_stdin([options.source, options.target, options.input, options.n_best, options.phrase_table])
    if not options.model + options.reverse_model:
        raise UsageError("score needs a model: -m FOLDER, or --reverse-model FOLDER")
    if options.input and options.reverse_model:
        raise UsageError("--reverse-model scores a source, and text (-i) has none: leave it out")
    if options.weights is not None and not options.n_best:
        raise UsageError("--weights rank an n-best list: give one with --n-best FILE")
    if options.jsonl and (options.n_best or options.phrase_table):
        raise UsageError("--jsonl is for pairs and text: lists and tables stay what they are")


def _scorers(options: argparse.Namespace) -> "list[Scorer]":
    from nmt import checkpoint
    from nmt.scoring import Scorer

    for folder in options.model if options.input or options.target else ():
        translator = checkpoint.task(folder) == checkpoint.TRANSLATOR
        if options.input and translator:
            raise UsageError(f"{folder} holds a translator, which scores pairs: give -s FILE -t FILE, not -i")
        if options.target and not translator:
            raise UsageError(f"{folder} holds a language model, which scores text: give -i FILE, not -s and -t")
    settings = {"device": options.device, "precision": options.precision, "batch_tokens": options.batch_tokens}
    forward = [Scorer.load(folder, **settings) for folder in options.model]
    return forward + [Scorer.load(folder, reverse=True, **settings) for folder in options.reverse_model]


def _rewritten(
    options: argparse.Namespace,
    lines: dict[str, Iterable[str]],
    scorers: "Sequence[Scorer]",
    weights: dict[str, float] | None,
) -> Iterator[str]:
    """The list or the table with what the models add."""
    from nmt.rescoring import extend_table, rescore

    if options.phrase_table:
        return extend_table(lines["phrase_table"], scorers, name=called(options.phrase_table))
    names = called(options.n_best), called(options.source)
    return rescore(lines["n_best"], lines["source"], scorers, weights, names=names)


def _pairs(options: argparse.Namespace, lines: dict[str, Iterable[str]]) -> "Iterator[Pair]":
    """The lines of text, without a source, or those of two files that answer each other."""
    from nmt.corpus import Pair, not_parallel

    if options.input:
        yield from (Pair("", line) for line in lines["input"])
        return
    names = Path(options.source), Path(options.target)
    for number, sides in enumerate(zip_longest(lines["source"], lines["target"]), 1):
        if None in sides:
            ended, longer = names if sides[0] is None else names[::-1]
            raise not_parallel(*names, ended=ended, longer=longer, number=number, line=sides[0] or sides[1] or "")
        yield Pair(*sides)


def _score_lines(
    options: argparse.Namespace, pairs: "Iterator[Pair]", scorers: "Sequence[Scorer]", output: TextIO
) -> None:
    """A line per pair, and in the end what they add up to, on standard error."""
    from nmt.scoring import Totals

    totals = [Totals() for _ in scorers]
    names = [called(name or "") for name in (options.source, options.input or options.target)]

    def place(number: int, side: int) -> str:
        return f"{names[side]}:{number}"

    write = write_scores_json if options.jsonl else write_scores
    found = [scorer.score(part, place=place) for scorer, part in zip(scorers, tee(pairs, len(scorers)), strict=True)]
    for number, scores in enumerate(zip(*found, strict=True)):
        for total, scored in zip(totals, scores, strict=True):
            total.add(scored)
        write(number, scores, output)
    for folder, total in zip(options.model + options.reverse_model, totals, strict=True):
        log.info("%s: %s", folder, total)


def write_scores(number: int, scores: "Sequence[Scored]", output: TextIO) -> None:
    """Per model the log-probability of the line, its mean per word, and the words, the end of the sentence counted."""
    columns = (f"{scored.log_prob:.4f}\t{scored.per_word:.4f}\t{scored.words}" for scored in scores)
    output.write("\t".join(columns) + "\n")


def write_scores_json(number: int, scores: "Sequence[Scored]", output: TextIO) -> None:
    """All there is to know of a line; with several models, a list of the same for each."""
    models = [
        {
            "log_prob": scored.log_prob,
            "per_word": scored.per_word,
            "words": scored.words,
            "tokens": scored.pieces,
            "log_probs": scored.log_probs,
        }
        for scored in scores
    ]
    line = {"line": number, **(models[0] if len(models) == 1 else {"models": models})}
    output.write(json.dumps(line, ensure_ascii=False) + "\n")
