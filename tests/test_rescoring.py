"""N-best lists re-ranked and phrase tables extended, by hand, with scorers that look their answers up."""

import gzip
import math
import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.cli import main
from nmt.corpus import Pair
from nmt.rescoring import extend_table, feature_names, parse_weights, rescore
from nmt.scoring import Place, Scored, Scorer
from nmt.search import SearchOptions
from nmt.translator import OptionError, Translator


class Table:
    """A scorer that knows log-probabilities by pair, and counts what it holds at once."""

    def __init__(self, table: dict[tuple[str, str], float], kind: str = "nmt") -> None:
        self.table, self.kind, self.most, self.places = table, kind, 0, []

    def score(self, pairs: Iterable[Pair], *, place: Place) -> Iterator[Scored]:
        pairs = list(pairs)
        self.places += [(place(number, 0), place(number, 1)) for number, _ in enumerate(pairs, 1)]
        self.most = max(self.most, len(pairs))
        return (Scored(("x",), (self.table.get(tuple(pair), -9.0),), 1) for pair in pairs)


LIST = """0 ||| ein Hund ||| d= -1 lm= -4 tm= -1 -2 ||| -3.5
0 ||| Hunde ||| d= 0 lm= -6 tm= -3 -1 ||| -4.0 ||| 0-0
0 |||  ||| d= 0 lm= -1 tm= 0 0 ||| -9
2 ||| Katze ||| d= 0 lm= -2 tm= 0 -1 ||| -1
""".splitlines()
SOURCES = ["a dog", "nobody", "cat"]
NMT = Table({("a dog", "ein Hund"): -2.0, ("a dog", "Hunde"): -1.0, ("a dog", ""): -7.0, ("cat", "Katze"): -0.5})
REVERSE = Table({("a dog", "Hunde"): -0.25}, "reverse")


def test_what_cannot_be_scored_is_named_by_the_file_it_stands_in():
    for window in (1, 9):
        scorer = Table({})
        list(rescore(LIST, SOURCES, [scorer], names=("l", "s"), window=window))
        assert scorer.places == [("s:1", "l:1"), ("s:1", "l:2"), ("s:1", "l:3"), ("s:3", "l:4")]
    table = Table({})
    list(extend_table(["a ||| b ||| 1"] * 3, [table], name="t", window=2))
    assert table.places == [("t:1", "t:1"), ("t:2", "t:2"), ("t:3", "t:3")]


def test_without_weights_a_list_gains_features_and_keeps_its_order():
    assert list(rescore(LIST, SOURCES, [NMT, REVERSE])) == [
        "0 ||| ein Hund ||| d= -1 lm= -4 tm= -1 -2 nmt= -2.0000 reverse= -9.0000 ||| -3.5",
        "0 ||| Hunde ||| d= 0 lm= -6 tm= -3 -1 nmt= -1.0000 reverse= -0.2500 ||| -4.0 ||| 0-0",
        "0 |||  ||| d= 0 lm= -1 tm= 0 0 nmt= -7.0000 reverse= -9.0000 ||| -9",
        "2 ||| Katze ||| d= 0 lm= -2 tm= 0 -1 nmt= -0.5000 reverse= -9.0000 ||| -1",
    ]


def test_with_weights_it_is_ranked_by_the_weighted_sum():
    """2 nmt + 1/2 lm - tm.2: -4 - 2 + 2 = -4; -2 - 3 + 1 = -4; -14 - 1/2 - 0 = -14.5; -1 - 1 + 1 = -1."""
    weights = {"nmt": 2.0, "lm": 0.5, "tm.2": -1.0}
    assert [line.split("|||")[1:4:2] for line in rescore(LIST, SOURCES, [NMT], weights)] == [
        [" ein Hund ", " -4.0000"],  # equal scores stay as they were
        [" Hunde ", " -4.0000 "],
        ["  ", " -14.5000"],
        [" Katze ", " -1.0000"],
    ]
    swapped = rescore(LIST, SOURCES, [NMT, REVERSE], {"score": 1.0, "reverse": 1.0})  # -12.5, -4.25, -18
    assert [line.split("|||")[1].strip() for line in swapped] == ["Hunde", "ein Hund", "", "Katze"]


