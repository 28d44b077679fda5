"""Training runs: interrupted and taken up, changed, refused, begun from another model. All on a toy language."""

import errno
import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nmt import config, fit, native, runs, training
from nmt.callbacks import StoppedError
from nmt.checkpoint import Tokenizers
from nmt.config import ConfigError
from nmt.evaluation import Score
from nmt.shortlist import load_shortlist
from nmt.tokenizer import TokenizerOptions, train_tokenizer
from nmt.training import TranslationModule
from nmt.translator import Translator

DROPOUT = ["--model.dropout=0.3", "--model.word_dropout=0.1"]
PLATEAU = ["--training.schedule=plateau", "--training.learning_rate=0.1", "--training.validate_every=2"]
HALVING = [
    "--training.accumulate=2",
    "--training.optimizer=sgd",
    "--training.schedule=halving",
    "--training.halve_after=1",
]
HESSIAN_FREE = [  # which has no rate: those of the toy's flags are put back
    "--training.optimizer=hessian-free",
    "--training.learning_rate=1e-3",
    "--training.warmup_steps=400",
]
SMALL = [
    "--model.hidden_size=16",
    "--model.embedding_size=16",
    "--training.batch_tokens=400",  # 13 updates an epoch
    "--training.max_epochs=2",
    "--training.validation_metric=loss",
]


def run(toy, folder: Path, *flags: str, overwrite: bool = False) -> Path:
    """Train a small model, or go on with it."""
    fit.fit(config.read([], [*toy.under([*SMALL, *flags]), "--output", str(folder)]), overwrite=overwrite, device="cpu")
    return folder


def interrupt(monkeypatch, update: int, number: int = signal.SIGINT) -> None:
    """Send a signal to this process in the middle of an update."""
    whole, sent = TranslationModule.training_step, []

    def step(self, batch, index):
        if self.global_step == update - 1 and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return whole(self, batch, index)

    monkeypatch.setattr(TranslationModule, "training_step", step)


def outcome(folder: Path) -> tuple[bytes, dict]:
    return (folder / "model.safetensors").read_bytes(), json.loads((folder / "info.json").read_text())


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory):
    """The outcome of a run with some flags, computed once."""
    return cache(lambda *flags: outcome(run(toy, tmp_path_factory.mktemp("whole") / "model", *flags)))


@pytest.mark.parametrize(
    ("update", "number", "flags"),
    [
        pytest.param(7, signal.SIGINT, [], marks=pytest.mark.slow),
        (7, signal.SIGTERM, DROPOUT),
        (13, signal.SIGINT, DROPOUT),  # an epoch's end, where validation is due
        pytest.param(26, signal.SIGINT, DROPOUT, marks=pytest.mark.slow),  # the last
        (10, signal.SIGINT, PLATEAU),  # validation is due
        (13, signal.SIGINT, PLATEAU),  # an epoch's end without validation
        (4, signal.SIGTERM, HALVING),  # updates of two batches
        (15, signal.SIGTERM, ["--training.max_steps=15"]),
        pytest.param(3, signal.SIGTERM, ["--training.max_steps=5", *HESSIAN_FREE], marks=pytest.mark.slow),
        (7, signal.SIGINT, ["--training.optimizer=rmsprop", "--model.cell=gru", "--model.recurrent_dropout=0.2"]),
    ],
)
def test_a_run_interrupted_and_taken_up_is_the_run_uninterrupted(
    tmp_path, toy, uninterrupted, monkeypatch, update, number, flags
):
    with monkeypatch.context() as patch:
        interrupt(patch, update, number)
        with pytest.raises(StoppedError, match=r"stopped, saved in \S+parted: run the same command to go on") as stop:
            run(toy, tmp_path / "parted", *flags)
    assert stop.value.exit_code == 128 + number
    assert not (tmp_path / "parted" / "info.json").exists()
    assert outcome(run(toy, tmp_path / "parted", *flags)) == uninterrupted(*flags)


def test_a_second_ctrl_c_stops_at_once_and_the_run_can_still_be_taken_up(tmp_path, toy, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 20)
        interrupt(patch, 20)  # both before the update ends
        with pytest.raises(StoppedError, match="stopped, some time ago saved in") as stop:
            run(toy, tmp_path / "parted")
    assert stop.value.exit_code == 130
    assert torch.load(tmp_path / "parted/training/last.ckpt")["global_step"] == 13
    assert outcome(run(toy, tmp_path / "parted")) == uninterrupted()


