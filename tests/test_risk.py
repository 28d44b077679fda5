"""Minimum Bayes risk by hand, and flags raised by what they are for and by nothing else."""

import math

import pytest
import torch
from sacrebleu import sentence_bleu, sentence_chrf

from nmt.risk import (
    RiskOptions,
    expected_utilities,
    flags,
    gaps,
    least_risk,
    length_ratio,
    mean_log_prob,
    most_repeated,
    sentence_utility,
)


def shared_words(one: str, other: str) -> float:
    """A utility that a reader can count: words in common."""
    return len({*one.split()} & {*other.split()})


def test_the_candidate_closest_to_all_wins():
    candidates = ["a b", "a b c", "c d", "a b"]
    # "a b": 2 2 0 2. "a b c": 2 3 1 2. "c d": 0 1 2 0.
    assert expected_utilities(candidates, shared_words) == pytest.approx([6 / 4, 8 / 4, 3 / 4, 6 / 4])
    assert least_risk(candidates, shared_words) == 1


def test_an_n_best_list_counts_as_it_is_probable():
    candidates, chances = ["a b", "c d", "c e"], [0.6, 0.2, 0.2]
    log_probs = [math.log(chance) - 700 for chance in chances]  # however improbable all are
    expected = expected_utilities(candidates, shared_words, log_probs)
    assert expected == pytest.approx([0.6 * 2, 0.2 * 2 + 0.2 * 1, 0.2 * 1 + 0.2 * 2])
    assert least_risk(candidates, shared_words, log_probs) == 0


def test_equal_texts_are_compared_once_and_the_first_of_equals_wins():
    asked = []

    def utility(one: str, other: str) -> float:
        asked.append((one, other))
        return 1.0

    assert least_risk(["a", "b", "a", "a"], utility) == 0
    assert len(asked) == len(set(asked)) == 4


def test_utilities_are_those_of_sacrebleu():
    one, other = "the cat sat on the mat", "the cat sat on a mat"
    assert sentence_utility("chrf")(one, other) == pytest.approx(sentence_chrf(one, [other]).score)
    assert sentence_utility("bleu")(one, one) == pytest.approx(100)
    assert sentence_utility("bleu")("cat", "cat") == pytest.approx(100)  # one word has no bigrams to miss
    assert 0 < sentence_utility("bleu")(one, other) < 100
    chinese = (
        "\u4e00\u53ea\u72d7\u5728\u8dd1",
        "\u4e00\u53ea\u72d7\u5728\u8df3",
    )  # one of five words differs, and none is set off by spaces
    assert sentence_utility("bleu")(*chinese) == 0
    assert sentence_utility("bleu", "zh")(*chinese) == pytest.approx(
        sentence_bleu(chinese[0], [chinese[1]], tokenize="zh", use_effective_order=True).score
    )


def test_what_cannot_be():
    with pytest.raises(ValueError, match="utility is one of chrf, bleu, not 'ter'"):
        sentence_utility("ter")
    with pytest.raises(ValueError, match="there are no candidates to choose from"):
        least_risk([], shared_words)


def test_measures_by_hand():
    assert length_ratio("abcd", "ab") == 0.5
    assert most_repeated("abcabcab", 2) == 3
    assert most_repeated("abcabcab", 3) == 2
    assert most_repeated("ab", 3) == 0
    assert mean_log_prob(-6.0, "ab") == -2.0


def test_gaps_by_hand():
    attention = torch.tensor([[0.5, 0.0, 0.04, 0.05, 0.2, 0.0, 0.21], [0.5, 0.0, 0.04, 0.0, 0.4, 0.0, 0.06]])
    assert gaps(attention, 0.1, 3) == [(1, 4)]
    assert gaps(attention, 0.1, 1) == [(1, 4), (5, 6)]
    assert gaps(attention, 0.1, 4) == []
    assert gaps(attention[:0], 0.1, 3) == [(0, 6)]  # a blank translation looked at nothing


SOURCE, TARGET, LOOKS = "abcdefgh", "ABCDEFGH", torch.eye(9)[:8]


@pytest.mark.parametrize(
    ("source", "target", "log_prob", "looks", "expected"),
    [
        (SOURCE, TARGET, -1.0, LOOKS, []),
        (SOURCE, TARGET, -1.0, None, []),
        (SOURCE, "ABC", -1.0, None, ["short"]),
        (SOURCE, "ABC", -1.0, LOOKS[:3], ["short", "gap"]),
        (SOURCE, "ABCDEFGHIJKLMNOPQ", -1.0, None, ["long"]),
        (SOURCE, "ABABABABAB", -1.0, None, ["repetition"]),
        ("abababababab", "ABABABABABAB", -1.0, None, []),  # as often as in the source
        (SOURCE, TARGET, -14.0, LOOKS, ["improbable"]),
        ("", "", 0.0, None, []),
    ],
)
def test_flags(source, target, log_prob, looks, expected):
    assert flags(source, target, log_prob, looks) == expected


def test_flags_obey_their_options():
    assert flags(SOURCE, "ABC", -8.0, LOOKS[:3], RiskOptions(shortest=0.1, log_prob=-3.0, gap=6)) == []
