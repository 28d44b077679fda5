"""How far attention lies from the diagonal, by hand, and what training makes of it."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from nmt.batches import collate
from nmt.guidance import off_diagonal
from nmt.model.seq2seq import ModelOptions, build_model
from nmt.training import TrainingOptions, TranslationModule

HALF = 1 - math.exp(-0.5 * 0.5 / (2 * 0.2 * 0.2))  # half a sentence away


def test_by_hand():
    weights = tensor([[[1.0, 0, 0, 0], [0, 0, 1, 0]], [[0, 1, 0, 0], [0.25, 0.75, 0, 0]]])  # (2, 2, 4)
    found = off_diagonal(weights, source_lengths=tensor([4, 2]), target_lengths=tensor([2, 2]))
    assert_close(found, tensor([[0, 0], [HALF, 0.25 * HALF]]))  # 0/2 = 0/4 and 1/2 = 2/4; 0/2 to 1/2; 1/2 to 0/2


def test_a_mirrored_attention_costs_more_than_an_even_one_and_that_more_than_a_straight_one():
    lengths, straight = tensor([9]), torch.eye(9)[None]
    costs = [
        float(off_diagonal(one, lengths, lengths).sum())
        for one in (straight, torch.ones(1, 9, 9) / 9, straight.flip(2))
    ]
    assert costs[0] == 0
    assert costs[1] < costs[2] - 0.5


class At(TranslationModule):
    """At an update that a test chooses."""

    global_step = 0


def module_of(attention="general", **options) -> At:
    torch.manual_seed(1)
    model = build_model(ModelOptions(embedding_size=8, hidden_size=8, dropout=0.0, attention=attention), 12, 12)
    return At(model, TrainingOptions(**options), None, [])


@pytest.mark.parametrize("truncate", [0, 2])
def test_training_pays_for_it_ever_less_and_validation_never(truncate):
    batch = collate([([5, 6, 7, 8, 9], [6, 7, 8]), ([9, 8], [5, 5, 5, 9]), ([7], [4])])
    plain, guided = module_of(guide_updates=0, truncate=truncate), module_of(guide_updates=4, truncate=truncate)
    without, words = plain._loss(batch, 0.1)
    model = plain.model  # of the same weights
    state = model.start(batch.source, batch.source_lengths)
    hidden, _ = model.decoder.layers[0](model.target_embedding(batch.target_in), state.layers[0])
    _, weights = model.decoder.attention(hidden, state.memory)
    real = batch.target_out != 0
    apart = (off_diagonal(weights, batch.source_lengths, real.sum(1)) * real).sum()
    assert words == 11
    assert apart > 0.5
    for update, share in ((0, 1.0), (1, 0.75), (3, 0.25), (4, 0.0), (9, 0.0)):
        guided.global_step = update
        assert_close(guided._loss(batch, 0.1)[0], without + share * apart)
    guided.global_step = 0
    guided.eval()
    assert_close(guided._loss(batch, 0.1)[0], without)


def test_without_attention_there_is_nothing_to_guide():
    batch = collate([([5, 6], [6, 7])])
    assert_close(*(module_of("none", guide_updates=updates)._loss(batch, 0.1)[0] for updates in (0, 9)))