def test_a_second_ctrl_c_before_anything_was_saved_says_so(tmp_path, toy, monkeypatch):
    interrupt(monkeypatch, 5)
    interrupt(monkeypatch, 5)
    with pytest.raises(StoppedError, match="stopped before anything was saved: run the same command to begin again"):
        run(toy, tmp_path / "parted")


STUCK = ["--training.learning_rate=1e-12"]  # too small to change a weight: no validation is better than the first


def test_a_validation_that_is_none_of_the_best_saves_too(tmp_path, toy, monkeypatch):
    interrupt(monkeypatch, 26)
    with pytest.raises(StoppedError, match="stopped, saved in"):
        run(toy, tmp_path / "parted", *STUCK, "--training.average=1", "--training.max_epochs=3")
    assert last(tmp_path / "parted")["global_step"] == 26
    assert [path.name for path in (tmp_path / "parted" / "training").glob("step*")] == ["step=13.ckpt"]


def test_a_run_is_taken_up_where_its_folder_has_been_moved(tmp_path, toy, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 20)
        with pytest.raises(StoppedError, match="stopped, saved"):
            run(toy, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert outcome(run(toy, tmp_path / "there")) == uninterrupted()


def test_a_run_killed_while_it_scores_the_model_is_finished_by_the_next(tmp_path, toy, uninterrupted):
    folder = run(toy, tmp_path / "model")
    (folder / "info.json").unlink()
    (folder / "model.safetensors").unlink()
    assert outcome(run(toy, folder)) == uninterrupted()


def test_a_finished_run_is_left_alone(tmp_path, toy, caplog):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run(toy, folder, "--training.max_steps=2")
    assert "is already trained; nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# ---- what may change between runs, and what may not ----


def last(folder: Path) -> dict:
    return torch.load(folder / "training" / "last.ckpt")


def test_another_rate_and_another_end_are_listed_and_obeyed(tmp_path, toy, caplog):
    constant = ["--training.schedule=constant"]
    folder = run(toy, tmp_path / "model", *constant, "--training.max_epochs=1")
    run(toy, folder, *constant, "--training.learning_rate=0.002")
    assert "training.learning_rate: was 0.01, now 0.002" in caplog.text
    assert "training.max_epochs: was 1, now 2" in caplog.text
    assert last(folder)["global_step"] == outcome(folder)[1]["steps"] == 26
    assert last(folder)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.002


def test_the_last_update_is_validated_wherever_it_falls(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=15")
    assert last(folder)["global_step"] == 15
    assert (folder / "training" / "step=15.ckpt").exists()
    run(toy, folder, "--training.max_steps=16")
    assert last(folder)["global_step"] == 16


def test_the_updates_after_the_last_regular_validation_are_validated_too(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.validate_every=10")  # 26 updates in all
    assert last(folder)["global_step"] == 26
    assert (folder / "training" / "step=26.ckpt").exists()


def test_a_finished_model_outlives_a_failed_change(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(FileNotFoundError, match="mistyped"):
        run(toy, folder, "--training.max_steps=2", "--data.test=mistyped")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    run(toy, Path(f"{folder}/."), "--training.max_steps=2", "--data.workers=2")  # of no consequence
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_held_out_text_that_could_not_be_scored_is_refused_before_training(tmp_path, toy):
    (tmp_path / "test.en").write_text("one red cat\n\n" + "red " * 1001 + "\n")
    (tmp_path / "test.de").write_text("ein\n\nzwei\n")
    for split in ("validation", "test"):
        with pytest.raises(
            ValueError, match=r"/test, line 3: \d,\d+ pieces, and no sentence of held-out text may have"
        ):
            run(toy, tmp_path / "model", f"--data.{split}={tmp_path / 'test'}")
        assert not (tmp_path / "model").exists()


def test_a_trained_model_outlives_the_loss_of_its_checkpoints(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=15", "--training.average=1")
    [best] = (folder / "training").glob("step*")
    best.unlink()
    run(toy, folder, "--training.max_steps=15", "--training.average=1", "--search.beam_size=2")  # its last are as good
    before = outcome(folder)
    (folder / "training" / "last.ckpt").unlink()
    with pytest.raises(
        ConfigError, match="is trained and its checkpoints are gone, so that it cannot go on under other"
    ):
        run(toy, folder, "--training.max_steps=15", "--training.average=1", "--search.beam_size=3")
    assert outcome(folder) == before


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--tokenizer.vocab_size=5000"], r"this text can fill only \d+ pieces"),
        (["--tokenizer.model=nowhere"], "no tokenizer at nowhere"),
        (["--tokenizer.model={folder}"], "no tokenizer at"),
    ],
)
def test_a_model_is_not_overwritten_by_a_run_that_cannot_begin(tmp_path, toy, flags, complaint):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises((ValueError, OSError), match=complaint):
        run(toy, folder, *(flag.format(folder=folder) for flag in flags), overwrite=True)
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    run(toy, folder, "--training.max_steps=3", overwrite=True)
    assert outcome(folder)[1]["steps"] == 3
    assert not (folder / fit.BEFORE).exists()


@pytest.mark.parametrize("flags", [["--tokenizer.vocab_size=5000"], ["--data.train=nowhere"]])
def test_a_model_outlives_a_run_that_was_killed_before_it_could_begin(tmp_path, toy, monkeypatch, flags):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = outcome(folder)
    with monkeypatch.context() as patch:  # as SIGKILL leaves it: nothing is put back
        patch.setattr(fit, "_put_back", lambda folder: None)
        patch.setattr(fit, "_remove_run", lambda folder: None)
        with pytest.raises(ValueError, match="pieces"):
            run(toy, folder, "--tokenizer.vocab_size=5000", overwrite=True)
    assert not (folder / "info.json").exists()
    with pytest.raises((ValueError, OSError), match=r"pieces|there is no"):
        run(toy, folder, *flags, overwrite=True)
    assert outcome(folder) == before
    run(toy, folder, "--training.max_steps=2")  # already trained
    assert outcome(folder) == before


OLD = dict.fromkeys(("config.yaml", "info.json", "model.safetensors", "tokenizer.spm", "training/last.ckpt"), "old")
NEW = dict.fromkeys(("config.yaml", "tokenizer.spm", "training/text.json"), "new")


class Killed(BaseException):
    """Between two changes of the disk."""


def killed_after(changes: int, action, folder: Path) -> bool:
    """Whether an action was cut short by so many changes of the disk."""
    left = iter(range(changes))

    def counted(change):
        def counting(*arguments, **options):
            if next(left, None) is None:
                raise Killed
            return change(*arguments, **options)

        return counting

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            action(folder)
        except Killed:
            return True
    return False


def overwrite(folder: Path) -> None:
    """As `fit` does it: the folder's config is the first that is written."""
    fit._set_aside(folder)
    (folder / "training").mkdir()
    for name in NEW:
        (folder / name).write_text("new")
    fit._let_go(folder)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_whenever_it_is_killed_one_of_two_runs_is_whole(tmp_path):
    """Overwriting is cut short after each change of the disk, and what undoes it after each of its own."""
    found = []
    for first in range(99):
        before = tmp_path / f"{first}"
        for name in OLD:
            (before / name).parent.mkdir(parents=True, exist_ok=True)
            (before / name).write_text("old")
        cut = killed_after(first, overwrite, before)
        for second in range(99):
            folder = shutil.copytree(before, tmp_path / f"{first}-{second}")
            undone = not killed_after(second, fit._undo, folder)
            fit._undo(folder)
            assert contents(folder) in (OLD, NEW)
            assert not (folder / fit.BEFORE).exists()
            found.append(contents(folder) == NEW)
            if undone:
                break
        if not cut:
            break
    assert first > len(OLD)
    assert found == sorted(found)  # first always the old one, and from some change on the new one
    assert 0 < sum(found) < len(found)


def test_a_folder_called_before_is_nobody_elses(tmp_path, toy):
    (tmp_path / "mine" / "before").mkdir(parents=True)
    (tmp_path / "mine" / "before" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="choose another --output"):
            run(toy, tmp_path / "mine", "--training.max_steps=2", overwrite=overwrite)
    assert contents(tmp_path / "mine") == {"before/notes.txt": "mine"}


def test_the_shortlist_is_of_the_text_that_was_trained_on(tmp_path, toy, monkeypatch):
    """Which is gone by the end."""
    for language in ("en", "de"):
        shutil.copy(toy.folder / f"train.{language}", tmp_path)
    finish = fit._finish

    def gone(*arguments):
        for language in ("en", "de"):
            (tmp_path / f"train.{language}").unlink()
        finish(*arguments)

    monkeypatch.setattr(fit, "_finish", gone)
    flags = ["--training.max_steps=2"]
    folder = run(toy, tmp_path / "model", *flags, f"--data.train={tmp_path / 'train'}")
    monkeypatch.undo()
    expected = run(toy, tmp_path / "other", *flags)
    assert load_file(folder / "shortlist.safetensors").keys() == load_file(expected / "shortlist.safetensors").keys()
    assert (folder / "shortlist.safetensors").read_bytes() == (expected / "shortlist.safetensors").read_bytes()
    run(toy, folder, *flags, f"--data.train={tmp_path / 'train'}")  # already trained, whether the text is there or not


def test_other_validation_text_is_refused(tmp_path, toy):
    for language in ("en", "de"):
        shutil.copy(toy.folder / f"val.{language}", tmp_path)
    flags = [f"--data.validation={tmp_path / 'val'}"]
    folder = run(toy, tmp_path / "model", *flags, "--training.max_steps=2")
    for language in ("en", "de"):
        path = tmp_path / f"val.{language}"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(ConfigError, match=r"the validation text has changed since \S+model began: choose another"):
        run(toy, folder, *flags, "--training.max_steps=3")


def test_text_that_changed_before_a_killed_run_had_a_vocabulary_is_refused(tmp_path, toy, monkeypatch):
    for language in ("en", "de"):
        shutil.copy(toy.folder / f"train.{language}", tmp_path)
    flags = [f"--data.train={tmp_path / 'train'}", "--training.max_steps=2"]
    with monkeypatch.context() as patch:  # killed while text is encoded, the vocabulary there
        patch.setattr(fit, "_remove_run", lambda folder: None)
        patch.setattr(runs, "_encode", lambda *_: (_ for _ in ()).throw(Killed("while text is encoded")))
        with pytest.raises(Killed, match="while text is encoded"):
            run(toy, tmp_path / "model", *flags)
    assert (tmp_path / "model" / "tokenizer.spm").exists()
    for language in ("en", "de"):
        path = tmp_path / f"train.{language}"
        path.write_text(path.read_text().upper())
    with pytest.raises(ConfigError, match="the training text has changed since"):
        run(toy, tmp_path / "model", *flags)


def test_what_is_best_may_not_change_its_meaning(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    with pytest.raises(
        ConfigError, match=r"holds a run with other options.*\n.*validation_metric: was 'loss', now 'bleu'"
    ):
        run(toy, folder, "--training.max_steps=2", "--training.validation_metric=bleu")


def test_options_of_a_vocabulary_that_is_taken_over_are_named(tmp_path, toy, trained, caplog):
    flags = toy.under([f"--tokenizer.model={trained}", "--training.max_steps=1", "--tokenizer.type=bpe"])
    fit.fit(config.read([], [*flags, f"--output={tmp_path / 'new'}"]), device="cpu")
    said = f"the vocabulary is that of {trained}: tokenizer.type, tokenizer.vocab_size said nothing"
    assert said in caplog.messages
    assert (tmp_path / "new" / "tokenizer.spm").read_bytes() == (trained / "tokenizer.spm").read_bytes()


def test_a_folder_is_one_runs_alone(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = (folder / "config.yaml").read_text()
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="is in training by another process: wait for it, or choose another"):
            run(toy, folder, "--training.max_steps=3", overwrite=overwrite)
    assert (folder / "config.yaml").read_text() == before
    os.close(held)
    assert outcome(run(toy, folder, "--training.max_steps=3"))[1]["steps"] == 3


@pytest.mark.slow
def test_of_two_processes_it_is_enough_to_tell_one_to_stop(tmp_path, toy):
    flags = ["--training.devices=2", "--training.max_epochs=5000", "--output", str(tmp_path / "model")]
    command = [sys.executable, "-m", "nmt", "train", *toy.under(flags), "--device", "cpu"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    while "epoch 2" not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    assert "stopped, saved in" in process.communicate(timeout=120)[1]
    assert process.returncode == 143


@pytest.mark.slow
@pytest.mark.parametrize("cell", [[], ["--model.cell=gru", "--model.reset=before"]], ids=["lstm", "gru"])
def test_two_processes_train_one_model(tmp_path, toy, cell):
    """By our own kernels, or torch's fused one where there are none; and by torch's single operations."""
    flags = [*cell, "--training.devices=2", "--training.max_epochs=32", "--output", str(tmp_path / "model")]
    command = [sys.executable, "-m", "nmt", "train", *toy.under(flags), "--device", "cpu"]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("model folder:") == 1  # one process speaks for both
    scores = outcome(tmp_path / "model")[1]["scores"]["validation"]
    assert scores[0]["score"] > 90


def test_patience_stops_early_and_may_be_lengthened(tmp_path, toy, caplog):
    stuck = [*STUCK, "--training.max_epochs=20"]
    folder = run(toy, tmp_path / "model", *stuck, "--training.patience=2")
    assert last(folder)["global_step"] == 3 * 13  # the first validation, and two that are no better
    assert "stopping early: no better for 2 validations in a row (training.patience)" in caplog.messages
    run(toy, folder, *stuck, "--training.patience=2", "--search.beam_size=2")  # it is scored again, and no more
    assert last(folder)["global_step"] == outcome(folder)[1]["steps"] == 3 * 13
    run(toy, folder, *stuck, "--training.patience=4")
    assert last(folder)["global_step"] == 5 * 13


def test_the_limit_that_ended_a_run_is_said(tmp_path, toy, caplog, monkeypatch):
    folder = run(toy, tmp_path / "model", "--training.max_steps=15")
    assert "trained for 15 updates, as long as training.max_steps allows" in caplog.messages
    caplog.clear()
    run(toy, folder, "--training.max_steps=0")
    assert "trained for 26 updates, as long as training.max_epochs allows" in caplog.messages
    caplog.clear()
    run(toy, folder, "--training.max_steps=0", "--search.beam_size=2")  # it is scored again, and no more
    assert not any(said.startswith("trained for") for said in caplog.messages)
    run(toy, folder, "--training.max_epochs=5000", "--training.max_minutes=0.02")
    assert any(said.endswith("as long as training.max_minutes allows") for said in caplog.messages)


def test_weights_that_have_come_to_nothing_end_the_run_and_are_not_saved(tmp_path, toy, monkeypatch):
    """The gradient of the 15th update, of the second epoch, is NaN."""
    clip = TranslationModule.configure_gradient_clipping

    def spoilt(self, *arguments, **options):
        clip(self, *arguments, **options)
        if self.global_step == 14:
            self.model.output.bias.grad[0] = math.nan

    monkeypatch.setattr(TranslationModule, "configure_gradient_clipping", spoilt)
    flags = ["--training.max_epochs=3", "--training.clip_norm=0"]
    with pytest.raises(
        ValueError, match=r"NaN or infinite after update 26: .* below 0\.01, or set training\.clip_norm"
    ):
        run(toy, tmp_path / "model", *flags)
    assert last(tmp_path / "model")["global_step"] == 13
    monkeypatch.undo()
    folder = run(toy, tmp_path / "model", *flags, "--training.learning_rate=0.005")
    assert outcome(folder)[1]["steps"] == 39


def test_among_equal_bleu_the_lower_loss_is_better(tmp_path, toy, monkeypatch, caplog):
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: [Score("BLEU", 0.0, "")])
    flags = ["--training.validation_metric=bleu", "--training.average=1", "--training.patience=1"]
    folder = run(toy, tmp_path / "model", *flags, "--training.max_epochs=3")
    assert last(folder)["global_step"] == 39  # not stopped where BLEU was no better
    assert "weights: the best checkpoint, of update 39" in caplog.messages


def test_fewer_checkpoints_may_be_averaged_from_now_on(tmp_path, toy, monkeypatch, caplog):
    often = ["--training.validate_every=4", "--training.max_steps=12"]
    folder = run(toy, tmp_path / "model", *often)
    scored = []
    monkeypatch.setattr(runs, "_scores", lambda *_: scored.append(1.0) or [Score("BLEU", 1.0, "")])
    run(toy, folder, *often, "--training.average=2")
    assert any(message.startswith("weights: the best checkpoint, of update ") for message in caplog.messages)
    assert len(scored) == 2  # the best, and a mean
    run(toy, folder, *often, "--training.average=1")
    assert len(scored) == 3  # the best


def test_another_network_is_refused_with_what_differs(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = outcome(folder)
    with pytest.raises(
        ConfigError, match=r"model holds a run with other options; .*\n  model.dropout: was 0.0, now 0.5$"
    ):
        run(toy, folder, "--training.max_steps=2", "--model.dropout=0.5")
    assert outcome(folder) == before


def test_other_training_text_is_refused(tmp_path, toy):
    for language in ("en", "de"):
        shutil.copy(toy.folder / f"train.{language}", tmp_path)
    flags = [f"--data.train={tmp_path / 'train'}", "--training.max_steps=2"]
    folder = run(toy, tmp_path / "model", *flags)
    for language in ("en", "de"):
        with (tmp_path / f"train.{language}").open("a") as file:
            file.write("one\n")
    with pytest.raises(ConfigError, match=r"the training text has changed since \S+model began: choose another"):
        run(toy, folder, *flags)
    (folder / "info.json").unlink()
    with pytest.raises(ConfigError, match=r"the training text has changed since \S+model began: choose another"):
        run(toy, folder, *flags)


def test_a_folder_of_other_things_is_refused_and_kept(tmp_path, toy):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not a training run: choose another --output"):
        run(toy, tmp_path)
    with pytest.raises(ConfigError, match=r"holds what no training run wrote, README\.md: choose another"):
        run(toy, tmp_path, overwrite=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_overwrite_removes_a_run_but_nothing_beside_it(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = outcome(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds what no training run wrote, notes\.txt"):
        run(toy, folder, "--training.max_steps=3", overwrite=True)
    assert outcome(folder) == before
    (folder / "notes.txt").unlink()
    run(toy, folder, "--training.max_steps=3", "--model.dropout=0.1", overwrite=True)
    assert last(folder)["global_step"] == outcome(folder)[1]["steps"] == 3


def test_a_model_is_not_removed_for_text_that_cannot_be_read(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    before = outcome(folder)
    with pytest.raises(FileNotFoundError, match=r"there is no nowhere\.en or nowhere\.en\.gz"):
        run(toy, folder, "--data.train=nowhere", overwrite=True)
    assert outcome(folder) == before


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--data.train=nowhere", r"there is no nowhere\.en"),
        ("--data.test=nowhere", r"there is no nowhere\.en"),  # before training, not after
        ("--tokenizer.vocab_size=5000", r"this text can fill only \d+ pieces"),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, toy, flag, complaint):
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        run(toy, tmp_path / "model", flag)
    assert not (tmp_path / "model").exists()


# ---- a disk that is full or has forgotten ----


def test_a_full_disk_costs_no_more_than_the_updates_since_the_last_checkpoint(
    tmp_path, toy, uninterrupted, monkeypatch
):
    write_bytes = Path.write_bytes

    def full(self, data):
        if self.name == "last.ckpt.part" and (tmp_path / "model/training/last.ckpt").exists():
            write_bytes(self, bytes(data)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"cannot write it: No space left on device: '\S+/last\.ckpt'"):
            run(toy, tmp_path / "model")
    assert last(tmp_path / "model")["global_step"] == 13
    assert not list(tmp_path.rglob("*.part"))
    assert outcome(run(toy, tmp_path / "model")) == uninterrupted()


def test_a_damaged_checkpoint_is_named(tmp_path, toy):
    folder = run(toy, tmp_path / "model", "--training.max_steps=2")
    (folder / "info.json").unlink()
    whole = (folder / "training/last.ckpt").read_bytes()
    (folder / "training/last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged or gone: copy the folder again, or --overwrite it"):
        run(toy, folder, "--training.max_steps=2")


# ---- the end: the best weights, or their mean ----


@pytest.mark.parametrize(("best", "mean"), [(2.0, 1.0), (1.0, 2.0)])
def test_the_mean_of_the_best_is_taken_only_if_it_is_better(tmp_path, toy, monkeypatch, best, mean):
    scores = iter([best, mean])
    monkeypatch.setattr(runs, "_scores", lambda *_: [Score("BLEU", next(scores), "")])
    folder = run(toy, tmp_path / "model", "--training.validate_every=4", "--training.max_steps=12")
    kept = [
        torch.load(folder / "training" / f"step={step}.ckpt")["state_dict"]["model.output.bias"] for step in (4, 8, 12)
    ]
    expected = kept[2] if best > mean else ((kept[0].double() + kept[1] + kept[2]) / 3).float()
    assert torch.equal(load_file(folder / "model.safetensors")["output.bias"], expected)


# ---- the shortlist ----


def test_a_finished_run_of_an_earlier_version_gets_its_shortlist(tmp_path, toy, caplog):
    folder = run(toy, tmp_path / "model")
    learnt = (folder / "shortlist.safetensors").read_bytes()
    (folder / "shortlist.safetensors").unlink()
    before = outcome(folder)
    run(toy, folder)
    assert "is already trained; nothing to do" in caplog.text
    assert (folder / "shortlist.safetensors").read_bytes() == learnt
    assert outcome(folder) == before


def test_a_fine_tuned_model_may_say_what_its_base_may_and_more(tmp_path, toy, trained, caplog):
    base, few, tuned = shutil.copytree(trained, tmp_path / "base"), tmp_path / "few", tmp_path / "tuned"
    few.with_suffix(".en").write_text("two big red cats\n")
    few.with_suffix(".de").write_text("Katzen rot\n")
    flags = [*toy.flags, f"--data.train={few}", f"--init={base}", "--training.max_steps=1", f"--output={tuned}"]
    fit.fit(config.read([], flags), device="cpu")
    words = torch.tensor([Tokenizers.load(base).source.encode(["six new white trees"])[0]])
    old, new = (load_shortlist(folder, Tokenizers.load(base)).candidates(words)[0] for folder in (base, tuned))
    assert set(old.tolist()) <= set(new.tolist())
    (base / "shortlist.safetensors").unlink()
    fit.fit(config.read([], flags), overwrite=True, device="cpu")
    assert f"no shortlist, for {base} has none to add to" in caplog.text
    assert not (tuned / "shortlist.safetensors").exists()


def test_other_languages_than_those_of_the_base_are_mentioned(tmp_path, toy, trained, caplog):
    flags = [f"--init={trained}", "--training.max_steps=1", "--output", str(tmp_path / "tuned")]
    turned = ["--data.source_language=de", "--data.target_language=en"]
    fit.fit(config.read([], [*toy.flags, *turned, *flags]), device="cpu")
    assert f"{trained} translates en to de; from it, this one learns de to en" in caplog.messages
    caplog.clear()
    fit.fit(config.read([], [*toy.flags, *flags]), overwrite=True, device="cpu")
    assert "from it, this one learns" not in caplog.text


# ---- other ways to train ----


def test_sgd_with_halving(tmp_path, toy):
    flags = ["--training.optimizer=sgd", "--training.schedule=halving", "--training.learning_rate=0.7"]
    folder = run(toy, tmp_path / "model", *flags, "--training.halve_after=0.5", "--training.halve_every=0.5")
    # update 26 is the last of epoch 2: 25/13 epochs have passed, so it was halved at 0.5, 1 and 1.5
    assert last(folder)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.7 / 2**3


@pytest.mark.parametrize(
    ("flags", "way"),
    [
        (["--model.cell=rnn"], "our back-propagation through time"),
        (["--model.cell=lecture-lstm"], "our back-propagation through time"),
        (["--model.cell=layer-norm-lstm"], "our back-propagation through time"),
        (["--model.cell=gru", "--model.transition=2"], "step by step, left to autograd"),
        (["--model.peepholes=true", "--model.projection=8"], "our back-propagation through time"),
        (["--model.recurrent_dropout=0.1", "--training.truncate=2"], "our back-propagation through time"),
        (["--training.precision=bf16", "--model.residual=true"], "our back-propagation through time"),
        (["--model.zoneout=0.1", "--training.optimizer=rmsprop"], "step by step, left to autograd"),
        pytest.param(
            [*HESSIAN_FREE, "--training.max_steps=6"], "step by step, left to autograd", marks=pytest.mark.slow
        ),
        ([], "torch's fused kernel"),
        (
            ["--model.hidden_size=512"],
            "torch's fused kernel" if native.library() is None else "our back-propagation through time",
        ),
    ],
    ids=str,
)
def test_every_cell_and_optimiser_learns_and_is_read_back(tmp_path, toy, caplog, flags, way):
    """In 26 updates (6 of hessian-free) perplexity falls well below that of knowing nothing, 60.

    And what is written translates, batched as alone.
    """
    folder = run(toy, tmp_path / "model", *flags)
    assert f"recurrence: {way}" in caplog.text
    rows = (folder / "training" / "metrics" / "version_0" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_loss")
    losses = [float(value) for row in rows[1:] if (value := row.split(",")[column])]
    assert losses[-1] < math.log(60 * 0.7)
    lines = toy.text("val.en")[:5]
    translator = Translator.load(folder)
    together = [answer.text for answer in translator.translate(lines)]
    assert together == [answer.text for line in lines for answer in translator.translate([line])]


@pytest.mark.parametrize("noise", ["dropout", "word_dropout", "recurrent_dropout", "zoneout"])
def test_hessian_free_refuses_noise(tmp_path, toy, noise):
    with pytest.raises(ConfigError, match=rf"hessian-free needs model\.{noise} 0, not 0\.2"):
        run(toy, tmp_path / "model", *HESSIAN_FREE, f"--model.{noise}=0.2")


def test_hessian_free_computes_in_full_precision(tmp_path, toy):
    with pytest.raises(ConfigError, match="hessian-free computes in fp32, not bf16"):
        run(toy, tmp_path / "model", *HESSIAN_FREE, "--training.precision=bf16")


def test_each_side_may_have_its_own_vocabulary(tmp_path, toy):
    flags = ["--tokenizer.joint=false", "--tokenizer.vocab_size=36", "--model.tie_embeddings=target"]
    folder = run(toy, tmp_path / "model", *flags)
    assert not (folder / "tokenizer.spm").exists()
    translator = Translator.load(folder)
    source, target = ("".join(side.pieces(range(36))) for side in translator.tokenizers)
    assert ("ü" in source, "ü" in target) == (False, True)
    assert next(translator.translate(["two big red cats"])).text


# ---- fine-tuning ----


def test_fine_tuning_begins_from_the_model_and_leaves_it_as_it_was(tmp_path, toy, trained, caplog):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    bleu = outcome(trained)[1]["scores"]["validation"][0]["score"]
    flags = ["--init", str(trained), "--training.max_steps=1", "--training.learning_rate=1e-6"]
    tuned = tmp_path / "tuned"
    fit.fit(config.read([], [*toy.flags, *flags, "--output", str(tuned)]), device="cpu")
    assert f"validation BLEU before {bleu:.2f}, after {bleu:.2f}" in caplog.text
    assert (tuned / "tokenizer.spm").read_bytes() == before[trained / "tokenizer.spm"]
    old, new = (load_file(folder / "model.safetensors") for folder in (trained, tuned))
    assert max((old[name] - new[name]).abs().max() for name in old) <= 1.01e-6
    assert any(not torch.equal(old[name], new[name]) for name in old)
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_fine_tuning_keeps_the_vocabulary_and_the_shape(tmp_path, toy, trained):
    for flags, complaint in {
        ("--tokenizer.vocab_size=50",): "fine-tuning keeps the vocabulary of",
        ("--model.hidden_size=32",): r"keeps the network of \S+; leave .*\n  model.hidden_size: was 64, now 32",
        ("--model.residual=true", "--model.dropout=0.2"): r"as they were:\n  model.residual: was False, now True$",
        ("--output", str(trained)): "--output is the model to start from",
    }.items():
        out = ["--output", str(tmp_path / "tuned"), "--init", str(trained)]
        with pytest.raises(ConfigError, match=complaint):
            fit.fit(config.read([], [*toy.flags, *out, *flags]), device="cpu")
        assert not (tmp_path / "tuned").exists()


def test_a_fine_tuning_keeps_its_vocabulary_whatever_its_base_has_become(tmp_path, toy, trained, monkeypatch):
    base = shutil.copytree(trained, tmp_path / "base")

    def tune() -> None:
        flags = [f"--init={base}", "--training.max_steps=9", "--output", str(tmp_path / "tuned")]
        fit.fit(config.read([], [*toy.under(flags)]), device="cpu")

    with monkeypatch.context() as patch:
        interrupt(patch, 5)
        with pytest.raises(StoppedError, match="saved in"):
            tune()
    kept = (tmp_path / "tuned" / "tokenizer.spm").read_bytes()
    lines = toy.text("train.en")[:200] + toy.text("train.de")[:200]
    train_tokenizer(lines, TokenizerOptions(vocab_size=60), base / "tokenizer.spm")
    with pytest.raises(ConfigError, match="tuned began from has another vocabulary now: choose another --output"):
        tune()
    assert (tmp_path / "tuned" / "tokenizer.spm").read_bytes() == kept
