"""From a config to a model folder: the Lightning Trainer, resuming, averaging, final scores."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger

import nmt
from nmt import checkpoint, shortlist
from nmt.callbacks import LAST, BestCheckpoints, Patience, Progress, StopOnSignal, WholeCheckpoints
from nmt.config import Config, ConfigError, changes, dump, flatten, load_file, to_dict
from nmt.evaluation import render
from nmt.model.recurrent import WAYS, recurrent_layers, tf32
from nmt.runs import Run, add_shortlist, fingerprints, prepare_run, read_all
from nmt.search import SearchOptions
from nmt.training import CHOICE, DataModule, choose_precision
from nmt.translator import choose_device

log = logging.getLogger("nmt")

BEFORE = ".overwritten"  # in the model folder: the run that was there, until the new one can begin
FREE_TO_CHANGE = ("training.", "search.", "data.test")
OF_NO_CONSEQUENCE = ("data.workers", "data.cache", "output")
BOUND = (  # to what a run has done
    "training.batch_tokens",
    "training.devices",
    "training.accumulate",
    "training.optimizer",
    "training.damping",
    "training.validation_metric",
)


def fit(config: Config, *, overwrite: bool = False, device: str = "auto") -> None:
    """Train what `config` describes into `config.output`, or go on where an earlier run of it stopped.

    Raises ConfigError for options that contradict the folder or each other, StoppedError after a signal; ValueError and
    OSError for text that cannot be read.
    """
    if int(os.environ.get("LOCAL_RANK", 0)):
        log.setLevel(logging.ERROR)  # one process of a DDP run speaks for all
    with alone(Path(config.output)):
        _fit(config, Path(config.output), overwrite, choose_device(device))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder, made if there is none, so that no other run can; one that was made and is empty goes again.

    ConfigError if another run holds it.
    """
    if "LOCAL_RANK" in os.environ or folder.is_file():  # a process of the run that holds it; or what is refused later
        yield
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network drives have no locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{folder} is in training by another process: wait for it, or choose another --output"
                ) from None
        _undo(folder)
        yield
    finally:
        os.close(held)
        if made:
            with suppress(OSError):
                folder.rmdir()


def _fit(config: Config, folder: Path, overwrite: bool, place: torch.device) -> None:
    looped = config.training.optimizer == "hessian-free"
    precision = choose_precision("fp32" if looped else config.training.precision, place)
    _check_sources(config)
    _check_optimizer(config)
    resuming, changed = prepare_folder(folder, config, overwrite)
    if resuming and not changed and (folder / checkpoint.INFO).exists():
        try:
            _check_text(folder, config)
        except ConfigError:
            raise
        except (OSError, ValueError):
            log.info("its text can no longer be read")
        if config.task == "translation" and not (folder / shortlist.FILE).exists():  # of an earlier version
            add_shortlist(config, folder)
        log.info("%s is already trained; nothing to do", folder)
        return
    if changed and (folder / checkpoint.INFO).exists() and not (folder / "training" / LAST).exists():
        raise ConfigError(
            f"{folder} is trained and its checkpoints are gone, so that it cannot go on under other options: give it "
            "those it had, choose another --output, or fine-tune it"
        )
    try:
        _check_text(folder, config)  # before a vocabulary is learnt from it, which a run that goes on will take
        run = prepare_run(config, folder, place)
        tested = fingerprints(config, "test") if config.data.test else []
    except BaseException:
        if not resuming:
            _remove_run(folder)
            _put_back(folder)
        raise
    _let_go(folder)
    if changed:
        checkpoint.write_whole(folder / checkpoint.CONFIG, dump(config))
        (folder / checkpoint.INFO).unlink(missing_ok=True)  # until the run has ended under its new options
    _quieten_lightning()
    trainer = _trainer(config, folder, place, precision)
    parameters = sum(parameter.numel() for parameter in run.module.parameters())
    kind = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}[precision]
    threads = torch.get_num_threads()
    log.info(
        "model: %.1fM parameters, on %s in %s, %d thread%s", parameters / 1e6, place, kind, threads, "s" * (threads > 1)
    )
    layers = recurrent_layers(run.module.model)
    ways = {"loop" if looped else layer.path(place, True, precision != "32-true") for layer in layers}
    log.info("recurrence: %s", "; ".join(WAYS[way] for way in sorted(ways)))
    last = folder / "training" / LAST
    start = last if resuming and last.exists() else None
    with tf32(precision != "32-true"):
        trainer.fit(run.module, datamodule=run.data, ckpt_path=start, weights_only=True)
    if trainer.is_global_zero:
        run.module.model.to(place)  # Lightning leaves it on the CPU
        _finish(folder, config, run, tested)


