"""Phrases that must appear: how far they have come, by hand and by looking; and what a small beam makes of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.constraints import Constraints, deal, progress
from nmt.search import Moment
from nmt.steppers import Recorded
from tests.tables import BOS, EOS, A, B, TableModel, assert_same, at_random, by_hand, constant, decoded

C, D = 6, 7


def now(said: list[int], *phrases: list[int]):
    """The progress of one hypothesis of one sentence."""
    nothing = torch.empty(1, 0)
    state = Recorded(None, nothing, torch.tensor([[BOS, *said]]), nothing, nothing)
    return Constraints([phrases], torch.device("cpu")).now(Moment(state, torch.tensor([0]), len(said) + 1), 1)


@pytest.mark.parametrize(
    ("said", "phrases", "need", "after"),
    [
        ([], [[A]], 1, {A: 0, B: 1}),
        ([A], [[A]], 0, {A: 0, B: 0}),
        ([A], [[A, B]], 1, {A: 1, B: 0, C: 2}),
        ([A, A], [[A, A, B]], 1, {A: 1, B: 0, C: 3}),  # A A A ends in A A still
        ([C, A], [[A, B], [C, A, D]], 3, {B: 3, D: 2}),  # D, then A B; or B, then C A D from its start
        ([A, B, C], [[A, B], [C, D]], 1, {D: 0, A: 2}),  # A B was met and stays so
        ([A], [[A, B], [A, B]], 1, {B: 0}),  # the same phrase twice is one
        ([], [], 0, {A: 0}),
    ],
)
def test_progress_by_hand(said, phrases, need, after):
    come = now(said, *phrases)
    assert come.need.tolist() == [[need]]
    assert come.need_after(torch.tensor([[list(after)]])).tolist() == [[list(after.values())]]


def appears(phrase: list[int], text: list[int]) -> bool:
    return any(text[place : place + len(phrase)] == phrase for place in range(len(text)))


words = st.lists(st.integers(A, C), max_size=6)
phrases_of = st.lists(st.lists(st.integers(A, C), min_size=1, max_size=3), max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(words, phrases_of), min_size=1, max_size=4))
def test_progress_is_what_one_sees(sentences):
    longest = max(len(said) for said, _ in sentences)
    said = torch.tensor([[[BOS] * (longest - len(said)) + said] for said, _ in sentences], dtype=torch.long)
    every = Constraints([phrases for _, phrases in sentences], torch.device("cpu"))
    come = progress(said, every.phrases, every.sizes)
    after = come.need_after(torch.arange(8).expand(len(sentences), 1, 8))
    for number, (read, asked) in enumerate(sentences):
        phrases = [phrase for place, phrase in enumerate(asked) if phrase not in asked[:place]]
        assert come.met[number, 0, : len(phrases)].tolist() == [appears(phrase, read) for phrase in phrases]
        assert come.need[number, 0] == need_of(read, phrases)
        assert after[number, 0].tolist() == [need_of([*read, token], phrases) for token in range(8)]


def need_of(read: list[int], phrases: list[list[int]]) -> int:
    unmet = [phrase for phrase in phrases if not appears(phrase, read)]
    tails = [length for phrase in unmet for length in range(1, len(phrase)) if read[-length:] == phrase[:length]]
    return sum(map(len, unmet)) - max(tails, default=0)


def test_places_are_dealt_bank_by_bank():
    # Banks by what they need, 0 first: the best of each, then the second best of each, ...; what cannot be goes last.
    scores = torch.tensor([[-1.0, -2.0, -3.0, -4.0, -math.inf, -5.0]])
    need = torch.tensor([[2, 2, 1, 0, 0, 2]])
    assert deal(scores, need).tolist() == [[3, 2, 0, 1, 5, 4]]


def test_a_phrase_is_said_where_it_costs_least():
    rows = {(): {A: 0.9, B: 0.1}, (A,): {B: 0.5, EOS: 0.5}, (A, B): {EOS: 1.0}, (B,): {EOS: 0.9, A: 0.1}}
    ((best,),) = decoded(by_hand(rows | {(B, A): {EOS: 1.0}}), [[A]], constraints=[[[B]]], beam_size=2)
    assert best.tokens == (A, B)  # 0.45, and not the 0.09 of B alone
    assert best.log_prob == pytest.approx(math.log(0.45))


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_every_translation_has_every_phrase_however_small_the_beam(beam_size):
    model = TableModel(at_random(1, 9, sharpness=2.0))
    constraints = [[[B, C]], [], [[D], [C, C, A]], [[A, B], [B, D]]]
    found = decoded(model, [[A]] * 4, constraints=constraints, beam_size=beam_size, n_best=beam_size, max_length=5)
    for phrases, hypotheses in zip(constraints, found, strict=True):
        assert hypotheses
        for hypothesis in hypotheses:
            assert all(appears(phrase, list(hypothesis.tokens)) for phrase in phrases)


def test_sentences_without_constraints_are_searched_as_ever():
    model = TableModel(at_random(8))
    (plain,) = decoded(model, [[A, B]], beam_size=3, n_best=3)
    beside, _ = decoded(model, [[A, B], [B]], beam_size=3, n_best=3, constraints=[[], [[C]]])
    assert [hypothesis.tokens for hypothesis in plain] == [hypothesis.tokens for hypothesis in beside]


def test_neighbours_with_more_phrases_change_nothing():
    constraints = [[[B, C, B]], [[A], [C], [D], [B]]]
    for seed in range(30):
        model = TableModel(at_random(seed, 12, sharpness=2.0))
        options = {"beam_size": 2, "n_best": 2, "max_length": 7}
        beside, _ = decoded(model, [[A], [A]], constraints=constraints, **options)
        (alone,) = decoded(model, [[A]], constraints=constraints[:1], **options)
        assert_same(beside, alone)


def test_there_is_room_for_what_must_be_said():
    ((best,),) = decoded(constant(A=0.5, B=0.2, EOS=0.3), [[A]], constraints=[[[B, B, B]]], max_length=1)
    assert best.tokens == (B, B, B)
    assert best.log_prob == pytest.approx(3 * math.log(0.2) + math.log(0.3))


def test_what_is_asked_for_may_be_said_though_it_is_banned():
    ((best, *_),) = decoded(constant(UNK=0.1, A=0.6, EOS=0.3), [[A]], constraints=[[[1]]])
    assert best.tokens.count(1) == 1
