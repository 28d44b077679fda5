"""The arithmetic of the benchmarks: what they count, what they read in logs, what they make of seconds."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from benchmarks import measure, profile, startup, systems, train, translate
from benchmarks.joeynmt import JOEYNMT
from benchmarks.opennmt import OPENNMT
from benchmarks.processes import BenchmarkError, peak_memory, watch
from benchmarks.work import Words, Work, count, total, work
from torch.autograd import DeviceType

from nmt.answers import Candidate, Translation
from nmt.batches import collate
from nmt.model.seq2seq import ModelOptions, build_model

# ---- work


def tiny(**options):
    return build_model(ModelOptions(embedding_size=2, hidden_size=4, encoder_layers=1, **options), 7, 7)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # encoder: in each direction 2 cells, 4 gates, of 2 inputs and 2 outputs: 2 * 8 * (2 + 2); keys 4 * 4
        # decoder: 16 * (2 + 4), then of output and context 16 * (8 + 4); readout 8 * 2; output 2 * 7; bridge 8 -> 16
        pytest.param({"tie_embeddings": "all"}, Work(128, 64 + 16, 96 + 192 + 16 + 14, 4 + 4), id="general"),
        # no keys; the second layer reads the output alone: 16 * (4 + 4); readout 4 * 2
        pytest.param({"attention": "none"}, Work(128, 64, 96 + 128 + 8 + 14, 0), id="no attention"),
        # the query's own product 4 * 4; a pair takes 4 for its energy and 4 for the value
        pytest.param({"attention": "additive"}, Work(128, 64 + 16, 96 + 192 + 16 + 14 + 16, 4 + 4), id="additive"),
        # one decoder layer, shaped like the encoder: its state is copied
        pytest.param({"attention": "dot", "decoder_layers": 1}, Work(0, 64, 96 + 16 + 14, 8), id="copied"),
        # 3 blocks in place of 4; a state of one part: bridge 4 -> 8
        pytest.param({"cell": "gru"}, Work(32, 48 + 16, 72 + 144 + 16 + 14, 8), id="gru"),
        # each direction puts out 1: 8 * (2 + 1) + 2; keys 2 * 2; decoder 16 * (2 + 2) + 8 and 16 * (4 + 2) + 8;
        # readout 4 * 2; bridge 2 + 4 -> 2 * (2 + 4); peepholes multiply element by element
        pytest.param({"projection": 2, "peepholes": True}, Work(72, 52 + 4, 72 + 104 + 8 + 14, 2 + 2), id="projection"),
    ],
)
def test_work_is_counted_from_the_shapes(options, expected):
    assert work(tiny(**options)) == expected


def test_training_takes_every_product_three_times_with_two_operations_each():
    words = Words(sentences=1, source=3, target=2, pairs=6)
    each = Work(sentence=128, source=80, target=318, pair=8)
    assert each.forward(words) == 2 * (128 + 3 * 80 + 2 * 318 + 6 * 8)
    assert each.training(words) == 3 * each.forward(words)


def test_padding_is_no_word():
    """Sources of 1 and 3 pieces, targets of 2 and 1, each with an EOS behind."""
    batch = collate([([5], [6, 7]), ([5, 5, 5], [6])])
    assert count(batch) == Words(2, 2 + 4, 3 + 2, 2 * 3 + 4 * 2, 2 * 4, 2 * 3)
    assert count(batch).fill == (6 / 8, 5 / 6)
    assert total([count(batch), count(batch)]) == Words(4, 12, 10, 28, 16, 12)


def test_a_beam_reads_every_hypothesis():
    candidate = Candidate("ein Boot", ("ein", "Boot"), 0.0, 0.0, None)
    answer = Translation("a boat", ("a", "boat", "."), (candidate,))
    assert translate.words([answer, answer], beam=5) == Words(2, 2 * 4, 2 * 5 * 3, 2 * 4 * 15)


# ---- seconds


def test_spread_is_a_share_of_the_median():
    assert measure.spread([3.0, 1.0, 2.0]) == 1.0


def test_runs_take_turns_and_the_first_do_not_count():
    said = []
    runs = {"a": lambda: said.append("a"), "b": lambda: said.append("b")}
    found = measure.timed(runs, repeats=2, warm_up=1)
    assert said == ["a", "b"] * 3
    assert [len(seconds) for seconds in found.values()] == [2, 2]


def test_a_report_keeps_what_it_prints(capsys, tmp_path):
    report = measure.Report({"fp32": 40.0})
    report.time("fp32", "a product", [0.1, 0.4, 0.2], flops=4e9, note="noted", figure=7)
    report.time("int8", "another", [0.1], flops=4e9)
    out = capsys.readouterr().out
    assert "200.0 ms" in out
    assert "20.0 GFLOP/s  50% of peak  noted" in out
    report.write(tmp_path / "found.json", "python tools/bench.py x", "a machine")
    found = json.loads((tmp_path / "found.json").read_text("utf8"))
    assert found["peaks_gflops"] == {"fp32": 40.0}
    [first, second] = found["lines"]
    assert first["ms"] == pytest.approx(200)
    assert (first["gflops"], first["of_peak"]) == (pytest.approx(20), pytest.approx(0.5))
    assert (first["spread"], first["repeats"], first["figure"]) == (pytest.approx(1.5), 3, 7)
    assert second["of_peak"] is None, "no peak was measured for it"


def test_the_clock_looks_after_every_stretch():
    clock = train.Clock(warm_up=2, stretch=3, device=torch.device("cpu"))
    batches = [collate([([5] * length, [6])]) for length in range(1, 9)]
    for step, batch in enumerate(batches, 1):
        clock.on_train_batch_end(SimpleNamespace(global_step=step), None, None, batch, step)
    assert len(clock.times) == 3
    assert [words.source for words in clock.words] == [4 + 5 + 6, 7 + 8 + 9], "of updates 3 to 5 and 6 to 8"


def test_median_of_words_per_second():
    found = train.Found(None, [1.0, 2.0, 5.0], [Words(1, 9, words, 9) for words in (10, 60, 100)], [], 1, 0.0)
    assert found.rates == [10, 30, 20]


# ---- names


def test_a_cell_is_named_with_its_options():
    options = SimpleNamespace(attention="none", context="initial", embedding=8, layers=1, dropout=0.0)
    shape = train.model_options(options, "lstm+peepholes+projection=4+extra-projection=2", 16)
    assert (shape.cell, shape.peepholes, shape.projection, shape.extra_projection) == ("lstm", True, 4, 2)
    assert train.model_options(options, "gru+reset=before", 16).reset == "before"
    with pytest.raises(BenchmarkError, match=r"--cell lstm\+peephole has an option that no cell knows.*peephole"):
        train.model_options(options, "lstm+peephole", 16)
    with pytest.raises(ValueError, match=r"model\.cell must be one of rnn, lstm"):
        train.model_options(options, "lsmt", 16)


# ---- logs


def test_the_log_of_opennmt():
    log = """[2026-11-25 07:30:06,793 INFO] Step  2/    6; acc: 3.4; ppl: 6712.9; xent: 8.8; lr: 0.00100; sents:     256; bsz: 1664/1920/128;  88/101 tok/s;     38 sec;
