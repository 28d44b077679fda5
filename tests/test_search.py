"""Search over table models: arithmetic by hand, every translation enumerated, and the same search the slow way."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmt.search import Hypothesis, SearchOptions, beam_search, select

PAD, UNK, BOS, EOS, A, B = range(6)
BANNED = (PAD, UNK, BOS)

Table = Callable[
    [tuple[int, ...], tuple[int, ...]], list[float]
]  # of (source, tokens so far): the next token's probabilities


class Memory(NamedTuple):
    source: Tensor  # (B, S)
    lengths: Tensor  # (B,)


class TableState(NamedTuple):
    memory: Memory
    prefix: Tensor  # (N, t) BOS first
    alignment: Tensor  # (N, S)


class TableModel:
    """Reads its probabilities from a table, and looks at the `look_number` of what it has read, so that paths show."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.steps: list[tuple[int, int, int]] = []  # rows, rows of memory, address of memory

    def start(self, source: Tensor, lengths: Tensor) -> TableState:
        return TableState(Memory(source, lengths), torch.empty(len(source), 0).long(), torch.zeros(source.shape))

    def step(self, tokens: Tensor, state: TableState) -> tuple[Tensor, TableState]:
        memory, prefix = state.memory, torch.cat([state.prefix, tokens[:, None]], dim=1)
        self.steps.append((len(tokens), len(memory.source), memory.source.data_ptr()))
        beam, rest = divmod(len(tokens), len(memory.source))
        assert rest == 0
        assert (prefix[:, 0] == BOS).all()
        rows = []
        for row, read in enumerate(prefix.tolist()):
            source = memory.source[row // beam, : memory.lengths[row // beam]]
            rows.append(self.table(tuple(source.tolist()), tuple(read[1:])))
        looks = torch.tensor([[look_number(read[1:])] for read in prefix.tolist()])
        return torch.tensor(rows).log(), TableState(memory, prefix, looks.expand(-1, memory.source.size(1)))


def look_number(read: Sequence[int]) -> float:
    return sum(token * 10.0**place for place, token in enumerate(read))


def by_hand(rows: dict[tuple[int, ...], dict[int, float]]) -> TableModel:
    """A model of {tokens so far: {next token: its probability}}, 0 for all that is not said."""
    return TableModel(lambda source, prefix: [rows.get(prefix, {}).get(token, 0.0) for token in range(6)])


def constant(**probabilities: float) -> TableModel:
    """A model that forgets what it has said: constant(A=0.9, EOS=0.1)."""
    row = {globals()[name]: probability for name, probability in probabilities.items()}
    return TableModel(lambda source, prefix: [row.get(token, 0.0) for token in range(6)])


def at_random(seed: int, vocabulary: int = 7, sharpness: float = 1.0) -> Table:
    """Different for every source and every prefix; banned tokens have their share."""

    def table(source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
        draw = random.Random(f"{seed} {source} {prefix}")
        weights = [math.exp(sharpness * draw.gauss(0, 1)) for _ in range(vocabulary)]
        return [weight / sum(weights) for weight in weights]

    return table


def translate(
    model: TableModel, *sources: list[int], with_alignment: bool = False, **options
) -> list[list[Hypothesis]]:
    lengths = torch.tensor([len(source) for source in sources])
    source = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(source, dtype=torch.long) for source in sources], batch_first=True
    )
    settings = {"length_penalty": 0} | options
    keywords = {"bos": BOS, "eos": EOS, "banned": BANNED, "with_alignment": with_alignment}
    return beam_search(model, source, lengths, SearchOptions(**settings), **keywords)


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-5)


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


def test_greedy_stops_at_its_first_end_whatever_the_normalisation():
    model = constant(EOS=0.6, A=0.4)
    ((best,),) = translate(model, [A], beam_size=1, length_penalty=1, normalization="power")
    assert best.tokens == ()
    assert len(model.steps) == 1


# --- against the same written the slow way


def all_translations(table: Table, source: tuple[int, ...], options: SearchOptions) -> list[Hypothesis]:
    words = [token for token in range(len(table(source, ()))) if token not in (*BANNED, EOS)]
    found = []
    for length in range(options.limit(len(source)) + 1):
        for tokens in itertools.product(words, repeat=length):
            steps = [table(source, tokens[:place])[token] for place, token in enumerate((*tokens, EOS))]
            log_prob = sum(math.log(step) for step in steps)
            found.append(Hypothesis(tokens, log_prob / options.divisor(length + 1), log_prob))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


@pytest.mark.parametrize("normalization", ["gnmt", "power"])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_beam_as_wide_as_the_space_finds_the_best_there_are(normalization, length_penalty, limit):
    options = {"length_penalty": length_penalty, "normalization": normalization, "max_length": limit}
    for seed in range(5):
        table = at_random(seed)
        everything = all_translations(table, (A, B), SearchOptions(**options))
        n_best = min(10, len(everything))
        (found,) = translate(TableModel(table), [A, B], beam_size=150, n_best=n_best, **options)
        assert_same(found, everything[:n_best])


def test_the_whole_space_comes_out_if_asked_for():
    table = at_random(1)
    everything = all_translations(table, (A,), SearchOptions(max_length=3))
    assert len(everything) == 1 + 3 + 9 + 27
    (found,) = translate(TableModel(table), [A], beam_size=150, n_best=150, length_penalty=1, max_length=3)
    assert_same(found, everything)


def slow_search(table: Table, source: tuple[int, ...], options: SearchOptions) -> list[Hypothesis]:
    """One sentence, in lists, with no bound: on to the limit unless K hypotheses have ended."""
    size, limit = options.beam_size, options.limit(len(source))
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[Hypothesis] = []
    while beam and len(ended) < size:
        extensions = [
            (log_prob + math.log(probability), prefix, token)
            for log_prob, prefix in beam
            for token, probability in enumerate(table(source, prefix))
            if token not in BANNED and (token == EOS or len(prefix) < limit)
        ]
        extensions.sort(reverse=True)
        for log_prob, prefix, token in extensions[:size]:
            if token == EOS:
                ended.append(Hypothesis(prefix, log_prob / options.divisor(len(prefix) + 1), log_prob))
        beam = [(log_prob, (*prefix, token)) for log_prob, prefix, token in extensions if token != EOS][:size]
    return sorted(ended, key=lambda hypothesis: -hypothesis.score)[: options.n_best]


@st.composite
def searches(draw):
    size = draw(st.integers(1, 6))
    options = {
        "beam_size": size,
        "n_best": draw(st.integers(1, size)),
        "length_penalty": draw(st.sampled_from([0.0, 0.5, 1.0, 1.5])),
        "normalization": draw(st.sampled_from(["gnmt", "power"])),
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


def test_memory_is_copied_only_when_a_sentence_leaves():
    model = TableModel(at_random(7, sharpness=0.5))
    translate(model, [A], [A, B, A], [A, B], beam_size=3, max_length_ratio=3, max_length_offset=0, length_penalty=1)
    assert model.steps[0][:2] == (3, 3)  # one hypothesis each
    assert all(rows == 3 * sentences for rows, sentences, _ in model.steps[1:])
    assert {sentences for _, sentences, _ in model.steps} == {3, 2, 1}
    for (_, before, address), (_, after, next_address) in itertools.pairwise(model.steps):
        assert (before == after) == (address == next_address)


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
