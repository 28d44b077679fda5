"""From a config to a model folder: text, vocabulary, the Lightning Trainer, resuming, averaging, final scores."""

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger

import nmt
from nmt import checkpoint, corpus, shortlist
from nmt.batches import EncodedCorpus, encode_corpus
from nmt.callbacks import LAST, BestCheckpoints, Patience, Progress, StopOnSignal, WholeCheckpoints
from nmt.checkpoint import SavedModel, Tokenizers
from nmt.config import Config, ConfigError, changes, dump, load_file, to_dict
from nmt.corpus import Pair
from nmt.evaluation import Score, build_metrics, evaluate, render
from nmt.model.recurrent import WAYS
from nmt.model.seq2seq import Seq2Seq, build_model
from nmt.shortlist import write_shortlist
from nmt.tokenizer import TokenizerOptions, train_tokenizer
from nmt.training import DataModule, TrainingOptions, TranslationModule, choose_precision, recurrent_layers
from nmt.translator import Translator, choose_device

log = logging.getLogger("nmt")

FREE_TO_CHANGE = ("training.", "search.", "data.test")
OF_NO_CONSEQUENCE = ("data.workers", "data.cache", "output")
BOUND_TO_BATCHES = (
    "training.batch_tokens",
    "training.devices",
    "training.accumulate",
    "training.optimizer",
    "training.damping",
)


def fit(config: Config, *, overwrite: bool = False, device: str = "auto") -> None:
    """Train what `config` describes into `config.output`, or go on where an earlier run of it stopped.

    Raises ConfigError for options that contradict the folder or each other, StoppedError after a signal; ValueError and
    OSError for text that cannot be read.
    """
    if int(os.environ.get("LOCAL_RANK", 0)):
        log.setLevel(logging.ERROR)  # one process of a DDP run speaks for all
    folder = Path(config.output)
    place = choose_device(device)
    looped = config.training.optimizer == "hessian-free"
    precision = choose_precision("fp32" if looped else config.training.precision, place)
    _check_sources(config)
    _check_optimizer(config)
    resuming, changed = prepare_folder(folder, config, overwrite)
    if resuming and not changed and (folder / checkpoint.INFO).exists():
        if not (folder / shortlist.FILE).exists():  # of an earlier version
            _check_text(folder, config)
            tokenizers = Tokenizers.load(folder)
            write_shortlist(folder, _encode("train", config, tokenizers), tokenizers, config.init)
        log.info("%s is already trained; nothing to do", folder)
        return
    try:
        run = _prepare_run(config, folder, place)
    except BaseException:
        if not resuming:
            _remove_run(folder)
            folder.rmdir()
        raise
    if changed:
        checkpoint.write_whole(folder / checkpoint.CONFIG, dump(config))
        (folder / checkpoint.INFO).unlink(missing_ok=True)  # until the run has ended under its new options
    _quieten_lightning()
    trainer = _trainer(config, folder, place, precision)
    parameters = sum(parameter.numel() for parameter in run.module.parameters())
    log.info(
        "model: %.1fM parameters, on %s in %s, %d threads", parameters / 1e6, place, precision, torch.get_num_threads()
    )
    layers = recurrent_layers(run.module.model)
    ways = {"loop" if looped else layer.path(place, True, precision != "32-true") for layer in layers}
    log.info("recurrence: %s", "; ".join(WAYS[way] for way in sorted(ways)))
    last = folder / "training" / LAST
    trainer.fit(
        run.module, datamodule=run.data, ckpt_path=last if resuming and last.exists() else None, weights_only=True
    )
    if trainer.is_global_zero:
        run.module.model.to(place)  # Lightning leaves it on the CPU
        _finish(folder, config, run)


class Run(NamedTuple):
    """All that training needs."""

    module: TranslationModule
    data: DataModule
    tokenizers: Tokenizers
    before: float | None  # validation BLEU of the model that fine-tuning starts from


def _prepare_run(config: Config, folder: Path, place: torch.device) -> Run:
    """Read the text and build the model; what is wrong with either shows now, before anything is trained."""
    build_metrics(("bleu",), False, config.data.target_language, None)
    pl.seed_everything(config.seed + int(os.environ.get("LOCAL_RANK", 0)), verbose=False)  # dropout of each rank's own
    start = checkpoint.load(config.init) if config.init else None
    tokenizers = start.tokenizers if start else _tokenizers(config, folder)
    if start:
        tokenizers.save(folder)
    train, validation = _encode("train", config, tokenizers), _encode("validation", config, tokenizers)
    _check_text(folder, config)
    model = build_model(config.model, tokenizers.source.size, tokenizers.target.size)
    if start:
        _take_weights(model, start, config)
    pairs = _pairs(config, "validation")
    _pairs(config, "test")
    model.to(place)
    before = _bleu(model.eval(), tokenizers, config, pairs) if start else None
    shown = _spread(pairs, config.training)
    module = TranslationModule(model.train(), config.training, tokenizers, shown, config.data.target_language)
    return Run(module, DataModule(train, validation, config.training, config.seed), tokenizers, before)


