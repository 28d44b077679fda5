"""Updates of a translation model: words a second, the share of the peak that is useful work, where the time goes.

The real Lightning loop around the real module, batches and optimiser; no validation and no checkpoints. Words are
target pieces, EOS among them, padding not.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from arguments import whole
from lightning.pytorch.callbacks import Callback

from benchmarks.measure import Report, spread, synchronise
from benchmarks.processes import BenchmarkError, forget_peak, peak_memory
from benchmarks.profile import Profile
from benchmarks.text import Text, add_text_options, prepare
from benchmarks.work import Words, count, total, work
from nmt.batches import Batch, BatchLoader, TokenBatches
from nmt.model.seq2seq import ModelOptions, Seq2Seq, build_model
from nmt.training import TrainingOptions, TranslationModule, choose_precision

KINDS = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    add_text_options(parser)
    add_shape_options(parser)
    parser.add_argument("--hidden", type=whole(1), nargs="+", default=[512], metavar="CELLS", help="default: 512")
    parser.add_argument(
        "--cell",
        nargs="+",
        default=["lstm"],
        metavar="CELL",
        help="rnn, lstm, lecture-lstm, layer-norm-lstm or gru, with options behind a plus: lstm+peepholes, "
        "lstm+projection=256, gru+reset=before; several make a table; default: lstm",
    )
    parser.add_argument("--batch-tokens", type=whole(1), default=2048, metavar="N", help="padded pieces; default: 2048")
    parser.add_argument("--sentences", type=whole(1), metavar="N", help="sentences of a batch, instead of pieces")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"], help="default: auto")
    parser.add_argument("--steps", type=whole(1), default=30, help="updates that are timed together; default: 30")
    parser.add_argument("--repeats", type=whole(1), default=5, help="how often; default: 5")
    parser.add_argument("--warm-up", type=whole(0), default=10, metavar="STEPS", help="updates before; default: 10")
    parser.add_argument("--profile", action="store_true", help="also print which part takes which share")


def add_shape_options(parser: argparse.ArgumentParser) -> None:
    """The shape of the network, but for its cells."""
    parser.add_argument("--attention", default="general", choices=["none", "dot", "general", "additive"])
    parser.add_argument("--context", default="initial", choices=["initial", "every-step"], help="with no attention")
    parser.add_argument("--embedding", type=whole(1), default=512, metavar="SIZE", help="default: 512")
    parser.add_argument("--layers", type=whole(1), default=2, help="of encoder and decoder each; default: 2")
    parser.add_argument("--dropout", type=float, default=0.3, help="default: 0.3")


def run(options: argparse.Namespace, report: Report) -> None:
    """A line for each cell and each number of cells."""
    precision = choose_precision(options.precision, report.device)
    with tempfile.TemporaryDirectory() as folder:
        text = prepare(options, Path(folder))
        for cell in options.cell:
            for hidden in options.hidden:
                shape = model_options(options, cell, hidden)
                sizes = options.batch_tokens, options.sentences
                loop = Loop(text, shape, precision, report.device, options.seed, *sizes)
                found = measure(loop, options.warm_up, options.steps, options.repeats)
                show(report, KINDS[precision], f"{cell}, {hidden} cells", found)
                if options.profile:
                    with Profile(report.device, options.warm_up) as profile:
                        updates(loop, options.warm_up + options.steps, profile)
                    profile.show(report)


def model_options(options: argparse.Namespace, cell: str, hidden: int) -> ModelOptions:
    """The network of `cell`, such as `lstm+peepholes+projection=256`."""
    kind, *extra = cell.split("+")
    own: dict[str, Any] = {}
    for option in extra:
        name, _, value = option.partition("=")
        own[name.replace("-", "_")] = (int(value) if value.isdigit() else value) if value else True
    shape: dict[str, Any] = {
        "attention": options.attention,
        "context": options.context,
        "embedding_size": options.embedding,
        "encoder_layers": options.layers,
        "decoder_layers": options.layers,
        "dropout": options.dropout,
        "tie_embeddings": "all",
    }
    try:
        return ModelOptions(cell=kind, hidden_size=hidden, **shape, **own)  # type: ignore[arg-type]
    except TypeError as error:
        raise BenchmarkError(f"--cell {cell} has an option that no cell knows: {error}") from error


class Loop(NamedTuple):
    """What is trained, on what, in which batches."""

    text: Text
    shape: ModelOptions
    precision: Any
    device: torch.device
    seed: int
    batch_tokens: int
    sentences: int | None  # of a batch; then batch_tokens is not looked at


class Found(NamedTuple):
    """What was measured of one network."""

    model: Seq2Seq
    seconds: list[float]  # of each stretch of updates
    words: list[Words]  # in each
    flops: list[float]  # useful, of each
    steps: int  # in each
    peak: float  # GB, of the GPU where there is one

    @property
    def rates(self) -> list[float]:
        """Target words a second of each stretch."""
        return [words.target / seconds for words, seconds in zip(self.words, self.seconds, strict=True)]


def measure(loop: Loop, warm_up: int, steps: int, repeats: int) -> Found:
    """Time so many stretches of so many updates."""
    forget_peak()
    if loop.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(loop.device)
    clock = Clock(warm_up, steps, loop.device)
    model = updates(loop, warm_up + repeats * steps, clock).model
    seconds = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    words, cost = clock.words, work(model)
    peak = torch.cuda.max_memory_allocated(loop.device) / 1e9 if loop.device.type == "cuda" else peak_memory()
    return Found(model, seconds, words, [cost.training(part) for part in words], steps, peak)


def show(report: Report, kind: str, name: str, found: Found) -> None:
    """The line of one network: medians over the stretches."""
    parameters = sum(parameter.numel() for parameter in found.model.parameters())
    timed, rates, everything = list(zip(found.words, found.seconds, strict=True)), found.rates, total(found.words)
    speed = statistics.median(rates)
    gflops = statistics.median(flops / seconds / 1e9 for flops, seconds in zip(found.flops, found.seconds, strict=True))
    figures: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "parameters": parameters,
        "words_per_second": speed,
        "spread": spread(rates),
        "repeats": len(rates),
        "words_per_second_and_core": speed / torch.get_num_threads(),
        "sentences_per_second": statistics.median(words.sentences / seconds for words, seconds in timed),
        "words_per_batch": everything.target / len(rates) / found.steps,
        "gflops": gflops,
        "fill": everything.fill,
        "peak_memory_gb": found.peak,
    }
    figures["of_peak"] = gflops / report.peaks[kind] if kind in report.peaks else None
    source, target = everything.fill
    report.say(
        f"{kind} {name:<34} {parameters / 1e6:5.1f}M parameters {speed:8,.0f} words/s "
        f"+-{figures['spread'] / 2:3.0%}, {figures['words_per_second_and_core']:,.0f} a core  "
        f"{gflops:6.1f} GFLOP/s {report.of_peak(kind, gflops)}  fill {source:.0%} and "
        f"{target:.0%}, {figures['words_per_batch']:,.0f} words a batch, {found.peak:.2f} GB",
        **figures,
    )


# ---- the loop


def updates(loop: Loop, steps: int, watcher: Callback) -> TranslationModule:
    """So many updates, as `nmt train` makes them, each shown to the watcher."""
    torch.manual_seed(loop.seed)
    tokenizers = loop.text.tokenizers
    model = build_model(loop.shape, tokenizers.source.size, tokenizers.target.size)
    training = TrainingOptions(max_steps=steps, max_epochs=1_000_000)
    module = TranslationModule(model.train(), training, tokenizers, [])
    on_gpu = loop.device.type == "cuda"
    quieten()
    trainer = pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[loop.device.index or 0] if on_gpu else 1,
        precision=loop.precision,
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        callbacks=[watcher],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train_dataloaders=loader(loop))
    return module


def quieten() -> None:
    """Lightning's advice is not on what is measured."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*(val_dataloader|number of training batches|treespec|pin_memory).*")