def prepare_folder(folder: Path, config: Config, overwrite: bool) -> tuple[bool, bool]:
    """Make the folder, or find in it an earlier run of this config; whether it is one, and whether options changed.

    Raises ConfigError, listing what differs, for a run of another text, vocabulary or network, and for a folder that
    is not a run at all. What may change between runs (rates, limits, decoding) is listed and obeyed. Of a folder that
    `nmt tune` has tuned, search options are not changed that are as they were before: the tuned ones stay, unless
    something else makes the run go on, to weights that nothing has been tuned for.
    """
    taken = folder.is_dir() and any(folder.iterdir())
    if overwrite and taken and "LOCAL_RANK" not in os.environ:  # not again in each process of a DDP run
        read_all(config)
        _set_aside(folder)
        taken = False
    written = folder / checkpoint.CONFIG
    if not taken and not folder.is_file():
        (folder / "training").mkdir(parents=True, exist_ok=True)
        checkpoint.write_whole(written, dump(config))
        return False, False
    if not written.is_file() or not (folder / "training").is_dir():
        raise ConfigError(f"{folder} exists and is not a training run: choose another --output")
    found = changes(flatten(to_dict(Config())) | flatten(load_file(str(written))), to_dict(config))
    different = {key: values for key, values in found.items() if key not in OF_NO_CONSEQUENCE}
    listing = "".join(f"\n  {key}: was {old!r}, now {new!r}" for key, (old, new) in different.items())
    bound = (*BOUND, *(["training.truncate"] if config.task == "language-model" else []))
    if any(not key.startswith(FREE_TO_CHANGE) or key in bound for key in different):
        raise ConfigError(
            f"{folder} holds a run with other options; choose another --output, or --overwrite it:{listing}"
        )
    if different and all(key.startswith("search.") for key in different) and _as_before_tuning(folder, config):
        return True, False
    if different:
        log.info("options changed since this run began:%s", listing)
    return True, bool(different)


def _as_before_tuning(folder: Path, config: Config) -> bool:
    """Whether the search options are those that a tuned folder had before it was tuned."""
    if not (folder / checkpoint.INFO).is_file():
        return False
    before = checkpoint.read_folder(folder)[1].get("tuning", {}).get("search_before")
    return before is not None and SearchOptions(**before) == config.search


def _own_files(folder: Path) -> set[str]:
    """The names of a run's own files. ConfigError where there is no run or anything else beside it."""
    ours = {checkpoint.CONFIG, checkpoint.INFO, checkpoint.WEIGHTS, checkpoint.CARD, "training", BEFORE}
    ours |= {"tokenizer.spm", "source.spm", "target.spm", shortlist.FILE}
    found = {path.name for path in folder.iterdir()}
    foreign = sorted(name for name in found if name.removesuffix(".part") not in ours)
    if foreign or checkpoint.CONFIG not in found:
        raise ConfigError(
            f"{folder} holds what no training run wrote, {(foreign or sorted(found))[0]}: choose another --output"
        )
    return found - {BEFORE}


def _remove_run(folder: Path) -> None:
    """Remove a run's own files, its config last, or nothing if there is anything else."""
    for name in _config_last(_own_files(folder)):
        shutil.rmtree(folder / name) if name == "training" else (folder / name).unlink()


def _config_last(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: name == checkpoint.CONFIG)


# A run that is set aside is there as long as its config is: that goes there first, comes back last, is removed first.
# So whenever a process is killed, the next one knows which of two runs is whole.


def _set_aside(folder: Path) -> None:
    """Make room for another run in the folder; what was there can be put back."""
    names = _own_files(folder)
    (folder / BEFORE).mkdir()
    for name in reversed(_config_last(names)):
        (folder / name).rename(folder / BEFORE / name)


def _put_back(folder: Path) -> None:
    """Undo it, if it was done."""
    if (folder / BEFORE).is_dir():
        for name in _config_last(path.name for path in (folder / BEFORE).iterdir()):
            (folder / BEFORE / name).rename(folder / name)
        (folder / BEFORE).rmdir()


def _let_go(folder: Path) -> None:
    """Remove the run that was set aside, for the new one has begun."""
    (folder / BEFORE / checkpoint.CONFIG).unlink(missing_ok=True)
    shutil.rmtree(folder / BEFORE, ignore_errors=True)


def _undo(folder: Path) -> None:
    """Put back a run that was set aside for one which was killed before it could begin, and remove that one."""
    if not (folder / BEFORE / checkpoint.CONFIG).exists():
        _let_go(folder)
        return
    if (folder / checkpoint.CONFIG).exists():
        _remove_run(folder)
    _put_back(folder)


def _check_optimizer(config: Config) -> None:
    """Hessian-free measures the curvature of one function, in full precision: noise would make it another each time."""
    noise = ("dropout", "recurrent_dropout", "zoneout", "word_dropout")
    if config.training.optimizer == "hessian-free" and (on := [name for name in noise if getattr(config.model, name)]):
        raise ConfigError(f"training.optimizer hessian-free needs model.{on[0]} 0, not {getattr(config.model, on[0])}")
    if config.training.optimizer == "hessian-free" and config.training.precision not in ("auto", "fp32"):
        raise ConfigError(f"training.optimizer hessian-free computes in fp32, not {config.training.precision}")


