"""The command line, `nmt VERB ...`: the only module that reads argv, prints and exits; it imports all else late.

Exit codes: 0 done; 1 a fault, told in one line; 2 a wrong option or config; 130 (Ctrl-C) and 143 (SIGTERM) stopped by a
signal, training saved, files to write left as they were.
"""

import argparse
import json
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from nmt import __version__
from nmt.scoring_verb import add_score
from nmt.search_flags import (
    add_choice_options,
    add_machine_options,
    add_model_options,
    add_search_options,
    flag,
    loader,
)
from nmt.streams import STDOUT, naming, writing
from nmt.translating_verb import add_translate
from nmt.tuning_verb import add_tune
from nmt.verbs import UsageError, add_verb, one_from_stdin

log = logging.getLogger("nmt")

# What `nmt evaluate` may be told of translations that are there already, and what is no option.
OF_TRANSLATIONS = {"input", "reference", "lowercase", "tokenize", "jsonl", "quiet", "debug", "parser"}


TRANSLATING = {"translate", "evaluate", "tune"}  # kernels of shapes that come once: torch and oneDNN keep 1,024 each


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's large tensors in huge pages: training gains a sixth
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.takes_config:
        if not rest[0].startswith("-"):
            parser.error(f"{rest[0]} belongs to no option: files are named by theirs, see nmt {options.verb} --help")
        near = get_close_matches(rest[0].partition("=")[0], re.findall(r"--[\w-]+", options.parser.format_help()), n=1)
        guess = f"did you mean {near[0]}?" if near else f"see nmt {options.verb} --help"
        parser.error(f"unknown option {rest[0]}: {guess}")
    if options.verb in TRANSLATING:
        for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
            os.environ.setdefault(cache, "128")
        put_off("torch._meta_registrations")  # what compilers need: a fifth of the time that torch takes to come
    _log_to_stderr(options.quiet)
    options.flags, options.command = rest, shlex.join(["nmt", *arguments])
    try:
        options.run(options)
        with naming(STDOUT):
            sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        return next(iter(stopped.args), 130)
    except BrokenPipeError:  # the reader has gone, as in `nmt translate ... | head`
        _drop_output()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.filename == STDOUT:
            _drop_output()
        if options.debug:
            raise
        return _report(error)
    return 0


