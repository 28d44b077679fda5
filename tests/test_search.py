"""Search over table models: arithmetic by hand, every translation enumerated, and the same search the slow way."""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmt.search import Hypothesis, SearchOptions, beam_search
from nmt.states import select
from tests.tables import (
    BANNED,
    BOS,
    EOS,
    PAD,
    A,
    B,
    Table,
    TableModel,
    all_translations,
    assert_same,
    at_random,
    by_hand,
    constant,
    divided,
    look_number,
    translate,
)

# --- by hand

GARDEN_PATH = {  # the likelier first word leads to the less likely sentence
    (): {A: 0.5, B: 0.4, EOS: 0.1},
    (A,): {A: 0.3, B: 0.3, EOS: 0.4},
    (B,): {A: 0.1, EOS: 0.9},
    (A, A): {EOS: 1.0},
    (A, B): {EOS: 1.0},
    (B, A): {EOS: 1.0},
}


def test_greedy_takes_the_garden_path_and_a_beam_of_two_does_not():
    ((greedy,),) = translate(by_hand(GARDEN_PATH), [A], beam_size=1)
    assert greedy.tokens == (A,)
    assert greedy.log_prob == pytest.approx(math.log(0.5 * 0.4))
    ((best,),) = translate(by_hand(GARDEN_PATH), [A], beam_size=2)
    assert best.tokens == (B,)
    assert best.log_prob == best.score == pytest.approx(math.log(0.4 * 0.9))


def test_n_best_by_hand():
    (found,) = translate(by_hand(GARDEN_PATH), [A], beam_size=6, n_best=6)
    assert [hypothesis.tokens for hypothesis in found][:2] == [(B,), (A,)]
    assert {hypothesis.tokens for hypothesis in found[2:4]} == {(A, A), (A, B)}  # 0.15 each
    assert [hypothesis.tokens for hypothesis in found[4:]] == [(), (B, A)]
    assert [math.exp(hypothesis.score) for hypothesis in found] == pytest.approx([0.36, 0.2, 0.15, 0.15, 0.1, 0.04])


@pytest.mark.parametrize(
    ("normalization", "length_penalty", "tokens", "score"),
    [
        ("gnmt", 0, (), math.log(0.3)),
        ("power", 0, (), math.log(0.3)),
        ("power", 1, (A,), math.log(0.25) / 2),  # of length 2, its EOS counted
        ("gnmt", 0.5, (), math.log(0.3)),  # for log(0.25) / (7/6)^0.5 = -1.283 < -1.204
        ("gnmt", 1, (A,), math.log(0.25) / (7 / 6)),  # -1.188
    ],
)
def test_length_normalisation_by_hand(normalization, length_penalty, tokens, score):
    model = by_hand({(): {EOS: 0.3, A: 0.25, PAD: 0.45}, (A,): {EOS: 1.0}})
    ((best,),) = translate(model, [A], beam_size=2, normalization=normalization, length_penalty=length_penalty)
    assert best.tokens == tokens
    assert best.score == pytest.approx(score)


def test_the_end_is_forced_at_the_limit_and_paid_for():
    ((best,),) = translate(constant(A=0.9, B=0.05, EOS=0.05), [A], beam_size=1, max_length=3)
    assert best.tokens == (A, A, A)
    assert best.log_prob == pytest.approx(3 * math.log(0.9) + math.log(0.05))


def test_each_sentence_has_its_own_limit():
    found = translate(
        constant(A=1.0, EOS=1e-9), [A], [A, A, A], [], max_length_ratio=1.5, max_length_offset=1, beam_size=1
    )
    assert [len(best.tokens) for (best,) in found] == [2, 5, 1]


def test_limits_by_hand():
    options = SearchOptions(max_length_ratio=1.5, max_length_offset=2, max_length=9)
    assert [options.limit(length) for length in (0, 1, 2, 4, 5, 100)] == [2, 3, 5, 8, 9, 9]
    # what must be said may be said, unless max_length forbids it
    assert [SearchOptions(min_length=60).limit(length) for length in (1, 25, 26)] == [60, 60, 62]
    assert SearchOptions(min_length=60, max_length=7).limit(1) == 7
    assert SearchOptions(min_length_ratio=40).limit(2) == 80


