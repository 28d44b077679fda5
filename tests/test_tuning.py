"""Decoding tuned on development text: the sweep by hand, and what a model folder keeps of it."""

import io
import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml

from nmt import checkpoint, config, corpus
from nmt.cli import main
from nmt.evaluation import Score
from nmt.fit import fit
from nmt.search import SearchOptions
from nmt.shortlist import Shortlist
from nmt.translator import Translator
from nmt.tuning import Sweep, Trial, Tuning, best, sweep
from nmt.tuning_verb import COLUMNS

FLAGS = ["--beam-sizes", "1,12", "--length-penalties", "0,2", "--length-rewards", "1", "--coverage-penalties", "0,0.2"]


@pytest.fixture
def model(unsure, tmp_path) -> Path:
    return shutil.copytree(unsure, tmp_path / "model")


@pytest.fixture
def tune(model, toy, capsys):
    """The table that is printed, by rows of cells; the winner, and the signature."""

    def run(*flags: object) -> tuple[list[list[str]], list[str], str]:
        assert (
            main([str(one) for one in ("tune", "-q", "-m", model, "--data", toy.folder / "val", *FLAGS, *flags)]) == 0
        )
        header, *rows, signature = capsys.readouterr().out.split("\n")[:-1]
        assert tuple(header.split()) == COLUMNS
        [winner] = [row[1:].split() for row in rows if row.startswith("*")]
        return [row[1:].split() for row in rows], winner, signature

    return run


@pytest.fixture
def refused(capsys):
    def run(*arguments: object) -> str:
        assert main(["tune", *map(str, arguments)]) in (1, 2)
        printed, said = capsys.readouterr()
        assert (printed, said.count("\n")) == ("", 1)
        return said.removeprefix("nmt: ").rstrip("\n")

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# ---- the sweep by hand ----


def test_each_axis_is_swept_at_the_best_of_those_before():
    """Weights m gain 1; beam 2 gains 1, 4 as much; penalty 1.5 gains 2, reward 1 gains 3; coverage never helps."""

    def measure(name: str, search: SearchOptions) -> Score:
        gains = 10 + (name == "m") + (search.beam_size in (2, 4)) - 5 * search.coverage_penalty
        gains += 2 * (search.length_penalty == 1.5) + 3 * (search.length_reward == 1)
        return Score("BLEU", gains, "s")

    seen: list[Trial] = []
    what = Sweep((1, 2, 4), (1.0, 1.5), (1.0,), (0.0, 0.1))
    start = SearchOptions(beam_size=1)
    trials = sweep(start, ["b", "m"], what.axes("gnmt", attention=True), measure, seen.append)
    assert seen == trials
    tried = [(one.weights, one.search.beam_size, one.search.length_penalty, one.bleu.score) for one in trials]
    assert tried == [
        ("b", 1, 1.0, 10),
        ("m", 1, 1.0, 11),  # not again for beam 1
        ("m", 2, 1.0, 12),
        ("m", 4, 1.0, 12),  # equal, so 2 stays, and penalty 1 is not tried again
        ("m", 2, 1.5, 14),
        ("m", 2, 0.0, 15),  # the reward
        ("m", 2, 0.0, 14.5),  # coverage 0 was tried
    ]
    won = best(trials)
    assert won is trials[5]
    assert (won.search.normalization, won.search.length_reward, won.search.coverage_penalty) == ("none", 1.0, 0.0)


def test_penalties_keep_the_models_normalization_and_rewards_have_none():
    what = Sweep(length_penalties=(0.5,), length_rewards=(0.2,))
    assert [change["normalization"] for change in what.axes("power", attention=True)[1]] == ["power", "none"]
    assert [change["normalization"] for change in what.axes("none", attention=True)[1]] == ["gnmt", "none"]
    assert what.axes("gnmt", attention=False)[2] == []


# ---- the command ----


