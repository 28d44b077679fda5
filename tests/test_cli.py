"""The commands as users type them: what they print, how they end, and one clear line for all that can go wrong."""

import gzip
import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nmt import __version__, checkpoint, cli
from nmt.cli import main
from nmt.info import _network


@pytest.fixture
def stdin(monkeypatch):
    """Say what standard input holds."""

    def give(data: bytes | str) -> None:
        data = data if isinstance(data, bytes) else data.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf8"))

    return give


@pytest.fixture
def refused(capsys):
    """Run a command that must fail with this exit code; the one line it says."""

    def run(code: int, *arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == code
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("nmt: ")]
        assert out == ""
        assert err.endswith(lines[-1] + "\n")
        assert len(lines) == 1
        assert "Traceback" not in err
        return lines[0]

    return run


def command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    line = [sys.executable, "-m", "nmt", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment, **options)


# ---- the program ----


def test_help_is_quick_because_it_imports_nothing_heavy():
    code = "import sys; from nmt import cli\ntry: cli.main(['--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "train a translator; run the same command again to resume" in printed
    for heavy in ("'torch'", "'lightning'", "'numpy'", "'sentencepiece'", "'yaml'", "'jsonargparse'"):
        assert heavy not in printed


def test_what_was_translated_before_an_error_is_printed(trained):
    """A window is 4,096 lines; the process ends without taking itself apart."""
    given = b"two big red boats\n" * 4096 + b"\xff\n"
    line = [sys.executable, "-m", "nmt", "translate", "-m", str(trained), "-b", "1", "-q"]
    done = subprocess.run(line, input=given, capture_output=True, timeout=300)
    assert done.returncode == 1
    assert b"4097 is not UTF-8" in done.stderr
    assert done.stdout.count(b"\n") == 4096


def test_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"nmt {__version__}\n"


def test_torch_is_asked_for_huge_pages_unless_the_user_says_otherwise():
    name = "THP_MEM_ALLOC_ENABLE"
    code = (
        f"import os; from nmt import cli\ntry: cli.main(['--version'])\nexcept SystemExit: print(os.environ[{name!r}])"
    )
    others = {key: value for key, value in os.environ.items() if key != name}
    for given, expected in (({}, "1"), ({name: "0"}, "0")):
        line = [sys.executable, "-c", code]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=others | given)
        assert done.stdout.split()[-1] == expected


def test_a_module_that_is_put_off_comes_when_it_is_asked_for(tmp_path, monkeypatch, capsys):
    package = tmp_path / "slow_package"
    package.mkdir()
    (package / "__init__.py").write_text("from slow_package import part\n")
    (package / "part.py").write_text("print('it comes')\nANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    cli.put_off("slow_package.part")
    slow = importlib.import_module("slow_package")
    assert capsys.readouterr().out == ""
    assert not hasattr(slow.part, "__path__")
    assert slow.part.ANSWER == 42
    assert capsys.readouterr().out == "it comes\n"
    assert importlib.import_module("slow_package.part").ANSWER == 42
    with pytest.raises(AttributeError, match="QUESTION"):
        slow.part.QUESTION  # noqa: B018
    assert capsys.readouterr().out == ""
    cli.put_off("slow_package.part")  # too late
    assert type(sys.modules["slow_package.part"]) is not cli.PutOff


def test_translating_needs_nothing_that_is_put_off(trained):
    """Models of every cell are made and laid out, and one of them translates, without torch's compilers."""
    code = """if True:
        import sys
        from nmt import cli
        code = cli.main(sys.argv[1:])
        import torch
        from nmt.model.laid import LaidModel
        from nmt.model.seq2seq import CELLS, ModelOptions, build_model
        shape = {"embedding_size": 8, "hidden_size": 8}
        extra = [{"peepholes": True}, {"projection": 4}, {"cell": "gru", "reset": "before"}, {"transition": 2}]
        extra += [{"attention": "additive"}, {"attention": "none", "readout": "maxout"}, {"init_range": 0.1}]
        for options in [{"cell": cell} for cell in CELLS] + extra:
            with torch.device("meta"):
                model = build_model(ModelOptions(**shape, **options), 9, 9)
            model = model.to_empty(device="cpu").eval()
            for weight in model.parameters():
                weight.requires_grad_(False).normal_()
            for precision in ("fp32", "int8") if "transition" not in options else ():  # those are never laid out
                laid = LaidModel(model, precision)
                state = laid.start(torch.tensor([[4, 5, 2]]), torch.tensor([3]))
                laid.step(torch.tensor([1]), state)
        print(code, type(sys.modules["torch._meta_registrations"]).__name__)
    """
    line = [sys.executable, "-c", code, "translate", "-m", str(trained), "-b", "2", "-q"]
    done = subprocess.run(line, input="two big red boats\n", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[1] == "0 PutOff"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: VERB"),
        (["fly"], "invalid choice: 'fly'"),
        (["translate"], "the following arguments are required: -m/--model"),
        (["translate", "-m", "x", "--bean-size", "3"], "unknown option --bean-size: did you mean --beam-size?"),
        (["translate", "-m", "x", "--bean-size=3"], "unknown option --bean-size=3: did you mean --beam-size?"),
        (["translate", "-m", "x", "--zzz", "3"], "unknown option --zzz: see nmt translate --help"),
        (["translate", "-m", "x", "-b", "wide"], "argument -b/--beam-size: invalid int value: 'wide'"),
        (["translate", "-m", "x", "a.en"], "a.en belongs to no option: files are named by theirs, see nmt translate"),
        (["translate", "-m", "x", "-i", "a", "-i", "b"], "argument -i/--input: given twice, a and b: it takes one"),
        (["tune", "-m", "x", "-m", "y"], "argument -m/--model: given twice, x and y: it takes one"),
    ],
)
def test_a_command_that_is_none_is_refused(capsys, arguments, complaint):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments)
    assert complaint in capsys.readouterr().err


