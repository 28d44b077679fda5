"""`nmt translate`: lines in, translations out, and what can be asked of each line."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.search_flags import (
    add_choice_options,
    add_machine_options,
    add_model_options,
    add_search_options,
    lists,
    loader,
    require_attention,
)
from nmt.streams import in_step, reading, write_json, write_n_best, write_text, writing
from nmt.verbs import UsageError, add_verb, one_from_stdin

if TYPE_CHECKING:
    from nmt.answers import Translation
    from nmt.translator import Request


def add_translate(verbs: Any) -> None:
    """`nmt translate`."""
    verb = add_verb(verbs, translate, "translate text, one sentence a line, from standard input to standard output")
    verb.usage = "nmt translate -m FOLDER [options] < input > output"
    verb.add_argument("-i", "--input", default="-", metavar="FILE", help="default: standard input")
    verb.add_argument("-o", "--output", default="-", metavar="FILE", help="default: standard output")
    add_model_options(verb, required=True)
    _add_output_options(verb)
    add_search_options(verb)
    group = verb.add_argument_group("what must be said, line by line")
    group.add_argument("--prefix", metavar="FILE", help="what each translation begins with; a blank line, anything")
    group.add_argument("--constraints", metavar="FILE", help="words or phrases that it must have, tabs between them")
    add_choice_options(verb, sample=True)
    add_machine_options(verb).add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes, for large files on many cores (default: 1)"
    )


def _add_output_options(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("output")
    group.add_argument(
        "--n-best", type=int, metavar="N", help="print N translations, as `line ||| text ||| features ||| score`"
    )
    group.add_argument("--distinct", action="store_true", help="no text twice among them, which may then be fewer")
    group.add_argument("--jsonl", action="store_true", help="print objects with scores, pieces, alignment, risk flags")
    group.add_argument(
        "--alignment", action="store_true", help="print which words belong together, as ` ||| 0-0 1-2` behind each text"
    )
    group.add_argument("--plot", metavar="FILE", help="draw where the translation of the one sentence looked")


def translate(options: argparse.Namespace) -> None:
    """Translate a stream."""
    _check_usage(options)
    answers = _answering(options)
    write = _writer(options)
    with ExitStack() as streams:
        requests = _requests(options, streams)
        if options.plot:
            requests = _only_one(requests)
        output = streams.enter_context(writing(options.output))
        for number, translation in enumerate(answers(requests)):
            write(number, translation, output)
            if options.plot:
                _plot(translation, options.plot)
            if _by_hand(options):
                output.flush()


def _check_usage(options: argparse.Namespace) -> None:
    if options.workers < 1:
        raise UsageError(f"--workers must be at least 1, not {options.workers}")
    if options.workers > 1 and _by_hand(options):
        raise UsageError("--workers share a file among them, and lines typed one by one are none: leave it out")
    one_from_stdin([options.input, options.prefix, options.constraints])
    if options.distinct and not options.n_best:
        raise UsageError("--distinct needs a list: --n-best N")
    if options.alignment or options.plot:
        require_attention(options, "--alignment" if options.alignment else "--plot")
    if options.plot:
        from nmt.plots import check_picture

        check_picture(options.plot)


def _by_hand(options: argparse.Namespace) -> bool:
    """Whether someone types the lines and waits for each answer."""
    return bool(options.input == "-" and sys.stdin and sys.stdin.isatty())


def _answering(options: argparse.Namespace) -> "Callable[[Iterable[str | Request]], Iterable[Translation]]":
    """What makes translations of lines: one process or several; by hand, line for line."""
    load = loader(options)
    with_alignment = bool(options.jsonl or options.alignment or options.plot)
    if options.workers > 1:
        from nmt import workers

        return partial(workers.translate, load, workers=options.workers, with_alignment=with_alignment)
    return partial(load().translate, with_alignment=with_alignment, window=1 if _by_hand(options) else 4096)


def _writer(options: argparse.Namespace) -> Callable[..., None]:
    """How a translation is printed: an object, a list, or the best as text."""
    if options.jsonl:
        return partial(write_json, with_n_best=lists(options))
    return partial(write_n_best if lists(options) else write_text, with_links=options.alignment)


def _requests(options: argparse.Namespace, streams: ExitStack) -> "Iterable[str | Request]":
    """The lines, with what is asked for of each."""
    files = {"source": options.input, "prefix": options.prefix, "phrases": options.constraints}
    lines = {name: (file, streams.enter_context(reading(file))) for name, file in files.items() if file}
    return lines["source"][1] if len(lines) == 1 else _asking(lines)


def _asking(lines: dict[str, tuple[str, Iterable[str]]]) -> "Iterator[Request]":
    from nmt.translator import Request

    for found in in_step(*lines.values()):
        asked: dict[str, Any] = dict(zip(lines, found, strict=True))
        asked["phrases"] = tuple(phrase for phrase in asked.get("phrases", "").split("\t") if phrase.strip())
        yield Request(**asked)


def _only_one(requests: "Iterable[str | Request]") -> "list[str | Request]":
    """The one sentence that there is to draw."""
    found = list(islice(requests, 2))
    text = "".join(one if isinstance(one, str) else one.source for one in found)
    if len(found) != 1 or not text.strip():
        raise UsageError(f"--plot draws one sentence: the input has {'more' if len(found) > 1 else 'none'}")
    return found


def _plot(translation: "Translation", name: str) -> None:
    """Draw where the best translation looked."""
    from nmt.checkpoint import whole
    from nmt.plots import heat_map

    best = translation.candidates[0]
    if best.alignment is None:
        raise ValueError(f"nothing to draw: the model reads nothing in {translation.source!r}")
    with whole(Path(name)) as beside:
        heat_map(best.alignment, translation.source_pieces, best.pieces, beside, Path(name).suffix[1:])