@pytest.mark.parametrize("normalization", ["gnmt", "power"])
def test_the_steepest_divisor_of_the_longest_translation_is_a_number(normalization):
    divisor = SearchOptions(normalization=normalization, length_penalty=10).divisor(2011)  # of 1,000 pieces
    assert torch.tensor([divisor]).isfinite().all()


def test_fewer_translations_than_asked_for_where_there_are_no_more():
    (found,) = translate(
        by_hand({(): {A: 1.0}, (A,): {EOS: 0.5, B: 0.5}, (A, B): {EOS: 1.0}}), [A], beam_size=4, n_best=4
    )
    assert sorted(hypothesis.tokens for hypothesis in found) == [(A,), (A, B)]


def test_a_model_that_cannot_end_gives_nothing():
    assert translate(constant(A=1.0), [A, B], max_length=5) == [[]]


def test_an_empty_batch():
    nobody = torch.empty(0, 3).long(), torch.empty(0).long()
    assert beam_search(TableModel(at_random(0)), *nobody, SearchOptions(), bos=BOS, eos=EOS) == []


# --- stopping


def test_stops_as_soon_as_nothing_can_overtake():
    model = constant(EOS=0.6, A=0.4)
    translate(model, [A], beam_size=4)
    assert len(model.steps) == 1  # 0.4 < 0.6 already


def test_goes_on_while_length_could_still_pay():
    model = constant(EOS=0.6, A=0.4)
    ((best,),) = translate(model, [A], beam_size=3, length_penalty=1, normalization="power", max_length=9)
    # log(0.6) = -0.51; n open tokens can still reach n log(0.4) / 10 = -0.092 n, which is worse from n = 6 on.
    # A beam of 3 has ended three by then, a beam of 9 has not.
    assert best.tokens == ()
    assert len(model.steps) == 3
    model = constant(EOS=0.6, A=0.4)
    translate(model, [A], beam_size=9, length_penalty=1, normalization="power", max_length=9)
    assert len(model.steps) == 6


def test_a_reward_is_in_the_bound():
    # "" scores log(0.6) + 0.1; n tokens can still reach n log(0.4) + 10 * 0.1 at the limit of 9: worse from n = 2 on.
    model = constant(EOS=0.6, A=0.4)
    ((best,),) = translate(model, [A], beam_size=9, length_reward=0.1, max_length=9)
    assert best.tokens == ()
    assert best.score == pytest.approx(math.log(0.6) + 0.1)
    assert len(model.steps) == 2
    # with 1.0, each A gains 1 + log(0.4) > 0, up to the limit.
    ((best,),) = translate(model, [A], beam_size=9, length_reward=1.0, max_length=9, early_stopping=False)
    assert best.tokens == (A,) * 9
    assert best.score == pytest.approx(9 * math.log(0.4) + math.log(0.6) + 10)


def test_a_price_on_length_is_in_the_bound():
    # "" scores log(0.4) - 0.2 = -1.116; what goes on from A has |Y| >= 2: at most log(0.6) - 0.4 = -0.911, so a look
    model = constant(EOS=0.4, A=0.6)
    ((best,),) = translate(model, [A], beam_size=9, length_reward=-0.2, max_length=9)
    assert best.tokens == ()
    assert len(model.steps) == 2  # further: from A A, |Y| >= 3, at most 2 log(0.6) - 0.6 = -1.622


def test_without_early_stopping_only_the_bound_stops():
    model = constant(EOS=0.6, A=0.4)
    translate(model, [A], beam_size=1, length_penalty=1, normalization="power", max_length=9, early_stopping=False)
    assert len(model.steps) == 6  # see above: n log(0.4) / 10 is worse than log(0.6) from n = 6 on


def test_greedy_stops_at_its_first_end_whatever_the_normalisation():
    model = constant(EOS=0.6, A=0.4)
    ((best,),) = translate(model, [A], beam_size=1, length_penalty=1, normalization="power")
    assert best.tokens == ()
    assert len(model.steps) == 1


# --- against the same written the slow way


