"""Language models trained: the carried state, runs interrupted and taken up, what is refused. All on a toy language."""

import json
import math
import os
import shutil
import signal
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from nmt import checkpoint, config
from nmt.callbacks import StoppedError
from nmt.cli import main
from nmt.config import ConfigError
from nmt.fit import fit
from nmt.language_training import LanguageModule
from nmt.model.language_model import build_language_model
from nmt.model.seq2seq import ModelOptions
from nmt.monolingual import Stretches
from nmt.scoring import Scorer, perplexity
from nmt.tokenizer import PAD
from nmt.training import TrainingOptions

TASK = [
    "--task=language-model",
    "--training.validation_metric=loss",
    "--training.truncate=5",
    "--training.batch_tokens=50",
    "--training.max_epochs=2",
    "--model.hidden_size=16",
    "--model.embedding_size=16",
    "--tokenizer.vocab_size=36",
]


def run(toy, folder: Path, *flags: str, overwrite: bool = False) -> Path:
    own = [flag for flag in toy.under([*TASK, *flags]) if "encoder" not in flag]
    fit(config.read([], [*own, "--output", str(folder)]), overwrite=overwrite, device="cpu")
    return folder


def outcome(folder: Path) -> tuple[bytes, dict]:
    return (folder / "model.safetensors").read_bytes(), json.loads((folder / "info.json").read_text())


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory):
    return cache(lambda *flags: outcome(run(toy, tmp_path_factory.mktemp("whole") / "model", *flags)))


# ---- the carried state ----


def module_of(**options) -> LanguageModule:
    torch.manual_seed(5)
    shape = ModelOptions(embedding_size=6, hidden_size=6, decoder_layers=2, dropout=0.0, init_range=0.5)
    module = LanguageModule(build_language_model(shape, 12), TrainingOptions(label_smoothing=0.0, **options))
    module.log = lambda *_, **__: None
    return module


IDS = np.array([5, 6, 3, 7, 8, 9, 3, 10, 11, 4, 5, 3, 6, 7, 3, 8, 8, 8, 3], np.int32)


def test_losses_of_stretches_add_up_to_that_of_the_streams_read_at_once():
    module = module_of()
    short, long = Stretches(IDS, tokens=6, steps=3), Stretches(IDS, tokens=2000, steps=1000)
    assert (long.width, long.streams, len(long)) == (short.width, short.streams, 1)
    parts = [float(module.training_step(short.stretch(number), number).detach()) for number in short.epoch(0)]
    assert len(parts) == 4
    whole = module.training_step(long.stretch(0), 0)
    assert sum(parts) == pytest.approx(float(whole.detach()), rel=1e-5)


def test_errors_stop_at_the_border_of_a_stretch():
    """The gradient of a stretch is that of its own words, whatever its state has come from."""
    module = module_of()
    stretches = Stretches(IDS, tokens=6, steps=3)
    module.training_step(stretches.stretch(0), 0)
    carried = module.carried
    assert not any(part.requires_grad for layer in carried.layers for part in layer)
    module.training_step(stretches.stretch(1), 1).backward()
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    batch = stretches.stretch(1)
    readout, _ = module.model(batch.target_in, carried)
    real = batch.target_out != PAD
    loss = torch.nn.functional.cross_entropy(
        module.model.output(readout[real]), batch.target_out[real], reduction="sum"
    )
    loss.backward()
    assert_close([parameter.grad for parameter in module.parameters()], gradients)


def test_an_epoch_and_a_validation_begin_with_nothing_carried():
    module = module_of()
    first = Stretches(IDS, tokens=6, steps=3).stretch(0)
    losses = [float(module.training_step(first, 0).detach()) for _ in range(2)]
    assert losses[0] == losses[1]
    before = module.carried
    module.eval()
    module.validation_step(first, 0)
    assert module.carried is before


# ---- runs ----