[2026-11-25 07:30:10,866 INFO] Step  4/    6; acc: 10.0; ppl: 2339.8; xent: 7.8; lr: 0.00100; sents:     256; bsz: 1344/1408/128; 660/691 tok/s;     42 sec;
"""  # noqa: E501
    assert OPENNMT.rates(log) == [101, 691]
    said = "Total translation time (s): 1.0\nAverage translation time (ms): 62.5\nTokens per second: 20.1\n"
    assert OPENNMT.duration(said, 16) == 1.0
    with pytest.raises(BenchmarkError, match="OpenNMT-py did not say how long it took"):
        OPENNMT.duration("nothing", 16)


def test_the_log_of_joeynmt():
    log = """2026-11-25 07:50:01,000 - INFO - joeynmt.training - Epoch   1, Step:        2, Batch Loss:     9.123456, Batch Acc: 0.000100, Tokens per Sec:      312, Lr: 0.000020
2026-11-25 07:50:09,000 - INFO - joeynmt.training - Epoch   1, Step:        4, Batch Loss:     8.123456, Batch Acc: 0.010000, Tokens per Sec:     1014, Lr: 0.000040
"""  # noqa: E501
    assert JOEYNMT.rates(log) == [312, 1014]
    assert JOEYNMT.duration("Generation took 0.5000[sec].\n ... Generation took 12.2500[sec].", 100) == 12.25
    with pytest.raises(BenchmarkError, match="JoeyNMT did not say how long it took"):
        JOEYNMT.duration("nothing", 16)


def test_the_slowest_imports():
    log = """import time: self [us] | cumulative | imported package