class PutOff(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by the import system
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def put_off(name: str) -> None:
    """Let a module wait, if there is one of this name; where its package is imported already, nothing changes."""
    if name.partition(".")[0] not in sys.modules:
        sys.modules[name] = PutOff(name)


def command() -> NoReturn:
    """What `nmt` is on the command line: `main`, and an end at once, for to take torch apart takes half a second."""
    signal.signal(signal.SIGTERM, _terminate)
    code = main()
    if not {"train", "finetune", "quickstart"}.isdisjoint(sys.argv[1:2]):
        sys.exit(code)  # other processes and loggers may have something to finish
    with suppress(OSError, ValueError):  # what was translated before an error
        sys.stdout.flush()
    os._exit(code)


def _terminate(*_: object) -> NoReturn:
    """SIGTERM stops as Ctrl-C does: no half of a file is left, and no process."""
    raise KeyboardInterrupt(143)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="nmt", description="A recurrent translator that you train on your own parallel text.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"nmt {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    adding = (add_quickstart, add_check, add_train, add_finetune, add_translate, add_evaluate, add_score, add_average)
    for add in (*adding, add_tune, add_info):
        add(verbs)
    return parser


# ---- check ----


def add_check(verbs: Any) -> None:
    """`nmt check`."""
    verb = add_verb(verbs, check, "look through parallel text before training on it")
    verb.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="as data.train: a prefix, a,b, .tsv, .jsonl or hf:NAME"
    )
    verb.add_argument("-s", "--source-language", default="en", help="default: en")
    verb.add_argument("-t", "--target-language", default="de", help="default: de")
    verb.add_argument("--validation", action="append", default=[], metavar="SOURCE", help="held-out text; repeatable")
    verb.add_argument("--test", action="append", default=[], metavar="SOURCE", help="held-out text; repeatable")


def check(options: argparse.Namespace) -> None:
    """Print what is odd in parallel text, and what held-out text shares with it."""
    from nmt.check import check_data
    from nmt.corpus import DataOptions

    data = DataOptions(
        options.sources, options.validation, options.test, options.source_language, options.target_language
    )
    data.check_sides()
    print(*check_data(data), sep="\n")


# ---- train, finetune, quickstart ----


def _add_run_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-h", "--help", action="store_true", help="show this and every option of a config")
    verb.add_argument(
        "-c", "--config", action="append", default=[], metavar="FILE", help="options; repeatable, later wins"
    )
    verb.add_argument("-o", "--output", metavar="FOLDER", help="the model folder to write")
    verb.add_argument("--overwrite", action="store_true", help="remove the run that is in the output folder")
    verb.add_argument("--print-config", action="store_true", help="print what would run, and stop")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def add_train(verbs: Any) -> None:
    """`nmt train`."""
    _add_run_options(
        add_verb(verbs, train, "train a translator; run the same command again to resume", takes_config=True)
    )


def train(options: argparse.Namespace) -> None:
    """Train what the configs and flags describe."""
    _fit(options, base=None)


def add_finetune(verbs: Any) -> None:
    """`nmt finetune`."""
    summary = (
        "go on training a model on other text, in a new folder: its own options, but 5 epochs at a fifth of its rate"
    )
    verb = add_verb(verbs, finetune, summary, takes_config=True)
    _add_run_options(verb)
    verb.add_argument("-m", "--model", metavar="FOLDER", help="the model folder to start from; it is not changed")


def finetune(options: argparse.Namespace) -> None:
    """Train on, from a model folder, with its options but not its limits, at a fifth of its learning rate, if any."""
    if options.help:
        _fit(options, base=None)
        return
    if not options.model:
        raise UsageError("finetune needs the model to start from: -m FOLDER")
    from nmt import checkpoint

    base, _ = checkpoint.read_folder(options.model)
    base["data"] |= {"train": [], "validation": [], "test": [], "cache": None}
    training = base["training"] | {"max_epochs": 5, "max_steps": 0, "max_minutes": 0}
    if training["optimizer"] != "hessian-free":
        training |= {"learning_rate": training["learning_rate"] / 5, "warmup_steps": 100}
        training |= {"guide_updates": 0} if base.get("task") != checkpoint.LANGUAGE_MODEL else {}
    base["training"] = training
    base |= {"init": options.model, "output": f"{Path(options.model)}-finetuned"}
    _fit(options, base)


def _fit(options: argparse.Namespace, base: dict[str, Any] | None) -> None:
    from nmt import config

    if options.help:
        print(options.parser.format_help(), "What a config may say, and flags may say over it:", sep="\n")
        print(config.parser(f"nmt {options.verb}").format_help().partition("\n\n")[2], end="")
        return
    output = ["--output", options.output] if options.output else []
    found = config.read(options.config, options.flags + output, base)
    if options.print_config:
        print(config.dump(found), end="")
        return
    from nmt.fit import fit

    fit(found, overwrite=options.overwrite, device=options.device)


def add_quickstart(verbs: Any) -> None:
    """`nmt quickstart`."""
    verb = add_verb(verbs, quickstart, "train on the small corpus that ships with the program, evaluate, translate")
    verb.add_argument("-o", "--output", default="models/quickstart", help="the model folder to write")
    verb.add_argument("--overwrite", action="store_true", help="train it anew")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def quickstart(options: argparse.Namespace) -> None:
    """Train, evaluate and show the quick-start model."""
    from nmt.quickstart import report, train_quickstart

    train_quickstart(options.output, overwrite=options.overwrite, device=options.device)
    print(report(options.output, options.device))


# ---- evaluate, average, info ----


def add_evaluate(verbs: Any) -> None:
    """`nmt evaluate`."""
    verb = add_verb(verbs, evaluate, "score a model's translations, or a file of translations, against references")
    add_model_options(verb, required=False)
    verb.add_argument("-s", "--source", metavar="FILE", help="text to translate")
    verb.add_argument("-i", "--input", metavar="FILE", help="translations, instead of -m and -s")
    verb.add_argument("-r", "--reference", action="append", required=True, metavar="FILE", help="repeatable")
    verb.add_argument("-o", "--output", metavar="FILE", help="where to keep the model's translations")
    verb.add_argument("-lc", "--lowercase", action="store_true", help="ignore case")
    verb.add_argument("--tokenize", metavar="NAME", help="sacrebleu tokenizer for BLEU: 13a, intl, char, zh, none ...")
    verb.add_argument("--jsonl", action="store_true", help="print one object per metric")
    add_search_options(verb)
    add_choice_options(verb, sample=False)
    add_machine_options(verb)


def evaluate(options: argparse.Namespace) -> None:
    """Print BLEU, chrF and TER with their signatures."""
    from nmt import evaluation

    if bool(options.input) == bool(options.model and options.source):
        raise UsageError("evaluate needs either translations (-i FILE) or a model and its source (-m FOLDER -s FILE)")
    if options.input:
        _refuse_translating(options)
    one_from_stdin([options.input or options.source, *options.reference])
    language = "" if options.input else _target_language(options.model[0])
    evaluation.build_metrics(evaluation.METRICS, options.lowercase, language, options.tokenize)  # for their errors
    references = [evaluation.read_lines(name) for name in options.reference]
    hypotheses = evaluation.read_lines(options.input or options.source)
    if options.input:
        evaluation.check_counts(hypotheses, references)
    else:
        evaluation.check_counts(hypotheses, references, ("source sentences", "the source"))
        hypotheses = _translate_all(options, hypotheses)
    scores = evaluation.evaluate(
        hypotheses, references, lowercase=options.lowercase, language=language, tokenize=options.tokenize
    )
    print(evaluation.to_json(scores) if options.jsonl else evaluation.render(scores))


def _refuse_translating(options: argparse.Namespace) -> None:
    """Refuse, by name, what is for translating where there are translations already."""
    usual = build_parser().parse_args(["evaluate", "-r", ""])
    for name, value in vars(usual).items():
        if name not in OF_TRANSLATIONS and getattr(options, name) != value:
            raise UsageError(f"{flag(name)} is for translating, and -i gives translations: leave one out")


def _translate_all(options: argparse.Namespace, lines: list[str]) -> list[str]:
    translator = loader(options)()
    with writing(options.output) if options.output else nullcontext() as output:
        hypotheses = [answer.text for answer in translator.translate(lines)]
        if output:
            output.writelines(line + "\n" for line in hypotheses)
    return hypotheses


def _target_language(folder: str) -> str:
    from nmt import checkpoint

    config, _ = checkpoint.read_folder(folder)
    return str(config["data"]["target_language"])


def add_average(verbs: Any) -> None:
    """`nmt average`."""
    verb = add_verb(verbs, average, "average the weights of several models, or of the best checkpoints of one run")
    verb.add_argument("-m", "--model", action="append", required=True, metavar="FOLDER", help="repeatable; or one run")
    verb.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the model folder to write")
    verb.add_argument(
        "--best", type=int, metavar="N", help="of one run, how many of its checkpoints; default: all kept"
    )


def average(options: argparse.Namespace) -> None:
    """Write a folder with the mean of the weights."""
    from nmt.averaging import average_folders, average_run

    if options.best is not None and (options.best < 2 or len(options.model) > 1):
        raise UsageError("--best counts the checkpoints of one run, 2 or more: give one -m, or leave it out")
    if len(options.model) > 1:
        average_folders(options.model, options.output)
    else:
        average_run(options.model[0], options.output, options.best or 0)
    log.info("model folder: %s, not evaluated", options.output)


def add_info(verbs: Any) -> None:
    """`nmt info`."""
    verb = add_verb(verbs, info, "say what a model folder holds, or what this machine can do")
    verb.add_argument("-m", "--model", metavar="FOLDER", help="the model folder")
    verb.add_argument("--jsonl", action="store_true", help="print one object")


def info(options: argparse.Namespace) -> None:
    """Print facts about a model, or about the machine."""
    from nmt.info import describe_machine, describe_model

    facts = describe_model(options.model) if options.model else describe_machine()
    lines = [f"{name:18} {value}" for name, value in facts.items()]
    print(json.dumps(facts, ensure_ascii=False) if options.jsonl else "\n".join(lines))


# ---- errors ----


def _drop_output() -> None:
    """What is left to print goes nowhere, or Python would try again at its end and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception) -> int:
    """Tell an error in a line; its exit code."""
    message = str(error) if hasattr(error, "exit_code") else " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    print(f"nmt: {message or type(error).__name__}", file=sys.stderr)
    return int(getattr(error, "exit_code", 1))


def _log_to_stderr(quiet: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.WARNING if quiet else logging.INFO)