def prepare_folder(folder: Path, config: Config, overwrite: bool) -> tuple[bool, bool]:
    """Make the folder, or find in it an earlier run of this config; whether it is one, and whether options changed.

    Raises ConfigError, listing what differs, for a run of another text, vocabulary or network, and for a folder that
    is not a run at all. What may change between runs (rates, limits, decoding) is listed and obeyed.
    """
    taken = folder.is_dir() and any(folder.iterdir())
    if overwrite and taken and "LOCAL_RANK" not in os.environ:  # not again in each process of a DDP run
        _read_all(config)
        _remove_run(folder)
        taken = False
    written = folder / checkpoint.CONFIG
    if not taken and not folder.is_file():
        (folder / "training").mkdir(parents=True, exist_ok=True)
        checkpoint.write_whole(written, dump(config))
        return False, False
    if not written.is_file() or not (folder / "training").is_dir():
        raise ConfigError(f"{folder} exists and is not a training run: choose another --output")
    found = changes(load_file(str(written)), to_dict(config))
    different = {key: values for key, values in found.items() if key not in OF_NO_CONSEQUENCE}
    listing = "".join(f"\n  {key}: was {old!r}, now {new!r}" for key, (old, new) in different.items())
    if any(not key.startswith(FREE_TO_CHANGE) or key in BOUND_TO_BATCHES for key in different):
        raise ConfigError(
            f"{folder} holds a run with other options; choose another --output, or --overwrite it:{listing}"
        )
    if different:
        log.info("options changed since this run began:%s", listing)
    return True, bool(different)


def _remove_run(folder: Path) -> None:
    """Remove a run's own files. ConfigError, and nothing removed, where there is no run or anything else beside it."""
    ours = {checkpoint.CONFIG, checkpoint.INFO, checkpoint.WEIGHTS, checkpoint.CARD, "training"}
    ours |= {"tokenizer.spm", "source.spm", "target.spm", shortlist.FILE}
    found = {path.name for path in folder.iterdir()}
    foreign = sorted(name for name in found if name.removesuffix(".part") not in ours)
    if foreign or checkpoint.CONFIG not in found:
        raise ConfigError(
            f"{folder} holds what no training run wrote, {(foreign or sorted(found))[0]}: choose another --output"
        )
    for name in found - {"training"}:
        (folder / name).unlink()
    if "training" in found:
        shutil.rmtree(folder / "training")


def _read_all(config: Config) -> None:
    """Read all text once, for its errors: a model that works is not removed for one that cannot be trained."""
    for split in ("train", "validation", "test"):
        for source in corpus.sources(getattr(config.data, split)):
            for _ in corpus.read_pairs(source, config.data.languages, split):
                pass


def _take_weights(model: Seq2Seq, start: SavedModel, config: Config) -> None:
    """Start from a saved model's weights. ConfigError if the options ask for another vocabulary or network."""
    if config.tokenizer != TokenizerOptions(**start.config["tokenizer"]):
        raise ConfigError(f"fine-tuning keeps the vocabulary of {config.init}: leave out the tokenizer options")
    different = changes(start.config["model"], to_dict(config)["model"])
    listing = "".join(
        f"\n  model.{key}: was {old!r}, now {new!r}"
        for key, (old, new) in different.items()
        if key not in ("dropout", "recurrent_dropout", "zoneout", "word_dropout", "init_range", "forget_bias")
    )
    if listing:
        raise ConfigError(f"fine-tuning keeps the network of {config.init}; leave these as they were:{listing}")
    model.load_state_dict(start.model.state_dict())


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
            raise ConfigError(
                f"no text given: set --data.{split} (a prefix such as corpus/{split} for its two languages)"
            )
    if config.init and Path(config.init).resolve() == Path(config.output).resolve():
        raise ConfigError(f"--output is the model to start from, {config.init}: choose a new folder")


def _check_text(folder: Path, config: Config) -> None:
    """Hold a resumed run to the text that it began with."""
    data = config.data
    digests = [corpus.fingerprint(name, data.languages, "train") for name in corpus.sources(data.train)]
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    path = folder / "training" / "text.json"
    if not path.exists():
        checkpoint.write_whole(path, json.dumps({"train": digest}))
    elif json.loads(path.read_text(encoding="utf8"))["train"] != digest:
        raise ConfigError(
            f"the training text has changed since {folder} began: choose another --output, or --overwrite it"
        )