def test_every_option_of_a_config_is_in_the_help(capsys):
    assert main(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "-c FILE, --config FILE options; repeatable, later wins" in shown
    assert "--model.hidden_size" in shown
    assert "Updates over which the rate grows from 0" in shown
    assert "--search.no_repeat_ngram NO_REPEAT_NGRAM no n pieces in a row twice in a translation; 0 allows it" in shown
    assert not re.findall(r"--\w+\.\w+ (?:\w+|{[^}]*}) \(type", shown)  # nothing without a word on what it is


# ---- train: what is wrong is said, and nothing is left behind ----


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A folder with corpus/train.en, corpus/train.de, and validation text."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("train", "val"):
        (folder / f"{name}.en").write_text("A boat .\nA cat .\n")
        (folder / f"{name}.de").write_text("Ein Boot .\nEine Katze .\n")
    return folder


def training(corpus: Path) -> list[str]:
    data = {"train": corpus / "train", "validation": corpus / "val", "cache": corpus / "cache"}
    return ["train", "-o", str(corpus / "model"), *(f"--data.{name}={value}" for name, value in data.items())]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("train.de", b"Ein Boot .\n", "not parallel"),
        ("val.en", b"A boat .\n", "not parallel"),
        ("train.de", "Ein Boot .\nEine Kätzin .\n".encode("latin1"), "train.de:2 is not UTF-8"),
        ("train.en", b"", "not parallel"),
        ("train.de", None, "there is no"),
    ],
)
def test_text_that_cannot_be_read_is_named_and_leaves_no_model(corpus, refused, name, content, complaint):
    (corpus / name).unlink()
    if content is not None:
        (corpus / name).write_bytes(content)
    said = refused(1, *training(corpus), "--tokenizer.vocab_size=22")
    assert complaint in said
    assert name in said
    assert not (corpus / "model").exists()


def test_an_empty_corpus_is_named(corpus, refused):
    for language in ("en", "de"):
        (corpus / f"train.{language}").write_text("")
    assert "corpus/train has no usable pair: it is empty" in refused(1, *training(corpus))
    assert not (corpus / "model").exists()


def test_a_second_source_that_is_missing_is_named_as_the_first_would_be(corpus, tmp_path, refused):
    flags = ["--data.train", corpus / "train", "--data.train", "nowhere", "--data.validation", corpus / "val"]
    assert refused(1, "train", *flags, "-o", tmp_path / "model").startswith("nmt: there is no nowhere.en or nowhere.en")


