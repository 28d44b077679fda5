"""What watches a training run: progress for people, and signals that stop it between two updates."""

import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from nmt.batches import Batch
from nmt.tokenizer import PAD

log = logging.getLogger("nmt")

LAST = "last.ckpt"


class StoppedError(Exception):
    """Training was told to stop by a signal, and has saved where it was."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"stopped and saved in {folder}: run the same command to go on from there")
        self.exit_code = 128 + number


class StopOnSignal(Callback):
    """On Ctrl-C or SIGTERM finish the update, save, and raise StoppedError; a second Ctrl-C stops at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.received = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which gives them back in the end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        log.info("finishing this update, then saving")

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Between two updates, every state is whole."""
        if self.received and module.units == 0:
            trainer.save_checkpoint(self.folder / "training" / LAST)
            raise StoppedError(self.received, self.folder)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Let Ctrl-C be Ctrl-C again."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Progress(Callback):
    """Loss, target words per second and time left: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start counting; the estimate is of the planned end, which early stopping may forestall."""
        self.begun = self.said = time.monotonic()
        self.first, self.words, self.pending = trainer.global_step, 0, 0
        steps = [trainer.max_steps] if trainer.max_steps > 0 else []
        if trainer.max_epochs:
            steps.append(int(trainer.max_epochs * trainer.num_training_batches // trainer.accumulate_grad_batches))
        self.total = min(steps)
        self.bar = tqdm(total=self.total, initial=self.first, unit="update", disable=not sys.stderr.isatty())

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, batch_index: int
    ) -> None:
        """Count a batch."""
        self.words += int((batch.target_out != PAD).sum())
        now = time.monotonic()
        if now - self.said < (self.seconds if self.bar.disable else 0.5):
            return
        done, loss = trainer.global_step - self.first, float(trainer.callback_metrics.get("loss", 0.0))
        speed, left = (
            self.words / (now - self.begun),
            (now - self.begun) / max(done, 1) * (self.total - trainer.global_step),
        )
        self.said = now
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} words/s", refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)
        if self.bar.disable:
            log.info(
                "update %d of %d, epoch %d: loss %.3f, %s words/s, %d:%02d left",
                *(trainer.global_step, self.total, trainer.current_epoch + 1, loss),
                *(f"{speed:,.0f}", left // 60, left % 60),
            )

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say how the model stands."""
        metrics = trainer.callback_metrics
        bleu = f", BLEU {float(metrics['val_bleu']):.2f}" if "val_bleu" in metrics else ""
        perplexity = float(metrics["val_loss"].exp())
        self.bar.clear()
        minutes = (time.monotonic() - self.begun) / 60
        log.info(
            "epoch %d, %.1f min: validation perplexity %.2f%s", trainer.current_epoch + 1, minutes, perplexity, bleu
        )

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Close the bar."""
        if hasattr(self, "bar"):
            self.bar.close()
