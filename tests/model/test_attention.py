"""Attention with a pencil: scores that are logarithms make weights that are fractions."""

import math

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from nmt.model.attention import (
    AdditiveAttention,
    Attention,
    DotAttention,
    FixedContext,
    GeneralAttention,
    NoContext,
)

LOG2, LOG3 = math.log(2), math.log(3)
KINDS = pytest.mark.parametrize("kind", [DotAttention, GeneralAttention, AdditiveAttention])


def look(attention: Attention, query: list[float], *words: list[float]) -> tuple[Tensor, Tensor]:
    """Context (C,) and weights (S,) of one query to one sentence of these words."""
    outputs = tensor([words])
    memory = attention.prepare(outputs, torch.ones(1, len(words)).bool(), torch.zeros(1, 0))
    context, weights = attention(tensor([[query]]), memory)
    return context[0, 0], weights[0, 0]


def test_dot_by_hand():
    # q.m / sqrt(4) = log 3 and 0: e to them is 3 and 1
    context, weights = look(DotAttention(4, 4), [1.0, 0, 0, 0], [2 * LOG3, 4.0, 0, 0], [0, 0, 8.0, 0])
    assert_close(weights, tensor([3 / 4, 1 / 4]))
    assert_close(context, tensor([3 / 2 * LOG3, 3.0, 2.0, 0.0]))  # of the words as they are, not as scaled


def test_general_by_hand():
    attention = GeneralAttention(2, 3)
    attention.key.weight.data = tensor([[1.0, 0, 0], [0, 0, 1.0]])
    # q.(W m) = log 3, 0 and 10 * log(2) / 10
    context, weights = look(attention, [1.0, 10.0], [LOG3, 6.0, 0], [0, 12.0, 0], [0, 0, LOG2 / 10])
    assert_close(weights, tensor([3 / 6, 1 / 6, 2 / 6]))
    assert_close(context, tensor([LOG3 / 2, 5.0, LOG2 / 30]))


def test_additive_by_hand():
    attention = AdditiveAttention(2, 2)
    attention.query.weight.data = tensor([[0, LOG3], [-LOG2, 0]])  # W (1, 2) = (2 log 3, -log 2)
    attention.key.weight.data = tensor([[-LOG3 / 2, -LOG3], [LOG2, 2 * LOG2]])
    attention.key.bias.data = tensor([-LOG3, 0])
    attention.energy.weight.data = tensor([[2 * LOG3, 5 / 3 * LOG2]])
    # tanh of (log(3) / 2, 0) and (0, log 2) is (1/2, 0) and (0, 3/5): scores log 3 and log 2
    context, weights = look(attention, [1.0, 2.0], [1.0, 0], [0, 1.0])
    assert_close(weights, tensor([3 / 5, 2 / 5]))
    assert_close(context, tensor([3 / 5, 2 / 5]))


@KINDS
def test_padding_has_no_weight_whatever_stands_there(kind):
    torch.manual_seed(1)
    attention, query, words = kind(4, 4), torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    mask = tensor([[True] * 5, [True, True, False, False, False]])
    garbage = torch.where(mask[:, :, None], words, 1000.0)
    context, weights = attention(query, attention.prepare(garbage, mask, words[:, 0]))
    assert (weights[1, :, 2:] == 0).all()
    assert_close(weights.sum(dim=2), torch.ones(2, 3))
    alone = attention.prepare(words[1:, :2], mask[1:, :2], words[1:, 0])
    expected_context, expected = attention(query[1:], alone)
    assert_close(weights[1:, :, :2], expected)
    assert_close(context[1:], expected_context)


@KINDS
def test_each_query_reads_its_own_sentence_and_for_itself(kind):
    torch.manual_seed(1)
    attention, query, words = kind(4, 4), torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    mask = torch.ones(2, 5).bool()
    context, weights = attention(query, attention.prepare(words, mask, words[:, 0]))
    for sentence in range(2):
        memory = attention.prepare(words[sentence, None], mask[:1], words[:1, 0])
        for number in range(3):
            one, one_weights = attention(query[sentence, None, number, None], memory)
            assert_close(context[sentence, number], one[0, 0])
            assert_close(weights[sentence, number], one_weights[0, 0])
            assert_close(context[sentence, number], one_weights[0, 0] @ words[sentence])


def test_weights_are_float32_under_bf16():
    attention = GeneralAttention(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        memory = attention.prepare(torch.randn(1, 9, 4).bfloat16(), torch.ones(1, 9).bool(), torch.zeros(1, 0))
        _, weights = attention(torch.randn(1, 1, 4).bfloat16(), memory)
    assert_close(weights.sum(), tensor(1.0))  # the type is compared too


def test_attention_gives_the_first_layer_nothing():
    attention = GeneralAttention(2, 3)
    memory = attention.prepare(torch.randn(2, 4, 3), torch.ones(2, 4).bool(), torch.zeros(2, 0))
    early = attention.early(memory, 5)
    assert (early.shape, attention.early_size, attention.size) == ((2, 5, 0), 0, 3)


def test_dot_needs_equal_widths():
    with pytest.raises(ValueError, match=r"as wide as the decoder, not 6 and 4: .* model\.attention general"):
        DotAttention(4, 6)


# ---- no attention


def test_no_context_is_a_context_of_width_zero():
    nothing = NoContext()
    memory = nothing.prepare(torch.randn(2, 4, 3), torch.ones(2, 4).bool(), torch.randn(2, 6))
    context, weights = nothing(torch.randn(2, 5, 3), memory)
    assert nothing.size == nothing.early_size == 0
    for tensor_ in (context, weights, nothing.early(memory, 5)):
        assert tensor_.shape == (2, 5, 0)
    assert sum(part.numel() for part in memory) == 0


def test_fixed_context_is_the_same_summary_for_every_query():
    fixed = FixedContext(2, 1)
    fixed.summary.weight.data = tensor([[1.0, 10.0]])
    fixed.summary.bias.data = tensor([LOG2])
    vector = tensor([[LOG3 / 2 - LOG2, 0.0], [0.0, 0.0]])
    memory = fixed.prepare(torch.randn(2, 4, 3), torch.ones(2, 4).bool(), vector)
    context, weights = fixed(torch.randn(2, 3, 3), memory)
    assert_close(context, tensor([[[1 / 2]] * 3, [[3 / 5]] * 3]))  # tanh(log(3) / 2), tanh(log 2)
    assert_close(fixed.early(memory, 3), context)
    assert fixed.size == fixed.early_size == 1
    assert weights.shape == (2, 3, 0)
