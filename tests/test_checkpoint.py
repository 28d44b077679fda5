"""The model folder: what is saved is what is loaded, and every way that a folder can be wrong has its sentence."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from nmt import checkpoint
from nmt.batches import collate
from nmt.checkpoint import Tokenizers
from nmt.model.seq2seq import ModelOptions, build_model


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of the trained model, without what only resuming needs."""
    return shutil.copytree(trained, tmp_path / "model", ignore=shutil.ignore_patterns("training"))


def log_probs(model, tokenizers: Tokenizers) -> torch.Tensor:
    rows = [tokenizers.source.encode(["two big red cats"])[0]], [tokenizers.target.encode(["zwei große rote"])[0]]
    batch = collate(list(zip(*rows, strict=True)))
    with torch.inference_mode():
        readout = model.eval()(batch.source, batch.source_lengths, batch.target_in)
        return model.output(readout).log_softmax(-1)


@pytest.mark.parametrize("tied", ["none", "target", "all"])
@pytest.mark.parametrize("attention", ["none", "general"])
def test_what_is_loaded_is_what_was_saved(folder, tied, attention):
    tokenizers = Tokenizers.load(folder)
    options = ModelOptions(embedding_size=8, hidden_size=8, tie_embeddings=tied, attention=attention)
    model = build_model(options, tokenizers.source.size, tokenizers.target.size)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"] |= {"embedding_size": 8, "hidden_size": 8, "tie_embeddings": tied, "attention": attention}
    config["model"] |= {"encoder_layers": 2, "decoder_layers": 2}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    checkpoint.save_weights(model, folder)
    checkpoint.save_info({"languages": ["en", "de"], "pairs": 3, "version": "0"}, folder)
    saved = checkpoint.load(folder)
    assert torch.equal(log_probs(saved.model, saved.tokenizers), log_probs(model, tokenizers))
    assert not saved.model.training
    shared = [saved.model.output.weight is saved.model.target_embedding.weight]
    shared += [saved.model.source_embedding.weight is saved.model.target_embedding.weight]
    assert shared == {"none": [False, False], "target": [True, False], "all": [True, True]}[tied]
    assert saved.info == {"format": 1, "languages": ["en", "de"], "pairs": 3, "version": "0"}
    assert saved.config == config


def test_weights_may_be_read_by_whoever_may_read_the_config(folder):
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.yaml").stat().st_mode


def test_one_vocabulary_is_one_object_and_two_are_two(folder, tmp_path):
    joint = Tokenizers.load(folder)
    assert joint.source is joint.target
    Tokenizers(joint.source, joint.target).save(tmp_path)
    assert [path.name for path in tmp_path.glob("*.spm")] == ["tokenizer.spm"]
    (tmp_path / "tokenizer.spm").unlink()
    Tokenizers(joint.source, checkpoint.Tokenizer.load(folder / "tokenizer.spm")).save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.spm")) == ["source.spm", "target.spm"]
    loaded = Tokenizers.load(tmp_path)
    assert loaded.source is not loaded.target
    assert loaded.source.digest == loaded.target.digest == joint.source.digest


def test_the_card_says_what_the_info_says(folder):
    score = {"name": "BLEU", "score": 12.3, "signature": "nrefs:1"}
    info = {"version": "9.9", "languages": ["en", "de"], "pairs": 12345, "scores": {"test": [score]}}
    checkpoint.save_info(info, folder)
    card = (folder / "README.md").read_text()
    assert "# A recurrent translator, en to de" in card
    assert "12,345 pairs of sentences with nmt 9.9" in card
    assert "| test | BLEU | 12.30 | `nrefs:1` |" in card


def test_the_average_is_the_mean_of_each_weight():
    states = [
        {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor(1e8)},
        {"a": torch.tensor([2.0, 8.0]), "b": torch.tensor(1.0)},
    ]
    mean = checkpoint.average([*states, states[1]])
    torch.testing.assert_close(mean["a"], torch.tensor([5 / 3, 20 / 3]))
    assert mean["b"] == torch.tensor((1e8 + 2) / 3)  # summed in double precision
    assert mean["a"].dtype == torch.float32