def test_only_a_window_of_whole_sentences_is_held():
    table = Table({})
    lines = [f"{number} ||| t ||| f= 0 ||| 0" for number in range(40) for _ in range(3)]
    assert len(list(rescore(lines, map(str, range(40)), [table], window=5))) == 120
    assert table.most == 6  # two sentences


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 4), max_size=8), window=st.integers(1, 9), seed=st.integers(0, 99))
def test_ranking_is_that_of_sorting_each_sentence(counts, window, seed):
    draw = random.Random(seed)
    lines, scores = [], {}
    for number, count in enumerate(counts):
        for rank in range(count):
            scores[str(number), f"t{rank}"] = round(draw.uniform(-5, 0), 3)
            lines.append(f"{number} ||| t{rank} ||| f= {draw.randint(-3, 3)} ||| 0")
    last = max((number for number, count in enumerate(counts) if count), default=-1)
    found = list(rescore(lines, map(str, range(last + 1)), [Table(scores)], {"nmt": 1.0, "f": 0.5}, window=window))
    assert len(found) == len(lines)
    expected = []
    for number in range(len(counts)):
        own = [line.split(" ||| ") for line in lines if line.startswith(f"{number} ")]
        total = {row[1]: scores[row[0], row[1]] + 0.5 * float(row[2].split()[1]) for row in own}
        expected += [(number, text) for text, _ in sorted(total.items(), key=lambda item: -item[1])]
    assert [(int(line.split(" ||| ")[0]), line.split(" ||| ")[1]) for line in found] == expected


def test_features_are_called_by_the_kind_of_model():
    scorers = [Table({}), Table({}, "lm"), Table({}), Table({}, "reverse"), Table({})]
    assert feature_names(scorers) == ["nmt", "lm", "nmt2", "reverse", "nmt3"]


def test_weights_are_read():
    assert parse_weights("lm=0.5, tm.1=-2,score=1e-1") == {"lm": 0.5, "tm.1": -2.0, "score": 0.1}


@pytest.mark.parametrize("text", ["", "lm", "lm=", "=1", "lm=x", "lm=nan", "lm=1,lm=2", "lm=1,,a=2"])
def test_weights_that_are_none_are_refused(text):
    with pytest.raises(OptionError, match="--weights reads name=number,name=number with each name once, not '"):
        parse_weights(text)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([""], r"^l:1 has 1 fields, not `i \|\|\| hypothesis \|\|\| features \|\|\| score`: ''$"),
        (["0 ||| a ||| f= 1"], r"^l:1 has 3 fields"),
        ([LIST[0], "x ||| a ||| f= 1 ||| 1"], r"^l:2 begins with 'x', not the number of its sentence, from 0$"),
        (["-1 ||| a ||| f= 1 ||| 1"], r"^l:1 begins with '-1'"),
        (["0 ||| a ||| f= 1 ||| good"], r"^l:1 has the score 'good', which is no number$"),
        (["0 ||| a ||| f= 1 ||| nan"], r"^l:1 has the score 'nan'"),
        (["0 ||| a ||| 1 f= 1 ||| 1"], r"^l:1 has the feature '1': features read `name= number name= number`$"),
        (["0 ||| a ||| f= 1 g= 2 f= 3 ||| 1"], r"^l:1 has the feature f twice: rename one of them, or take it out$"),
        (["0 ||| a ||| f= one ||| 1"], r"^l:1 has the feature 'one'"),
        ([LIST[3], LIST[0]], r"^l:2 is of sentence 0 after one of 2: sort the list by its first field$"),
        (["4 ||| a ||| f= 1 ||| 1"], r"^l:1 is of sentence 4, counted from 0, but s has no such line: give the text"),
        (["0 ||| a ||| nmt= 1 ||| 1"], r"^l:1 has a feature nmt already: rename it, or take it out$"),
        (["0 ||| a ||| g= 1 ||| 1"], r"^l:1 has no feature f, which --weights name; it has g, nmt, score$"),
    ],
)
def test_a_line_that_is_none_of_a_list_is_named(lines, complaint):
    with pytest.raises(ValueError, match=complaint):
        list(rescore(lines, SOURCES, [NMT], {"f": 1.0}, names=("l", "s")))