@pytest.mark.parametrize("normalization", ["gnmt", "power", "none"])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("length_reward", [0.0, 0.7, -0.7])
@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_beam_as_wide_as_the_space_finds_the_best_there_are(normalization, length_penalty, length_reward, limit):
    options = {"length_penalty": length_penalty, "normalization": normalization, "length_reward": length_reward}
    options["max_length"] = limit
    for seed in range(3):
        model = TableModel(at_random(seed))
        everything = all_translations(model, (A, B), SearchOptions(**options))
        n_best = min(10, len(everything))
        (found,) = translate(model, [A, B], beam_size=150, n_best=n_best, **options)
        assert_same(found, everything[:n_best])


def test_the_whole_space_comes_out_if_asked_for():
    model = TableModel(at_random(1))
    everything = all_translations(model, (A,), SearchOptions(max_length=3))
    assert len(everything) == 1 + 3 + 9 + 27
    (found,) = translate(model, [A], beam_size=150, n_best=150, length_penalty=1, max_length=3)
    assert_same(found, everything)


def slow_search(table: Table, source: tuple[int, ...], options: SearchOptions) -> list[Hypothesis]:
    """One sentence, in lists, with no bound: on to the limit unless, stopping early, K hypotheses have ended."""
    size, limit = options.beam_size, options.limit(len(source))
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[Hypothesis] = []
    while beam and (len(ended) < size or not options.early_stopping):
        extensions = [
            (log_prob + math.log(probability), prefix, token)
            for log_prob, prefix in beam
            for token, probability in enumerate(table(source, prefix))
            if token not in BANNED and (token == EOS or len(prefix) < limit)
        ]
        extensions.sort(reverse=True)
        for log_prob, prefix, token in extensions[:size]:
            if token == EOS:
                ended.append(Hypothesis(prefix, divided(log_prob, len(prefix) + 1, options), log_prob))
        beam = [(log_prob, (*prefix, token)) for log_prob, prefix, token in extensions if token != EOS][:size]
    return sorted(ended, key=lambda hypothesis: -hypothesis.score)[: options.n_best]


@st.composite
def searches(draw):
    size = draw(st.integers(1, 6))
    options = {
        "beam_size": size,
        "n_best": draw(st.integers(1, size)),
        "length_penalty": draw(st.sampled_from([0.0, 0.5, 1.0, 1.5])),
        "normalization": draw(st.sampled_from(["gnmt", "power", "none"])),
        "length_reward": draw(st.sampled_from([0.0, 0.0, 0.5, 2.0, -0.5])),
        "early_stopping": draw(st.booleans()),
        "max_length": draw(st.sampled_from([None, 4])),
        "max_length_ratio": draw(st.sampled_from([0.5, 1.0, 2.0])),
        "max_length_offset": draw(st.integers(0, 3)),
    }
    table = at_random(draw(st.integers(0, 10**6)), draw(st.integers(5, 9)), draw(st.sampled_from([0.3, 1.0, 3.0])))
    sources = draw(st.lists(st.lists(st.integers(A, 9), max_size=5), min_size=1, max_size=4))
    return table, sources, options


@settings(max_examples=150, deadline=None)
@given(searches())
def test_a_batch_that_stops_early_answers_as_each_sentence_alone_to_the_end(search):
    table, sources, options = search
    for source, found in zip(sources, translate(TableModel(table), *sources, **options), strict=True):
        assert_same(found, slow_search(table, tuple(source), SearchOptions(**options)))


@settings(max_examples=60, deadline=None)
@given(searches())
def test_what_comes_out_is_ranked_distinct_and_allowed(search):
    table, sources, options = search
    for source, found in zip(sources, translate(TableModel(table), *sources, **options), strict=True):
        scores = [hypothesis.score for hypothesis in found]
        assert scores == sorted(scores, reverse=True)
        assert len({hypothesis.tokens for hypothesis in found}) == len(found) <= options["n_best"]
        assert not {*BANNED, EOS} & {token for hypothesis in found for token in hypothesis.tokens}
        assert all(len(hypothesis.tokens) <= SearchOptions(**options).limit(len(source)) for hypothesis in found)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_of_one_is_argmax(length_penalty):
    table = at_random(4)
    for source in ([A], [A, B], [B, B, A], [B]):
        tokens: list[int] = []
        while (token := max({EOS, A, B, 6}, key=table(tuple(source), tuple(tokens)).__getitem__)) != EOS:
            tokens.append(token)
        ((best,),) = translate(
            TableModel(table), source, beam_size=1, max_length_offset=100, length_penalty=length_penalty
        )
        assert best.tokens == tuple(tokens)


