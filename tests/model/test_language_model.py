"""The recurrent language model: one page of arithmetic, and the state that makes many readings one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from nmt.model.language_model import build_language_model
from nmt.model.seq2seq import ModelOptions
from nmt.search import SearchOptions, beam_search
from nmt.states import select

BOS, EOS = 2, 3
CELLS = [
    {"cell": "rnn"},
    {"cell": "lstm"},
    {"cell": "lstm", "peepholes": True, "projection": 4},
    {"cell": "lecture-lstm"},
    {"cell": "layer-norm-lstm"},
    {"cell": "gru", "reset": "before"},
    {"cell": "gru", "transition": 2},
]


def build(vocabulary: int = 9, **options):
    torch.manual_seed(3)
    settings = {"embedding_size": 6, "hidden_size": 6, "decoder_layers": 2, "dropout": 0.0, "init_range": 0.8}
    return build_language_model(ModelOptions(**settings | options), vocabulary).eval()


def test_two_words_by_hand():
    """One tanh unit that adds up what it reads: e(2) = 0.5, e(4) = -1; h' = tanh(e + 2h); logits of 5 pieces h * n."""
    options = {"cell": "rnn", "embedding_size": 1, "hidden_size": 1, "decoder_layers": 1, "readout": "none"}
    options["bidirectional"] = False
    model = build(5, **options, tie_embeddings="none")
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    [layer] = model.layers
    layer.cells[0].input_weight.data.fill_(1.0)
    layer.cells[0].recurrent_weight.data.fill_(2.0)
    model.embedding.weight.data[[2, 4], 0] = tensor([0.5, -1.0])
    model.output.weight.data[:, 0] = torch.arange(5.0)
    first = math.tanh(0.5)
    second = math.tanh(-1 + 2 * first)
    state = model.start(tensor([[7, 7, 7]]), tensor([3]))
    for token, hidden in ((2, first), (4, second)):
        log_probs, state = model.step(tensor([token]), state)
        total = math.log(sum(math.exp(hidden * n) for n in range(5)))
        assert_close(log_probs, tensor([[hidden * n - total for n in range(5)]]))


@pytest.mark.parametrize("options", [*CELLS, {"residual": True}, {"readout": "maxout"}], ids=str)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_stretches_with_the_state_carried_are_one_long_reading(options, data):
    model = build(**options)
    rows, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    tokens = torch.randint(0, 9, (rows, steps), generator=torch.Generator().manual_seed(steps))
    begin = model.start(tokens, tokens)
    whole, end = model(tokens, begin)
    state, readouts, at = begin, [], 0
    while at < steps:
        length = data.draw(st.integers(1, steps - at))
        readout, state = model(tokens[:, at : at + length], state)
        readouts.append(readout)
        at += length
    assert_close(torch.cat(readouts, dim=1), whole)
    assert_close(state, end)


@pytest.mark.parametrize("options", CELLS, ids=str)
def test_step_by_step_is_the_whole_at_once(options):
    model = build(**options)
    tokens = tensor([[2, 5, 8, 4], [2, 7, 7, 6]])
    readout, _ = model(tokens, model.start(tokens, tokens))
    expected = model.output(readout).log_softmax(2)
    state = model.start(tokens, tokens)
    for place in range(4):
        log_probs, state = model.step(tokens[:, place], state)
        assert_close(log_probs, expected[:, place])
        assert_close(log_probs.exp().sum(1), torch.ones(2))


def test_no_error_goes_back_through_a_detached_state():
    model = build()
    tokens = tensor([[2, 5]])
    _, state = model(tokens, model.start(tokens, tokens))
    assert all(part.requires_grad for layer in state.layers for part in layer)
    kept = state.detach()
    assert not any(part.requires_grad for layer in kept.layers for part in layer)
    assert_close(kept, state, check_stride=False)


def test_it_is_a_stepper_that_looks_nowhere():
    model = build()
    source = tensor([[4, 5, EOS], [6, EOS, 0]])
    state = model.start(source, tensor([3, 2]))
    assert state.alignment.shape == (2, 0)
    assert not any(part.any() for layer in state.layers for part in layer)
    twice = select(state, tensor([0, 0, 1, 1]), tensor([0, 1]))
    assert all(part.size(0) == 4 for layer in twice.layers for part in layer)
    options = SearchOptions(beam_size=3, max_length=4)
    found = beam_search(model, source, tensor([3, 2]), options, bos=BOS, eos=EOS, banned=(0, 1, 2))
    assert found[0][0].tokens == found[1][0].tokens  # whatever the source


@pytest.mark.parametrize(("tied", "count"), [("target", 1), ("none", 2)])
def test_the_output_may_share_the_embedding(tied, count):
    model = build(tie_embeddings=tied)
    assert (model.output.weight is model.embedding.weight) == (count == 1)
    assert sum(parameter.shape == (9, 6) for parameter in model.parameters()) == count