def test_sentences_left_over_are_named():
    """Of a list cut short, the first that has no hypothesis; a blank line needs none."""
    short, said = rescore(LIST[:2], ["a dog", " ", "cat", "more"], [NMT], names=("l", "s")), []
    with pytest.raises(ValueError, match=r"^s:3 reads 'cat', but l ends before it: give the whole list, and the text"):
        said.extend(short)
    assert len(said) == 2
    assert len(list(rescore(LIST[:2], ["a dog", " ", ""], [NMT]))) == 2
    with pytest.raises(ValueError, match=r"^s:1 reads 'a dog', but l ends before it"):
        list(rescore([], SOURCES, [NMT], names=("l", "s")))


# ---- phrase tables ----


def test_a_phrase_table_gains_a_column_of_probabilities():
    table = [
        "a dog ||| ein Hund ||| 0.5 1e-3 ||| 0-0 1-1 ||| 2 3 1 ||| |||",
        "cat ||| Katze ||| 1",
        "a dog ||| Hunde |||  ||| 0-0",
    ]
    assert list(extend_table(table, [NMT, Table({("cat", "Katze"): -1000.0}, "reverse")], window=2)) == [
        f"a dog ||| ein Hund ||| 0.5 1e-3 {math.exp(-2):.6g} {math.exp(-9):.6g} ||| 0-0 1-1 ||| 2 3 1 ||| |||",
        f"cat ||| Katze ||| 1 {math.exp(-0.5):.6g} 2.22507e-308",  # the smallest there is, never 0
        f"a dog ||| Hunde ||| {math.exp(-1):.6g} {math.exp(-9):.6g} ||| 0-0",
    ]


@pytest.mark.parametrize("line", ["", "a ||| b", "a ||| b ||| many"])
def test_a_line_that_is_none_of_a_table_is_named(line):
    with pytest.raises(ValueError, match=r"^t:2 is not `source \|\|\| target \|\|\| scores`, each score a number: "):
        list(extend_table(["a ||| b ||| 1", line], [NMT], name="t"))


# ---- the command ----


def test_our_own_list_gets_the_scores_that_it_has(trained, toy, tmp_path, capsys):
    source = str(toy.folder / "val.en")
    with gzip.open(tmp_path / "list.gz", "wt", encoding="utf8") as file:
        assert main(["translate", "-m", str(trained), "-i", source, "--n-best", "3"]) == 0
        file.write(capsys.readouterr().out)
    weights = ["--weights", "nmt=1"]
    assert main(["score", "-m", str(trained), "--n-best", str(tmp_path / "list.gz"), "-s", source, *weights]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 60
    translator = Translator.load(trained, SearchOptions(n_best=3), device="cpu")
    target, same = translator.tokenizers.target, 0
    scores: dict[tuple[int, str], float] = {}
    for number, answer in enumerate(translator.translate(toy.text("val.en"))):
        for candidate in answer.candidates:
            if candidate.pieces == tuple(target.pieces(target.encode([candidate.text])[0])):
                scores[number, candidate.text] = candidate.log_prob
    for line in lines:
        number, text, features, score = line.split(" ||| ")
        own = dict(zip(features.split()[::2], map(float, features.split()[1::2]), strict=True))
        assert float(score) == own["nmt="]
        if (int(number), text) in scores:  # elsewhere the text is not cut into the pieces that the search found
            same += 1
            assert own["nmt="] == pytest.approx(scores[int(number), text], abs=2e-4)
    assert same > 25


def test_a_phrase_table_is_written_whole_or_not_at_all(trained, tmp_path, capsys):
    (tmp_path / "table").write_text("two ||| zwei ||| 0.5 ||| 0-0\nsix ||| sechs ||| 0.25 ||| 0-0\n")
    command = ["score", "-m", str(trained), "--phrase-table", str(tmp_path / "table"), "-o", str(tmp_path / "new")]
    assert main(command) == 0
    [one, two] = (tmp_path / "new").read_text().splitlines()
    [expected] = Scorer.load(trained, device="cpu").score([Pair("two", "zwei")])
    assert one == f"two ||| zwei ||| 0.5 {math.exp(expected.log_prob):.6g} ||| 0-0"
    assert two.startswith("six ||| sechs ||| 0.25 ")
    (tmp_path / "table").write_text("two ||| zwei ||| 0.5\nodd\n")
    assert main([*command[:-1], str(tmp_path / "other")]) == 1
    assert "table:2 is not `source ||| target ||| scores`" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "table"]
