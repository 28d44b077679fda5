"""What the verbs of the command line share: how one is added, options that several have, wrong usage."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any


class UsageError(ValueError):
    """Options that do not go together."""

    exit_code = 2


def one_from_stdin(files: Sequence[str | None]) -> None:
    """UsageError where more than one of the files is standard input."""
    if files.count("-") > 1:
        raise UsageError("only one file can be standard input (-)")


class Once(argparse.Action):
    """An option to be given once, where a second file or folder would make the program forget the first."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        """Keep its value."""
        before = getattr(namespace, self.dest, self.default)
        if self.metavar in ("FILE", "FOLDER") and before != self.default:
            raise argparse.ArgumentError(self, f"given twice, {before} and {values}: it takes one")
        setattr(namespace, self.dest, values)


def add_verb(
    verbs: Any, run: Callable[[argparse.Namespace], None], summary: str, **defaults: Any
) -> argparse.ArgumentParser:
    """A verb named like the function that runs it."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        run.__name__, help=summary, description=summary, allow_abbrev=False, add_help=not defaults.get("takes_config")
    )
    if not defaults.get("takes_config"):  # of those, later wins
        verb.register("action", None, Once)
    verb.set_defaults(**{"run": run, "parser": verb, "takes_config": False, **defaults})
    verb.add_argument("-q", "--quiet", action="store_true", help="no progress, only errors")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return verb


def add_device_options(verb: argparse.ArgumentParser | argparse._ArgumentGroup, *rough: str) -> None:
    """Where a model runs, and in which arithmetic; `rough` are those of this verb alone."""
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    verb.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", *rough), default="auto", help="arithmetic of the products"
    )
