"""`nmt translate` with all that can be asked of it, held to other commands and to arithmetic from outside."""

import io
import json
import math
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from sacrebleu.metrics.chrf import CHRF

from nmt import checkpoint
from nmt.cli import main
from nmt.model.language_model import build_language_model
from nmt.model.seq2seq import ModelOptions
from nmt.tokenizer import UNK, TokenizerOptions, train_tokenizer
from nmt.translator import Translator
from tests.conftest import remade, shaken

LINES = ["two big red cats", "", "six new white trees", "one old dogs", "  ", "three small green cars and boats"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("translating")


@pytest.fixture(scope="module")
def other(trained, folder) -> Path:
    return remade(trained, folder / "other", shaken(2))


@pytest.fixture(scope="module")
def blind(trained, folder) -> Path:
    """Without attention: that of config.yaml alone is read before a model is loaded."""
    copy = remade(trained, folder / "blind", lambda model: None)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["model"]["attention"] = "none"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    return copy


@pytest.fixture(scope="module")
def lm(trained, folder) -> Path:
    target = folder / "lm"
    target.mkdir()
    tokenizers = checkpoint.Tokenizers.load(trained)
    tokenizers.save(target)
    torch.manual_seed(3)
    options = {"embedding_size": 8, "hidden_size": 8, "decoder_layers": 1, "init_range": 0.9}
    checkpoint.save_weights(build_language_model(ModelOptions(**options), tokenizers.target.size), target)
    config = {"task": "language-model", "data": {"target_language": "de"}, "model": options, "seed": 1}
    (target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    checkpoint.save_info({"version": "0", "languages": ["de"], "sentences": 9, "steps": 1, "scores": {}}, target)
    return target


@pytest.fixture(scope="module")
def stranger(trained, folder) -> Path:
    """The same network, another vocabulary."""
    copy = remade(trained, folder / "stranger", lambda model: None)
    words = [chr(first) + chr(first + 1) + chr(first + 2) for first in range(ord("a"), ord("w"))]
    text = [f"{word} {word}s {word}t" for word in words]
    train_tokenizer(text * 5, TokenizerOptions(vocab_size=50), copy / "tokenizer.spm")
    return copy


@pytest.fixture
def run(capsys):
    """The lines that a command prints."""

    def command(*arguments: object) -> list[str]:
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out.split("\n")[:-1]

    return command


@pytest.fixture
def translate(run, tmp_path):
    """The answers to lines as objects."""

    def command(*arguments: object, lines=LINES) -> list[dict]:
        (tmp_path / "in").write_text("".join(line + "\n" for line in lines), encoding="utf8")
        return [json.loads(line) for line in run("translate", "-i", tmp_path / "in", "--jsonl", *arguments)]

    return command


@pytest.fixture
def scored(run, tmp_path):
    """Log-probability and pieces of translations, as `nmt score` has them."""

    def command(model: Path, found: list[dict]) -> list[tuple[float, list[str]]]:
        (tmp_path / "text").write_text("".join(one["translation"] + "\n" for one in found), encoding="utf8")
        (tmp_path / "source").write_text("".join(one["source"] + "\n" for one in found), encoding="utf8")
        is_lm = checkpoint.task(model) == checkpoint.LANGUAGE_MODEL
        of = ["-i", tmp_path / "text"] if is_lm else ["-s", tmp_path / "source", "-t", tmp_path / "text"]
        rows = [json.loads(line) for line in run("score", "-q", "-m", model, *of, "--jsonl")]
        return [(row["log_prob"], row["tokens"][:-1]) for row in rows]

    return command


@pytest.fixture
def refused(capsys, tmp_path):
    """What a command that must fail says, in one line, with nothing printed or written."""

    def command(*arguments: object, lines=LINES) -> str:
        (tmp_path / "in").write_text("".join(line + "\n" for line in lines), encoding="utf8")
        out = tmp_path / "out"
        assert main([str(one) for one in ("translate", "-i", tmp_path / "in", "-o", out, *arguments)]) in (1, 2)
        printed, said = capsys.readouterr()
        assert (printed, said.count("\n")) == ("", 1)
        assert not out.exists()
        assert not list(tmp_path.glob("*.part"))
        return said.removeprefix("nmt: ").rstrip("\n")

    return command


def same(one: list[dict], two: list[dict]) -> None:
    assert [answer["tokens"] for answer in one] == [answer["tokens"] for answer in two]
    for key in ("score", "log_prob"):
        assert [answer[key] for answer in one] == pytest.approx([answer[key] for answer in two], abs=1e-4)


WHITE = ["\u00a0", "\u3000\u3000", "\f", "\r", "\t"]


def every(answers: list[dict]) -> list[dict]:
    """All candidates of the lines that are not blank, each with its source."""
    return [
        {**one, "source": answer["source"]}
        for answer in answers
        for one in answer.get("n_best", [answer])
        if answer["source"].strip()
    ]


def divisor(answer: dict) -> float:
    return (5 + len(answer["tokens"]) + 1) / 6


# ---- several models ----


@pytest.mark.parametrize("space", ["linear", "log"])
def test_an_ensemble_of_a_model_with_itself_is_the_model(translate, unsure, space):
    same(translate("-m", unsure, "-m", unsure, "--ensemble", space), translate("-m", unsure))


def test_in_log_space_an_ensemble_says_the_mean_of_what_its_members_say(translate, scored, unsure, other):
    found = every(translate("-m", unsure, "-m", other, "--ensemble", "log"))
    members = zip(scored(unsure, found), scored(other, found), strict=True)
    agree = 0
    for answer, ((one, pieces), (two, _)) in zip(found, members, strict=True):
        if pieces == answer["tokens"]:  # the tokenizer might cut it otherwise than the model said it
            assert answer["log_prob"] == pytest.approx((one + two) / 2, abs=1e-3)
            agree += 1
    assert agree


def test_a_language_model_without_weight_is_none(translate, unsure, lm):
    same(translate("-m", unsure, "--lm", lm, "--lm-weight", 0), translate("-m", unsure))


def test_scores_with_a_language_model_are_weighted_sums(translate, scored, unsure, lm):
    found = every(translate("-m", unsure, "--lm", lm, "--lm-weight", 0.7, "--n-best", 3))
    agree = 0
    for answer, (own, pieces), (language, _) in zip(found, scored(unsure, found), scored(lm, found), strict=True):
        if pieces == answer["tokens"]:
            assert answer["log_prob"] == pytest.approx(own, abs=1e-3)  # the translation model's alone
            assert answer["score"] == pytest.approx((own + 0.7 * language) / divisor(answer), abs=1e-3)
            agree += 1
    assert agree
    assert [one["tokens"] for one in found] != [one["tokens"] for one in every(translate("-m", unsure, "--n-best", 3))]


def test_models_that_cannot_speak_together(refused, unsure, stranger, lm):
    both = f"{unsure} and {stranger} have different vocabularies, so they cannot translate together: train them with "
    assert refused("-m", unsure, "-m", stranger).startswith(both)
    assert refused("-m", unsure, "-m", stranger, "--workers", 2).startswith(both)
    said = refused("-m", stranger, "--lm", lm, "--lm-weight", 0.1)
    assert said.startswith(f"{lm} has another vocabulary than the target side of {stranger}: train the language model ")
    said = refused("-m", unsure, "--lm", unsure, "--lm-weight", 0.1)
    assert said.startswith(f"{unsure} holds a translator, not a language model")
    assert refused("-m", unsure, "-m", lm).startswith(f"{lm} holds a language model, not a translator")


# ---- what comes out does not depend on the batch, and has the score that `nmt score` gives it ----

WAYS = {
    "beam": ["--n-best", 3],
    "greedy": ["-b", 1],
    "ranked": ["--normalization", "power", "--length-reward", 0.2, "--coverage-penalty", 0.3, "--no-early-stopping"],
    "shaped": ["--min-length", 5, "--no-repeat-ngram", 2, "--max-length", 12, "--allow-unknown"],
    "diverse": ["-b", 4, "--diverse-groups", 2, "--diversity", 0.8, "--n-best", 3],
    "sampled": ["--sample", 3, "--seed", 5, "--top-k", 9, "--top-p", 0.95, "--temperature", 0.8],
    "least risky": ["--mbr", 6, "--seed", 2],
    "least risky of the best": ["--mbr", 6, "--mbr-from", "n-best", "--mbr-utility", "bleu"],
    "copied": ["--copy-unknown"],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_whatever_the_batch_and_as_score_has_it(translate, scored, unsure, way):
    lines = LINES * 4  # the same line draws anew each time, and what is drawn may be spelt otherwise than its text is
    alone, seven, all_at_once = (
        translate("-m", unsure, *WAYS[way], "--batch-tokens", tokens, lines=lines) for tokens in (1, 7 * 40, 10**6)
    )
    same(alone, all_at_once)
    same(seven, all_at_once)
    same(every(alone), every(all_at_once))
    found = [one for one in every(alone) if "\u2047" not in one["translation"]]
    agree = [
        (one["log_prob"], log_prob)
        for one, (log_prob, pieces) in zip(found, scored(unsure, found), strict=True)
        if one["tokens"] == pieces
    ]
    assert agree
    assert [one for one, _ in agree] == pytest.approx([two for _, two in agree], abs=1e-3)


def test_what_the_trained_model_says_is_scored_line_by_line(translate, scored, trained):
    found = every(translate("-m", trained))
    assert [one["tokens"] for one in found] == [pieces for _, pieces in scored(trained, found)]
    assert [one["log_prob"] for one in found] == pytest.approx([own for own, _ in scored(trained, found)], abs=1e-3)


def test_other_white_space_is_blank_too(translate, run, trained, tmp_path):
    found = translate("-m", trained, lines=[*WHITE, "two big red cats"])
    assert [one["translation"] for one in found] == [""] * len(WHITE) + ["zwei gro\u00dfe rot Katzen"]
    (tmp_path / "prefixes").write_text("\u00a0\n" * len(found))
    assert translate("-m", trained, "--prefix", tmp_path / "prefixes", lines=[*WHITE, "two big red cats"]) == found


def test_a_shortlist_changes_no_log_probability(translate, scored, trained):
    """What it leaves out was improbable, not impossible: it counts among what might have been said."""
    found = every(translate("-m", trained, "--shortlist", "--n-best", 2, "--precision", "fp32"))
    assert len(found) == 8
    assert [one["log_prob"] for one in found] == pytest.approx([own for own, _ in scored(trained, found)], abs=1e-3)


def test_what_is_drawn_from_a_shortlist_is_priced_where_it_is_listed(run, trained, tmp_path, scored):
    (tmp_path / "in").write_text("two big red cats\n")
    rows = [
        row.split(" ||| ")
        for row in run("translate", "-m", trained, "-i", tmp_path / "in", "--shortlist", "--sample", 2)
    ]
    own = scored(trained, [{"source": "two big red cats", "translation": row[1]} for row in rows])
    assert [float(row[2].split()[1]) for row in rows] == pytest.approx([one for one, _ in own], abs=1e-2)


def test_a_text_only_is_not_priced_anew(trained, tmp_path, monkeypatch, run):
    (tmp_path / "in").write_text("two big red cats\n")
    monkeypatch.setattr("nmt.translator.price", None)
    flags = ["translate", "-m", trained, "-i", tmp_path / "in", "--shortlist"]
    assert run(*flags) == ["zwei gro\u00dfe rot Katzen"]
    monkeypatch.undo()


def test_a_minimum_is_kept_whatever_the_source(translate, unsure):
    [one] = translate("-m", unsure, "--min-length", 60, lines=["one"])
    assert len(one["tokens"]) >= 60


def test_bars_in_a_translation_end_no_field(run, trained, tmp_path):
    """Unknown characters are copied, and these are bars."""
    (tmp_path / "in").write_text("two ||| cats\n")
    flags = ["-m", trained, "-i", tmp_path / "in", "--copy-unknown"]
    [plain] = run("translate", *flags)
    [listed] = run("translate", *flags, "--n-best", 1)
    [linked] = run("translate", *flags, "--alignment")
    assert len(listed.split(" ||| ")) == 4
    assert len(linked.split(" ||| ")) == 2
    for fields in (listed.split(" ||| ")[1], linked.split(" ||| ")[0]):
        assert fields.replace("&#124;&#124;&#124;", "|||") == plain


def test_an_n_best_list_is_one_for_every_line(translate, trained):
    assert [len(one["n_best"]) for one in translate("-m", trained, "--n-best", 2)] == [2, 1, 2, 2, 1, 2]
    assert [len(one["n_best"]) for one in translate("-m", trained, "--n-best", 1)] == [1] * 6
    assert all("n_best" not in one for one in translate("-m", trained))


# ---- sampling and minimum Bayes risk ----


def test_samples_are_decided_by_seed_and_line(translate, unsure):
    def drawn(*flags, lines=LINES):
        answers = translate("-m", unsure, "--sample", 4, *flags, lines=lines)
        return [[one["tokens"] for one in answer.get("n_best", [answer])] for answer in answers]

    assert drawn("--seed", 1) == drawn("--seed", 1)
    assert drawn("--seed", 1) != drawn("--seed", 2)
    twice = drawn(lines=[LINES[0], LINES[0]])
    assert twice[0] != twice[1]
    assert twice[0] == drawn(lines=[LINES[0], LINES[2]])[0]
    assert len(twice[0]) == 4


def test_one_sample_is_a_line_and_several_are_a_list(run, unsure, tmp_path):
    (tmp_path / "in").write_text("two big red cats\n\n")
    one = run("translate", "-m", unsure, "-i", tmp_path / "in", "--sample", 1)
    assert len(one) == 2
    assert one[1] == ""
    several = run("translate", "-m", unsure, "-i", tmp_path / "in", "--sample", 3)
    assert [row.split(" ||| ")[0] for row in several] == ["0", "0", "0", "1"]


def test_the_least_risky_sample_is_the_closest_to_all(translate, unsure):
    flags = ("--seed", 4, "--temperature", 0.7)
    chosen = every(translate("-m", unsure, "--mbr", 8, *flags))
    for answer, samples in zip(chosen, (one for one in translate("-m", unsure, "--sample", 8, *flags)), strict=False):
        texts = [one["translation"] for one in samples.get("n_best", [samples])]
        expected = {one: sum(CHRF().sentence_score(one, [two]).score for two in texts) / 8 for one in texts}
        assert answer["translation"] == max(texts, key=expected.__getitem__)
        assert answer["score"] == pytest.approx(max(expected.values()))
        break  # the second line is blank, and has none


def test_the_least_risky_of_the_best_counts_them_as_they_are_probable(translate, unsure):
    flags = ("--normalization", "none", "--length-penalty", 0)
    [answer] = translate("-m", unsure, "--mbr", 5, "--mbr-from", "n-best", *flags[:2], lines=LINES[:1])
    [listed] = translate("-m", unsure, "--n-best", 5, *flags[:2], lines=LINES[:1])
    texts = [(one["translation"], math.exp(one["log_prob"])) for one in listed["n_best"]]
    total = sum(weight for _, weight in texts)
    expected = {one: sum(w * CHRF().sentence_score(one, [two]).score for two, w in texts) / total for one, _ in texts}
    assert answer["translation"] == max(expected, key=expected.__getitem__)
    assert answer["score"] == pytest.approx(max(expected.values()))


# ---- what must be said ----


def test_every_translation_has_what_it_must(translate, unsure, tmp_path):
    phrases = ["alte Hunde\tweiß", "", "grün", "sechs\tBoote", "", "kleine"]
    (tmp_path / "phrases").write_text("\n".join(phrases) + "\n")
    answers = translate("-m", unsure, "--constraints", tmp_path / "phrases", "--n-best", 3)
    for answer, wanted in zip(answers, phrases, strict=True):
        for one in answer.get("n_best", [answer]):
            assert all(f" {phrase}" in f" {one['translation']}" for phrase in wanted.split("\t") if phrase)
    free = translate("-m", unsure)
    assert answers[1]["translation"] == free[1]["translation"] == ""


@pytest.mark.parametrize("flags", [[], ["--sample", 2], ["-b", 1], ["--mbr", 3]], ids=str)
def test_every_translation_begins_as_it_must(translate, unsure, tmp_path, flags):
    prefixes = ["alte Hu", "", "weiß", "drei", "", "f"]
    (tmp_path / "prefixes").write_text("\n".join(prefixes) + "\n")
    for answer in translate("-m", unsure, "--prefix", tmp_path / "prefixes", *flags):
        for one in answer.get("n_best", [answer]):
            assert one["translation"].startswith(prefixes[answer["line"]])


def test_what_cannot_be_asked_for_line_by_line(refused, capsys, unsure, tmp_path):
    asked = tmp_path / "asked"
    asked.write_text("alte\n\n")
    said = refused("-m", unsure, "--constraints", asked)
    assert said.startswith(f"{asked} ends after line 2, but {tmp_path}/in:3 reads 'six new white trees': each line ")
    asked.write_text("\n" * 6 + "alte\n")
    assert refused("-m", unsure, "--prefix", asked).startswith(f"{tmp_path}/in ends after line 6, but {asked}:7 reads ")
    asked.write_text("\nalte\n\n\n\n\n")
    assert refused("-m", unsure, "--prefix", asked) == (
        "line 2 is blank, and so is its translation: ask for nothing in it"
    )
    asked.write_text("\n\nHunde\tЖук\n\n\n\n")
    assert refused("-m", unsure, "--constraints", asked).startswith("line 3: the model cannot say 'Жук', only ")
    assert refused("-m", unsure, "--prefix", tmp_path / "nowhere") == (f"{tmp_path}/nowhere: No such file or directory")
    assert main(["translate", "-m", str(unsure), "--prefix", "-"]) == 2
    assert capsys.readouterr().err == "nmt: only one file can be standard input (-)\n"


# ---- alignment, copies, risk, pictures ----


def test_links_stand_behind_the_text_in_the_last_field_and_in_objects(run, translate, trained, tmp_path):
    rows = translate("-m", trained, "--n-best", 2)
    text = run("translate", "-m", trained, "-i", tmp_path / "in", "--alignment")
    listed = run("translate", "-m", trained, "-i", tmp_path / "in", "--alignment", "--n-best", 2)
    assert text == [f"{row['translation']} ||| {row['word_alignment'] or ''}" for row in rows]
    assert [row.split(" ||| ")[4] for row in listed] == [
        one["word_alignment"] or "" for row in rows for one in row.get("n_best", [row])
    ]
    for row in every(rows):
        links = [tuple(map(int, link.split("-"))) for link in row["word_alignment"].split()]
        assert links == sorted(links)
        assert all(s < len(row["source"].split()) and t < len(row["translation"].split()) for s, t in links)


def test_unknown_words_are_said_only_if_asked_for_and_copied_from_where_they_looked(translate, trained, tmp_path):
    def unknown(model) -> None:
        model.output.bias[UNK] = 50.0

    model = remade(trained, tmp_path / "unknown", unknown)
    assert not any("\u2047" in one["translation"] for one in every(translate("-m", model)))
    marked = every(translate("-m", model, "--allow-unknown"))
    assert all("\u2047" in one["translation"] for one in marked)
    for one in every(translate("-m", model, "--copy-unknown")):
        assert set(one["tokens"]) == {"<unk>"}
        assert re.fullmatch(f"({'|'.join(one['source'].split())})+", one["translation"])


def test_what_looks_wrong_is_named(translate, trained):
    """Nothing of these three, but a gap where attention leaves one, which the CPU's rounding in training decides."""
    gaps = []
    for one in Translator.load(trained, device="cpu").translate(LINES[:3], with_alignment=True):
        looks = one.candidates[0].alignment  # none of a blank line
        attention = [] if looks is None else looks[:, :-1].sum(0).tolist()
        gaps.append("000" in "".join("01"[share >= 0.1] for share in attention))
    assert [answer["risk"] for answer in translate("-m", trained, lines=LINES[:3])] == [["gap"] * gap for gap in gaps]
    assert all("short" in one["risk"] for one in every(translate("-m", trained, "--max-length", 1, lines=LINES[:3])))


def test_a_picture_of_one_sentence(run, trained, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "in").write_text(LINES[0] + "\n")
    picture = tmp_path / "looks.png"
    assert run("translate", "-m", trained, "-i", tmp_path / "in", "--plot", picture) == ["zwei große rot Katzen"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.part"))


def test_a_picture_of_nothing(refused, trained, tmp_path):
    said = refused("-m", trained, "--plot", tmp_path / "look.svg", lines=["\u2581"])
    assert said == "nothing to draw: the model reads nothing in '\u2581'"


def test_pictures_that_cannot_be(refused, trained, blind, tmp_path, monkeypatch):
    picture = tmp_path / "looks.png"
    assert refused("-m", trained, "--plot", picture) == "--plot draws one sentence: the input has more"
    assert refused("-m", trained, "--plot", picture, lines=[]) == "--plot draws one sentence: the input has none"
    assert refused("-m", trained, "--plot", picture, lines=[" "]) == "--plot draws one sentence: the input has none"
    assert refused("-m", trained, "--plot", "looks.jpeg").startswith("looks.jpeg: a picture is a file with one of the ")
    assert refused("-m", blind, "--plot", picture) == f"--plot needs a model with attention, and {blind} has none"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert refused("-m", trained, "--plot", picture) == "pictures need matplotlib: pip install matplotlib"
    assert not picture.exists()


def test_texts_of_a_list_differ_if_asked_to(translate, unsure):
    for answer in translate("-m", unsure, "-b", 8, "--n-best", 8, "--distinct"):
        texts = [one["translation"] for one in answer.get("n_best", [answer])]
        assert len(texts) == len(set(texts))


# ---- what does not go together ----


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--sample 2 --beam-size 3", "--sample and --beam-size do not go together: leave one out"),
        ("--sample 2 --n-best 2", "--sample and --n-best do not go together: leave one out"),
        ("--sample 2 --no-early-stopping", "--sample and --no-early-stopping do not go together: leave one out"),
        ("--sample 2 --constraints asked", "--sample and --constraints do not go together: leave one out"),
        ("--sample 2 --mbr 3", "--sample and --mbr do not go together: leave one out"),
        ("--mbr 3 --length-penalty 2", "--mbr and --length-penalty do not go together: leave one out"),
        ("--sample 1 --temperature 1e-40", "line 1: no translation has any probability under these options"),
        ("--length-penalty 1000", "length_penalty must be at most 10, got 1000.0"),
        ("--mbr 3 --diverse-groups 2", "--mbr and --diverse-groups do not go together: leave one out"),
        ("--mbr 3 --mbr-from n-best --n-best 2", "--mbr and --n-best do not go together: leave one out"),
        ("--constraints asked --diverse-groups 5", "--constraints and --diverse-groups do not go together: leave one"),
        ("--seed 3", "--seed needs samples: --sample N or --mbr N"),
        ("--mbr 3 --mbr-from n-best --top-k 3", "--top-k needs samples: --sample N or --mbr N"),
        ("--mbr-utility bleu", "--mbr-utility needs --mbr N"),
        ("--mbr 1", "--mbr compares translations: give it 2 or more, not 1"),
        ("--diversity 0.1", "--diversity needs --diverse-groups 2 or more"),
        ("--diverse-groups 2", "diverse_groups is 2, which does not divide beam_size 5"),
        ("--normalization none --length-penalty 1", "--normalization none has no exponent: leave out --length-penalty"),
        ("--lm models/lm", "--lm needs --lm-weight W, best tuned on development text"),
        ("--lm-weight 0.1", "--lm-weight needs --lm FOLDER"),
        ("--ensemble log", "--ensemble needs several models: -m FOLDER -m FOLDER"),
        ("--distinct", "--distinct needs a list: --n-best N"),
        ("--sample 0", "samples must be at least 1, got 0"),
        ("--sample 1 --temperature 0", "temperature must be above 0 and finite, got 0.0"),
        ("--mbr 9 --mbr-from n-best -b 3", "n_best is 9, more than the 3 of beam_size: widen the beam"),
        ("--min-length -1", "min_length must be at least 0"),
        ("--workers 0", "--workers must be at least 1, not 0"),
    ],
)
def test_options_that_do_not_go_together_are_named(refused, unsure, flags, complaint):
    assert refused("-m", unsure, *flags.split()).startswith(complaint)


def test_an_exponent_is_refused_where_the_folder_divides_by_nothing(refused, unsure, tmp_path):
    folder = shutil.copytree(unsure, tmp_path / "model")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["search"] |= {"normalization": "none", "length_penalty": 0.0, "length_reward": 1.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert refused("-m", folder, "--length-penalty", 2) == (
        f"--length-penalty is an exponent, and {folder} divides by nothing (normalization none): add --normalization "
        "gnmt, or leave it out"
    )


def test_another_normalization_than_the_folders_has_none_of_its_penalties(translate, unsure, tmp_path):
    folder = shutil.copytree(unsure, tmp_path / "model")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["search"] |= {"normalization": "none", "length_penalty": 0.0, "length_reward": 1.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    same(translate("-m", folder, "--normalization", "gnmt"), translate("-m", unsure))
    [one] = translate("-m", folder, "--normalization", "gnmt", "--length-reward", 0.5, lines=LINES[:1])
    assert one["score"] == pytest.approx(one["log_prob"] / divisor(one) + 0.5 * (len(one["tokens"]) + 1), abs=1e-4)


def test_workers_are_not_for_lines_typed_one_by_one(unsure, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("two big red cats\n"))
    assert main(["translate", "-m", str(unsure), "--workers", "2"]) == 2
    said = "nmt: --workers share a file among them, and lines typed one by one are none: leave it out\n"
    assert capsys.readouterr() == ("", said)


def test_a_weight_that_is_none(refused, unsure, lm):
    said = refused("-m", unsure, "--lm", lm, "--lm-weight", -1)
    assert said == "--lm-weight is at least 0 and finite, not -1.0"


@pytest.mark.parametrize("flag", ["--alignment", "--copy-unknown", "--coverage-penalty=0.1"])
def test_what_needs_attention_is_refused_without(refused, blind, flag):
    expected = f"{flag.split('=')[0]} needs a model with attention, and {blind} has none"
    assert refused("-m", blind, flag) == expected


def test_the_help_is_in_groups(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["translate", "--help"])
    shown = capsys.readouterr().out
    titles = ["models together:", "output:", "search:", "what must be said, line by line:", "machine:"]
    places = [shown.index(title) for title in titles]
    assert places == sorted(places)
    assert shown.startswith("usage: nmt translate -m FOLDER [options] < input > output\n")


# ---- evaluate ----


def test_evaluate_translates_with_the_same_options(run, translate, unsure, other, lm, tmp_path):
    flags = ["-m", unsure, "-m", other, "--lm", lm, "--lm-weight", 0.3, "--mbr", 4, "--seed", 3]
    expected = [answer["translation"] for answer in translate(*flags)]
    (tmp_path / "reference").write_text("".join(line + "\n" for line in LINES))
    run("evaluate", *flags, "-s", tmp_path / "in", "-r", tmp_path / "reference", "-o", tmp_path / "out")
    assert (tmp_path / "out").read_text().split("\n")[:-1] == expected
