"""What a training run works with, by its task: the text read and encoded, the model, and how it is judged."""

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

from nmt import checkpoint, corpus, monolingual
from nmt.batches import EncodedCorpus, encode_corpus
from nmt.checkpoint import NOISE, AnyModel, SavedModel, Tokenizers
from nmt.config import Config, ConfigError, to_dict
from nmt.corpus import Pair, Report
from nmt.evaluation import Score, build_metrics, evaluate
from nmt.language_training import LanguageModule, TextModule
from nmt.model.language_model import build_language_model
from nmt.model.seq2seq import Seq2Seq, build_model
from nmt.monolingual import EncodedText
from nmt.scoring import Scorer, perplexity
from nmt.shortlist import write_shortlist
from nmt.tokenizer import Tokenizer, TokenizerOptions, train_tokenizer
from nmt.training import DataModule, TrainingModule, TrainingOptions, TranslationModule
from nmt.translator import LONGEST, Translator

log = logging.getLogger("nmt")


class Run(NamedTuple):
    """All that training needs."""

    module: TrainingModule
    data: pl.LightningDataModule
    tokenizers: Tokenizers
    scores: Callable[[str], list[Score]]  # of the model as it is now, on the validation or the test text
    sign: int  # 1 where more of the first score is better, -1 where less is
    facts: dict[str, Any]  # what info.json says of the text and the vocabulary
    before: Score | None  # validation score of the model that fine-tuning starts from


def prepare_run(config: Config, folder: Path, place: torch.device) -> Run:
    """Read the text and build the model; what is wrong with either shows now, before anything is trained."""
    pl.seed_everything(config.seed + int(os.environ.get("LOCAL_RANK", 0)), verbose=False)  # dropout of each rank's own
    return (_language_run if config.task == "language-model" else _translation_run)(config, folder, place)


def read_all(config: Config) -> None:
    """Read all text once, for its errors: a model that works is not removed for one that cannot be trained."""
    read = monolingual.read_sentences if config.task == "language-model" else corpus.read_pairs
    for split in ("train", "validation", "test"):
        for source in corpus.sources(getattr(config.data, split)):
            for _ in read(source, config.data.languages, split):
                pass


def fingerprints(config: Config, split: str = "train") -> list[str]:
    """Digests of what the sources of a split hold."""
    digest = monolingual.fingerprint if config.task == "language-model" else corpus.fingerprint
    return [digest(name, config.data.languages, split) for name in corpus.sources(getattr(config.data, split))]


# ---- translation ----


def _translation_run(config: Config, folder: Path, place: torch.device) -> Run:
    build_metrics(("bleu",), False, config.data.target_language, None)
    start = checkpoint.load(config.init) if config.init else None
    tokenizers = _kept(start, folder) if start else _tokenizers(config, folder)
    train, validation = _encode("train", config, tokenizers), _encode("validation", config, tokenizers)
    model = build_model(config.model, tokenizers.source.size, tokenizers.target.size)
    if start:
        _take_weights(model, start, config)
        _compare_languages(start, config)
    held_out = partial(_held_out, corpus.read_pairs, lambda pair: pair.source, config, tokenizer=tokenizers.source)
    pairs = {split: held_out(split) for split in ("validation", "test")}
    model.to(place)
    before = _scores(model.eval(), tokenizers, config, pairs["validation"], "bleu")[0] if start else None
    shown = _spread(pairs["validation"], config.training)
    module = TranslationModule(model.train(), config.training, tokenizers, shown, config.data.target_language)
    data = DataModule(train, validation, config.training, config.seed)
    facts = {
        "languages": list(config.data.languages),
        "pairs": len(train),
        "vocabulary": {"source": tokenizers.source.size, "target": tokenizers.target.size},
    }
    return Run(
        module, data, tokenizers, lambda split: _scores(model, tokenizers, config, pairs[split]), 1, facts, before
    )