def test_the_winner_of_the_table_is_what_the_folder_keeps(tune, model, toy, capsys):
    rows, winner, signature = tune()
    scores = [float(row[-2]) for row in rows]
    assert float(winner[-2]) == max(scores)
    assert rows.index(winner) == scores.index(max(scores))  # of equals the first
    assert len({row[-2] for row in rows}) > 1  # so that there was something to choose
    kept, info = checkpoint.read_folder(model)
    search = SearchOptions(**kept["search"])
    assert str(search.beam_size) == winner[1]
    assert search.normalization == winner[2]
    [found] = info["scores"]["development"]
    assert info["tuning"]["score"] == found
    assert (round(found["score"], 2), found["signature"]) == (max(scores), signature)
    assert info["tuning"]["command"].startswith(f"nmt tune -q -m {model} --data {toy.folder}/val --beam-sizes 1,12 ")
    assert info["tuning"]["trials"] == len(rows)
    source, reference = (str(toy.folder / f"val.{code}") for code in ("en", "de"))
    assert main(["evaluate", "-m", str(model), "-s", source, "-r", reference, "--jsonl"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n")[0])["score"] == found["score"]  # by the folder's defaults
    assert main(["info", "-m", str(model)]) == 0
    told = capsys.readouterr().out
    assert f"development BLEU   {max(scores):.2f} ({signature})" in told
    assert f"tuned by           {info['tuning']['command']}" in told
    assert "| development | BLEU |" in (model / "README.md").read_text()


def test_scores_of_other_decoding_options_are_set_apart(tune, model):
    _, before = checkpoint.read_folder(model)
    tune()
    _, after = checkpoint.read_folder(model)
    assert set(after["scores"]) == {"development"}
    assert after["scores_before_tuning"] == before["scores"]
    tune()  # nothing is better than what was best, so nothing is set apart, and the first scores stay where they are
    _, again = checkpoint.read_folder(model)
    assert again["scores"] == after["scores"]
    assert again["scores_before_tuning"] == before["scores"]


@pytest.fixture
def tuned(trained, tmp_path) -> Path:
    """A run, tuned twice: weights and beam are others than those it was trained with."""
    copy = shutil.copytree(trained, tmp_path / "tuned")
    for beam, bleu in ((7, 4.0), (9, 5.0)):
        tuning = Tuning.load(copy, torch.device("cpu"))
        one, two = tuning.weights
        other = replace(tuning.start, beam_size=beam)
        trials = [
            Trial(one, tuning.start, Score("BLEU", 3.0, "s"), 0.1),
            Trial(two, other, Score("BLEU", bleu, "s"), 0.1),
        ]
        tuning.store(trials, "val", "nmt tune")
    return copy


def test_training_again_leaves_a_tuned_folder_as_it_is(tuned, toy, caplog):
    before = contents(tuned)
    assert b"beam_size: 9" in before["config.yaml"]
    fit(config.read([], [*toy.flags, "--output", str(tuned)]), device="cpu")
    assert contents(tuned) == before
    assert "is already trained; nothing to do" in caplog.text
    assert "options changed" not in caplog.text


def test_other_search_options_than_those_before_tuning_are_obeyed(tuned, toy, caplog):
    fit(config.read([], [*toy.flags, "--output", str(tuned), "--search.beam_size=2"]), device="cpu")
    assert "search.beam_size: was 9, now 2" in caplog.text
    kept, info = checkpoint.read_folder(tuned)
    assert kept["search"]["beam_size"] == 2
    assert "tuning" not in info


def test_a_run_that_goes_on_is_tuned_no_more(tuned, toy):
    epoch = checkpoint.read_folder(tuned)[0]["training"]["max_epochs"] + 1
    fit(config.read([], [*toy.flags, "--output", str(tuned), f"--training.max_epochs={epoch}"]), device="cpu")
    kept, info = checkpoint.read_folder(tuned)
    assert kept["search"] == asdict(SearchOptions())
    assert "tuning" not in info


def test_a_dry_run_changes_nothing(tune, model):
    before = contents(model)
    tune("--dry-run")
    assert contents(model) == before


def test_files_serve_as_well_as_a_source(tune, model, toy, capsys):
    rows, *_ = tune("--dry-run")
    files = ["-s", toy.folder / "val.en", "-r", toy.folder / "val.de"]
    assert main([str(one) for one in ("tune", "-q", "-m", model, *files, *FLAGS, "--dry-run")]) == 0
    table = [line[1:].split() for line in capsys.readouterr().out.split("\n")[1:-2]]
    assert [row[:-1] for row in table] == [row[:-1] for row in rows]


def test_weights_are_tried_where_a_run_has_both(trained, toy, tmp_path, capsys):
    copy = shutil.copytree(trained, tmp_path / "copy")
    none = [
        f
        for name in ("beam-sizes", "length-penalties", "length-rewards", "coverage-penalties")
        for f in (f"--{name}", "")
    ]
    assert main(["tune", "-q", "-m", str(copy), "--data", str(toy.folder / "val"), *none]) == 0
    names = [line[2:17].strip() for line in capsys.readouterr().out.split("\n")[1:-2]]
    assert len(names) == 2
    assert "best checkpoint" in names
    assert any(name.startswith("mean of the ") for name in names)
    assert contents(copy)["model.safetensors"] == contents(trained)["model.safetensors"]  # equal, so the first stays


def test_other_weights_that_win_are_kept_with_their_score_alone(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    tuning = Tuning.load(copy, torch.device("cpu"))
    one, two = tuning.weights
    trials = [Trial(name, tuning.start, Score("BLEU", bleu, "s"), 0.1) for name, bleu in ((one, 3.0), (two, 4.0))]
    tuning.store(trials, "val", "nmt tune")
    now = checkpoint.load(copy)
    for name, value in now.model.state_dict().items():
        torch.testing.assert_close(value, tuning.weights[two][name], rtol=0, atol=0)
    assert now.info["scores"] == {"development": [asdict(Score("BLEU", 4.0, "s"))]}
    assert now.info["tuning"]["weights"] == two


# ---- what is refused ----


def test_training_records_what_the_test_text_holds_and_tuning_refuses_it(toy, tmp_path, refused):
    for code in ("en", "de"):
        lines = (toy.folder / f"val.{code}").read_text().splitlines(keepends=True)
        (tmp_path / f"test.{code}").write_text("".join(lines[:5]))
    folder, test = tmp_path / "model", tmp_path / "test"
    flags = ["--output", str(folder), f"--data.test={test}", "--training.max_steps=1"]
    fit(config.read([], [*toy.flags, *flags]), device="cpu")
    _, info = checkpoint.read_folder(folder)
    assert info["text"]["test"] == [corpus.fingerprint(str(test), ("en", "de"), "test")]
    moved = tmp_path / "development"
    for code in ("en", "de"):
        (tmp_path / f"test.{code}").rename(f"{moved}.{code}")  # by another name, it is still the same text
    expected = f"{moved}.en is text that {folder} was tested on: tune on development text"
    assert refused("-m", folder, "--data", moved) == expected
    assert refused("-m", folder, "-s", f"{moved}.en", "-r", toy.folder / "val.de") == expected


def test_the_test_text_is_known_by_its_name_too(model, toy, refused):
    kept = yaml.safe_load((model / "config.yaml").read_text())
    kept["data"]["test"] = [str(toy.folder / "val"), "hf:some/text", str(toy.folder / "gone")]
    (model / "config.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    said = refused("-m", model, "--data", toy.folder / "val")
    assert said == f"{toy.folder}/val.en is text that {model} was tested on: tune on development text"
    assert refused("-m", model, "--data", "hf:some/text").startswith("hf:some/text is text that ")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "tune needs development text: --data SOURCE, or -s FILE -r FILE"),
        (["-s", "a"], "tune needs development text"),
        (["--data", "a", "-s", "a", "-r", "b"], "tune needs development text"),
        (["--data", "nowhere"], "there is no"),
        (["--data", "a", "--beam-sizes", "0"], "beam_size must be at least 1 and finite, got 0"),
        (["--data", "a", "--length-penalties=-1"], "length_penalty must be at least 0"),
        (["-s", "nowhere", "-r", "nowhere"], "nowhere: No such file or directory"),
        (["-s", "-", "-r", "-"], "only one file can be standard input (-)"),
    ],
)
def test_what_cannot_be_tuned(refused, model, flags, complaint):
    assert complaint in refused("-m", model, *flags)


def test_what_is_tuned_may_be_narrowed_by_a_shortlist(tune, model, refused, toy, monkeypatch):
    made = []
    monkeypatch.setattr(
        "nmt.tuning.Translator",
        lambda *args, **options: made.append(options["shortlist"]) or Translator(*args, **options),
    )
    tune("--shortlist")
    assert made
    assert all(isinstance(shortlist, Shortlist) for shortlist in made)
    (model / "shortlist.safetensors").unlink()
    assert "has no shortlist" in refused("-m", model, "--data", toy.folder / "val", "--shortlist")


def test_references_may_come_from_standard_input(tune, model, toy, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((toy.folder / "val.de").read_bytes())))
    found = []
    for reference in ("-", toy.folder / "val.de"):
        flags = ["-s", str(toy.folder / "val.en"), "-r", str(reference), "--dry-run", "--beam-sizes=1"]
        flags += ["--length-penalties=1", "--length-rewards=", "--coverage-penalties="]
        assert main(["tune", "-m", str(model), *flags]) == 0
        found.append([line.split()[:-1] for line in capsys.readouterr().out.splitlines()])
    assert found[0] == found[1]


def test_a_coverage_penalty_is_refused_without_attention(refused, toy, tmp_path):
    flags = ["--model.attention=none", "--training.max_steps=1", "--training.validation_metric=loss"]
    assert main(["train", "-q", *toy.under([*flags, f"--output={tmp_path / 'blind'}"])]) == 0
    said = refused("-m", tmp_path / "blind", "--data", toy.folder / "val", "--coverage-penalties", "0.1")
    assert said == f"--coverage-penalties needs a model with attention, and {tmp_path / 'blind'} has none"


def test_texts_of_unequal_length(refused, model, toy):
    said = refused("-m", model, "-s", toy.folder / "val.en", "-r", toy.folder / "train.de")
    assert said.startswith("20 source sentences but 300 references: line i of one must translate the same sentence")


def test_a_list_that_is_none(capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["tune", "-m", "x", "--data", "y", "--beam-sizes", "one"])
    assert "argument --beam-sizes: 'one' is no list of numbers like 1,5,12" in capsys.readouterr().err