def test_a_folder_that_was_there_stays_and_hides_no_error(corpus, tmp_path, refused):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    flags = ["--data.train", "nowhere", "--data.validation", corpus / "val", "-o", tmp_path / "link"]
    assert refused(1, "train", *flags).startswith("nmt: there is no nowhere.en or nowhere.en.gz")
    assert list((tmp_path / "link").iterdir()) == []


def test_text_that_would_be_its_own_translation_is_refused(corpus, tmp_path, refused):
    flags = ["--data.train", corpus / "train", "--data.validation", corpus / "val", "-o", tmp_path / "model"]
    said = refused(2, "train", *flags, "--data.source_language", "de")
    assert f"are both de, so that {corpus}/train would be its own translation: set both" in said
    assert "are both de" in refused(1, "check", corpus / "train", "-s", "de")


def test_a_folder_instead_of_a_file_is_named(corpus, refused):
    said = refused(1, *training(corpus), f"--data.train={corpus}")
    assert said.endswith("corpus is a folder: name its corpus, as " + f"{corpus}/train")
    assert not (corpus / "model").exists()


def test_no_text_at_all_is_said(tmp_path, refused):
    assert "no text given: set --data.train" in refused(2, "train", "-o", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--model.hiden_size=8", "unknown option --model.hiden_size; did you mean --model.hidden_size?"),
        (
            "--model.cell=lsmt",
            "model.cell must be one of 'rnn', 'lstm', 'lecture-lstm', 'layer-norm-lstm', 'gru', not lsmt",
        ),
        ("--model.attention=genral", "model.attention must be one of 'none', 'dot', 'general', 'additive', not genral"),
        ("--model.hidden_size=wide", "model.hidden_size must be int, not wide"),
        ("--search.beam_size=0", "beam_size must be at least 1"),
        ("--config=nowhere.yaml", "cannot read the config nowhere.yaml: No such file or directory"),
    ],
)
def test_an_option_that_cannot_be_is_refused(corpus, refused, flag, complaint):
    assert complaint in refused(2, *training(corpus), flag)
    assert not (corpus / "model").exists()


def test_a_misspelt_key_in_a_config_is_refused(corpus, refused):
    (corpus / "mine.yaml").write_text("training: {learning_rte: 0.1}\n")
    said = refused(2, *training(corpus), "-c", corpus / "mine.yaml")
    assert said.endswith("mine.yaml has the unknown option training.learning_rte; did you mean training.learning_rate?")


def test_an_output_folder_that_is_there_already_is_kept(corpus, refused):
    (corpus / "model").mkdir()
    (corpus / "model" / "thesis.tex").write_text("mine")
    assert "exists and is not a training run: choose another --output" in refused(2, *training(corpus))
    assert "holds what no training run wrote, thesis.tex" in refused(2, *training(corpus), "--overwrite")
    assert (corpus / "model" / "thesis.tex").read_text() == "mine"
    (corpus / "file").write_text("mine")
    assert "is not a training run" in refused(2, *training(corpus), "-o", corpus / "file")


def test_an_output_folder_that_cannot_be_made_is_named(corpus, refused):
    (corpus / "file").write_text("mine")
    said = refused(1, *training(corpus), "-o", corpus / "file" / "model")
    assert said.startswith(f"nmt: {corpus}/file/model")
    assert said.endswith("Not a directory")