@pytest.mark.parametrize(
    ("update", "flags"),
    [
        (7, ["--model.dropout=0.3"]),  # within an epoch: the state that is carried counts
        pytest.param(
            12,
            ["--model.cell=gru", "--training.optimizer=rmsprop", "--training.validate_every=5"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_interrupted_and_taken_up_is_the_run_uninterrupted(
    tmp_path, toy, uninterrupted, monkeypatch, update, flags
):
    step, sent = LanguageModule.training_step, []

    def interrupted(self, batch, index):
        if self.global_step == update - 1 and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModule, "training_step", interrupted)
        with pytest.raises(StoppedError, match="stopped, saved in"):
            run(toy, tmp_path / "parted", *flags)
    kept = torch.load(tmp_path / "parted/training/last.ckpt")["nmt"]["carried"]
    assert any(part.any() for layer in kept for part in layer)
    assert outcome(run(toy, tmp_path / "parted", *flags)) == uninterrupted(*flags)


def test_it_learns_and_the_folder_says_what_it_is(tmp_path, toy, uninterrupted, caplog, capsys):
    """The sentences have 4 words of 6, 4, 5 and 5: perplexity is at best (6 * 4 * 5 * 5)^(1/5) = 3.6 per word.

    Knowing nothing, it is 36 per piece.
    """
    more = ["--training.max_epochs=6", f"--data.test={toy.folder / 'val.de'}"]
    folder = run(toy, tmp_path / "model", *more)
    _, info = outcome(folder)
    [per_piece, per_word] = info["scores"]["validation"]
    assert per_word["score"] > 3.2
    assert per_piece["score"] < 3.6
    assert info["scores"]["test"] == info["scores"]["validation"]  # the same text
    assert (info["sentences"], info["languages"]) == (300, ["de"])
    assert "300 sentences read, 300 kept" in caplog.text
    card = (folder / "README.md").read_text()
    assert "# A recurrent language model, de" in card
    assert f"| validation | word perplexity | {per_word['score']:.2f} |" in card
    saved = checkpoint.load_language_model(folder)
    again = perplexity(Scorer(saved.model, saved.tokenizers), toy.text("val.de"))
    assert again[1].score == pytest.approx(per_word["score"])
    assert main(["info", "-m", str(folder)]) == 0
    shown = capsys.readouterr().out
    for fact in ("language model", "1 layers of 16", "36 pieces", "300 sentences", "validation perplexity"):
        assert fact in shown


def test_validation_while_training_is_what_the_finished_model_is_told(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.average=1", "--training.max_epochs=1")
    rows = (folder / "training/metrics/version_0/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_loss")
    [loss] = [float(value) for row in rows[1:] if (value := row.split(",")[column])]
    assert math.exp(loss) == pytest.approx(outcome(folder)[1]["scores"]["validation"][0]["score"], rel=1e-4)


def test_text_of_one_language_is_enough_and_is_held_to(tmp_path, toy):
    shutil.copy(toy.folder / "train.de", tmp_path / "text")
    flags = [
        f"--data.train={tmp_path / 'text'}",
        f"--data.validation={toy.folder / 'val.de'}",
        "--training.max_steps=2",
    ]
    folder = run(toy, tmp_path / "model", *flags)
    assert outcome(folder)[1]["sentences"] == 300
    (folder / "info.json").unlink()
    (tmp_path / "text").write_text("eins\n" * 300)
    with pytest.raises(ConfigError, match="the training text has changed since"):
        run(toy, folder, *flags)


def test_another_length_of_stretches_is_another_run(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    with pytest.raises(ConfigError, match=r"other options; .*\n  training\.truncate: was 5, now 7"):
        run(toy, folder, "--training.max_steps=2", "--training.truncate=7")
    with pytest.raises(ConfigError, match=r"other options; .*\n  task: was 'language-model', now 'translation'"):
        run(toy, folder, "--training.max_steps=2", "--task=translation")


def test_text_that_cannot_be_read_leaves_the_model_as_it_was(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = outcome(folder)
    with pytest.raises(FileNotFoundError, match=r"there is no nowhere or nowhere\.de"):
        run(toy, folder, "--data.train=nowhere", overwrite=True)
    assert outcome(folder) == before
    with pytest.raises(ConfigError, match=r"no text given: set --data\.train \(a text file, a sentence a line\)"):
        run(toy, tmp_path / "new", "--data.train=[]")


def test_fine_tuning_begins_from_the_model(tmp_path, toy, caplog):
    folder = run(toy, tmp_path / "model")
    score = outcome(folder)[1]["scores"]["validation"][0]["score"]
    flags = [f"--init={folder}", "--training.max_steps=1", "--training.learning_rate=1e-7"]
    run(toy, tmp_path / "tuned", *flags)
    assert f"validation perplexity before {score:.2f}, after {score:.2f}" in caplog.text


def test_the_verb_fine_tunes_it_too(tmp_path, toy, capsys):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    text = [f"--data.{split}={toy.folder / 'val'}" for split in ("train", "validation")]
    flags = ["-m", str(folder), *text, "-o", str(tmp_path / "tuned"), "--training.max_steps=1", "--device=cpu"]
    assert main(["finetune", "-q", *flags]) == 0
    assert json.loads((tmp_path / "tuned" / "info.json").read_text())["steps"] == 1


def test_noise_is_where_it_is_asked_for():
    """Dropped features in the input of every layer and of the readout; of the rest, each layer knows its share."""
    options = ModelOptions(
        embedding_size=200, hidden_size=200, decoder_layers=2, dropout=0.5, recurrent_dropout=0.2, word_dropout=0.3
    )
    model = build_language_model(options, 12)
    assert [(layer.recurrent_dropout, layer.zoneout) for layer in model.layers] == [(0.2, 0.0)] * 2
    assert model.embedding.word_dropout == 0.3
    zoned = build_language_model(ModelOptions(embedding_size=8, hidden_size=8, zoneout=0.1), 12)
    assert {layer.zoneout for layer in zoned.layers} == {0.1}
    seen = []
    for reader in (*model.layers, model.readout):
        reader.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model.embedding.word_dropout = 0.0
    model(torch.tensor([[5, 6, 7]]), model.start(torch.zeros(1, 1), torch.ones(1)))
    assert len(seen) == 3
    for x in seen:
        assert 0.3 < (x == 0).float().mean() < 0.7
        assert torch.equal(x[0, 0] == 0, x[0, 2] == 0)


# ---- its vocabulary, and what it is not ----


def test_it_may_take_over_the_vocabulary_of_a_translator(tmp_path, toy, trained):
    folder = run(toy, tmp_path / "model", f"--tokenizer.model={trained}", "--training.max_steps=2")
    assert (folder / "tokenizer.spm").read_bytes() == (trained / "tokenizer.spm").read_bytes()
    assert checkpoint.load_language_model(folder).model.output.weight.size(0) == 60


def test_a_translator_may_take_over_a_vocabulary_too(tmp_path, toy, trained):
    flags = [*toy.flags, "--training.max_steps=1", "--output", str(tmp_path / "new"), f"--tokenizer.model={trained}"]
    fit(config.read([], flags), device="cpu")
    assert (tmp_path / "new/tokenizer.spm").read_bytes() == (trained / "tokenizer.spm").read_bytes()
    flags += ["--tokenizer.joint=false", "--output", str(tmp_path / "other")]
    with pytest.raises(
        ConfigError, match=r"tokenizer\.joint is False, but the vocabulary of \S+ is not: set it to True"
    ):
        fit(config.read([], flags), device="cpu")
    with pytest.raises(FileNotFoundError, match="no tokenizer at nowhere"):
        run(toy, tmp_path / "third", "--tokenizer.model=nowhere")
    assert not (tmp_path / "third").exists()


def test_neither_kind_of_model_passes_for_the_other(tmp_path, toy, trained, capsys):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    with pytest.raises(ValueError, match="model holds a language model, not a translator: `nmt score -m"):
        checkpoint.load(folder)
    with pytest.raises(ValueError, match="model holds a translator, not a language model: train one with `nmt train"):
        checkpoint.load_language_model(trained)
    assert main(["translate", "-m", str(folder), "-i", str(toy.folder / "val.en")]) == 1
    assert "nmt: " + f"{folder} holds a language model, not a translator" in capsys.readouterr().err
    with pytest.raises(ValueError, match="holds a translator, not a language model"):
        run(toy, tmp_path / "tuned", f"--init={trained}")


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--model.attention=dot", r"model\.attention is for task translation, not language-model: leave it at general"),
        (
            "--model.bidirectional=false",
            r"model\.bidirectional is for task translation, not language-model: leave it at",
        ),
        ("--tokenizer.joint=false", r"tokenizer\.joint is for task translation, not language-model: leave it at true"),
        ("--training.validation_beam=9", r"training\.validation_beam is for task translation, not language-model"),
        ("--search.beam_size=9", r"search\.beam_size is for task translation, not language-model: leave it at 5"),
        ("--model.encoder_layers=3", r"model\.encoder_layers is for task translation"),
        ("--model.tie_embeddings=all", r"model\.tie_embeddings all is for task translation"),
        ("--training.truncate=0", r"reads running text in stretches: set training\.truncate, say to 35"),
        ("--training.validation_metric=bleu", r"needs training\.validation_metric loss, not bleu"),
        ("--training.loss_per=sentence", r"needs training\.loss_per word, not sentence"),
        ("--training.devices=2", r"needs training\.devices 1, not 2"),
        ("--training.optimizer=hessian-free", r"one whole batch on one device"),
        ("--task=chat", r"task must be one of 'translation', 'language-model', not chat"),
    ],
)
def test_what_a_language_model_has_not_is_refused(flag, complaint):
    with pytest.raises(ConfigError, match=complaint):
        config.read([], [*TASK, flag])
