"""Every command of tools/bench.py, end to end, on settings that take a second."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import bench
import numpy as np
import pytest
import torch
from benchmarks import data, measure, peers, train
from benchmarks.processes import BenchmarkError
from benchmarks.systems import System


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch):
    """A peak of 1 GFLOP/s, which takes no second to measure."""
    monkeypatch.setattr(measure, "peaks", lambda device: {"fp32": 1.0})


@pytest.fixture
def measured(tmp_path):
    """Run a command; the lines that it kept."""

    def run(*arguments) -> list[dict]:
        file = tmp_path / "found.json"
        bench.main([*map(str, arguments), "--json", str(file)])
        return json.loads(file.read_text("utf8"))["lines"]

    return run


def text_of(toy) -> list:
    return ["--corpus", toy.folder / "train", "--vocabulary", 60]


SMALL = ["--hidden", 8, "--embedding", 8, "--layers", 1]


def test_recurrent(measured):
    lines = measured("recurrent", "--hidden", 8, "--batch", 4, "--steps", 2, "--repeats", 3)
    names = {line["name"] for line in lines}
    assert {"ours", "torch.nn.LSTM", "ours, 16 cells projected to 8", "ours, 4 layers, 2 steps"} <= names
    assert all(line["of_peak"] == pytest.approx(line["gflops"]) for line in lines)


def test_train(measured, toy):
    steps = ["--steps", 3, "--repeats", 2, "--warm-up", 1, "--batch-tokens", 100, "--precision", "fp32"]
    lines = measured("train", *text_of(toy), *SMALL, *steps, "--cell", "lstm", "gru+reset=before", "--profile")
    one, other = (line for line in lines if line["kind"] == "fp32")
    assert (one["name"], other["name"]) == ("lstm, 8 cells", "gru+reset=before, 8 cells")
    assert one["parameters"] > other["parameters"]
    assert all(0.5 < side <= 1 for side in one["fill"])
    assert one["words_per_batch"] <= 100
    shares = [(line["name"], line["share"]) for line in lines if line["kind"] == "profile"]
    assert sum(share for _, share in shares) == pytest.approx(2), "of two networks"
    seen = {name for name, share in shares if share > 0}
    assert {"recurrence", "attention", "readout", "output layer and loss", "optimiser"} <= seen


def test_batches_of_sentences(measured, toy):
    steps = ["--steps", 2, "--repeats", 2, "--warm-up", 0, "--sentences", 10, "--precision", "fp32"]
    [line] = measured("train", *text_of(toy), *SMALL, *steps)
    assert line["words_per_second"] > 0
    lengths = np.array([3, 9, 4, 5, 9])
    table = SimpleNamespace(source_lengths=lengths, target_lengths=lengths)
    loop = SimpleNamespace(text=SimpleNamespace(table=table), batch_tokens=1, sentences=2, seed=1)
    assert sorted(len(batch) for batch in train.loader(loop).batches.epoch(0)) == [1, 2, 2]


def test_translate_with_a_model(measured, toy, trained):
    text = ["-m", trained, "-s", toy.folder / "val.en", "-r", toy.folder / "val.de"]
    how = ["--precision", "fp32", "--repeats", 1, "--singly", 2, "--lengths", 5, 10, "--batch-tokens", 100, 1000]
    lines = measured("translate", *text, *how, "--beam-size", 2)
    names = [line["name"] for line in lines]
    assert names == [
        *("beam 2, batches of 100", "beam 2, batches of 1000", "beam 2, BLEU", "beam 2, one at a time"),
        *("beam 2, 5 pieces", "beam 2, 10 pieces"),
    ]
    assert lines[0]["pieces"] == lines[1]["pieces"]
    assert lines[2]["bleu"] > 50
    assert lines[2]["against_first"] is None


def test_translate_without_a_model(measured, toy, capsys):
    how = ["--precision", "fp32", "--repeats", 1, "--singly", 0, "--lengths", "--most", 8, "--batch-tokens", 1000]
    [line] = measured("translate", *SMALL, "--vocabulary", 500, *how, "--beam-size", 1)
    assert line["pieces"] > 8 * 5, "as many as the sources have"
    assert "random weights" in capsys.readouterr().out


def test_data(measured, toy, monkeypatch):
    monkeypatch.setattr(data, "starting", lambda *_: None)
    lines = measured("data", *text_of(toy), "--pairs", 500, "--batch-tokens", 100, "--batches", 10, "--repeats", 1)
    names = [line["name"] for line in lines if not line["name"].startswith("encoding")]
    assert names == ["table of 500 pairs", "sorting into batches", "shuffling an epoch", "loading 10 batches"]


@pytest.mark.slow
def test_training_starts(measured, toy):
    lines = measured("data", *text_of(toy), "--pairs", 500, "--batch-tokens", 100, "--batches", 10, "--repeats", 1)
    new, before = lines[-2:]
    assert new["peak_memory_gb"] > 0.1
    assert before["name"] == "training starts, text encoded before"


@pytest.mark.slow
def test_startup(measured, trained):
    lines = measured("startup", "-m", trained, "--repeats", 1, "--imports", 3)
    assert [line["name"] for line in lines[:4]] == [
        *("python -c pass", "python -c 'import torch'", "nmt --help", "nmt translate, one line"),
    ]
    assert [line["of"] for line in lines[4:]] == ["nmt.cli"] * 3 + ["nmt.translator"] * 3


@pytest.mark.slow
def test_memory_on_endless_input(measured, toy, trained):
    text = ["-m", trained, "-s", toy.folder / "val.en", "--precision", "fp32", "--repeats", 1, "--singly", 1]
    lines = measured("translate", *text, "--beam-size", 1, "--lengths", "--batch-tokens", 100, "--lines", 50)
    assert lines[-1]["name"] == "nmt translate, 50 lines"
    assert lines[-1]["peak_memory_gb"] > 0.1


class Fake(System):
    """A system that says at once what the others say after a while."""

    def training(self, python, setting):
        assert (setting.folder / "train.src").read_text("utf8").count("\n") == 300
        return [python, "-c", "print('rates: 1 100 300 200')"]

    def translating(self, python, setting, name, beam, batch):
        output = setting.folder / "fake.out"
        code = f"from pathlib import Path; Path('{output}').write_text(Path('{name}.src').read_text())"
        return [python, "-c", code], output

    def rates(self, log):
        return [float(word) for word in log.split()[1:]]

    def duration(self, log, lines):
        return 2.0


def test_peers(measured, toy, monkeypatch):
    monkeypatch.setattr(peers, "SYSTEMS", {"opennmt": Fake("Fake", "fake==1", ())})
    monkeypatch.setattr(peers, "environment", lambda *_: Path(sys.executable))
    how = ["--updates", 4, "--every", 2, "--sentences", 16, "--beam-size", 1, "--batch-sizes", 4, "--longest", 6]
    lines = measured("peers", *text_of(toy), *SMALL, *how, "--most", 10, "--singly", 2, "--peers", "opennmt")
    trains = {line["name"]: line for line in lines if line.get("what") == "training"}
    assert trains["Fake"]["words_per_second"] == 200, "the median of all but the first"
    ratios = [line["ratio"] for line in lines if line.get("what") == "training, ratio" and line["kind"] == "fp32"]
    assert ratios == [pytest.approx(trains["ours"]["words_per_second"] / 200)]
    [theirs] = [line for line in lines if line.get("what") == "greedy" and line["name"] == "Fake"]
    assert theirs["sentences_per_second"] == 10 / 2
    assert theirs["ms"] == pytest.approx(1000)  # two lines in two seconds
    kinds = {line["kind"] for line in lines if line.get("what") == "greedy" and line["name"] == "ours"}
    assert kinds >= {"fp32", "int8", "int8 shortlist"}


def test_a_system_without_such_a_model_is_left_out(toy, monkeypatch, capsys):
    system = Fake("Fake", "fake==1", (), attentions=("general",))
    monkeypatch.setattr(peers, "SYSTEMS", {"opennmt": system})
    monkeypatch.setattr(peers, "training", lambda *_: None)
    monkeypatch.setattr(peers, "translating", lambda options, report, found: print(sorted(found)))
    options = [*text_of(toy), *SMALL, "--attention", "none", "--peers", "opennmt"]
    bench.main(["peers", *map(str, options)])
    assert "Fake has no model with attention none: left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--corpus", "nowhere/train"], "bench: there is no nowhere/train.en or nowhere/train.en.gz"),
        (["translate", "-m", "nowhere"], "bench: no model folder at nowhere"),
        (["train", "--device", "tpu"], "bench: .*device.*tpu"),
        (["peers", "--updates", "50"], "bench: --updates 50 are no two stretches of --every 50: make them more"),
    ],
)
def test_what_is_missing_is_told_in_a_line(arguments, message):
    with pytest.raises(SystemExit, match=message):
        bench.main(arguments)


@pytest.mark.parametrize("option", ["train --steps", "peers --every", "recurrent --repeats", "translate --lengths"])
def test_a_number_that_cannot_be_is_refused_at_once(option, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        bench.main([*option.split(), "0"])
    assert "must be at least 1, not 0" in capsys.readouterr().err


def test_waiting_for_a_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(measure.torch.cuda, "synchronize", waited.append)
    device = SimpleNamespace(type="cuda")
    measure.timed({"": lambda: None}, repeats=2, warm_up=1, device=device)
    assert waited == [device] * 6, "before and after each run"


def test_peers_are_for_the_cpu():
    with pytest.raises(BenchmarkError, match="peers are compared on the CPU: leave out --device"):
        peers.run(SimpleNamespace(), SimpleNamespace(device=torch.device("cuda")))
