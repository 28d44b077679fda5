"""Every option of the search against every translation enumerated, and the same whatever the batch."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt import decoding
from nmt.decoding import decode
from nmt.model.seq2seq import ModelOptions, build_model
from nmt.sampling import SamplingOptions
from nmt.search import Hypothesis, SearchOptions
from nmt.steppers import Ensemble
from tests.tables import (
    BANNED,
    BOS,
    EOS,
    PAD,
    UNK,
    A,
    B,
    TableModel,
    all_translations,
    assert_same,
    at_random,
    at_random_looks,
    batch,
    by_hand,
    constant,
    covered,
    decoded,
    translate,
)

C = 6


def model_of(seed: int, vocabulary: int = 7) -> TableModel:
    return TableModel(at_random(seed, vocabulary), at_random_looks(seed))


def repeats(tokens: tuple[int, ...], size: int) -> bool:
    grams = [tokens[place : place + size] for place in range(len(tokens) - size + 1)]
    return len(set(grams)) < len(grams)


# --- against everything enumerated

OPTIONS = {
    "minimum": ({"min_length": 2}, lambda tokens: len(tokens) >= 2),
    "relative minimum": ({"min_length_ratio": 1.5}, lambda tokens: len(tokens) >= 3),  # 1.5 pieces of 2
    "minimum above the limit": ({"min_length": 9}, lambda tokens: len(tokens) == 4),
    "no word twice": ({"no_repeat_ngram": 1}, lambda tokens: not repeats(tokens, 1)),
    "no bigram twice": ({"no_repeat_ngram": 2}, lambda tokens: not repeats(tokens, 2)),
    "no trigram twice": ({"no_repeat_ngram": 3}, lambda tokens: not repeats(tokens, 3)),
    "UNK": ({"allow_unknown": True}, lambda tokens: True),
    "coverage": ({"coverage_penalty": 0.8}, lambda tokens: True),
    "prefix": ({"prefixes": [[B, A]]}, lambda tokens: tokens[:2] == (B, A)),
    "prefix that says what is silent": ({"prefixes": [[BOS]]}, lambda tokens: True),
    "phrase": ({"constraints": [[[B, C]]]}, lambda tokens: (B, C) in itertools.pairwise(tokens)),
    "phrases": ({"constraints": [[[B, C], [A]]]}, lambda tokens: (B, C) in itertools.pairwise(tokens) and A in tokens),
    "all at once": (
        {
            "min_length": 1,
            "no_repeat_ngram": 2,
            "coverage_penalty": 0.3,
            "prefixes": [[B]],
            "constraints": [[[C, A]]],
        },
        lambda tokens: tokens[:1] == (B,) and (C, A) in itertools.pairwise(tokens) and not repeats(tokens, 2),
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("ranking", [{}, {"length_penalty": 1.0}, {"length_reward": 0.7, "normalization": "none"}])
def test_a_beam_as_wide_as_the_space_finds_the_best_that_are_allowed(name, ranking):
    options, allowed = OPTIONS[name]
    settings = {"max_length": 4, **ranking, **options}
    plain = {key: value for key, value in settings.items() if key not in ("prefixes", "constraints")}
    for seed in range(2):
        model = model_of(seed)
        everything = all_translations(model, (A, B), SearchOptions(**{"length_penalty": 0} | plain), allowed)
        if name == "prefix that says what is silent":
            everything = said_first(model, BOS, SearchOptions(**{"length_penalty": 0} | plain))
        n_best = min(10, len(everything))
        (found,) = decoded(model, [[A, B]], beam_size=400, n_best=n_best, **settings)
        assert_same(found, everything[:n_best])


def said_first(model, token, options):
    """All translations that begin with a token that is never said otherwise: those of the model that has read it."""
    first = model.table((A, B), ())[token]
    rest = TableModel(lambda source, prefix: model.table(source, (token, *prefix)))
    shorter = SearchOptions(max_length=3, length_penalty=0)
    found = []
    for tokens, _, log_prob, _ in all_translations(rest, (A, B), shorter):
        total, length = log_prob + math.log(first), len(tokens) + 2
        score = total / options.divisor(length) + options.length_reward * length
        found.append(Hypothesis((token, *tokens), score, total))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


# --- by hand


def test_coverage_by_hand():
    # Two source pieces. Every step looks at the first; only one after A looks at the second.
    model = by_hand({(): {EOS: 0.4, A: 0.3, B: 0.3}, (A,): {EOS: 1.0}, (B,): {EOS: 1.0}})
    model.looks = lambda source, prefix: [0.25, 0.75] if prefix == (A,) else [0.75, 0.25]
    (found,) = decoded(model, [[A, B]], beam_size=3, n_best=3, coverage_penalty=2.0)
    # "": 0.75, 0.25. A: 1, 1. B: 1.5, which counts as 1, and 0.5.
    by_tokens = {hypothesis.tokens: hypothesis.score for hypothesis in found}
    assert by_tokens[()] == pytest.approx(math.log(0.4) + 2 * math.log(0.75 * 0.25))
    assert by_tokens[(A,)] == pytest.approx(math.log(0.3))
    assert by_tokens[(B,)] == pytest.approx(math.log(0.3) + 2 * math.log(0.5))
    assert found[0].tokens == (A,)
    assert found[0].log_prob == pytest.approx(math.log(0.3))


def test_padding_is_not_uncovered():
    model = model_of(3)
    pair = decoded(model, [[A], [A, B, A, B]], coverage_penalty=1.0, beam_size=4)
    for source, (best,) in zip([(A,), (A, B, A, B)], pair, strict=True):
        assert best.score == pytest.approx(best.log_prob + covered(model.looks, source, best.tokens), abs=1e-5)


def test_what_was_never_looked_at_costs_a_limited_price():
    model = by_hand({(): {EOS: 1.0}})
    model.looks = lambda source, prefix: [1.0, 0.0]
    ((best,),) = decoded(model, [[A, B]], coverage_penalty=1.0)
    assert best.score == pytest.approx(math.log(1e-6))


def test_a_model_without_attention_covers_nothing_and_pays_nothing():
    model = model_of(3)
    start, step = model.start, model.step

    def blind(state):
        return state._replace(alignment=state.alignment[:, :0])

    model.start = lambda *arguments: blind(start(*arguments))
    model.step = lambda *arguments: (lambda log_probs, state: (log_probs, blind(state)))(*step(*arguments))
    ((best,),) = decoded(model, [[A, B]], coverage_penalty=1.0)
    assert best.score == best.log_prob


def test_unknown_comes_only_if_asked_for():
    model = constant(UNK=0.7, A=0.1, EOS=0.2)
    ((best,),) = decoded(model, [[A]], max_length=1, length_reward=9.0)
    assert best.tokens == (A,)
    ((best,),) = decoded(model, [[A]], max_length=1, length_reward=9.0, allow_unknown=True)
    assert best.tokens == (UNK,)


def test_prefixes_of_any_length_are_paid_for_and_raise_the_limit():
    model = constant(A=0.5, B=0.3, EOS=0.2)
    found = decoded(model, [[A]] * 4, prefixes=[[], [B], [B, B, B], [UNK]], max_length=1, beam_size=3)
    assert [best.tokens for (best, *_) in found[:3]] == [(), (B,), (B, B, B)]  # 0.2 is more than 0.5 * 0.2
    assert found[2][0].log_prob == pytest.approx(3 * math.log(0.3) + math.log(0.2))
    assert found[3] == []  # the model does not know UNK


def test_n_best_that_differ_in_what_the_caller_says():
    model = model_of(5)
    everything = all_translations(model, (A, B), SearchOptions(max_length=3, length_penalty=0))
    expected = {}
    for hypothesis in everything:  # the best with each number of pieces
        expected.setdefault(len(hypothesis.tokens), hypothesis)
    (found,) = decoded(model, [[A, B]], beam_size=100, n_best=3, max_length=3, distinct=len)
    assert_same(found, list(expected.values())[:3])


# --- beam 1 is greedy, and nothing depends on the batch


@st.composite
def requests(draw):
    """Sources, options, and what is asked of each sentence; a table of 5 to 9 tokens to search."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    size = groups * draw(st.integers(1, 3))
    options = {
        "beam_size": size,
        "n_best": draw(st.integers(1, size)),
        "diverse_groups": groups,
        "diversity": draw(st.sampled_from([0.0, 0.5, 3.0])),
        "length_penalty": draw(st.sampled_from([0.0, 1.0])),
        "length_reward": draw(st.sampled_from([0.0, 0.5, -0.5])),
        "coverage_penalty": draw(st.sampled_from([0.0, 0.5])),
        "early_stopping": draw(st.booleans()),
        "max_length_ratio": draw(st.sampled_from([0.5, 1.0])),
        "max_length_offset": draw(st.integers(0, 3)),
        "min_length": draw(st.integers(0, 2)),
        "min_length_ratio": draw(st.sampled_from([0.0, 0.5])),
        "no_repeat_ngram": draw(st.integers(0, 3)),
        "allow_unknown": draw(st.booleans()),
    }
    vocabulary = draw(st.integers(6, 9))
    sources = draw(st.lists(st.lists(st.integers(A, 9), max_size=5), min_size=1, max_size=5))
    pieces = st.lists(st.integers(A, vocabulary - 1), max_size=3)
    lists = st.lists(pieces, min_size=len(sources), max_size=len(sources))
    asked = {"prefixes": draw(lists)} if draw(st.booleans()) else {}
    kind = draw(st.sampled_from(["nothing", "constraints", "sampling"]))
    if kind == "sampling":
        limits = {"top_k": draw(st.integers(0, 3)), "top_p": draw(st.sampled_from([1.0, 0.7]))}
        asked["sampling"] = SamplingOptions(draw(st.integers(1, 4)), draw(st.sampled_from([1.0, 0.5])), **limits)
        asked["numbers"] = draw(st.permutations(range(len(sources))))
    elif kind == "constraints" and groups == 1:
        phrases = st.lists(st.lists(st.integers(A, vocabulary - 1), min_size=1, max_size=3), max_size=2)
        asked["constraints"] = draw(st.lists(phrases, min_size=len(sources), max_size=len(sources)))
    seed = draw(st.integers(0, 10**6))
    table = at_random(seed, vocabulary, draw(st.sampled_from([0.3, 1.0, 3.0])))
    return TableModel(table, at_random_looks(seed)), sources, options, asked


