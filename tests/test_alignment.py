"""Links between words by hand, and unknown words copied."""

import pytest
import torch

from nmt.alignment import align, copy_unknown, pharaoh, word_attention, word_numbers, words
from nmt.tokenizer import UNK, TokenizerOptions, train_tokenizer

SOURCE = ["▁the", "▁bl", "ue", "▁house", "."]  # the blue house.
TARGET = ["▁das", "▁bla", "ue", "▁Haus", "."]
LOOKS = torch.tensor(  # of each target piece, on the source pieces and EOS
    [
        [0.9, 0.0, 0.0, 0.1, 0.0, 0.0],
        [0.4, 0.3, 0.3, 0.0, 0.0, 0.0],  # most at "the", but more at the two pieces of "blue" together
        [0.3, 0.4, 0.2, 0.0, 0.0, 0.1],
        [0.0, 0.0, 0.0, 0.4, 0.2, 0.4],
        [0.0, 0.0, 0.0, 0.0, 0.5, 0.5],
    ]
)


def test_words_begin_at_the_mark():
    assert word_numbers(SOURCE) == [0, 1, 1, 2, 2]
    assert word_numbers(["a", "▁b"]) == [0, 1]  # the first piece may lack it
    assert word_numbers(["▁", "<unk>", "▁", "x", "y"]) == [0, 0, 1, 1, 1]  # a mark alone opens the word that follows
    assert word_numbers([]) == []


def test_marks_alone_are_no_words():
    assert word_numbers(["▁", "▁a", "▁", "▁", "▁b", "c"]) == [0, 0, 1, 1, 1, 1]  # it reads " a   bc"
    assert word_numbers(["▁a", "▁b", "▁"]) == [0, 1, 1]


def test_attention_of_words_by_hand():
    expected = [[0.9, 0, 0.1, 0], [0.35, 0.6, 0, 0.05], [0, 0, 0.55, 0.45]]
    torch.testing.assert_close(word_attention(LOOKS, SOURCE, TARGET), torch.tensor(expected))


def test_links_by_hand():
    assert align(LOOKS, SOURCE, TARGET) == [(0, 0), (1, 1), (2, 2)]
    assert pharaoh([(2, 0), (0, 1), (0, 0)]) == "0-0 0-1 2-0"
    assert pharaoh([]) == ""


def test_a_word_that_looked_at_the_end_has_no_link():
    looks = torch.tensor([[0.2, 0.8], [0.7, 0.3]])
    assert align(looks, ["▁a"], ["▁x", "▁y"]) == [(0, 1)]


def test_nothing_said_has_no_links():
    assert align(torch.zeros(0, 6), SOURCE, []) == []


def test_attention_that_belongs_to_other_pieces():
    with pytest.raises(ValueError, match=r"attention of shape \(5, 6\) does not belong to 4 target pieces and 5 "):
        align(LOOKS, SOURCE, TARGET[:4])


def test_words_of_a_text():
    assert words(" a  b\tc d\u00a0e ") == ["a", "b", "c", "d\u00a0e"]
    assert words("a\u2581b \u2581 c") == ["a", "b", "c"]


def test_words_are_those_of_the_tokenizer(tmp_path):
    lines = ["the blue house .", "a  house\tand a tree", " the tree", "a\u00a0b and c"]
    tokenizer = train_tokenizer(lines * 5, TokenizerOptions(vocab_size=23), tmp_path / "model")
    for text in [*lines, "the Übermut house", "漢 字", "the\u2581tree", "\u2581a \u2581 tree\u2581"]:
        pieces = tokenizer.pieces(tokenizer.encode([text])[0])
        assert word_numbers(pieces)[-1] + 1 == len(words(text))


def test_unknown_words_are_copied():
    text, tokens = "das \u2047 Haus.", [10, 11, UNK, 12, 13]  # the mark alone is a piece
    assert copy_unknown(text, tokens, UNK, LOOKS, "the blue house.", SOURCE) == "das blue Haus."
    assert copy_unknown("das Haus.", [10, 12, 13], UNK, LOOKS[:3], "the blue house.", SOURCE) == "das Haus."


def test_the_end_is_not_copied_and_a_word_in_a_row_is_copied_once():
    looks = torch.tensor([[0.2, 0.1, 0.7], [0.4, 0.1, 0.5], [0.0, 0.9, 0.1]])
    assert copy_unknown("\u2047\u2047 \u2047", [UNK] * 3, UNK, looks, "Ann Bea", ["▁Ann", "▁Bea"]) == "Ann Bea"
    apart = copy_unknown("\u2047 x \u2047", [UNK, 9, UNK], UNK, looks, "Ann Bea", ["▁Ann", "▁Bea"])
    assert apart == "Ann x Bea"


def test_where_it_is_unclear_what_is_to_be_copied_the_text_stays():
    mark_of_its_own = "\u2047 \u2047"  # the model said a piece that reads like UNK, and UNK
    assert copy_unknown(mark_of_its_own, [9, UNK], UNK, LOOKS[:2], "the blue house.", SOURCE) == mark_of_its_own
    assert copy_unknown("\u2047", [UNK], UNK, LOOKS[:1], "the house", SOURCE) == "\u2047"  # not the text of the pieces
    marked = copy_unknown("\u2047", [UNK], UNK, LOOKS[4:], "the\u2581blue house.", SOURCE)
    assert marked == "house."
