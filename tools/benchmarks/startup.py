"""Fresh processes: how long until help is shown and until one line is translated, and which imports take the time.

The program's files have been read before, as on a machine in use; nothing else is kept from one process to the next.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from arguments import whole

from benchmarks.measure import Report
from benchmarks.models import add_model_options, model_folder
from benchmarks.processes import nmt, watch

LINE = "A man in a red shirt is riding a bicycle down the street."


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    add_model_options(parser)
    parser.add_argument("--repeats", type=whole(1), default=7, help="default: 7")
    parser.add_argument("--imports", type=whole(1), default=12, metavar="N", help="slowest imports shown; default: 12")


def run(options: argparse.Namespace, report: Report) -> None:
    """Help, a line, and the imports."""
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(options, Path(folder))
        commands: dict[str, tuple[list[str | Path], list[str]]] = {
            "python -c pass": ([sys.executable, "-c", "pass"], []),
            "python -c 'import torch'": ([sys.executable, "-c", "import torch"], []),
            "nmt --help": (nmt("--help"), []),
            "nmt translate, one line": (nmt("translate", "-m", model, "-q"), [LINE]),
        }
        for name, (command, lines) in commands.items():
            runs = [watch(command, lines) for _ in range(options.repeats + 1)][1:]
            peak = max(one.peak for one in runs)
            report.time("", name, [one.seconds for one in runs], note=f"{peak:.2f} GB", peak_memory_gb=peak)
    for module in ("nmt.cli", "nmt.translator"):
        imports(module, options.imports, report)


def imports(module: str, most: int, report: Report) -> None:
    """The imports that take longest, each with all that it imports."""
    text = watch([sys.executable, "-X", "importtime", "-c", f"import {module}"]).text
    report.say(f"import {module}: milliseconds with all that is imported within, and alone")
    for name, all_in, own in slowest(text, most):
        report.say(f"  {all_in:8.1f} {own:8.1f}  {name}", kind="import", of=module, name=name, ms=all_in, own_ms=own)


def slowest(text: str, most: int) -> list[tuple[str, float, float]]:
    """(module, ms with what it imports, ms alone) of python -X importtime, `most` of them, slowest first."""
    found = []
    for line in text.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        whole, _, name = rest.partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            found.append((name.strip(), int(whole) / 1000, int(own) / 1000))
    return sorted(found, key=lambda one: -one[1])[:most]
