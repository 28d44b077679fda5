"""Steppers of steppers: arithmetic by hand, and nothing changed where nothing should be."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.states import leaving, select
from nmt.steppers import Ensemble, Recording, ShallowFusion
from tests.tables import (
    BOS,
    EOS,
    A,
    B,
    TableModel,
    assert_same,
    at_random,
    at_random_looks,
    batch,
    by_hand,
    constant,
    decoded,
)

SEARCH = {"beam_size": 4, "n_best": 4, "max_length": 5, "coverage_penalty": 0.5, "length_penalty": 1.0}


def model_of(seed: int) -> TableModel:
    return TableModel(at_random(seed), at_random_looks(seed))


def first_step(stepper, *sources):
    return stepper.step(torch.full((len(sources),), BOS), stepper.start(*batch(sources)))


# --- ensembles


@pytest.mark.parametrize("space", ["linear", "log"])
@pytest.mark.parametrize("members", [1, 2, 3])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), sources=st.lists(st.lists(st.integers(A, 9), max_size=4), min_size=1, max_size=3))
def test_an_ensemble_of_a_model_with_itself_is_the_model(space, members, seed, sources):
    together = Ensemble([model_of(seed) for _ in range(members)], space)
    alone = decoded(model_of(seed), sources, with_alignment=True, **SEARCH)
    for found, expected in zip(decoded(together, sources, with_alignment=True, **SEARCH), alone, strict=True):
        assert_same(found, expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.alignment, other.alignment)


def test_means_by_hand():
    one, other = constant(A=0.9, EOS=0.1), constant(A=0.1, B=0.5, EOS=0.4)
    log_probs, _ = first_step(Ensemble([one, other]), [A])
    assert log_probs.exp()[0].tolist() == pytest.approx([0, 0, 0, 0.25, 0.5, 0.25])
    log_probs, _ = first_step(Ensemble([one, other], "log"), [A])
    assert log_probs.exp()[0].tolist() == pytest.approx([0, 0, 0, 0.2, 0.3, 0])  # sqrt(0.1 * 0.4), sqrt(0.9 * 0.1)
    ((best,),) = decoded(Ensemble([one, other]), [[A]], max_length=1)
    assert best.tokens == ()
    assert best.log_prob == pytest.approx(math.log(0.25))


def test_a_mean_of_ones_is_not_above_one():
    log_probs, _ = first_step(Ensemble([constant(A=1.0)] * 3), [A])
    assert log_probs.max() == 0


def test_members_that_look_are_averaged_and_those_that_do_not_are_left_out():
    models = [constant(A=1.0) for _ in range(3)]
    models[0].looks = lambda source, prefix: [0.5, 0.5]
    models[1].looks = lambda source, prefix: [1.0, 0.0]
    blind = Blind(models[2])
    for members, expected in [(models[:2], [0.75, 0.25]), ([blind, *models[:2]], [0.75, 0.25]), ([blind], [])]:
        assert first_step(Ensemble(members), [A, B])[1].alignment[0].tolist() == expected


class Blind:
    """A model without attention."""

    def __init__(self, model: TableModel) -> None:
        self.model = model

    def start(self, source, lengths):
        state = self.model.start(source, lengths)
        return state._replace(alignment=state.alignment[:, :0])

    def step(self, tokens, state):
        log_probs, state = self.model.step(tokens, state)
        return log_probs, state._replace(alignment=state.alignment[:, :0])


def test_the_memory_of_every_member_keeps_a_row_per_sentence():
    recorded = Recording(Ensemble([model_of(0), ShallowFusion(model_of(1), model_of(2), 0.5)]))
    _, state = first_step(recorded, [A], [B, A], [B])
    state = select(state, torch.tensor([2, 2, 1, 1]), leaving([True, False, False], torch.device("cpu")))
    first, fused = state.state.members
    for own in (first, fused.model, fused.language_model):
        assert own.memory.lengths.tolist() == [1, 2]
        assert own.memory.source.tolist() == [[B, 0], [B, A]]
        assert len(own.prefix) == 4
    assert state.memory.tolist() == [[True, False], [True, True]]
    assert state.said.tolist() == [[BOS]] * 4


# --- fusion


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), sources=st.lists(st.lists(st.integers(A, 9), max_size=4), min_size=1, max_size=3))
def test_fusion_with_weight_0_is_none(seed, sources):
    fused = ShallowFusion(model_of(seed), constant(A=1.0), 0.0)
    alone = decoded(model_of(seed), sources, with_alignment=True, **SEARCH)
    for found, expected in zip(decoded(fused, sources, with_alignment=True, **SEARCH), alone, strict=True):
        assert_same(found, expected)


def test_a_language_model_has_its_say():
    model = by_hand({(): {A: 0.5, B: 0.4, EOS: 0.1}, (A,): {EOS: 1.0}, (B,): {EOS: 1.0}})
    language_model = by_hand({(): {A: 0.2, B: 0.8}, (A,): {EOS: 1.0}, (B,): {EOS: 1.0}})
    ((alone,),) = decoded(model, [[A]])
    assert alone.tokens == (A,)
    ((fused,),) = decoded(ShallowFusion(model, language_model, 0.5), [[A]])
    assert fused.tokens == (B,)
    assert fused.score == fused.log_prob == pytest.approx(math.log(0.4) + 0.5 * math.log(0.8))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), weight=st.sampled_from([0.3, 1.0, 4.0]))
def test_stopping_by_the_bound_misses_nothing_though_fusion_is_no_distribution(seed, weight):
    fused = ShallowFusion(model_of(seed), model_of(seed + 1), weight)
    options = {"beam_size": 100, "max_length": 3, "length_penalty": 1.0, "early_stopping": False}
    (all_of_it,) = decoded(fused, [[A, B]], n_best=100, **options)
    (best,) = decoded(fused, [[A, B]], n_best=1, **options)
    assert len(all_of_it) == 1 + 3 + 9 + 27
    assert_same(best, all_of_it[:1])


# --- refusals


def test_models_that_do_not_belong_together():
    small, large = constant(A=1.0), model_of(0)
    with pytest.raises(
        ValueError, match="the models of an ensemble must share the target vocabulary, not have 6 and 7"
    ):
        first_step(Ensemble([small, large]), [A])
    with pytest.raises(ValueError, match="the model and its language model must share the target vocabulary"):
        first_step(ShallowFusion(small, large, 0.5), [A])
    with pytest.raises(ValueError, match="an ensemble needs at least one model"):
        Ensemble([])
    with pytest.raises(ValueError, match="averages in linear or log space, not 'cubic'"):
        Ensemble([small], "cubic")


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_weights_that_would_break_the_bound(weight):
    with pytest.raises(ValueError, match="the weight of a language model is at least 0 and finite"):
        ShallowFusion(constant(A=1.0), constant(A=1.0), weight)
