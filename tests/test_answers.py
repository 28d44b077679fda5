"""What is made of hypotheses, by hand."""

import pytest
import torch

from nmt.answers import BLANK, AnswerOptions, Candidate, Translation, answer, least_risky
from nmt.risk import sentence_utility
from nmt.search import Hypothesis
from nmt.tokenizer import UNK

LINE = Translation("Ann saw", ("▁Ann", "▁saw"), BLANK)
LOOKS = torch.tensor([[0.5, 0.4, 0.1], [0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.1, 0.7, 0.2]])


class Pieces:
    """A vocabulary of a few pieces."""

    def pieces(self, ids):
        return [{UNK: "<unk>", 4: "▁", 5: "▁b"}[token] for token in ids]

    def decode(self, rows):
        texts = ["".join(self.pieces(row)).replace("<unk>", "\u2047").replace("▁", " ") for row in rows]
        return [text[1:] for text in texts]


def made(options: AnswerOptions, looks=LOOKS, **keywords) -> Candidate:
    hypothesis = Hypothesis((4, UNK, UNK, 5), -1.5, -2.0, looks)
    [found] = answer([LINE], [[hypothesis]], Pieces(), options, **keywords)
    return found.candidates[0]


def test_links_are_of_the_words_of_the_text():
    """Both UNKs looked at Ann and are one word: asked to copy, the second vanishes, and its word stays."""
    plain = made(AnswerOptions(), with_alignment=True)
    assert (plain.text, plain.links) == ("\u2047\u2047 b", [(0, 0), (1, 1)])
    copied = made(AnswerOptions(copy_unknown=True), with_alignment=True)
    assert (copied.text, copied.links) == ("Ann b", [(0, 0), (1, 1)])
    assert copied.pieces == plain.pieces == ("▁", "<unk>", "<unk>", "▁b")


def test_copies_need_no_alignment_to_come_back():
    unasked = made(AnswerOptions(copy_unknown=True))
    assert unasked.text == "Ann b"
    assert (unasked.alignment, unasked.links) == (None, None)


def test_without_attention_there_is_nothing_to_link():
    blind = made(AnswerOptions(), looks=torch.zeros(4, 0), with_alignment=True)
    assert (blind.alignment, blind.links) == (None, None)


def test_a_line_for_which_nothing_was_found_stays_blank():
    assert answer([LINE], [[]], Pieces(), AnswerOptions(utility="chrf")) == [LINE]


def test_samples_count_alike_and_what_was_searched_for_as_it_is_probable():
    """Two drawn alike outvote one; searched for, the one that is surer by far wins."""
    a, b = (Candidate(text, (), 0.0, log_prob, None) for text, log_prob in (("x y z", -9.0), ("p q r", -1.0)))
    assert least_risky([b, a, a], sentence_utility("bleu"), drawn=True).text == "x y z"
    assert least_risky([a, b], sentence_utility("bleu"), drawn=False).text == "p q r"


def test_a_utility_that_is_none():
    with pytest.raises(ValueError, match="utility is one of chrf, bleu, not 'ter'"):
        AnswerOptions(utility="ter")


# ---- lists without repetitions ----

PIECES = {UNK: "<unk>", 4: "\u2581ein", 5: "\u2581Hund", 6: "\u2047"}
LOOKED = Translation("Rex Ann", ("\u2581Rex", "\u2581Ann"), BLANK)


class Table:
    """A tokenizer of four pieces."""

    def decode(self, rows) -> list[str]:
        return ["".join(self.pieces(row)).replace("<unk>", "\u2047").replace("\u2581", " ").lstrip() for row in rows]

    def pieces(self, ids) -> list[str]:
        return [PIECES[token] for token in ids]


def found(*said: tuple[int, ...], looks=(0.9, 0.1, 0.0)) -> list[Hypothesis]:
    """Hypotheses, best first, all of whose pieces looked at the same."""
    return [
        Hypothesis(tokens, -float(rank), -float(rank), torch.tensor([looks] * len(tokens)))
        for rank, tokens in enumerate(said)
    ]


def test_texts_that_are_one_once_unknown_words_are_copied_stand_once_in_a_distinct_list():
    """Both UNK and two of them read "Rex"; as they were said, no two texts are one."""
    hypotheses = found((UNK,), (4,), (UNK, UNK), (5,))
    for distinct, expected in ((True, ["Rex", "ein", "Hund"]), (False, ["Rex", "ein", "Rex", "Hund"])):
        [line] = answer([LOOKED], [hypotheses], Table(), AnswerOptions(copy_unknown=True, distinct=distinct))
        assert [one.text for one in line.candidates] == expected
    assert [one.score for one in line.candidates[:2]] == [0.0, -1.0]


def test_samples_keep_their_number():
    [line] = answer([LOOKED], [found((4,), (4,))], Table(), AnswerOptions(distinct=True), drawn=True)
    assert len(line.candidates) == 2


def test_links_are_of_a_text_into_which_nothing_was_copied_too():
    """A piece reads like UNK, so it is not known which mark is which: all pieces stay, and all belong to one word."""
    options = AnswerOptions(copy_unknown=True)
    [line] = answer([LOOKED], [found((UNK, UNK, 6))], Table(), options, with_alignment=True)
    [one] = line.candidates
    assert (one.text, one.links) == ("\u2047\u2047\u2047", [(0, 0)])