# ---- what can be wrong with a folder ----


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model folder at \S+nowhere: give the folder that `nmt train`"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"no model folder at \S+file: give the folder"):
        checkpoint.load(tmp_path / "file")


@pytest.mark.parametrize("name", ["config.yaml", "info.json", "model.safetensors"])
def test_a_missing_file_is_named_with_the_way_out(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"not a complete model folder, it has no {name}: copy the whole folder"
    ):
        checkpoint.load(folder)
    (folder / "training").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"has no {name}: run the same `nmt train` again to finish it"):
        checkpoint.load(folder)


def test_a_missing_tokenizer_is_named(folder):
    (folder / "tokenizer.spm").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at \S+tokenizer\.spm"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("config.yaml", r"model: info\.json or config\.yaml is damaged"),
        ("info.json", r"model: info\.json or config\.yaml is damaged \(.*\): copy the folder again"),
        (
            "model.safetensors",
            r"model\.safetensors is damaged or does not fit config\.yaml \(.*\): copy the folder again",
        ),
        ("tokenizer.spm", r"tokenizer\.spm .*(?:Copy it|copy the folder) again"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.4, 0.5])
def test_a_file_cut_short_is_named_in_one_line(folder, name, complaint, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=complaint) as refused:
        checkpoint.load(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.yaml", "model: {cell: lstm"), ("config.yaml", "- 3"), ("info.json", "[]"), ("info.json", "\xff")],
)
def test_what_is_no_yaml_or_json_of_ours_is_named_in_one_line(folder, name, text):
    (folder / name).write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"info\.json or config\.yaml is damaged.*: copy the folder again") as refused:
        checkpoint.load(folder)
    assert "\n" not in str(refused.value)


def test_another_format_is_refused(folder):
    info = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(json.dumps({**info, "format": 2}))
    with pytest.raises(ValueError, match="has format 2, this version reads 1: use the nmt that wrote it"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (
            {"cell": "lsmt"},
            r"config\.yaml holds a model option of another nmt, or is damaged: model\.cell must be one of",
        ),
        ({"attention": "genral"}, r"model\.attention must be one of none, dot, general, additive, not genral"),
        ({"wings": 2}, r"holds a model option of another nmt, or is damaged: .*unexpected keyword argument 'wings'"),
        ({"hidden_size": 32}, r"model\.safetensors is damaged or does not fit config\.yaml"),
        ({"hidden_size": "wide"}, r"holds a model option of another nmt, or is damaged"),
    ],
)
def test_a_model_of_other_options_is_refused_in_one_line(folder, option, complaint):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"] |= option
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=complaint) as refused:
        checkpoint.load(folder)
    assert "\n" not in str(refused.value)


# ---- nothing is half written ----


def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "info.json"
    checkpoint.write_whole(path, "old\n")
    write_text = Path.write_text

    def full(self, text, **options):
        write_text(self, text[:3], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"cannot write it: No space left on device: '\S+info\.json'"):
        checkpoint.write_whole(path, "newer\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"info.json": "old\n"}


def test_a_file_that_cannot_be_renamed_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "info.json"
    checkpoint.write_whole(path, "old\n")

    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError, match=r"cannot write it: Permission denied: '\S+info\.json'"):
        checkpoint.write_whole(path, "newer\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"info.json": "old\n"}


def test_a_full_disk_leaves_the_old_weights(folder, monkeypatch):
    saved = checkpoint.load(folder)
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        saved.model.output.bias += 1

    def full(model, name):
        Path(name).write_bytes(before[:100])
        raise checkpoint.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_model", full)
    with pytest.raises(
        OSError, match=r"model\.safetensors: cannot write it: Error while serializing: I/O error: No sp"
    ):
        checkpoint.save_weights(saved.model, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob("*.part"))
