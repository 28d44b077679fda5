"""Metrics against arithmetic done by hand, and the refusals that keep a score honest."""

import gzip
import io
import json
import math
from types import SimpleNamespace

import pytest

from nmt.evaluation import Score, evaluate, read_lines, render, to_json


def score_of(metric, hypotheses, *references, **options):
    (score,) = evaluate(hypotheses, references, [metric], **options)
    return score.score


def test_bleu_by_hand():
    hypothesis = "the cat sat on the mat"
    reference = "the cat sat on a mat today"
    # 5 of 6 words (the reference has one `the`), 3 of 5 pairs (the cat, cat sat, sat on), 2 of 4 triples (the cat sat,
    # cat sat on) and 1 of 3 fours (the cat sat on); six words against seven
    precision = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    brevity = math.exp(1 - 7 / 6)
    assert score_of("bleu", [hypothesis], [reference]) == pytest.approx(100 * brevity * precision)


def test_bleu_counts_what_any_reference_has():
    # each reference holds one half: between them all words, pairs and triples, and of the fours all but `b c d e`
    references = ["a b c d x y"], ["u v c d e f"]
    assert score_of("bleu", ["a b c d e f"], *references) == pytest.approx(100 * (2 / 3) ** (1 / 4))


def test_chrf_by_hand():
    # neither has more than two letters, so n is 1 and 2: of `ab` the letter a matches, the pair does not
    precision = recall = (1 / 2 + 0 / 1) / 2
    f2 = 5 * precision * recall / (4 * precision + recall)
    assert score_of("chrf", ["ab"], ["ac"]) == pytest.approx(100 * f2)


def test_chrf_weighs_recall_twice():
    # a of a, against ab: precision 1, recall 1/2 over n = 1; pairs exist on one side only and do not count
    assert score_of("chrf", ["a"], ["ab"]) == pytest.approx(100 * 5 * 1 * 0.5 / (4 * 1 + 0.5))


@pytest.mark.parametrize(
    ("hypothesis", "edits"),
    [
        ("a b c d", 0),
        ("a b x d", 1),  # one word changed
        ("a b d", 1),  # one missing
        ("a b c d e", 1),  # one too many
        ("c d a b", 1),  # one block moved
    ],
)
def test_ter_counts_edits_per_reference_word(hypothesis, edits):
    assert score_of("ter", [hypothesis], ["a b c d"]) == pytest.approx(100 * edits / 4)


def test_identical_text_is_perfect():
    lines = ["Zwei Männer stehen am Herd .", "", "Ein Hund läuft ."]
    assert [score.score for score in evaluate(lines, [lines])] == pytest.approx([100, 100, 0])


def test_signature_says_how():
    bleu, chrf, ter = evaluate(["a b c d"], [["a b c d"], ["a b c e"]])
    assert (bleu.name, chrf.name, ter.name) == ("BLEU", "chrF2", "TER")
    assert bleu.signature.startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "case:mixed" in chrf.signature
    assert "case:lc" in ter.signature


def test_case_counts_unless_lowercase():
    assert score_of("bleu", ["A B C D"], ["a b c d"]) == 0
    (score,) = evaluate(["A B C D"], [["a b c d"]], ["bleu"], lowercase=True)
    assert score.score == pytest.approx(100)
    assert "case:lc" in score.signature


def test_target_language_chooses_the_tokenizer():
    # one word to 13a, characters to zh: 4 of 5, 3 of 4, 2 of 3, 1 of 2
    (score,) = evaluate(["我爱你们吗"], [["我爱你们呢"]], ["bleu"], language="zh")
    assert "tok:zh" in score.signature
    assert score.score == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_tokenizer_by_name_goes_before_the_language():
    (score,) = evaluate(["a b"], [["a b"]], ["bleu"], tokenize="char")
    assert "tok:char" in score.signature


@pytest.mark.parametrize(("hypotheses", "references"), [(3, 2), (2, 3), (1, 0)])
def test_unequal_counts_are_refused(hypotheses, references):
    with pytest.raises(ValueError, match=f"{hypotheses} hypotheses but {references} references: line i"):
        evaluate(["a"] * hypotheses, [["a"] * references])


def test_the_set_of_another_length_is_named():
    with pytest.raises(ValueError, match="2 hypotheses but 1 references in set 2"):
        evaluate(["a", "b"], [["a", "b"], ["a"]])


def test_nothing_to_score():
    with pytest.raises(ValueError, match="no hypotheses to score"):
        evaluate([], [[]])
    with pytest.raises(ValueError, match="no references to score against"):
        evaluate(["a"], [])


def test_unknown_names():
    with pytest.raises(ValueError, match="metric 'blue' is unknown; known are bleu, chrf, ter"):
        evaluate(["a"], [["a"]], ["blue"])
    with pytest.raises(ValueError, match=r"tokenizer '13b' is unknown; sacrebleu knows 13a, .*zh"):
        evaluate(["a"], [["a"]], tokenize="13b")


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\nb", ["a", "b"]),
        ("a\u2028b\x85c\rd\x0ce\n f \n".encode(), ["a\u2028b\x85c\rd\x0ce", " f "]),
    ],
)
def test_lines_end_at_line_feeds_only(tmp_path, monkeypatch, data, lines):
    path = tmp_path / "text"
    path.write_bytes(data)
    assert read_lines(path) == lines
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert read_lines("-") == lines


def test_bytes_that_are_not_utf8_are_placed(tmp_path, monkeypatch):
    path = tmp_path / "latin.de"
    path.write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.de:2: byte 0xf6 is not UTF-8"):
        read_lines(path)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\xff")))
    with pytest.raises(ValueError, match="standard input:1: byte 0xff is not UTF-8"):
        read_lines("-")


def test_output_for_people_and_programs():
    scores = [Score("BLEU", 31.2345, "nrefs:1"), Score("chrF2", 100.0, "nc:6")]
    assert render(scores) == "BLEU    31.23  nrefs:1\nchrF2  100.00  nc:6"
    assert [json.loads(line) for line in to_json(scores).split("\n")] == [
        {"name": "BLEU", "score": 31.2345, "signature": "nrefs:1"},
        {"name": "chrF2", "score": 100.0, "signature": "nc:6"},
    ]


def test_lines_of_a_compressed_file_are_read(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"eins\r\nzwei\n"))
    assert read_lines(tmp_path / "a.gz") == ["eins", "zwei"]
    (tmp_path / "b.gz").write_text("eins\n")
    with pytest.raises(ValueError, match=r"b\.gz is cut short or not gzip"):
        read_lines(tmp_path / "b.gz")