def reorder(asked, order):
    """What is asked of the sentences of these numbers."""
    return {name: value if name == "sampling" else [value[n] for n in order] for name, value in asked.items()}


@settings(max_examples=60, deadline=None)
@given(requests(), st.randoms())
def test_a_sentence_is_answered_as_if_it_were_alone(request, random):
    model, sources, options, asked = request
    together = decoded(model, sources, **options, **asked)
    for number, source in enumerate(sources):
        (alone,) = decoded(model, [source], **options, **reorder(asked, [number]))
        assert_same(together[number], alone)
    order = random.sample(range(len(sources)), len(sources))
    shuffled = decoded(model, [sources[number] for number in order], **options, **reorder(asked, order))
    for number, found in zip(order, shuffled, strict=True):
        assert_same(found, together[number])


@settings(max_examples=80, deadline=None)
@given(requests())
def test_what_comes_out_is_ranked_allowed_and_what_was_asked_for(request):
    model, sources, options, asked = request
    search = SearchOptions(**options)
    for number, found in enumerate(decoded(model, sources, **options, **asked)):
        scores = [hypothesis.score for hypothesis in found]
        assert scores == sorted(scores, reverse=True)
        prefix = tuple(asked.get("prefixes", {number: []})[number])
        phrases = asked.get("constraints", {number: []})[number]
        if "sampling" not in asked:
            assert len({hypothesis.tokens for hypothesis in found}) == len(found) <= options["n_best"]
        limit = max(search.limit(len(sources[number])), len(prefix) + sum(map(len, phrases)))
        for tokens, score, log_prob, _ in found:
            assert tokens[: len(prefix)] == prefix
            assert all(appears(tuple(phrase), tokens) for phrase in phrases)
            assert min(limit, search.minimum(len(sources[number]))) <= len(tokens) <= limit
            assert not {PAD, BOS, EOS} & set(tokens)
            assert options["allow_unknown"] or UNK not in tokens
            if options["no_repeat_ngram"] and not prefix and not phrases:
                assert not repeats(tokens, options["no_repeat_ngram"])
            steps = [model.table(tuple(sources[number]), tokens[:n])[t] for n, t in enumerate((*tokens, EOS))]
            assert log_prob == pytest.approx(sum(map(math.log, steps)), abs=1e-4)
            cover = options["coverage_penalty"] * covered(model.looks, tuple(sources[number]), tokens)
            reward = options["length_reward"] * (len(tokens) + 1)
            assert score == pytest.approx(log_prob / search.divisor(len(tokens) + 1) + reward + cover, abs=1e-4)