def _pairs(config: Config, split: str) -> list[Pair]:
    data = config.data
    sources = corpus.sources(getattr(data, split))
    return [pair for source in sources for pair in corpus.read_pairs(source, data.languages, split)]


def _tokenizers(config: Config, folder: Path) -> Tokenizers:
    """Those of the folder, or new ones trained on the training text."""
    if (folder / "tokenizer.spm").exists() or (folder / "target.spm").exists():
        return Tokenizers.load(folder)
    log.info("tokenizer: learning %d %s pieces", config.tokenizer.vocab_size, config.tokenizer.type)

    def text(sides: Iterable[int]) -> Iterable[str]:
        return (
            pair[side]
            for source in corpus.sources(config.data.train)
            for pair in corpus.read_pairs(source, config.data.languages, "train")
            for side in sides
        )

    if config.tokenizer.joint:
        return Tokenizers(*[train_tokenizer(text((0, 1)), config.tokenizer, folder / "tokenizer.spm")] * 2)
    return Tokenizers(
        train_tokenizer(text((0,)), config.tokenizer, folder / "source.spm"),
        train_tokenizer(text((1,)), config.tokenizer, folder / "target.spm"),
    )


def _encode(split: str, config: Config, tokenizers: Tokenizers) -> EncodedCorpus:
    table, report = encode_corpus(getattr(config.data, split), split, config.data, *tokenizers)
    log.info("%s: %s", split, report)
    return table


def _spread(pairs: list[Pair], options: TrainingOptions) -> list[Pair]:
    """`validation_sentences` of the pairs, evenly spread."""
    count = min(options.validation_sentences or len(pairs), len(pairs))
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _trainer(config: Config, folder: Path, device: torch.device, precision: Any) -> pl.Trainer:
    options = config.training
    metric, mode = ("val_bleu", "max") if options.validation_metric == "bleu" else ("val_loss", "min")
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


def _finish(folder: Path, config: Config, run: Run) -> None:
    """Save the best weights or the mean of the best, whichever is better on the validation text, with their scores."""
    module, tokenizers = run.module, run.tokenizers
    saver = module.trainer.checkpoint_callback
    assert isinstance(saver, ModelCheckpoint)
    best = [_weights(saver.best_model_path)] if saver.best_model_path else [module.model.state_dict()]
    all_best = [_weights(path) for path in saver.best_k_models]
    choices = [best[0]] + ([checkpoint.average(all_best)] if len(all_best) > 1 else [])
    validation = _pairs(config, "validation")
    model = module.model
    model.eval()
    scored = []
    for weights in choices:
        model.load_state_dict(weights)
        scored.append(_scores(model, tokenizers, config, validation))
    chosen = max(range(len(scored)), key=lambda number: scored[number][0].score)
    model.load_state_dict(choices[chosen])
    log.info(
        "weights: %s", "the best checkpoint" if chosen == 0 else f"the mean of the {len(all_best)} best checkpoints"
    )
    scores = {"validation": scored[chosen]}
    if config.data.test:
        scores["test"] = _scores(model, tokenizers, config, _pairs(config, "test"))
    for name, found in scores.items():
        log.info("%s:\n%s", name, render(found))
    if run.before is not None:
        log.info("validation BLEU before %.2f, after %.2f", run.before, scored[chosen][0].score)
    checkpoint.save_weights(model, folder)
    write_shortlist(folder, run.data.train, tokenizers, config.init)
    info = {
        "version": nmt.__version__,
        "languages": list(config.data.languages),
        "pairs": len(run.data.train),
        "vocabulary": {"source": tokenizers.source.size, "target": tokenizers.target.size},
        "text": json.loads((folder / "training" / "text.json").read_text(encoding="utf8")),
        "steps": module.global_step,
        "scores": {name: [score.__dict__ for score in found] for name, found in scores.items()},
    }
    checkpoint.save_info(info, folder)
    log.info("model folder: %s", folder)


def _weights(path: str) -> dict[str, torch.Tensor]:
    state = WholeCheckpoints().load_checkpoint(path, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def _scores(model: Seq2Seq, tokenizers: Tokenizers, config: Config, pairs: list[Pair], *metrics: str) -> list[Score]:
    """Scores of the model's translations under the config's search."""
    translator = Translator(model, tokenizers, config.search)
    hypotheses = [translation.text for translation in translator.translate(pair.source for pair in pairs)]
    references = [[pair.target for pair in pairs]]
    chosen = {"metrics": metrics} if metrics else {}
    return evaluate(hypotheses, references, language=config.data.target_language, **chosen)  # type: ignore[arg-type]


def _bleu(model: Seq2Seq, tokenizers: Tokenizers, config: Config, pairs: list[Pair]) -> float:
    return _scores(model, tokenizers, config, pairs, "bleu")[0].score
