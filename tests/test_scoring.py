"""Scores of given text: by hand from a table of bigrams, as the search finds them, and the same whatever the batch."""

import gzip
import io
import json
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nmt import checkpoint, config
from nmt.batches import collate_sources
from nmt.checkpoint import Tokenizers
from nmt.cli import main
from nmt.corpus import Pair
from nmt.fit import fit
from nmt.model.language_model import build_language_model
from nmt.model.seq2seq import ModelOptions, build_model
from nmt.scoring import BLANK, Scorer, Totals, perplexity
from nmt.search import SearchOptions, beam_search
from nmt.tokenizer import BOS, EOS, PAD, UNK, TokenizerOptions, train_tokenizer
from nmt.translator import OptionError


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> Tokenizers:
    """Pieces of one letter each, and the one that a word begins with."""
    path = tmp_path_factory.mktemp("tokenizer") / "t.spm"
    return Tokenizers(*[train_tokenizer(["a b", "b a", "ab ba"] * 9, TokenizerOptions(vocab_size=7), path)] * 2)


class Bigrams(nn.Module):
    """P(next | the one before) from a table, and with a source as many times likelier as its length is even or not."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table.log()  # (V, V)
        self.output = nn.Linear(len(table), len(table))
        nn.init.eye_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def start(self, source: Tensor, lengths: Tensor) -> tuple[()]:
        return ()

    def read(self, tokens: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return self.table[tokens], state


def bigrams(tokenizers: Tokenizers) -> tuple[Bigrams, dict[str, int]]:
    """A table in which only what the tests ask for stands: P(_ | BOS) = 1/2, P(a | _) = 1/4, P(EOS | a) = 1/8."""
    size = tokenizers.target.size
    ids = {piece: number for number, piece in enumerate(tokenizers.target.pieces(range(size)))}
    table = torch.full((size, size), 1 / 16)
    space, letter = ids["▁"], ids["a"]
    for before, after, probability in ((BOS, space, 1 / 2), (space, letter, 1 / 4), (letter, EOS, 1 / 8)):
        rest = (1 - probability) / (size - 1)
        table[before] = rest
        table[before, after] = probability
    return Bigrams(table / table.sum(1, keepdim=True)), ids


def tiny(kind: str = "general", seed: int = 1, vocabulary: int = 7, **options):
    torch.manual_seed(seed)
    shape = {"embedding_size": 8, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0}
    shape |= {"init_range": 0.7} | options
    if kind == "lm":
        return build_language_model(ModelOptions(**shape), vocabulary).eval()
    return build_model(ModelOptions(**shape, attention=kind), vocabulary, vocabulary).eval()


# ---- by hand ----


def test_a_sentence_by_hand(tokenizers):
    model, ids = bigrams(tokenizers)
    rows = tokenizers.target.encode(["a"])
    assert rows == [[ids["▁"], ids["a"]]]
    [scored] = Scorer(model, tokenizers).score([Pair("b", "a")])
    assert scored.pieces == ("▁", "a", "</s>")
    assert scored.log_probs == pytest.approx([math.log(1 / 2), math.log(1 / 4), math.log(1 / 8)])
    assert scored.log_prob == pytest.approx(math.log(1 / 64))
    assert scored.words == 2  # the end of the sentence counted
    assert scored.per_word == pytest.approx(math.log(1 / 8))


def test_perplexity_by_hand(tokenizers):
    totals = Totals()
    model, _ = bigrams(tokenizers)
    for scored in Scorer(model, tokenizers).score([Pair("b", "a"), Pair("", " "), Pair("", "a")]):
        totals.add(scored)
    assert totals.perplexity(totals.pieces) == pytest.approx(4)  # 64^(1/3)
    assert totals.perplexity(totals.words) == pytest.approx(8)  # 64^(1/2)
    assert str(totals).startswith(
        "3 lines (1 blank), 4 words, 6 pieces, ends of sentences counted: log-probability -8.32"
    )
    assert str(totals).endswith("perplexity 8.00 per word, 4.00 per piece")


def test_a_language_model_that_knows_nothing_is_as_perplexed_as_it_has_pieces(tokenizers):
    model = tiny("lm")
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    per_piece, per_word = perplexity(Scorer(model, tokenizers), ["a", "a b", " "])
    assert per_piece.score == pytest.approx(7)
    pieces = sum(len(row) + 1 for row in tokenizers.target.encode(["a", "a b"]))
    assert per_word.score == pytest.approx(7 ** (pieces / 5))  # 3 words and 2 ends
    assert per_piece.signature == f"per:piece|eos:yes|state:zero|pieces:{tokenizers.target.digest[:8]}"


def test_blank_lines(tokenizers):
    """Blank on both sides is nothing; a side that alone is blank is a sentence that ends at once."""
    scorer = Scorer(tiny(), tokenizers)
    both, target, source = scorer.score([Pair(" ", ""), Pair("a", " "), Pair("", "a")])
    assert both == BLANK
    assert (both.log_prob, both.per_word, both.words) == (0, 0, 0)
    assert (target.pieces, target.words) == (("</s>",), 1)
    assert scorer.score_ids([(tokenizers.source.encode(["a"])[0], [])]) == [pytest.approx(target.log_probs)]
    assert source.words == 2
    assert list(Scorer(tiny("lm"), tokenizers).score([Pair("", "")])) == [BLANK]


def test_words_are_what_stands_between_spaces_and_a_line_with_pieces_is_not_blank(tokenizers):
    """Among words other white space is text like any other, alone it is blank; a U+2581 is a space."""
    scorer = Scorer(tiny(), tokenizers)
    texts = {"a b": 2, "a\u00a0b": 1, "a\u3000b a": 2, "a\tb": 2, "a\u2581b": 2, "\u00a0": 0}
    found = scorer.score([Pair("a", text) for text in texts])
    assert [scored.words for scored in found] == [count + 1 for count in texts.values()]
    blank = [Pair("\u00a0", ""), Pair("\u2581", " "), Pair("\f", "\u3000")]
    assert list(scorer.score(blank)) == [BLANK] * 3


# ---- properties ----


@pytest.mark.parametrize("kind", ["none", "general", "additive"])
@pytest.mark.parametrize("options", [{}, {"cell": "gru"}, {"cell": "lstm", "projection": 4}], ids=str)
def test_what_the_search_finds_has_the_score_that_it_is_found_with(tokenizers, kind, options):
    model = tiny(kind, **options)
    sources = [[4, 5, 6], [5], [6, 6, 5, 4, 4, 5]]
    settings = SearchOptions(beam_size=4, n_best=4, max_length=7)
    source, lengths = collate_sources(sources)
    found = beam_search(model, source, lengths, settings, bos=BOS, eos=EOS, banned=(PAD, UNK, BOS))
    rows = [(ids, hypothesis.tokens) for ids, list_ in zip(sources, found, strict=True) for hypothesis in list_]
    scores = Scorer(model, tokenizers).score_ids(rows)
    expected = [hypothesis.log_prob for list_ in found for hypothesis in list_]
    assert len(rows) == 12
    assert [sum(score) for score in scores] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["general", "none", "lm"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_score_depends_on_the_batch(tokenizers, kind, data):
    model = tiny(kind)
    words = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), max_size=7).map(" ".join)
    pairs = data.draw(st.lists(st.builds(Pair, words, words), min_size=1, max_size=12))
    alone = [scored for pair in pairs for scored in Scorer(model, tokenizers).score([pair])]
    tokens, window = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 14))
    together = list(Scorer(model, tokenizers, batch_tokens=tokens).score(pairs, window=window))
    for one, other in zip(alone, together, strict=True):
        assert (one.pieces, one.words) == (other.pieces, other.words)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_a_source_is_encoded_once_however_many_translations_it_has(tokenizers, monkeypatch):
    model, sources = tiny(), ["a b", "b"]
    pairs = [Pair(source, target) for source in sources for target in ("a", "b", "ab ba", "ba")]
    alone = [scored.log_prob for pair in pairs for scored in Scorer(model, tokenizers).score([pair])]
    encoded, start = [], model.start
    monkeypatch.setattr(model, "start", lambda source, lengths: encoded.extend(lengths) or start(source, lengths))
    assert [scored.log_prob for scored in Scorer(model, tokenizers).score(pairs)] == pytest.approx(alone, abs=1e-5)
    assert sorted(encoded) == [3, 5]  # the pieces _ b and _ a _ b, and the EOS of each


def test_the_output_layer_sees_so_many_words_at_a_time(tokenizers, monkeypatch):
    model, pairs = tiny(), [Pair("a b", "ab ba a"), Pair("b", "b")]
    whole = [scored.log_prob for scored in Scorer(model, tokenizers).score(pairs)]
    monkeypatch.setattr("nmt.scoring.OUTPUT_ROWS", 2)
    assert [scored.log_prob for scored in Scorer(model, tokenizers).score(pairs)] == pytest.approx(whole, abs=1e-5)


def test_a_reverse_model_scores_the_source(tokenizers):
    pairs = [Pair("a b", "ba"), Pair("b", "")]
    forward = Scorer(tiny(), tokenizers).score([Pair(target, source) for source, target in pairs])
    assert list(Scorer(tiny(), tokenizers, reverse=True).score(pairs)) == list(forward)


def test_a_language_model_reads_no_source(tokenizers):
    scorer = Scorer(tiny("lm"), tokenizers)
    [one], [other] = scorer.score([Pair("", "ab")]), scorer.score([Pair("b " * 2000, "ab")])
    assert one == other


def test_only_a_window_is_held(tokenizers):
    read = []

    def endless():
        while True:
            read.append(1)
            yield Pair("a", "b")

    scores = Scorer(tiny(), tokenizers).score(endless(), window=5)
    for _ in range(6):
        next(scores)
    assert len(read) == 10


def test_nan_is_not_hidden(tokenizers):
    model = tiny()
    torch.nn.init.constant_(model.output.bias, float("nan"))
    with pytest.raises(ValueError, match="the model gave NaN log-probabilities: look at its loss"):
        list(Scorer(model, tokenizers).score([Pair("a", "a")]))


def test_what_cannot_be_scored_is_refused(tokenizers):
    def place(number, side):
        return f"f.{('src', 'txt')[side]}:{number}"

    scorer = Scorer(tiny(), tokenizers, longest=10)
    with pytest.raises(ValueError, match=r"^f\.txt:3 has 15 pieces, more than 10: split it into sentences$"):
        list(scorer.score([Pair("a", "a"), Pair("a", "a"), Pair("a", "abab abab abab")], place=place, window=2))
    for reverse in (False, True):
        scorer = Scorer(tiny(), tokenizers, longest=10, reverse=reverse)
        with pytest.raises(ValueError, match=r"^f\.src:1 has 15 pieces"):
            list(scorer.score([Pair("abab abab abab", "a")], place=place))
    with pytest.raises(OptionError, match="batch_tokens must be at least 1, not 0"):
        Scorer(tiny(), tokenizers, batch_tokens=0)


# ---- the command ----


@pytest.fixture(scope="module")
def language_model(toy):
    flags = ["--task=language-model", "--training.validation_metric=loss", "--training.truncate=7"]
    flags += ["--model.hidden_size=16", "--model.embedding_size=16", "--training.max_epochs=1"]
    flags += ["--tokenizer.vocab_size=36"]
    folder = toy.folder / "language-model"
    own = [flag for flag in toy.flags if "encoder" not in flag]
    fit(config.read([], [*own, *flags, "--output", str(folder)]), device="cpu")
    return folder


def rows(text: str) -> list[list[float]]:
    return [[float(value) for value in line.split("\t")] for line in text.splitlines()]


def test_pairs_line_by_line(trained, toy, capsys, tmp_path):
    files = ["-s", toy.folder / "val.en", "-t", toy.folder / "val.de"]
    assert main(["score", *map(str, ["-m", trained, *files])]) == 0
    out, err = capsys.readouterr()
    found = rows(out)
    saved = checkpoint.load(trained)
    pairs = [Pair(*sides) for sides in zip(toy.text("val.en"), toy.text("val.de"), strict=True)]
    expected = list(Scorer(saved.model, saved.tokenizers).score(pairs))
    assert [row[0] for row in found] == pytest.approx([scored.log_prob for scored in expected], abs=1e-4)
    assert all(row[1] == pytest.approx(row[0] / row[2], abs=1e-4) for row in found)
    assert {row[2] for row in found} == {5}  # 4 words and the end
    assert f"{trained}: 20 lines, 100 words, " in err
    total = sum(row[0] for row in found)
    assert f"perplexity {math.exp(-total / 100):.2f} per word" in err
    assert main(["score", *map(str, ["-q", "--jsonl", "-m", trained, *files, "-o", tmp_path / "out"])]) == 0
    objects = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert capsys.readouterr() == ("", "")
    assert objects[3]["line"] == 3
    assert objects[3]["log_prob"] == pytest.approx(sum(objects[3]["log_probs"]))
    assert objects[3]["tokens"][-1] == "</s>"
    assert len(objects[3]["tokens"]) == len(objects[3]["log_probs"])


def test_what_translate_gives_has_the_score_that_it_says(trained, toy, capsys, tmp_path):
    assert main(["translate", "-m", str(trained), "-i", str(toy.folder / "val.en"), "--jsonl"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (tmp_path / "out.de").write_text("".join(answer["translation"] + "\n" for answer in answers))
    with gzip.open(tmp_path / "in.en.gz", "wb") as file:
        file.write((toy.folder / "val.en").read_bytes())
    assert main(["score", "-m", str(trained), "-s", str(tmp_path / "in.en.gz"), "-t", str(tmp_path / "out.de")]) == 0
    tokenizer = checkpoint.load(trained).tokenizers.target
    pieces = [tuple(tokenizer.pieces(ids)) for ids in tokenizer.encode([answer["translation"] for answer in answers])]
    same = [number for number, answer in enumerate(answers) if tuple(answer["tokens"]) == pieces[number]]
    found = rows(capsys.readouterr().out)
    assert len(same) > 15
    assert [found[number][0] for number in same] == pytest.approx([answers[n]["log_prob"] for n in same], abs=2e-4)


def test_text_under_a_language_model(language_model, toy, capsys, monkeypatch):
    assert main(["score", "-m", str(language_model), "-i", str(toy.folder / "val.de")]) == 0
    out, err = capsys.readouterr()
    info = json.loads((language_model / "info.json").read_text())["scores"]["validation"]
    assert f"perplexity {info[1]['score']:.2f} per word, {info[0]['score']:.2f} per piece" in err
    assert len(rows(out)) == 20
    assert main(["score", "-m", str(language_model), "-m", str(language_model), "-i", str(toy.folder / "val.de")]) == 0
    assert rows(capsys.readouterr().out) == [row * 2 for row in rows(out)]  # each model has its columns


def test_one_side_may_come_from_standard_input(trained, toy, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((toy.folder / "val.en").read_bytes())))
    assert main(["score", "-m", str(trained), "-s", "-", "-t", str(toy.folder / "val.de")]) == 0
    piped = capsys.readouterr().out
    assert main(["score", "-m", str(trained), "-s", str(toy.folder / "val.en"), "-t", str(toy.folder / "val.de")]) == 0
    assert capsys.readouterr().out == piped


def test_sides_of_unequal_length_are_refused_and_nothing_is_written(trained, toy, capsys, tmp_path):
    (tmp_path / "short.de").write_text("zwei\n")
    files = ["-s", str(toy.folder / "val.en"), "-t", str(tmp_path / "short.de"), "-o", str(tmp_path / "out")]
    assert main(["score", "-m", str(trained), *files]) == 1
    assert "short.de ends after line 1, but " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["short.de"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.de", b"eins\n\xff\n", r"a.de:2 is not UTF-8 (byte 0xff at column 1)"),
        ("a.de.gz", gzip.compress(b"eins\n" * 999, mtime=0)[:-9], "a.de.gz is cut short or not gzip"),
        ("a.de.gz", b"eins\n", "a.de.gz is cut short or not gzip"),
        ("a.de", b"eins " * 1500, "a.de:1 has "),
    ],
)
def test_bad_lines_are_named(language_model, tmp_path, capsys, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    assert main(["score", "-m", str(language_model), "-i", str(tmp_path / name)]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nmt: ")]
    assert complaint in line


FILE = "{folder}/val.de"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "score needs one of: pairs (-s FILE -t FILE), text (-i FILE)"),
        (["-s", FILE], "score needs one of"),
        (["-t", FILE], "score needs one of"),
        (["-s", FILE, "-t", FILE, "-i", FILE], "score needs one of"),
        (["-i", FILE, "-s", FILE], "score needs one of"),
        (["--n-best", FILE], "score needs one of"),
        (["-s", "-", "-t", "-"], "only one file can be standard input"),
        (["--no-model", "-i", FILE], "score needs a model: -m FOLDER"),
        (["-i", FILE, "--reverse-model", "{model}"], "--reverse-model scores a source, and text (-i) has none"),
        (["-i", FILE, "--weights", "a=1"], "--weights rank an n-best list"),
        (["--phrase-table", FILE, "--jsonl"], "--jsonl is for pairs and text"),
        (["-i", FILE], "holds a translator, which scores pairs: give -s FILE -t FILE, not -i"),
        (["--lm", "-s", FILE, "-t", FILE], "holds a language model, which scores text: give -i FILE"),
        (["-s", FILE, "--n-best", FILE, "--weights", "a"], "--weights reads name=number,name=number"),
        (["--lm", "-i", FILE, "--batch-tokens", "0"], "batch_tokens must be at least 1, not 0"),
        (["--phrase-table", FILE, "--reverse-model", "{lm}"], "holds a language model, which reads no source: give it"),
    ],
)
def test_options_that_do_not_go_together(trained, language_model, toy, capsys, flags, complaint):
    model = [] if "--no-model" in flags else ["-m", str(language_model if "--lm" in flags else trained)]
    names = {"folder": toy.folder, "model": trained, "lm": language_model}
    flags = [flag.format(**names) for flag in flags if flag not in ("--no-model", "--lm")]
    assert main(["score", *model, *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err


@pytest.mark.parametrize(("precision", "reduced"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_precision_is_that_asked_for(tokenizers, monkeypatch, precision, reduced):
    model, _ = bigrams(tokenizers)
    seen, read = [], model.read
    monkeypatch.setattr(model, "read", lambda *a: seen.append(torch.is_autocast_enabled("cpu")) or read(*a))
    list(Scorer(model, tokenizers, precision=precision).score([Pair("a", "b")]))
    assert seen == [reduced]