def appears(phrase, tokens):
    return any(tokens[place : place + len(phrase)] == phrase for place in range(len(tokens)))


@settings(max_examples=60, deadline=None)
@given(requests())
def test_the_short_cut_of_greedy_search_is_a_beam_of_one(request):
    model, sources, options, _ = request
    names = ("length_penalty", "length_reward", "max_length_ratio", "max_length_offset")
    plain = {name: options[name] for name in names} | {"beam_size": 1}
    for short, beam in zip(decoded(model, sources, **plain), translate(model, *sources, **plain), strict=True):
        assert_same(short, beam)


def test_greedy_search_moves_no_state_until_a_sentence_leaves():
    model, given, moved = constant(A=0.9, EOS=0.1), [], []

    class Watched:
        start = model.start

        def step(self, tokens, state):
            moved.append(bool(given) and state is not given[-1])
            log_probs, state = model.step(tokens, state)
            given.append(state)
            return log_probs, state

    decoded(Watched(), [[A], [A, B]], beam_size=1, max_length_ratio=2, max_length_offset=0)
    assert [place for place, other in enumerate(moved) if other] == [3]  # 2 pieces and the end of the first


# --- with a network


@pytest.mark.parametrize("attention", ["general", "none"])
@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"beam_size": 4, "n_best": 4, "coverage_penalty": 0.4, "no_repeat_ngram": 2, "min_length": 2},
        {"beam_size": 4, "n_best": 4, "diverse_groups": 2},
        {"beam_size": 4, "n_best": 2, "prefixes": [[5, 6], [], [7], [8], [], [4, 4, 4], []]},
        {"beam_size": 4, "n_best": 2, "constraints": [[[5, 6]], [], [[7]], [[8], [9, 9]], [], [[4]], [[11]]]},
        {"sampling": SamplingOptions(3, 0.7, top_p=0.9)},
    ],
    ids=lambda options: next(reversed(options)),
)
def test_a_networks_sentences_are_answered_as_if_alone_and_at_the_networks_price(attention, ensemble, options):
    torch.manual_seed(1)
    shape = ModelOptions(embedding_size=8, hidden_size=8, attention=attention, init_range=1.0)
    model = build_model(shape, 12, 12).eval()
    stepper = Ensemble([model, model]) if ensemble else model
    sources = [[4, 5, EOS], [6, EOS], [7, 8, 9, 10, EOS], [11, EOS], [4, 4, 4, EOS], [9, 8, 7, 6, 5, EOS], [10, EOS]]
    asked = {name: options[name] for name in ("prefixes", "constraints", "sampling") if name in options}
    asked |= {"numbers": list(range(7))}
    plain = {name: value for name, value in options.items() if name not in asked} | {"max_length": 8}
    together = decoded(stepper, sources, with_alignment=True, **plain, **asked)
    for number, source in enumerate(sources):
        (alone,) = decoded(stepper, [source], with_alignment=True, **plain, **reorder(asked, [number]))
        assert_same(together[number], alone)
        for one, other in zip(together[number], alone, strict=True):
            torch.testing.assert_close(one.alignment, other.alignment)
            assert one.log_prob == pytest.approx(price(model, source, one.tokens), abs=1e-4)