def _held_out(
    read: Callable[..., Iterable[Any]], said: Callable[[Any], str], config: Config, split: str, tokenizer: Tokenizer
) -> list[Any]:
    """All that is read of a split, none of it too long for what is `said` to be scored."""
    found: list[Any] = []
    for source in corpus.sources(getattr(config.data, split)):
        report, numbers = Report(), []
        for one in read(source, config.data.languages, split, report):
            found.append(one)
            numbers.append(report.read)
        _refuse_long(source, numbers, [said(one) for one in found[len(found) - len(numbers) :]], tokenizer)
    return found


def _refuse_long(source: str, numbers: list[int], lines: list[str], tokenizer: Tokenizer) -> None:
    """ValueError for held-out text that could not be scored: better before the training than after it."""
    for number, ids in zip(numbers, tokenizer.encode(lines), strict=True):
        if len(ids) > LONGEST:
            raise ValueError(
                f"{source}, line {number}: {len(ids):,} pieces, and no sentence of held-out text may have more than "
                f"{LONGEST:,}: split it, or leave it out"
            )


def _encode(split: str, config: Config, tokenizers: Tokenizers) -> EncodedCorpus:
    table, report = encode_corpus(getattr(config.data, split), split, config.data, *tokenizers)
    log.info("%s: %s", split, report)
    return table


def add_shortlist(config: Config, folder: Path) -> None:
    """Learn from the training text what may translate what, and write it to the model folder."""
    tokenizers = Tokenizers.load(folder)
    table, _ = encode_corpus(config.data.train, "train", config.data, *tokenizers)
    write_shortlist(folder, table, tokenizers, config.init)


def _spread(pairs: list[Pair], options: TrainingOptions) -> list[Pair]:
    """`validation_sentences` of the pairs, evenly spread."""
    count = min(options.validation_sentences or len(pairs), len(pairs))
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _scores(model: Seq2Seq, tokenizers: Tokenizers, config: Config, pairs: list[Pair], *metrics: str) -> list[Score]:
    """Scores of the model's translations under the config's search."""
    translator = Translator(model, tokenizers, config.search)
    hypotheses = [translation.text for translation in translator.translate(pair.source for pair in pairs)]
    references = [[pair.target for pair in pairs]]
    chosen = {"metrics": metrics} if metrics else {}
    return evaluate(hypotheses, references, language=config.data.target_language, **chosen)  # type: ignore[arg-type]


# ---- language models ----


def _language_run(config: Config, folder: Path, place: torch.device) -> Run:
    start = checkpoint.load_language_model(config.init) if config.init else None
    tokenizers = _kept(start, folder) if start else _tokenizers(config, folder)
    tokenizer = tokenizers.target
    train, validation = _encode_text("train", config, tokenizers), _encode_text("validation", config, tokenizers)
    model = build_language_model(config.model, tokenizer.size)
    if start:
        _take_weights(model, start, config)
    scorer = Scorer(model.to(place).eval(), tokenizers)
    held_out = partial(_held_out, monolingual.read_sentences, str, config, tokenizer=tokenizer)
    texts = {split: held_out(split) for split in ("validation", "test")}
    before = perplexity(scorer, texts["validation"])[0] if start else None
    module = LanguageModule(model.train(), config.training)
    facts = {
        "languages": [config.data.target_language],
        "sentences": len(train),
        "vocabulary": {"source": tokenizer.size, "target": tokenizer.size},
    }
    data = TextModule(train, validation, config.training)
    return Run(module, data, tokenizers, lambda split: perplexity(scorer, texts[split]), -1, facts, before)


def _encode_text(split: str, config: Config, tokenizers: Tokenizers) -> EncodedText:
    text = monolingual.encode_text(getattr(config.data, split), split, config.data, tokenizers.target)
    report = text.report
    dropped = f"{report.blank:,} blank, {report.too_long:,} too long"
    log.info("%s: %s sentences read, %s kept; dropped: %s", split, f"{report.read:,}", f"{report.kept:,}", dropped)
    return text


# ---- the vocabulary, and weights to start from ----