import time:       250 |        250 |     _io
import time:      1000 |     900500 | torch
import time:       500 |     902000 | nmt.translator
"""
    assert startup.slowest(log, 2) == [("nmt.translator", 902.0, 0.5), ("torch", 900.5, 1.0)]


# ---- the profile


def event(name: str, own: float = 0.0, parent=None, sequence: int = -1, device=DeviceType.CPU):
    return SimpleNamespace(
        name=name,
        self_cpu_time_total=own,
        self_device_time_total=10 * own,
        cpu_parent=parent,
        sequence_nr=sequence,
        device_type=device,
    )


def test_the_way_back_belongs_to_the_part_that_it_undoes():
    step = event("rest", 1e6)
    layer = event("recurrence", 2e6, step)
    inner = event("input products", 0.0, layer)
    product = event("aten::linear", 4e6, inner, sequence=7)
    back = event("autograd::engine::evaluate_function: LinearBackward", 8e6, step, sequence=7)
    node = event("LinearBackward", 0.0, back, sequence=7)
    within = event("aten::mm", 16e6, node)
    unknown = event("autograd::engine::evaluate_function: AccumulateGrad", 32e6, step, sequence=99)
    adam = event("Optimizer.step#AdamW.step", 64e6)
    events = [step, layer, inner, product, back, node, within, unknown, adam]
    expected = {"rest": 1 + 32, "recurrence": 2, "input products": 4 + 8 + 16, "optimiser": 64}
    assert profile.shares(events, on_gpu=False) == (expected, {"Python": 1, "AccumulateGrad": 32})
    kernel, span = (event(name, 128e6, device=DeviceType.CUDA) for name in ("gemm", "recurrence"))
    tenfold = {part: 10 * seconds for part, seconds in expected.items()}
    assert profile.shares([*events, kernel, span], on_gpu=True)[0] == tenfold


def test_huge_pages_are_asked_for_before_torch_looks():
    """Which it does once, while Lightning is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    code = "import os, sys; sys.path[:0] = ['.', 'tools']; import benchmarks; "
    code += "print('torch' in sys.modules, os.environ['THP_MEM_ALLOC_ENABLE'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "1"]


# ---- programs


def test_a_program_is_watched():
    code = "import sys, time; x = bytearray(200_000_000); print(sys.stdin.read().upper()); time.sleep(0.2)"
    found = watch([sys.executable, "-c", code], ["one", "two"])
    assert [line for _, line in found.lines] == ["ONE", "TWO", ""]
    assert 0.2 < found.peak < 0.4
    assert found.seconds > 0.2
    assert peak_memory() > 0


def test_a_program_that_fails_is_told_in_a_line():
    with pytest.raises(BenchmarkError, match="ended with code 3: that is why"):
        watch([sys.executable, "-c", "print('that is why'); raise SystemExit(3)"])


# ---- environments


def test_no_package_index_is_told_with_the_way_out(monkeypatch, tmp_path):
    def offline(command):
        if "pip" in command:
            raise BenchmarkError("pip ended with code 1: No matching distribution found for torch")

    monkeypatch.setattr(systems, "watch", offline)
    with pytest.raises(
        BenchmarkError, match=r"cannot install OpenNMT-py==3\.5\.1: it needs a Python package index; check"
    ):
        systems.environment(OPENNMT, tmp_path)


def test_an_environment_is_made_once(monkeypatch, tmp_path):
    said = []

    def pretend(command):
        said.append([str(part) for part in command])
        (tmp_path / "OpenNMT-py-3.5.1" / "lib" / "python3.11" / "site-packages").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(systems, "watch", pretend)
    python = systems.environment(OPENNMT, tmp_path)
    assert python == tmp_path / "OpenNMT-py-3.5.1" / "bin" / "python"
    assert [command[-1] for command in said[1:]] == ["setuptools", "OpenNMT-py==3.5.1"]
    assert (tmp_path / "OpenNMT-py-3.5.1" / "lib" / "python3.11" / "site-packages" / "spacy.py").exists()
    assert systems.environment(OPENNMT, tmp_path) == python
    assert len(said) == 3, "nothing more was run"
