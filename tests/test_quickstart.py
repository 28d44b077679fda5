"""The quick start finds what ships with it, in a clone and in an installed wheel; its corpus fits its config."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nmt import quickstart
from nmt.cli import main
from nmt.evaluation import read_lines
from nmt.quickstart import shipped

ROOT = Path(__file__).parent.parent
TINY = """
tokenizer: {vocab_size: 300}
model: {embedding_size: 16, hidden_size: 16, encoder_layers: 1, decoder_layers: 1}
training: {max_epochs: 1, validation_sentences: 10}
"""


@pytest.mark.slow
def test_an_installed_wheel_brings_the_corpus_and_the_configs(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*command, str(ROOT)], check=True, cwd=tmp_path)
    [wheel] = tmp_path.glob("nmt-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = "import nmt.quickstart as q; print(q.shipped('quickstart')); print(q.shipped('configs/quickstart.yaml'))"
    run = [sys.executable, "-c", program]
    done = subprocess.run(
        run, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True, check=True
    )
    corpus, config = map(Path, done.stdout.split())
    assert corpus.is_relative_to(tmp_path)
    assert (corpus / "train.en").read_bytes() == (ROOT / "data/quickstart/train.en").read_bytes()
    assert config.read_bytes() == (ROOT / "configs/quickstart.yaml").read_bytes()


def test_the_quick_start_trains_scores_both_tests_and_says_what_to_try_next(tmp_path, monkeypatch, capsys):
    places = {"quickstart": tmp_path / "corpus", "configs/quickstart.yaml": tmp_path / "tiny.yaml"}
    monkeypatch.setattr(quickstart, "shipped", places.__getitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places["configs/quickstart.yaml"].write_text(TINY, encoding="utf8")
    places["quickstart"].mkdir()
    for name, lines in (("train", 300), ("val", 10), ("test", 12), ("test-unseen", 8)):
        for code in ("en", "de"):
            text = read_lines(str(ROOT / f"data/quickstart/{name}.{code}"))[:lines]
            (places["quickstart"] / f"{name}.{code}").write_text("\n".join(text) + "\n", encoding="utf8")
    folder = tmp_path / "model"
    assert main(["quickstart", "-o", str(folder), "-q"]) == 0
    printed = capsys.readouterr().out
    assert "test (12 sentences; nrefs:1|case:mixed" in printed
    assert "never seen in training (8 sentences; nrefs:1|case:mixed" in printed
    assert len(re.findall(r"\n  [A-Z].*\n    ", printed)) == 6  # sample translations
    assert f"nmt translate -m {folder}" in printed


def test_what_does_not_ship_is_named():
    with pytest.raises(FileNotFoundError, match=r"this installation lacks nothing\.txt: install nmt again"):
        shipped("nothing.txt")
