"""The mean of models: of folders and of checkpoints, and which models have none."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from nmt import checkpoint, config
from nmt.averaging import average_folders, average_run, kept_checkpoints
from nmt.checkpoint import Tokenizers
from nmt.cli import main
from nmt.fit import fit
from nmt.shortlist import Shortlist, load_shortlist

SMALL = ["--model.hidden_size=16", "--model.embedding_size=16", "--training.batch_tokens=400"]


@pytest.fixture(scope="module")
def runs(toy, trained):
    """Two runs of one vocabulary and shape, the first with three checkpoints, the second of another seed."""
    common = [*toy.flags, *SMALL, f"--tokenizer.model={trained}", "--training.max_steps=12"]
    folders = [toy.folder / name for name in ("one", "two")]
    for folder, more in zip(
        folders, (["--training.validate_every=4"], ["--seed=2", "--model.dropout=0.1"]), strict=True
    ):
        flags = [*common, *more, "--training.validation_metric=loss", "--output", str(folder)]
        fit(config.read([], flags), device="cpu")
    return folders


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_mean_of_two_folders(runs, tmp_path, capsys):
    output = tmp_path / "mean"
    assert main(["average", "-m", str(runs[0]), "-m", str(runs[1]), "-m", str(runs[1]), "-o", str(output)]) == 0
    assert f"model folder: {output}, not evaluated" in capsys.readouterr().err
    one, two, mean = (weights(folder) for folder in (*runs, output))
    assert one.keys() == mean.keys()
    for name, value in mean.items():
        assert torch.allclose(value, (one[name] + 2 * two[name]) / 3, atol=1e-6)
    info = json.loads((output / "info.json").read_text())
    assert info["averaged"] == [str(runs[0]), str(runs[1]), str(runs[1])]
    assert (info["scores"], info["pairs"], info["steps"]) == ({}, 300, 12)
    card = (output / "README.md").read_text()
    assert f"Its weights are the mean of those of {runs[0]}, {runs[1]}, {runs[1]}. It has not been evaluated." in card
    assert "BLEU" not in card
    assert yaml.safe_load((output / "config.yaml").read_text())["output"] == str(output)
    assert main(["info", "-m", str(output)]) == 0
    assert f"the mean of {runs[0]}" in capsys.readouterr().out
    assert main(["translate", "-m", str(output), "-i", "/dev/null"]) == 0


def test_the_mean_of_a_model_with_itself_is_the_model(trained, tmp_path):
    average_folders([trained, trained], tmp_path / "mean")
    one, mean = weights(trained), weights(tmp_path / "mean")
    assert all(torch.equal(one[name], mean[name]) for name in one)


def test_the_mean_may_say_what_any_of_its_models_may(runs, tmp_path):
    """One has each piece i translated by i, the other by the i-th from the end; all may say PAD, UNK, BOS and EOS."""
    one, two = (shutil.copytree(folder, tmp_path / folder.name) for folder in runs)
    tokenizers = Tokenizers.load(one)
    size = tokenizers.target.size
    numbers = torch.arange(size, dtype=torch.int32)[:, None]
    for folder, best in ((one, numbers), (two, numbers.flip(0))):
        made = Shortlist(best.contiguous(), torch.arange(size) < 4)
        checkpoint.save_tensors(made._asdict(), folder / "shortlist.safetensors")
    average_folders([one, two], tmp_path / "mean")
    mean = load_shortlist(tmp_path / "mean", tokenizers)
    for piece in range(4, size):
        ids, _ = mean.candidates(torch.tensor([[piece]]))
        assert set(ids.tolist()) == {0, 1, 2, 3, piece, size - 1 - piece}


def test_the_mean_of_one_run_or_of_equal_lists_has_the_same_list(runs, tmp_path, capsys):
    average_run(runs[0], tmp_path / "run")
    average_folders([runs[0], runs[1], runs[1]], tmp_path / "folders")
    expected = load_file(runs[0] / "shortlist.safetensors")
    for name in ("run", "folders"):
        found = load_file(tmp_path / name / "shortlist.safetensors")
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert main(["translate", "-m", str(tmp_path / "run"), "--shortlist", "-i", "/dev/null"]) == 0


def test_the_mean_has_no_list_where_one_of_its_models_has_none(runs, tmp_path):
    bare = shutil.copytree(runs[1], tmp_path / "bare")
    (bare / "shortlist.safetensors").unlink()
    average_folders([runs[0], bare], tmp_path / "mean")
    complaint = (
        r"mean has no shortlist\.safetensors: one of the models that it is the mean of had none; train that again"
    )
    with pytest.raises(FileNotFoundError, match=complaint):
        load_shortlist(tmp_path / "mean", Tokenizers.load(bare))


def test_the_best_checkpoints_of_one_run(runs, tmp_path):
    kept = kept_checkpoints(runs[0])
    assert [one.path.name for one in kept] == ["step=12.ckpt", "step=8.ckpt", "step=4.ckpt"]  # the loss falls
    assert sorted(one.score for one in kept) == [one.score for one in kept]
    average_run(runs[0], tmp_path / "two", best=2)
    average_run(runs[0], tmp_path / "three")
    states = [torch.load(one.path)["state_dict"]["model.output.bias"].double() for one in kept]
    for name, count in (("two", 2), ("three", 3)):
        expected = torch.stack(states[:count]).mean(0).float()
        assert torch.equal(weights(tmp_path / name)["output.bias"], expected)
        info = json.loads((tmp_path / name / "info.json").read_text())
        assert info["averaged"] == [str(one.path) for one in kept[:count]]


def test_more_bleu_is_better(trained):
    scores = [one.score for one in kept_checkpoints(trained)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3


def test_too_few_checkpoints(runs, tmp_path):
    with pytest.raises(ValueError, match=r"one has kept 3 checkpoints, too few for a mean of 4: train with a higher"):
        average_run(runs[0], tmp_path / "mean", best=4)
    with pytest.raises(ValueError, match=r"two has kept 1 checkpoints, too few for a mean of several"):
        average_run(runs[1], tmp_path / "mean")
    bare = shutil.copytree(runs[0], tmp_path / "bare", ignore=shutil.ignore_patterns("training"))
    with pytest.raises(
        FileNotFoundError, match=r"bare has no training/last\.ckpt of its training: name several models"
    ):
        average_run(bare, tmp_path / "mean")
    damaged = shutil.copytree(runs[0], tmp_path / "damaged")
    (damaged / "training/step=8.ckpt").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"step=8\.ckpt is damaged: copy the folder again"):
        average_run(damaged, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.fixture
def other(toy, tmp_path):
    """Train a model that differs from the two runs."""

    def train(*flags: str) -> Path:
        common = [*toy.flags, *SMALL, "--training.max_steps=1", "--training.validation_metric=loss"]
        if "--task=language-model" in flags:
            common = [flag for flag in common if "encoder" not in flag]
        fit(config.read([], [*common, *flags, "--output", str(tmp_path / "other")]), device="cpu")
        return tmp_path / "other"

    return train


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            ["--model.hidden_size=18"],
            r"different networks, so their weights have no mean: model\.hidden_size is 16 and 18",
        ),
        (["--model.reverse_source=true"], r"no mean: model\.reverse_source is False and True$"),
        (
            ["--tokenizer.vocab_size=50"],
            r"different vocabularies, so .*: train them with one, as --tokenizer\.model \S+one ",
        ),
        (["--task=language-model", "--training.truncate=5"], r"are not of one kind: a translator and a language model"),
    ],
)
def test_models_that_differ_have_no_mean(runs, other, tmp_path, flags, complaint):
    vocabulary = [] if "--tokenizer.vocab_size=50" in flags else [f"--tokenizer.model={runs[0]}"]
    folder = other(*vocabulary, *flags)
    with pytest.raises(ValueError, match=complaint):
        average_folders([runs[0], folder], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_language_models_have_a_mean_too(other, tmp_path):
    folder = other("--task=language-model", "--training.truncate=5", "--tokenizer.vocab_size=36")
    average_folders([folder, folder], tmp_path / "mean")
    saved = checkpoint.load_language_model(tmp_path / "mean")
    assert saved.info["sentences"] == 300
    assert "A recurrent language model, de" in (tmp_path / "mean/README.md").read_text()


def test_a_folder_appears_whole_or_not_at_all(runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_model", full)
        with pytest.raises(OSError, match="cannot write it: No space left on device"):
            average_folders(runs, tmp_path / "mean")
    assert not list(tmp_path.iterdir())
    average_folders(runs, tmp_path / "mean")
    with pytest.raises(FileExistsError, match="mean is there already: choose another -o"):
        average_folders(runs, tmp_path / "mean")


def test_best_is_for_one_run(runs, capsys, tmp_path):
    for flags in (["-m", runs[1], "--best", "2"], ["--best", "1"]):
        arguments = ["average", "-m", runs[0], *flags, "-o", tmp_path / "mean"]
        assert main([str(argument) for argument in arguments]) == 2
        assert "--best counts the checkpoints of one run, 2 or more" in capsys.readouterr().err