def test_a_disk_that_fills_while_training_is_said_in_one_line(toy, tmp_path, refused, monkeypatch):
    def full(model, name):
        raise checkpoint.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_model", full)
    said = refused(1, "train", "-q", *toy.flags, "-o", tmp_path / "model", "--training.max_steps=1")
    assert said.startswith(f"nmt: {tmp_path}/model/model.safetensors: cannot write it: ")
    assert "No space left on device" in said
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.undo()
    assert main(["train", "-q", *toy.flags, "-o", str(tmp_path / "model"), "--training.max_steps=1"]) == 0
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_hub_out_of_reach_is_said_at_once(corpus):
    done = command(*training(corpus), "-q", "--data.train=hf:nobody/nothing", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert done.stderr == (
        "nmt: cannot reach the hub for hf:nobody/nothing; check the name or the network, or use local files\n"
    )
    assert not (corpus / "model").exists()


def test_training_says_what_it_does_and_warns_of_nothing(toy, tmp_path):
    done = command("train", *toy.flags, "-o", tmp_path / "model", "--training.max_epochs=1")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("tokenizer: learning 60 unigram pieces\ntrain: 300 pairs read, 300 kept;")
    assert "warn" not in done.stderr.lower()


def test_finetune_starts_from_the_options_of_the_model(toy, trained, tmp_path, capsys, refused, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = [f"--data.{split}={toy.folder / 'val'}" for split in ("train", "validation")]
    assert main(["finetune", "-m", str(trained), *text, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert f"init: {trained}\n" in printed
    assert f"output: {trained}-finetuned\n" in printed
    assert "learning_rate: 0.002\n" in printed  # a fifth of the model's
    assert "hidden_size: 64\n" in printed
    assert "finetune needs the model to start from: -m FOLDER" in refused(2, "finetune", *text)
    folder = tmp_path / "tuned"
    assert main(["finetune", "-q", "-m", str(trained), *text, "-o", str(folder), "--training.max_steps=1"]) == 0
    assert json.loads((folder / "info.json").read_text())["pairs"] == 20


def test_finetune_has_none_of_the_models_limits(toy, trained, tmp_path, capsys):
    text = [f"--data.{split}={toy.folder / 'val'}" for split in ("train", "validation")]
    model = yaml.safe_load((trained / "config.yaml").read_text())
    model["training"] |= {"max_steps": 8, "max_minutes": 0.5, "guide_updates": 9}
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "config.yaml").write_text(yaml.safe_dump(model))
    assert main(["finetune", "-m", str(tmp_path / "model"), *text, "--print-config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    limits = ("max_steps", "max_minutes", "guide_updates", "max_epochs")
    assert [found["training"][name] for name in limits] == [0, 0, 0, 5]
    assert found["data"]["cache"] is None  # which was the folder of who trained the model


def test_finetune_gives_hessian_free_no_rate(toy, trained, tmp_path, capsys, refused):
    """As it takes none; every other option of the model stays, and the passes are few, as always."""
    text = [f"--data.{split}={toy.folder / 'val'}" for split in ("train", "validation")]
    model = yaml.safe_load((trained / "config.yaml").read_text())
    model["training"] |= {"optimizer": "hessian-free", "learning_rate": 1e-3, "warmup_steps": 400, "damping": 3.0}
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "config.yaml").write_text(yaml.safe_dump(model))
    arguments = ["finetune", "-m", str(tmp_path / "model"), *text]
    assert main([*arguments, "--print-config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)["training"]
    assert found == model["training"] | {"max_epochs": 5}
    message = "training.learning_rate is for training.optimizer adam or sgd or rmsprop, not hessian-free: leave it at"
    assert message in refused(2, *arguments, "--training.learning_rate=0.1")


# ---- translate ----

LINES = "two big red cats\n\nsix new white trees\n \none big red cats\n"
ANSWERS = "zwei große rot Katzen\n\nsechs neue weiß Bäume\n\nein große rot Katzen\n"


def test_lines_in_are_lines_out(trained, stdin, capsys):
    stdin(LINES)
    assert main(["translate", "-m", str(trained)]) == 0
    assert capsys.readouterr() == (ANSWERS, "")


def test_the_last_line_may_lack_its_end_and_windows_ends_are_no_text(trained, stdin, capsys):
    stdin("two big red cats\r\nsix new white trees")
    assert main(["translate", "-m", str(trained), "-b", "1"]) == 0
    assert capsys.readouterr().out == "zwei große rot Katzen\nsechs neue weiß Bäume\n"


def test_a_file_appears_whole(trained, tmp_path, capsys, refused):
    (tmp_path / "in").write_text(LINES)
    out = tmp_path / "out"
    assert main(["translate", "-m", str(trained), "-i", str(tmp_path / "in"), "-o", str(out)]) == 0
    assert out.read_text() == ANSWERS
    assert capsys.readouterr() == ("", "")
    (tmp_path / "in").write_bytes(b"two big red cats\ncaf\xe9\n")
    said = refused(1, "translate", "-m", trained, "-i", tmp_path / "in", "-o", out)
    assert said.endswith(
        "in:2 is not UTF-8 (byte 0xe9 at column 4): convert it, perhaps with `iconv -f latin1 -t utf-8`"
    )
    (tmp_path / "in").write_text("two big red cats\n", encoding="utf-16")
    said = refused(1, "translate", "-m", trained, "-i", tmp_path / "in", "-o", out)
    assert said.endswith(
        "in:1 is not UTF-8 (byte 0xff at column 1): convert it, perhaps with `iconv -f utf-16 -t utf-8`"
    )
    assert out.read_text() == ANSWERS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_with_a_shortlist(trained, tmp_path, toy, stdin, capsys, refused):
    stdin(LINES)
    assert main(["translate", "-m", str(trained), "--shortlist"]) == 0
    assert capsys.readouterr() == (ANSWERS, "")
    text = ["-s", str(toy.folder / "val.en"), "-r", str(toy.folder / "val.de")]
    assert main(["evaluate", "-m", str(trained), "--shortlist", *text]) == 0
    assert "100.00" in capsys.readouterr().out
    folder = shutil.copytree(trained, tmp_path / "model")
    (folder / "shortlist.safetensors").unlink()
    stdin(LINES)
    assert refused(1, "translate", "-m", folder, "--shortlist") == (
        f"nmt: {folder} has no shortlist.safetensors: run the command that trained it again, which will learn one"
    )


def test_n_best_as_moses_lists_them(trained, stdin, capsys):
    stdin(LINES)
    assert main(["translate", "-m", str(trained), "--n-best", "2"]) == 0
    rows = [line.split(" ||| ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["0", "0", "1", "2", "2", "3", "4", "4"]
    assert rows[0][1] == "zwei große rot Katzen"
    assert rows[2] == ["1", "", "log_prob= 0.0000 length= 1", "0.0000"]
    assert float(rows[0][3]) > float(rows[1][3])
    name, log_prob, other, length = rows[0][2].split()
    assert (name, other) == ("log_prob=", "length=")
    assert float(log_prob) / ((5 + int(length)) / 6) == pytest.approx(float(rows[0][3]), abs=2e-4)


def test_jsonl_has_all_there_is_to_know(trained, stdin, capsys):
    stdin(LINES)
    assert main(["translate", "-m", str(trained), "--jsonl", "--n-best", "2"]) == 0
    first, blank, *rest = map(json.loads, capsys.readouterr().out.splitlines())
    assert [first["line"], blank["line"], *(row["line"] for row in rest)] == [0, 1, 2, 3, 4]
    assert (first["source"], first["translation"]) == ("two big red cats", "zwei große rot Katzen")
    assert len(first["alignment"]) == len(first["tokens"])
    assert set(first["alignment"]) <= set(range(len(first["source_tokens"]) + 1))
    assert first["log_prob"] < first["score"] < 0
    assert [first[key] for key in ("translation", "score")] == [
        first["n_best"][0][key] for key in ("translation", "score")
    ]
    assert len(first["n_best"]) == 2
    assert (blank["translation"], blank["tokens"], blank["alignment"]) == ("", [], None)


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        (["--beam-size", "0"], 2, "beam_size must be at least 1 and finite, got 0"),
        (["--n-best", "0"], 2, "n_best must be at least 1"),
        (["--n-best", "9"], 2, "n_best is 9, more than the 5 of beam_size: widen the beam"),
        (["--length-penalty", "nan"], 2, "length_penalty must be at least 0 and finite, got nan"),
        (["--max-length", "0"], 2, "max_length must be at least 1"),
        (["--batch-tokens", "0"], 2, "batch_tokens must be at least 1, not 0"),
        (["--device", "gpu"], 2, "no such device: 'gpu'. Use auto, cpu, cuda or cuda:1"),
        (["-i", "nowhere.txt"], 1, "nowhere.txt: No such file or directory"),
        (["-i", "."], 1, ".: Is a directory"),
    ],
)
def test_what_cannot_be_done_is_said(trained, stdin, refused, flags, code, complaint):
    stdin(LINES)
    assert refused(code, "translate", "-m", trained, *flags).startswith(f"nmt: {complaint}")


def test_a_line_of_ten_thousand_words_is_named(trained, stdin, capsys):
    stdin("two big red cats\n" + "red " * 10_000 + "\n")
    assert main(["translate", "-m", str(trained)]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("nmt: line 2 has ")
    assert err.endswith("pieces (10,000 words), more than 1,000: split it into sentences, one a line\n")
    assert out == ""


@pytest.mark.parametrize("name", ["config.yaml", "info.json", "model.safetensors", "tokenizer.spm"])
def test_a_model_folder_that_is_damaged_is_named(trained, tmp_path, stdin, refused, name):
    folder = shutil.copytree(trained, tmp_path / "model")
    stdin(LINES)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert name in refused(1, "translate", "-m", folder)
    (folder / name).unlink()
    assert name in refused(1, "translate", "-m", folder)
    shutil.rmtree(folder)
    assert f"no model folder at {folder}" in refused(1, "translate", "-m", folder)


def test_an_option_of_a_folder_that_is_no_number_is_named(trained, tmp_path, stdin, refused):
    folder = shutil.copytree(trained, tmp_path / "model")
    model = yaml.safe_load((folder / "config.yaml").read_text())
    model["search"]["beam_size"] = "wide"
    (folder / "config.yaml").write_text(yaml.safe_dump(model))
    stdin(LINES)
    assert "model/config.yaml holds a search option of another nmt, or is damaged: " in refused(
        1, "translate", "-m", folder
    )


def test_an_output_that_cannot_be_written_is_named(trained, tmp_path, stdin, refused):
    (tmp_path / "file").write_text("mine")
    stdin(LINES)
    said = refused(1, "translate", "-m", trained, "-o", tmp_path / "file" / "out")
    assert said == f"nmt: {tmp_path}/file/out: cannot write it: Not a directory"
    said = refused(1, "translate", "-m", trained, "-o", tmp_path / "nowhere" / "out")
    assert said == f"nmt: {tmp_path}/nowhere/out: cannot write it: No such file or directory"


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full here")


@needs_dev_full
def test_a_full_device_is_named_and_not_replaced(trained, stdin, refused):
    stdin(LINES)
    assert refused(1, "translate", "-m", trained, "-o", "/dev/full") == (
        "nmt: /dev/full: cannot write it: No space left on device"
    )
    assert Path("/dev/full").is_char_device()


@needs_dev_full
def test_a_full_standard_output_is_said_in_one_line(trained):
    line = [sys.executable, "-m", "nmt", "translate", "-m", str(trained)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, input=LINES, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.stderr == "nmt: standard output: cannot write it: No space left on device\n"
    assert done.returncode == 1


def test_what_is_open_already_is_written_to_at_its_end(trained, tmp_path, stdin):
    stdin(LINES)
    begun = tmp_path / "all"
    begun.write_text("mine\n")
    with begun.open("a") as opened:
        assert main(["translate", "-m", str(trained), "-o", f"/dev/fd/{opened.fileno()}"]) == 0
    assert begun.read_text(encoding="utf8") == "mine\n" + ANSWERS
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_a_pipe_is_written_to(trained, stdin):
    stdin(LINES)
    end, start = os.pipe()
    assert main(["translate", "-m", str(trained), "-o", f"/dev/fd/{start}"]) == 0
    os.close(start)
    with os.fdopen(end, encoding="utf8") as pipe:
        assert pipe.read() == ANSWERS


def test_an_output_called_gz_is_compressed(trained, tmp_path, stdin):
    stdin(LINES)
    assert main(["translate", "-m", str(trained), "-o", str(tmp_path / "out.gz")]) == 0
    with gzip.open(tmp_path / "out.gz", "rt", encoding="utf8") as written:
        assert written.read() == ANSWERS


def test_sigterm_leaves_no_half_of_a_file(trained, tmp_path):
    line = [sys.executable, "-m", "nmt", "translate", "-m", str(trained), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(tmp_path.iterdir()):  # it waits for lines
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=300) == 143
    assert process.communicate()[1] == b""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # the other process imports torch as well
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_gave_them_work(trained, number):
    line = [sys.executable, "-m", "nmt", "translate", "-m", str(trained), "--workers", "1"]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(b"one red cat\n" * 5000)
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(number)
    assert process.stdout.read().count(b"\n") < 5000  # ends, for nobody has it open
    assert process.wait(timeout=300) in (143, -signal.SIGKILL)
    process.stdin.close()
    process.stdout.close()


def test_a_reader_that_has_gone_is_no_fault(trained, tmp_path):
    (tmp_path / "in").write_text("two big red cats\n" * 4000)  # more than a pipe holds
    line = [sys.executable, "-m", "nmt", "translate", "-m", str(trained), "-b", "1", "-i", str(tmp_path / "in")]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "zwei große rot Katzen\n".encode()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=300) == 0
    process.stderr.close()


def test_debug_shows_where(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder at"):
        main(["translate", "-m", str(tmp_path / "nowhere"), "--debug"])


# ---- evaluate ----


def test_evaluate_translates_or_reads_translations(trained, toy, tmp_path, capsys):
    source, reference = str(toy.folder / "val.en"), str(toy.folder / "val.de")
    out = str(tmp_path / "hypotheses")
    assert main(["evaluate", "-m", str(trained), "-s", source, "-r", reference, "-o", out]) == 0
    by_model = capsys.readouterr().out
    assert by_model.startswith("BLEU   100.00  nrefs:1|case:mixed|")
    assert Path(out).read_text() == Path(reference).read_text()
    assert main(["evaluate", "-i", out, "-r", reference]) == 0
    assert capsys.readouterr().out == by_model


def test_evaluate_reads_text_as_translate_does(trained, toy, tmp_path, capsys):
    plain = [toy.folder / "val.en", toy.folder / "val.de"]
    windows = [tmp_path / "val.en", tmp_path / "val.de"]
    for one, other in zip(plain, windows, strict=True):
        other.write_bytes(b"\xef\xbb\xbf" + one.read_bytes().replace(b"\n", b"\r\n"))
    for source, reference in (plain, windows):
        assert main(["evaluate", "-m", str(trained), "-s", str(source), "-r", str(reference)]) == 0
        assert capsys.readouterr().out.startswith("BLEU   100.00 ")
    assert main(["translate", "-m", str(trained), "-i", str(windows[0])]) == 0
    assert capsys.readouterr().out == plain[1].read_text(encoding="utf8")


def test_evaluate_refuses_before_it_translates(trained, toy, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("nmt.cli.loader", lambda options: lambda: pytest.fail("it translates"))
    text = ["-s", toy.folder / "val.en", "-r", toy.folder / "val.de"]
    assert "tokenizer '13A' is unknown" in refused(1, "evaluate", "-m", trained, *text, "--tokenize", "13A")
    text = ["-s", "-", "-r", "-"]
    assert "only one file can be standard input (-)" in refused(2, "evaluate", "-m", trained, *text)
    (tmp_path / "none").write_text("")
    text = ["-s", tmp_path / "none", "-r", toy.folder / "val.de"]
    assert "no source sentences to score: the source is empty" in refused(1, "evaluate", "-m", trained, *text)


def test_evaluate_opens_its_output_before_it_translates(trained, toy, refused, monkeypatch):
    monkeypatch.setattr("nmt.translator.Translator.translate", lambda *_: pytest.fail("it translates"))
    text = ["-s", toy.folder / "val.en", "-r", toy.folder / "val.de"]
    assert "/nowhere/out: " in refused(1, "evaluate", "-m", trained, *text, "-o", "/nowhere/out")


def test_a_standard_input_that_is_closed_is_said(trained):
    for verb in (["translate", "-m", trained], ["evaluate", "-i", "-", "-r", __file__]):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "nmt", *map(str, verb)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "nmt: standard input is closed: give a file, or a pipe\n"


def test_evaluate_for_programs(toy, capsys):
    reference = str(toy.folder / "val.de")
    assert (
        main(["evaluate", "-i", reference, "-r", reference, "-r", reference, "--jsonl", "-lc", "--tokenize", "intl"])
        == 0
    )
    bleu, chrf, ter = map(json.loads, capsys.readouterr().out.splitlines())
    assert (bleu["name"], chrf["name"], ter["name"]) == ("BLEU", "chrF2", "TER")
    assert bleu["signature"].startswith("nrefs:2|case:lc|eff:no|tok:intl|")
    assert bleu["score"] == pytest.approx(100)


def test_evaluate_refuses_what_it_cannot_compare(trained, toy, refused):
    source, reference = toy.folder / "val.en", toy.folder / "val.de"
    said = refused(1, "evaluate", "-i", toy.folder / "train.de", "-r", reference)
    assert "300 hypotheses but 20 references" in said
    assert "evaluate needs either translations (-i FILE) or a model" in refused(2, "evaluate", "-r", reference)
    assert "evaluate needs either" in refused(2, "evaluate", "-r", reference, "-m", trained)
    assert "evaluate needs either" in refused(2, "evaluate", "-r", reference, "-m", trained, "-s", source, "-i", source)
    assert "tokenizer 'moses' is unknown" in refused(1, "evaluate", "-i", source, "-r", source, "--tokenize", "moses")
    assert "nowhere: No such file or directory" in refused(1, "evaluate", "-i", "nowhere", "-r", reference)


@pytest.mark.parametrize(
    "flags",
    [
        *("--model m", "--source s", "--output o", "--lm l", "--lm-weight 0.1", "--ensemble log", "--beam-size 3"),
        *("--length-penalty 0", "--no-early-stopping", "--allow-unknown", "--copy-unknown", "--mbr 4", "--seed 0"),
        *("--mbr-from n-best", "--shortlist", "--batch-tokens 9", "--device cpu", "--precision int8"),
    ],
)
def test_evaluate_refuses_what_translations_have_no_use_for(toy, refused, flags):
    reference = toy.folder / "val.de"
    said = refused(2, "evaluate", "-q", "-lc", "-i", reference, "-r", reference, *flags.split())
    assert said == f"nmt: {flags.split()[0]} is for translating, and -i gives translations: leave one out"


# ---- info and check ----


def test_info_of_a_model(trained, capsys):
    assert main(["info", "-m", str(trained)]) == 0
    facts = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert facts["languages"].strip() == "en to de"
    assert facts["encoder"].strip() == "1 layers of 2 x 32 in both directions"
    assert facts["trained on"].strip().startswith("300 pairs, ")
    assert facts["validation BLEU"].strip().startswith("100.00 (nrefs:1|")
    assert main(["info", "-m", str(trained), "--jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == sum(
        parameter.numel() for parameter in checkpoint.load(trained).model.parameters()
    )


def test_info_says_what_kind_of_recurrence_it_is(trained):
    model = checkpoint.read_folder(trained)[0]["model"]
    assert _network(model, True)["cell"] == "lstm"
    changed = {"peepholes": True, "projection": 8, "residual": True, "zoneout": 0.1}
    assert _network(model | changed, True)["cell"] == "lstm, peepholes, projection 8, residual, zoneout 0.1"
    assert _network(model | {"cell": "gru", "reset": "before"}, False)["cell"] == "gru, reset before"


def test_info_of_this_machine(capsys):
    assert main(["info", "--jsonl"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["nmt"] == __version__
    assert {"python", "torch", "CPU", "GPU", "training"} <= facts.keys()


def test_check_tells_what_is_odd(corpus, capsys, refused):
    (corpus / "val.de").write_text("A boat .\nEine Katze .\n")
    assert main(["check", str(corpus / "train"), "--validation", str(corpus / "val")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"train: 2 pairs, 2 usable; 8 and 11 characters on average, 12 at most ({corpus}/train.de:2)",
        "  exact duplicates: 0",
        f"validation: 2 pairs, 2 usable; 8 and 10 characters on average, 12 at most ({corpus}/val.de:2)",
        "  exact duplicates: 0",
        f"  target is a copy of the source: 1, first at {corpus}/val.en:1",
        "  source sentences also in train: 2",
    ]
    (corpus / "train.de").write_text("Ein Boot .\n")
    assert "train.de ends after line 1" in refused(1, "check", corpus / "train")
    assert "did you mean" in refused(1, "check", corpus / "trian")