def _kept(start: SavedModel[AnyModel], folder: Path) -> Tokenizers:
    """Those of the model that is fine-tuned; once they are in the folder, they are the folder's."""
    if _has_vocabulary(folder):
        own = Tokenizers.load(folder)
        if [one.digest for one in own] != [one.digest for one in start.tokenizers]:
            raise ConfigError(
                f"the model that {folder} began from has another vocabulary now: choose another --output, or "
                "--overwrite it"
            )
        return own
    start.tokenizers.save(folder)
    return start.tokenizers


def _has_vocabulary(folder: Path) -> bool:
    return (folder / "tokenizer.spm").exists() or (folder / "target.spm").exists()


def _tokenizers(config: Config, folder: Path) -> Tokenizers:
    """Those of the folder, or of the model that `tokenizer.model` names, or new ones trained on the training text."""
    if _has_vocabulary(folder):
        return Tokenizers.load(folder)
    alone = config.task == "language-model"
    if config.tokenizer.model:
        tokenizers = Tokenizers.load(Path(config.tokenizer.model))
        _say_what_is_not_learnt(config.tokenizer)
        tokenizers = Tokenizers(tokenizers.target, tokenizers.target) if alone else tokenizers
        if not alone and config.tokenizer.joint != (tokenizers.source is tokenizers.target):
            raise ConfigError(
                f"tokenizer.joint is {config.tokenizer.joint}, but the vocabulary of {config.tokenizer.model} is not: "
                f"set it to {not config.tokenizer.joint}"
            )
        tokenizers.save(folder)
        return tokenizers
    log.info("tokenizer: learning %d %s pieces", config.tokenizer.vocab_size, config.tokenizer.type)
    if config.tokenizer.joint or alone:
        text = _training_text(config, (1,) if alone else (0, 1))
        return Tokenizers(*[train_tokenizer(text, config.tokenizer, folder / "tokenizer.spm")] * 2)
    return Tokenizers(
        train_tokenizer(_training_text(config, (0,)), config.tokenizer, folder / "source.spm"),
        train_tokenizer(_training_text(config, (1,)), config.tokenizer, folder / "target.spm"),
    )


def _say_what_is_not_learnt(options: TokenizerOptions) -> None:
    """Name the options of how a vocabulary is learnt, where one is taken over."""
    fields = TokenizerOptions.__dataclass_fields__
    given = [name for name in fields if getattr(options, name) != fields[name].default]
    if names := [f"tokenizer.{name}" for name in given if name not in ("model", "joint")]:
        log.info("the vocabulary is that of %s: %s said nothing", options.model, ", ".join(names))


def _training_text(config: Config, sides: Iterable[int]) -> Iterable[str]:
    """All sentences of these sides of the training text."""
    for source in corpus.sources(config.data.train):
        if config.task == "language-model":
            yield from monolingual.read_sentences(source, config.data.languages, "train")
        else:
            for pair in corpus.read_pairs(source, config.data.languages, "train"):
                yield from (pair[side] for side in sides)


def _take_weights(model: AnyModel, start: SavedModel[AnyModel], config: Config) -> None:
    """Start from a saved model's weights. ConfigError if the options ask for another vocabulary or network."""
    if config.tokenizer != TokenizerOptions(**start.config["tokenizer"]):
        raise ConfigError(f"fine-tuning keeps the vocabulary of {config.init}: leave out the tokenizer options")
    different = checkpoint.other_network(start.config["model"], to_dict(config)["model"], (*NOISE, "zoneout"))
    if different:
        listing = "".join(f"\n  {key}: was {old!r}, now {new!r}" for key, (old, new) in different.items())
        raise ConfigError(f"fine-tuning keeps the network of {config.init}; leave these as they were:{listing}")
    model.load_state_dict(start.model.state_dict())


def _compare_languages(start: SavedModel[Seq2Seq], config: Config) -> None:
    """Say so where the model is to learn other languages: a side may have been taken for the other."""
    before = start.config["data"]["source_language"], start.config["data"]["target_language"]
    if before != config.data.languages:
        said = "%s translates %s to %s; from it, this one learns %s to %s"
        log.warning(said, config.init, *before, *config.data.languages)