# --- what the search asks of a state


def test_memory_is_never_copied():
    model = TableModel(at_random(7, sharpness=0.5))
    translate(model, [A], [A, B, A], [A, B], beam_size=3, max_length_ratio=3, max_length_offset=0, length_penalty=1)
    assert model.steps[0][:2] == (3, 3)  # one hypothesis each
    assert all(rows == 3 * sentences for rows, sentences, _ in model.steps[1:])
    assert {sentences for _, sentences, _ in model.steps} == {3, 2, 1}
    assert len({address for _, _, address in model.steps}) == 1


def test_alignments_follow_each_translation_back():
    sources = [A, B, A], [B], [B, A]
    found = translate(TableModel(at_random(3)), *sources, beam_size=4, n_best=4, with_alignment=True, length_penalty=1)
    for source, hypotheses in zip(sources, found, strict=True):
        assert len(hypotheses) == 4
        for tokens, _, _, alignment in hypotheses:
            expected = [[look_number(tokens[:place])] * len(source) for place in range(len(tokens))]
            assert alignment is not None
            assert alignment.tolist() == expected


def test_no_alignment_unless_asked_for():
    ((best,),) = translate(constant(EOS=1.0), [A])
    assert best.alignment is None
    ((best,),) = translate(constant(EOS=1.0), [A, B], with_alignment=True)
    assert best.alignment is not None
    assert best.alignment.shape == (0, 2)


def test_select_takes_hypotheses_by_row_and_memory_by_sentence():
    class Part(NamedTuple):
        memory: tuple[Tensor, tuple[Tensor]]
        cells: tuple[Tensor, ...]

    memory = (torch.tensor([10, 11]), (torch.tensor([[20], [21]]),))
    state = (Part(memory, (torch.arange(4), torch.arange(4)[:, None])), torch.arange(4) + 50)
    rows = torch.tensor([3, 3])
    part, last = select(state, rows, torch.tensor([1]))
    assert isinstance(part, Part)
    assert part.memory[0].tolist() == [11]
    assert part.memory[1][0].tolist() == [[21]]
    assert [cell.tolist() for cell in part.cells] == [[3, 3], [[3], [3]]]
    assert last.tolist() == [53, 53]
    assert select(state, rows, None)[0].memory is memory


# --- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size must be at least 1 and finite, got 0"),
        ({"n_best": 0}, "n_best must be at least 1 and finite, got 0"),
        ({"n_best": 6}, "n_best is 6, more than the 5 of beam_size: widen the beam"),
        ({"length_penalty": -0.1}, "length_penalty must be at least 0 and finite, got -0.1"),
        ({"length_penalty": math.nan}, "length_penalty must be at least 0 and finite, got nan"),
        ({"max_length": 0}, "max_length must be at least 1 and finite, got 0"),
        ({"max_length_ratio": math.inf}, "max_length_ratio must be at least 0 and finite, got inf"),
        ({"max_length_offset": -1}, "max_length_offset must be at least 0 and finite, got -1"),
        ({"normalization": "mean"}, "normalization is one of gnmt, power, none, not 'mean'"),
        ({"length_reward": math.nan}, "length_reward must be finite, got nan"),
        ({"length_reward": -math.inf}, "length_reward must be finite, got -inf"),
        ({"coverage_penalty": -1}, "coverage_penalty must be at least 0 and finite, got -1"),
        ({"min_length_ratio": -0.5}, "min_length_ratio must be at least 0 and finite, got -0.5"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram must be at least 0 and finite, got -1"),
        ({"diverse_groups": 2}, "diverse_groups is 2, which does not divide beam_size 5"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        SearchOptions(**options)


@pytest.mark.parametrize("place", [(), (A,), (A, A)])
def test_nan_is_not_hidden(place):
    def table(source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
        return [math.nan] * 6 if prefix == place else [0.19, 0.19, 0.19, 0.01, 0.21, 0.21]

    with pytest.raises(ValueError, match="the model gave NaN log-probabilities"):
        translate(TableModel(table), [A], [B], beam_size=20, max_length=4)
