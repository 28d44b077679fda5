"""Values of the tools' options, refused at once where they could only fail or mislead later."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from nmt.plots import check_picture


def whole(least: int) -> Callable[[str], int]:
    """An `argparse` type: a whole number from `least` on."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
        return number

    return parse


def real(least: float = -math.inf, *, above: bool = False) -> Callable[[str], float]:
    """An `argparse` type: a finite number from `least` on, or above it."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
        if not math.isfinite(number):
            raise argparse.ArgumentTypeError(f"must be finite, not {text}")
        if number < least or (above and number == least):
            raise argparse.ArgumentTypeError(f"must be {'above' if above else 'at least'} {least:g}, not {text}")
        return number

    return parse


def picture(text: str) -> Path:
    """A file that can be drawn in the end."""
    try:
        check_picture(text)
    except (ValueError, ModuleNotFoundError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is not a folder: make it first")
    return path


class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as it stands, and every default that there is."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)
