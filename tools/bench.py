"""How fast it is on this machine.

    python tools/bench.py recurrent     layers forward and backward, beside torch's own LSTM
    python tools/bench.py train         updates of a translation model: words a second, where the time goes
    python tools/bench.py translate     sentences a second in batch, milliseconds one at a time, memory on endless input
    python tools/bench.py data          encoding, the table, epochs of a big generated corpus
    python tools/bench.py startup       fresh processes
    python tools/bench.py peers         OpenNMT-py and JoeyNMT on the same text, shape and machine

Let nothing else run beside it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks import data, measure, peers, recurrent, startup, train, translate
from benchmarks.processes import BenchmarkError, whole_peak

from nmt.translator import OptionError, choose_device

COMMANDS = {"recurrent": recurrent, "train": train, "translate": translate, "data": data, "startup": startup}
COMMANDS["peers"] = peers


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module.add_options(command)
        command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default: cpu")
        command.add_argument("--threads", type=int, default=0, help="of torch; default: its own choice")
        command.add_argument("--seed", type=int, default=1, help="of weights and of generated text; default: 1")
        command.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    try:
        device = choose_device(options.device)
        machine = measure.describe(device)
        report = measure.Report(measure.peaks(device), device)
        report.introduce(machine)
        COMMANDS[options.command].run(options, report)
    except (BenchmarkError, OptionError, OSError, ValueError) as error:
        sys.exit(f"bench: {error}")
    print(f"peak memory of this process {whole_peak():.2f} GB")
    if options.json:
        report.write(options.json, " ".join(["python tools/bench.py", *arguments]), machine)


if __name__ == "__main__":
    main()
