"""What watches a training run: progress for people, signals that stop it, and its checkpoints, each whole."""

import logging
import math
import signal
import sys
import time
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from nmt.checkpoint import whole
from nmt.training import TrainingModule, planned_updates

log = logging.getLogger("nmt")

LAST = "last.ckpt"
TOGETHER = 10  # updates after which several processes ask each other for signals: the host waits for GPUs meanwhile


class StoppedError(Exception):
    """Training was told to stop by a signal, and has saved where it was, or where it was `lately`, if it ever has."""

    def __init__(self, number: int, folder: Path, lately: str = "") -> None:
        said = f"stopped, {lately}saved in {folder}: run the same command to go on from there"
        if not (folder / "training" / LAST).exists():
            said = "stopped before anything was saved: run the same command to begin again"
        super().__init__(said)
        self.exit_code = 128 + number


class StopOnSignal(Callback):
    """On Ctrl-C or SIGTERM finish the update, save, and raise StoppedError; a second Ctrl-C stops at once.

    Of several processes it is enough that one is told; all stop within `TOGETHER` updates.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.received = 0
        self.agreed = 0  # what any process has received, as far as all have been told
        self.validated = -1  # the update after which the last validation was
        self.soon = "finishing this update, then saving"

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which gives them back in the end."""
        if trainer.world_size > 1:
            self.soon = f"stopping within {TOGETHER} updates, then saving"
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise StoppedError(number, self.folder, "some time ago ")
        self.received = number
        log.info(self.soon)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Between two updates, every state is whole; but a validation that is due comes first, which saves as well."""
        if module.units:
            return
        if trainer.world_size == 1 or trainer.global_step % TOGETHER == 0:
            self._agree(trainer, module)
        if self.agreed and not _validation_due(trainer, batch_index):
            check_weights(trainer, module)
            trainer.save_checkpoint(self.folder / "training" / LAST)
            raise StoppedError(self.agreed, self.folder)

    def _agree(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.agreed = self.received
        if trainer.world_size > 1:
            received = torch.tensor(float(self.received), device=module.device)
            self.agreed = int(trainer.strategy.reduce(received, reduce_op="max"))

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Remember it: the checkpoint that follows is of this update."""
        self.validated = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """The validation that was due has been, and has saved."""
        if self.agreed and module.units == 0 and self.validated == trainer.global_step:
            raise StoppedError(self.agreed, self.folder)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """What is left is to score and save the model; that can be done on the next run."""
        self._agree(trainer, module)
        if self.agreed:
            raise StoppedError(self.agreed, self.folder)


def _validation_due(trainer: pl.Trainer, batch_index: int) -> bool:
    """Whether Lightning validates after this batch, of the epoch or of the run; resumed there, it would not."""
    batches = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_index
    last = trainer.should_stop or trainer.global_step >= _planned(trainer)
    return last or (batches + 1) % int(trainer.val_check_batch or 1) == 0


def _planned(trainer: pl.Trainer) -> int:
    module = trainer.lightning_module
    assert isinstance(module, TrainingModule)
    return planned_updates(module.options, int(trainer.num_training_batches))[1]


class Progress(Callback):
    """Loss, target words (pieces) per second, time left: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start counting; the estimate is of the planned end, which early stopping may forestall."""
        self.begun = self.said = time.monotonic()
        self.first, self.words = trainer.global_step, 0
        self.total = _planned(trainer)
        self.bar = tqdm(total=self.total, initial=self.first, unit="update", disable=not sys.stderr.isatty())

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Count a batch."""
        self.words += len(batch.words)
        now = time.monotonic()
        if now - self.said < (self.seconds if self.bar.disable else 0.5):
            return
        done, loss = trainer.global_step - self.first, float(trainer.callback_metrics.get("loss", 0.0))
        speed, left = (
            self.words / (now - self.begun),
            (now - self.begun) / max(done, 1) * (self.total - trainer.global_step),
        )
        self.said = now
        if not math.isfinite(loss) and trainer.world_size == 1:  # several processes look at the next validation
            check_weights(trainer, module)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} words/s", refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)
        if self.bar.disable:
            log.info(
                "update %d of %d, epoch %d: loss %.3f, %s words/s, %d:%02d left",
                *(trainer.global_step, self.total, trainer.current_epoch + 1, loss),
                *(f"{speed:,.0f}", left // 60, left % 60),
            )

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """What has come to nothing is neither judged nor saved."""
        check_weights(trainer, module)

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

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say which limit ended the run; patience says so itself."""
        assert isinstance(module, TrainingModule)
        done, most = trainer.global_step, module.options.max_steps
        over = {
            "max_steps": 0 < most <= done,
            "max_epochs": done >= self.total,
            "max_minutes": any((timer.time_remaining() or 0) <= 0 for timer in _timers(trainer)),
        }
        limit = next((name for name, reached in over.items() if reached), None)
        if limit and done > self.first:
            log.info("trained for %s updates, as long as training.%s allows", f"{done:,}", limit)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Close the bar."""
        if hasattr(self, "bar"):
            self.bar.close()


def _timers(trainer: pl.Trainer) -> list[Timer]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]


def check_weights(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """ValueError once a weight is NaN or infinite: nothing that follows can mend it."""
    assert isinstance(module, TrainingModule)
    if all(bool(weight.isfinite().all()) for weight in module.model.parameters()):
        return
    options = module.options
    if options.optimizer == "hessian-free":
        raise ValueError(
            f"the weights are NaN or infinite after update {trainer.global_step:,}: begin anew with training.damping "
            f"above {options.damping:g}"
        )
    clipping = "" if options.clip_norm else ", or set training.clip_norm"
    raise ValueError(
        f"the weights are NaN or infinite after update {trainer.global_step:,}: run it again with "
        f"training.learning_rate below {options.learning_rate:g}{clipping}; it goes on from the last validation, if "
        "there was one"
    )


class BestCheckpoints(ModelCheckpoint):
    """As many as are wanted now, where the folder is now, whatever was so when the run began; and always the last."""

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save the last one too where it is none of the best, which Lightning leaves out."""
        super().on_validation_end(trainer, module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the best of those that the run had kept."""
        ranked = sorted(state["best_k_models"].items(), key=lambda kept: float(kept[1]), reverse=self.mode == "max")
        best = {self._here(path): score for path, score in ranked[: self.save_top_k]}
        worst = list(best.items())[-1:] or [("", state["kth_value"])]
        kept = {"best_k_models": best, "kth_best_model_path": worst[0][0], "kth_value": worst[0][1]}
        paths = {name: self._here(state[name]) for name in ("best_model_path", "last_model_path")}
        super().load_state_dict({**state, **kept, **paths, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""


class Patience(EarlyStopping):
    """Early stopping with the patience of now; what has been waited counts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the count."""
        super().load_state_dict({**state, "patience": self.patience})

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A run that has stopped early stays stopped, unless its patience has grown."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say so where it ends the run."""
        super().on_validation_end(trainer, module)
        if self.wait_count >= self.patience and trainer.global_step < _planned(trainer):
            log.info("stopping early: no better for %d validations in a row (training.patience)", self.wait_count)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all; Lightning's go by way of $TMPDIR, which may be another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it beside its place, then rename it. OSError names the file."""
        buffer = BytesIO()  # torch.save tells no cause where it cannot write
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole(Path(path)) as beside:
            beside.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read it. ValueError for one that is damaged or gone."""
        try:
            return super().load_checkpoint(path, *arguments, **options)
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise ValueError(
                f"{path} is damaged or gone: copy the folder again, or --overwrite it to begin anew"
            ) from error