def loader(loop: Loop) -> BatchLoader:
    """The batches: of so many pieces, or of so many sentences."""
    table, tokens = loop.text.table, loop.batch_tokens
    if loop.sentences:
        tokens = int(max(table.source_lengths.max(), table.target_lengths.max())) * loop.sentences
    batches = TokenBatches(table.source_lengths, table.target_lengths, tokens, loop.seed, max_sentences=loop.sentences)
    return BatchLoader(table, batches)


class Clock(Callback):
    """Looks at the clock after the warm-up and after every stretch of updates, and keeps the batches of each."""

    def __init__(self, warm_up: int, stretch: int, device: torch.device) -> None:
        self.warm_up, self.stretch, self.device = warm_up, stretch, device
        self.times, self.batches = list[float](), list[list[Batch]]()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Without a warm-up, the first stretch begins at once."""
        if not self.warm_up:
            self._look()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Batch, batch_index: int) -> None:
        """After an update."""
        done = trainer.global_step - self.warm_up
        if done > 0:
            self.batches[-1].append(batch)
        if done >= 0 and done % self.stretch == 0:
            self._look()

    def _look(self) -> None:
        synchronise(self.device)
        self.times.append(time.perf_counter())
        self.batches.append([])

    @property
    def words(self) -> list[Words]:
        """Those of each stretch."""
        return [total(map(count, stretch)) for stretch in self.batches if stretch]