@torch.no_grad()
def price(model, source: list[int], tokens: tuple[int, ...]) -> float:
    """What the network says of a whole translation, read at once."""
    target = torch.tensor([BOS, *tokens]), torch.tensor([*tokens, EOS])
    readout = model(*batch([source]), target[0][None])
    return float(model.output(readout)[0].log_softmax(1).gather(1, target[1][:, None]).sum())


# --- refusals


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prefixes": [[A]]}, "1 prefixes for 2 sentences: give one list for each, empty for none"),
        ({"constraints": [[[A]]]}, "1 constraints for 2 sentences"),
        ({"prefixes": [[], [A, EOS]]}, r"sentence 1 has EOS \(3\) in its prefix or constraints"),
        ({"constraints": [[[EOS]], []]}, r"sentence 0 has EOS \(3\)"),
        ({"constraints": [[], [[A], []]]}, "sentence 1 has an empty constraint: leave it out"),
        ({"constraints": [[[A]], []], "sampling": SamplingOptions()}, "constraints need a plain beam search"),
        ({"constraints": [[[A]], []], "diverse_groups": 5}, "constraints need a plain beam search"),
    ],
)
def test_what_cannot_be_asked_for(asked, message):
    with pytest.raises(ValueError, match=message):
        decoded(constant(A=1.0), [[A], [B]], **asked)


def test_nan_is_not_hidden_from_greedy_search():
    def table(source, prefix):
        return [math.nan] * 6 if len(prefix) == 2 else [0.2, 0.2, 0.1, 0.1, 0.4, 0.0]

    with pytest.raises(ValueError, match="the model gave NaN log-probabilities"):
        decoded(TableModel(table), [[A], [B]], beam_size=1, max_length=4)


def test_an_empty_batch():
    nobody = torch.empty(0, 3).long(), torch.empty(0).long()
    for options in (SearchOptions(), SearchOptions(beam_size=1), SearchOptions(coverage_penalty=1, no_repeat_ngram=2)):
        assert decode(model_of(0), *nobody, options, bos=BOS, eos=EOS, banned=BANNED) == []


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_translations_are_priced_as_they_were_found(seed):
    """Sentences of which fewer were found do not disturb the others, nor do those that end sooner."""
    model, sources = TableModel(at_random(seed)), [[A, EOS], [B, A, B, EOS], [EOS]]
    found = decoded(model, sources, beam_size=4, n_best=4, max_length=4)
    found[1] = found[1][:1]
    said = [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in found]
    prices = decoding.price(model, *batch(sources), said, bos=BOS, eos=EOS)
    for hypotheses, row in zip(found, prices, strict=True):
        assert row == pytest.approx([hypothesis.log_prob for hypothesis in hypotheses], abs=1e-5)


def test_nothing_said_has_no_price():
    assert decoding.price(TableModel(at_random(1)), *batch([[A, EOS]]), [[]], bos=BOS, eos=EOS) == [[]]
