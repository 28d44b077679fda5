"""What is made of what the search found, by hand."""

import torch

from nmt.answers import BLANK, AnswerOptions, Translation, answer
from nmt.search import Hypothesis
from nmt.tokenizer import UNK

PIECES = {UNK: "<unk>", 4: "\u2581ein", 5: "\u2581Hund", 6: "\u2047"}
LINE = Translation("Rex Ann", ("\u2581Rex", "\u2581Ann"), BLANK)


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
        [line] = answer([LINE], [hypotheses], Table(), AnswerOptions(copy_unknown=True, distinct=distinct))
        assert [one.text for one in line.candidates] == expected
    assert [one.score for one in line.candidates[:2]] == [0.0, -1.0]


def test_samples_keep_their_number():
    [line] = answer([LINE], [found((4,), (4,))], Table(), AnswerOptions(distinct=True), drawn=True)
    assert len(line.candidates) == 2


def test_links_are_of_a_text_into_which_nothing_was_copied_too():
    """A piece reads like UNK, so it is not known which mark is which: all pieces stay, and all belong to one word."""
    options = AnswerOptions(copy_unknown=True)
    [line] = answer([LINE], [found((UNK, UNK, 6))], Table(), options, with_alignment=True)
    [one] = line.candidates
    assert (one.text, one.links) == ("\u2047\u2047\u2047", [(0, 0)])