def _check_sources(config: Config) -> None:
    for split in ("train", "validation"):
        if not getattr(config.data, split):
            example = "a text file, a sentence a line"
            if config.task != "language-model":
                example = f"a prefix such as corpus/{split} for its two languages"
            raise ConfigError(f"no text given: set --data.{split} ({example})")
    if config.init and Path(config.init).resolve() == Path(config.output).resolve():
        raise ConfigError(f"--output is the model to start from, {config.init}: choose a new folder")


def _check_text(folder: Path, config: Config) -> None:
    """Hold a resumed run to the text that it began with."""
    splits = "train", "validation"
    digests = {name: hashlib.sha256("".join(fingerprints(config, name)).encode()).hexdigest() for name in splits}
    path = folder / "training" / "text.json"
    before = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    for name, digest in digests.items():
        if before.get(name, digest) != digest:
            text = "training" if name == "train" else name
            raise ConfigError(
                f"the {text} text has changed since {folder} began: choose another --output, or --overwrite it"
            )
    if digests.keys() - before.keys():  # a new run, or one of an earlier version
        checkpoint.write_whole(path, json.dumps(digests))


def _trainer(config: Config, folder: Path, device: torch.device, precision: Any) -> pl.Trainer:
    options = config.training
    metric, mode = (CHOICE, "max") if options.validation_metric == "bleu" else ("val_loss", "min")
    callbacks: list[Callback] = [
        Progress(),
        StopOnSignal(folder),
        BestCheckpoints(
            folder / "training",
            "{step}",
            monitor=metric,
            mode=mode,
            save_top_k=options.average,
            save_last=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        ),
    ]
    if options.patience:
        callbacks.append(Patience(metric, mode=mode, patience=options.patience, check_on_train_epoch_end=False))
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and options.devices == 1 else options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        precision=precision,
        max_epochs=options.max_epochs,
        max_steps=options.max_steps or -1,
        max_time={"seconds": int(options.max_minutes * 60)} if options.max_minutes else None,
        accumulate_grad_batches=options.accumulate,
        val_check_interval=options.validate_every * options.accumulate or None,
        check_val_every_n_epoch=None if options.validate_every else 1,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=WholeCheckpoints(),
        logger=_loggers(folder),
        default_root_dir=folder / "training",
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _quieten_lightning() -> None:
    """Lightning's advice is for its programmers; ours is in the log already."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        "Experiment logs directory",
        "Checkpoint directory",
        ".*treespec",
        "The number of training batches",
        "You have overridden `on_before_batch_transfer`",
        "GPU available but not used",
    ):
        warnings.filterwarnings("ignore", message)


def _loggers(folder: Path) -> list[Logger]:
    """training/metrics/version_N/metrics.csv always, a new one at each resumption; TensorBoard where installed."""
    loggers: list[Logger] = [CSVLogger(folder / "training", name="metrics")]
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(folder / "training", name="tensorboard"))
    except ModuleNotFoundError:
        pass
    return loggers


def _finish(folder: Path, config: Config, run: Run, tested: list[str]) -> None:
    """Save the best weights or the mean of the best, whichever is better on the validation text, with their scores."""
    module = run.module
    saver = module.trainer.checkpoint_callback
    assert isinstance(saver, ModelCheckpoint)
    there = {path: float(score) for path, score in saver.best_k_models.items() if Path(path).is_file()}
    best = sorted(there, key=there.__getitem__, reverse=saver.mode == "max")
    states = [_weights(path) for path in best] or [module.model.state_dict()]
    choices = states[:1] + ([checkpoint.average(states)] if len(best) > 1 else [])
    model = module.model
    model.eval()
    scored = []
    for weights in choices:
        model.load_state_dict(weights)
        scored.append(run.scores("validation"))
    chosen = max(range(len(scored)), key=lambda number: run.sign * scored[number][0].score)
    model.load_state_dict(choices[chosen])
    single = f"the best checkpoint, of update {Path(best[0]).stem.rpartition('=')[2]}" if best else "those of the end"
    log.info("weights: %s", single if chosen == 0 else f"the mean of the {len(best)} best checkpoints")
    scores = {"validation": scored[chosen]}
    if config.data.test:
        scores["test"] = run.scores("test")
    for name, found in scores.items():
        log.info("%s:\n%s", name, render(found))
    if run.before is not None:
        after = scored[chosen][0]
        log.info("validation %s before %.2f, after %.2f", after.name, run.before.score, after.score)
    checkpoint.save_weights(model, folder)
    if config.task == "translation":
        assert isinstance(run.data, DataModule)
        shortlist.write_shortlist(folder, run.data.train, run.tokenizers, config.init)
    info = {
        "version": nmt.__version__,
        **run.facts,
        "text": {
            **json.loads((folder / "training" / "text.json").read_text(encoding="utf8")),
            **({"test": tested} if tested else {}),
        },
        "steps": module.global_step,
        "scores": {name: [score.__dict__ for score in found] for name, found in scores.items()},
    }
    checkpoint.save_info(info, folder)
    log.info("model folder: %s", folder)


def _weights(path: str) -> dict[str, torch.Tensor]:
    state = WholeCheckpoints().load_checkpoint(path, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}
