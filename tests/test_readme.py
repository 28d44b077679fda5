"""The README's commands, run as they stand in a folder with a small corpus; only sizes are made smaller."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from nmt import config
from nmt.model.recurrent import recurrent_layers
from nmt.model.seq2seq import build_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")
SIZES = "--tokenizer.vocab_size 300 --model.hidden_size 16 --model.embedding_size 16"
SMALLER = f"{SIZES} --training.max_epochs 1 --data.cache cache"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(verbs: str) -> list[str]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").split("\n")
    return [line.split("#")[0].strip() for line in lines if re.match(rf"nmt ({verbs})\b", line)]


def run(command: str, folder: Path) -> str:
    command = re.sub(r"^nmt", f"{sys.executable} -m nmt", command)
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    """What the README supposes: corpus/{train,val,test}, domain/{train,val}, the configs, Moses's files, and new.en
    with what is asked of it.
    """
    for place, names in (("corpus", ("train", "val", "test")), ("domain", ("train", "val"))):
        (tmp_path / place).mkdir()
        for name in names:
            for code in ("en", "de"):
                text = (ROOT / f"data/quickstart/{name}.{code}").read_text(encoding="utf8").split("\n")[:400]
                (tmp_path / place / f"{name}.{code}").write_text("\n".join(text), encoding="utf8")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "words.de").write_text("Hund\n\nAnna\ttanzt\n", encoding="utf8")
    (tmp_path / "begin.de").write_text("Der\n\n\n", encoding="utf8")
    (tmp_path / "new.en").write_text("The dog sleeps.\n\nAnna often dances.\n", encoding="utf8")
    hypotheses = "0 ||| Ein Hund . ||| lm= -9 ||| -1\n0 ||| Der Hund . ||| lm= -5 ||| -2\n"
    (tmp_path / "moses.nbest").write_text(hypotheses + "2 ||| Anna tanzt oft . ||| lm= -4 ||| -1\n")
    with gzip.open(tmp_path / "phrase-table.gz", "wt") as file:
        file.write("the dog ||| der Hund ||| 0.5 0.5 ||| 0-0 1-1\n")
    return tmp_path


@pytest.mark.slow
def test_the_commands_work_in_the_order_they_are_shown(folder):
    trained = commands("train|finetune")
    assert len(trained) == 5
    for command in trained[:1] + trained[2:]:  # from scratch
        run(f"{command.split('--model.hidden_size')[0]} {SMALLER} {_after_size(command)}", folder)
    run(f"{trained[1]} --training.max_epochs 1 --data.cache cache", folder)
    for command in commands("check|info"):
        assert run(command, folder)
    for command in commands("translate"):
        output = run(command, folder)
        shown = (folder / "new.de").read_text(encoding="utf8") if ">" in command else output
        assert shown.count("\n") == (3 if "--n-best" not in command else 11)
    for command in commands("evaluate"):
        (folder / "new.de").write_text((folder / "corpus/test.de").read_text(encoding="utf8"), encoding="utf8")
        assert "BLEU" in run(command, folder)
    for command in commands("score|average|tune"):
        run(command, folder)
    assert (folder / "ranked.nbest").read_text().count("nmt= ") == 3
    assert (folder / "phrase-table.scored").read_text().startswith("the dog ||| der Hund ||| 0.5 0.5 ")
    assert (folder / "models/mean/info.json").exists()
    [program] = blocks("python")
    (folder / "program.py").write_text(program, encoding="utf8")
    assert run(f"{sys.executable} program.py", folder).count("\n") == 1


@pytest.mark.slow
def test_the_tools_run_and_draw(folder):
    small = {
        "gradient_flow": "--updates 1 --length 6 --train-length 3 --hidden 4",
        "dynamics": "--hidden 5 --settle 3 --steps 3 --gains 0.5 2",
        "long_range": "--lengths 10 --seconds 0.1 --hidden 4 --large-batch 20 --curvature-batch 10",
        "bench": "--batch 2 --steps 3 --hidden 8 --repeats 1 --json bench.json",
    }
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.split("\n")]
    tools = [line for line in lines if line.startswith("python tools/")]
    assert len(tools) == len(small)
    for line in tools:
        [name] = re.findall(r"tools/(\w+)\.py", line)
        assert run(line.replace("python tools/", f"{sys.executable} {ROOT}/tools/") + f" {small[name]}", folder)
    for picture in ("flow.png", "dynamics.png", "far.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "bench.json").read_text(encoding="utf8"))["peaks_gflops"]["fp32"] > 0


def _after_size(command: str) -> str:
    return re.sub(r"^.*--model.hidden_size \d+", "", command) if "--model.hidden_size" in command else ""


def test_what_make_does_is_what_the_readme_says():
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    for target in re.findall(r"^make ([\w-]+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the Makefile has no {target}"


def test_every_file_the_readme_points_to_is_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), f"{path} is not there"


def test_no_figure_is_still_missing():
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        found = re.findall(r"\b[A-Z]+_[A-Z][A-Z0-9_]*\b", path.read_text(encoding="utf8"))
        assert not [name for name in found if not name.startswith(("MALLOC_", "THP_", "NMT_"))], path


@pytest.mark.slow
def test_networks_run_as_the_table_says():
    words, seen = {"fused": "fused", "unrolled": "our own", "loop": "step by step"}, set()
    table = README.split("| network | flags | runs by |")[1].split("\n\n")[0]
    for row in table.split("\n")[2:]:
        network, flags, runs = (cell.strip() for cell in row.strip("|").split("|"))
        given = " ".join(re.findall(r"`(-[^`]*)`", flags)).split()
        files = [ROOT / name for flag, name in pairwise(given) if flag == "-c"]
        given = [word for word in given if word != "-c" and not word.startswith("configs/")]
        options = config.read(files, ["--data.train=a", "--data.validation=b", *given])
        model = build_model(replace(options.model, tie_embeddings="target"), 9, 9)
        layers, when = recurrent_layers(model), (True, False)  # in training and not
        ways = {words[layer.path(torch.device("cpu"), training, False)] for layer in layers for training in when}
        if runs and not runs.startswith("as ") and options.training.optimizer != "hessian-free":
            assert any(way in runs for way in ways), network
        seen |= ways
    assert seen == set(words.values())
