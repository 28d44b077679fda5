"""A model laid out for decoding says what the model says, whatever it is made of."""

import math
from functools import partial
from weakref import ref

import pytest
import torch
from torch.testing import assert_close

from nmt import native
from nmt.decoding import decode, price
from nmt.model.cells import LSTMCell
from nmt.model.graphed import GraphedModel
from nmt.model.laid import LaidModel, lay_out
from nmt.model.laid_cells import Words, is_bounded, together, within_bounds
from nmt.model.laid_encoder import LaidEncoder, WholeEncoder, reading_places
from nmt.model.narrowed import NarrowedModel
from nmt.model.products import has_vnni
from nmt.model.seq2seq import ModelOptions, build_model
from nmt.search import SearchOptions, beam_search
from nmt.states import Picked, leaving, select

SOURCE, LENGTHS = (
    torch.randint(4, 20, (5, 7), generator=torch.Generator().manual_seed(1)),
    torch.tensor([7, 6, 6, 3, 1]),
)

MODELS = {
    "attention": {},
    "whole panels": {"hidden_size": 16, "embedding_size": 64},
    "whole panels, maxout": {"hidden_size": 16, "embedding_size": 32, "readout": "maxout"},
    "whole panels, gru": {"hidden_size": 64, "embedding_size": 64, "cell": "gru"},
    "whole panels, no context": {
        "hidden_size": 16,
        "embedding_size": 16,
        "attention": "none",
        "readout": "none",
        "bidirectional": False,
        "decoder_layers": 3,
    },
    "whole panels, three": {"hidden_size": 32, "residual": True, "decoder_layers": 3, "attention": "additive"},
    "additive": {"attention": "additive"},
    "dot": {"attention": "dot"},
    "one layer": {"decoder_layers": 1},
    "residuals": {"residual": True, "encoder_layers": 3, "decoder_layers": 3},
    "maxout": {"readout": "maxout"},
    "initial state": {"attention": "none", "readout": "none", "bidirectional": False, "reverse_source": True},
    "every step": {"attention": "none", "context": "every-step", "context_size": 6},
    "Cho": {"attention": "none", "context": "every-step", "cell": "gru", "reset": "before", "readout": "maxout"},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "lecture": {"cell": "lecture-lstm"},
    "layer norm": {"cell": "layer-norm-lstm"},
    "peepholes": {"peepholes": True},
    "projections": {"projection": 4, "extra_projection": 2, "residual": True},
}
several_or_one = pytest.mark.parametrize("shared", [True, False])  # hypotheses that read a sentence


def model_of(**options):
    """A small model of these options, no weight left at 0 or 1."""
    torch.manual_seed(1)
    sizes = {"embedding_size": 8, "hidden_size": 8, "tie_embeddings": "none"}
    model = build_model(ModelOptions(**{**sizes, **options}), 20, 20).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def spoken(stepper, words, source=SOURCE, lengths=LENGTHS):
    """What the stepper says after each of the words (T, B), and where it looks: (T, B, V), (T, B, S)."""
    with torch.inference_mode():
        state, said = stepper.start(source, lengths), []
        for tokens in words:
            log_probs, state = stepper.step(tokens, state)
            said.append((log_probs, state.alignment))
    return [torch.stack(parts) for parts in zip(*said, strict=True)]


@pytest.fixture(params=["our own kernels", "torch's"])
def kernels(request, monkeypatch):
    """With our own kernels, where there are any, or without."""
    if request.param == "torch's":
        monkeypatch.setattr("nmt.native.library", lambda: None)


@pytest.mark.usefixtures("kernels")
@several_or_one
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_it_says_what_the_model_says(options, shared):
    model = model_of(**options)
    laid, words = lay_out(model, "fp32", shared), torch.randint(0, 20, (4, 5))
    assert isinstance(laid, LaidModel)
    for left, right in zip(spoken(laid, words), spoken(model, words), strict=True):
        assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("kernels")
@several_or_one
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.03), ("int8", 0.015)])
def test_rounded_it_says_nearly_the_same(options, precision, error, shared):
    model, words = model_of(**options), torch.randint(0, 20, (2, 5))
    rough, exact = spoken(lay_out(model, precision, shared), words)[0], spoken(model, words)[0]
    assert 0 < (rough - exact).norm() / exact.norm() < error


@pytest.mark.usefixtures("kernels")
@several_or_one
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_in_int8_no_sentence_depends_on_the_others(options, shared):
    laid, words = lay_out(model_of(**options), "int8", shared), torch.randint(0, 20, (3, 5))
    together, _ = spoken(laid, words)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = spoken(laid, words[:, row : row + 1], SOURCE[row : row + 1, :length], LENGTHS[row : row + 1])
        assert_close(alone[:, 0], together[:, row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"transition": 2}, {"zoneout": 0.1}])
def test_what_is_more_than_a_cell_stays_as_it_is(options):
    model = model_of(**options)
    assert lay_out(model, "int8") is model


def test_words_are_looked_up_once_that_pays():
    """A few words at once count as sixteen, for their product takes as long."""
    embedding, weight, bias = torch.randn(32, 3), torch.randn(4, 3), torch.randn(4)
    words, tokens = Words(embedding, weight, bias, "fp32"), torch.tensor([5, 0, 5])
    expected = embedding[tokens] @ weight.t() + bias
    assert_close(words(tokens), expected)
    assert not len(words.table)  # as much as 16 of 32
    assert_close(words(tokens), expected)
    assert_close(words.table, embedding @ weight.t() + bias)
    words.direct = None  # no longer needed
    assert_close(words(tokens), expected)


def test_one_thread_makes_the_table_and_the_others_go_on_without(monkeypatch):
    embedding, weight, made = torch.randn(4, 3), torch.randn(2, 3), []
    words = Words(embedding, weight, None, "fp32")

    def product(x, weight):
        made.append(len(x))
        assert_close(words(torch.tensor([1, 2])), embedding[1:3] @ weight.t())  # another thread, meanwhile
        return x @ weight.t()

    monkeypatch.setattr("nmt.model.laid_cells.product", product)
    words(torch.tensor([0, 1, 2, 3]))
    assert made == [4]
    assert_close(words.table, embedding @ weight.t())


def test_a_table_that_is_too_large_is_never_made(monkeypatch):
    monkeypatch.setattr("nmt.model.laid_cells.TABLE", 95)  # 6 rows of 4 numbers of 4 bytes are 96
    words = Words(torch.randn(6, 3), torch.randn(4, 3), None, "fp32")
    for _ in range(4):
        words(torch.tensor([1, 2, 3]))
    assert not len(words.table)


# ---- narrowed: the model given that only some words are used ----

IDS = torch.tensor([0, 1, 2, 3, 5, 8, 9, 13, 19])
ALLOWED = torch.rand(5, 9, generator=torch.Generator().manual_seed(1)) < 0.5
ALLOWED[:, :4] = True

every_precision = pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])


@every_precision
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_narrowed_to_all_words_it_is_the_model(options, precision):
    laid, words = lay_out(model_of(**options), precision), torch.randint(0, 20, (3, 5))
    narrowed = NarrowedModel(laid, torch.arange(20), torch.ones(5, 20, dtype=torch.bool))
    for left, right in zip(spoken(narrowed, words), spoken(laid, words), strict=True):
        assert_close(left, right, rtol=1e-5, atol=1e-5)


@every_precision
def test_narrowed_to_some_words_it_is_the_model_renormalised(precision):
    laid, words = lay_out(model_of(), precision), torch.randint(0, 9, (3, 5))
    whole, looks = spoken(laid, IDS[words])
    expected = whole[:, :, IDS].masked_fill(~ALLOWED, -math.inf)
    expected -= expected.logsumexp(dim=2, keepdim=True)
    found = spoken(NarrowedModel(laid, IDS, ALLOWED), words)
    assert_close(found[0], expected, rtol=1e-5, atol=1e-5)
    assert_close(found[1], looks)


@every_precision
def test_narrowed_no_sentence_depends_on_the_others(precision):
    """Nor on the words that they alone may use, while some are done before others."""
    laid = lay_out(model_of(), precision)
    search = SearchOptions(beam_size=3, n_best=2, max_length=6)

    def found(rows, ids, allowed):
        stepper = NarrowedModel(laid, ids, allowed)
        width = int(LENGTHS[rows].max())
        return [
            [(ids[list(one.tokens)].tolist(), pytest.approx(one.score, abs=1e-4)) for one in hypotheses]
            for hypotheses in beam_search(stepper, SOURCE[rows, :width], LENGTHS[rows], search, bos=2, eos=3)
        ]

    together = found(slice(None), IDS, ALLOWED)
    alone = [found(slice(row, row + 1), IDS[own], own[own][None])[0] for row, own in enumerate(ALLOWED)]
    assert together == alone
    for own, hypotheses in zip(ALLOWED, together, strict=True):
        assert {token for tokens, _ in hypotheses for token in tokens} <= set(IDS[own].tolist())


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_what_is_taken_to_be_bounded_is(options):
    model = model_of(**options)
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        for cell in layer.cells:
            state = cell.zero_state(6)
            for _ in range(4):
                for parameter in cell.parameters():
                    parameter.data *= 2
                state = cell(10 * torch.randn(6, cell.input_size), state)
            assert bool(state.hidden.abs().max() <= 1) is is_bounded(cell), "the output of an LSTM projected is not"


def test_what_residuals_add_up_is_not_bounded():
    one = [LSTMCell(4, 4)] * 3
    assert within_bounds(one, residual=False) == [True, True, True]
    assert within_bounds(one, residual=True) == [True, False, False]
    assert within_bounds([LSTMCell(4, 4, projection=2), *one], residual=False) == [False, True, True, True]


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_with_room_to_spare_a_step_is_the_same(options):
    """Two hypotheses of each of five sentences, then of three of them; and after that of five shorter ones, in the room
    that the first five have left.
    """
    laid = lay_out(model_of(**options), "fp32")
    graphed = GraphedModel(laid, after=0)
    twice, left = torch.arange(5).repeat_interleave(2), leaving([True, False, False, True, False], torch.device("cpu"))
    assert left is not None
    assert left.order == [4, 1, 2]
    kept = torch.tensor([9, 8, 2, 2, 5, 4])
    words = torch.randint(4, 20, (4, 10), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        said = []
        for stepper in (laid, graphed):
            first, state = stepper.step(words[0], select(stepper.start(SOURCE, LENGTHS), twice, None))
            second, state = stepper.step(words[1], state)
            third, state = stepper.step(words[2, :6], select(state, kept, left))
            short = stepper.start(SOURCE[:, :3], LENGTHS.clamp(max=3))
            fourth, short = stepper.step(words[3], select(short, twice, None))
            said.append([first, second, third, fourth])
            said[-1] += [part for one in (state, short) for part in (one.alignment, *one.layers.taken()[-1])]
    for one, other in zip(*said, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_graph_keeps_no_memory_of_a_batch_that_is_over():
    graphed = GraphedModel(lay_out(model_of(), "fp32"), after=0)
    with torch.inference_mode():
        state = graphed.start(SOURCE, LENGTHS)
        _, state = graphed.step(torch.full((5,), 2), state)
    memory = ref(state.memory.source.values)
    assert memory() is not None
    del state
    assert memory() is None


def test_a_shape_gets_a_graph_when_it_has_come_often_and_the_oldest_gives_way(monkeypatch):
    monkeypatch.setattr("nmt.model.graphed.MOST", 2)
    graphed, made = GraphedModel(lay_out(model_of(), "fp32"), after=2), []
    with torch.inference_mode():
        for sentences in (1, 1, 1, 2, 2, 2, 3, 4, 5, 5, 5, 1, 1, 1):  # 3 has room in what 4 has
            state = graphed.start(SOURCE[:sentences], LENGTHS[:sentences])
            graphed.step(torch.full((sentences,), 2), state)
            made.append([shape.sentences for shape in graphed.graphs])
    assert made == [[], [], [1], [1], [1], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [2, 8], [2, 8], [2, 8], [8, 1]]


@pytest.mark.parametrize(
    ("options", "precision", "kind"),
    [
        ({}, "fp32", WholeEncoder),
        ({}, "int8", LaidEncoder),
        ({}, "bf16", LaidEncoder),
        ({"cell": "gru"}, "fp32", LaidEncoder),
        ({"peepholes": True}, "int8", LaidEncoder),
    ],
)
def test_the_encoder_is_the_models_where_torch_has_its_kernel(options, precision, kind):
    assert type(lay_out(model_of(**options), precision).encoder) is kind


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"encoder_layers": 1}, {"encoder_layers": 3, "residual": True}, {"reverse_source": True}]
)
def test_an_encoder_laid_out_encodes_as_the_model_does(options, bidirectional):
    """Lengths in any order, with room to spare: outputs on words, and the states at the last of each sentence."""
    model = model_of(bidirectional=bidirectional, **options)
    source, lengths = torch.cat([SOURCE, torch.zeros_like(SOURCE)], dim=1)[[2, 0, 4, 1, 3]], LENGTHS[[2, 0, 4, 1, 3]]
    with torch.inference_mode():
        laid = LaidEncoder(model.encoder, model.source_embedding.weight, "fp32")
        for _ in range(2):  # without a table of words and with
            (outputs, mask, final), expected = (
                laid(source, lengths),
                model.encoder(model.source_embedding(source), lengths),
            )
            words = mask[:, :, None]
            assert_close(outputs * words, expected.outputs * words)
            assert_close((mask, final), (expected.mask, expected.final))


def test_gates_that_a_sigmoid_squashes_stand_together():
    assert together(torch.arange(8)).tolist() == [0, 1, 2, 3, 6, 7, 4, 5]


def test_where_each_direction_stands_at_each_step():
    places = reading_places(torch.tensor([3, 2, 1]), 4, 2)
    assert places[:, :, 0].tolist() == [[0, 1, 2, 3]] * 3
    assert places[:, :, 1].tolist() == [[2, 1, 0, 3], [1, 0, 2, 3], [0, 1, 2, 3]]
    assert reading_places(torch.tensor([3]), 4, 1)[..., 0].tolist() == [[0, 1, 2, 3]]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("int8", 0.015)])
def test_several_hypotheses_may_read_what_is_laid_out_for_one(precision, error):
    """And after sentences have left, the others are read on."""
    model = model_of()
    twice, words = torch.arange(5).repeat_interleave(2), torch.randint(4, 20, (2, 10))
    left = leaving([True, False, False, True, False], torch.device("cpu"))
    with torch.inference_mode():
        said = []
        for stepper in (lay_out(model, precision, shared=False), model):
            first, state = stepper.step(words[0], select(stepper.start(SOURCE, LENGTHS), twice, None))
            second, _ = stepper.step(words[1, :6], select(state, torch.tensor([9, 8, 2, 3, 4, 5]), left))
            said.append(torch.cat([first, second]))
    one, other = said
    assert (one - other).norm() / other.norm() < error


@pytest.mark.parametrize("kind", ["as it is", "laid", "laid for one", "narrowed", "graphed"])
def test_a_search_leaves_source_and_stepper_as_they_were(kind):
    """It moves rows of what `start` gives it, of which no one else may know."""
    model = model_of()
    stepper = lay_out(model, "fp32", shared=kind != "laid for one")
    assert isinstance(stepper, LaidModel)
    stepper = {
        "as it is": model,
        "narrowed": NarrowedModel(stepper, IDS, ALLOWED),
        "graphed": GraphedModel(stepper, after=0),
    }.get(kind, stepper)
    source, lengths = SOURCE.clone(), LENGTHS.clone()
    search = partial(beam_search, stepper, source, lengths, SearchOptions(beam_size=2), bos=2, eos=3)
    first = [[hypothesis.tokens for hypothesis in sentence] for sentence in search()]
    assert len({len(sentence[0]) for sentence in first}) > 1  # they leave one after the other
    assert [[hypothesis.tokens for hypothesis in sentence] for sentence in search()] == first
    assert source.equal(SOURCE)
    assert lengths.equal(LENGTHS)


@pytest.mark.skipif(not has_vnni(), reason="oneDNN's product in int8 is for CPUs with VNNI")
def test_for_many_sentences_the_encoder_is_the_same(monkeypatch):
    """With oneDNN's product for two rows and more, as for 64 sentences of a real model."""
    monkeypatch.setattr("nmt.native.library", lambda: None)
    monkeypatch.setattr("nmt.model.products.WIDE", 1)
    monkeypatch.setattr("nmt.model.products.MANY", 2)
    model = model_of()
    laid = LaidEncoder(model.encoder, model.source_embedding.weight.detach(), "int8")
    with torch.inference_mode():
        batch = laid(SOURCE, LENGTHS).outputs
        for row, length in enumerate(LENGTHS.tolist()):
            alone = laid(SOURCE[row : row + 1, :length], LENGTHS[row : row + 1]).outputs
            assert_close(alone[0], batch[row, :length], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("kernels")
@several_or_one
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_rows_that_go_on_are_read_where_they_lie(options, shared):
    laid = lay_out(model_of(**options), "int8", shared)
    left = leaving([True, False, False, True, False], torch.device("cpu"))
    assert left is not None
    words, rows, said = torch.randint(4, 20, (2, 5)), torch.tensor(left.order), []
    spoken(laid, torch.randint(4, 20, (4, 5)))  # so that there are tables
    with torch.inference_mode():
        for taken in (False, True):
            _, state = laid.step(words[0], laid.start(SOURCE, LENGTHS))
            state = select(state, rows, left)
            assert state.layers.rows is rows
            if taken:
                state = state._replace(layers=Picked(state.layers.taken()))
            said.append(laid.step(words[1, :3], state)[0])
    assert said[0].equal(said[1])


class Whole:
    """A stepper that offers nothing."""

    def __init__(self, model):
        self.start, self.step = model.start, model.step


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("unknown", [1, None])
@pytest.mark.parametrize("size", [1, 5, 16, 17])  # of 20 words PAD, BOS and maybe UNK are silent, and EOS stands apart
def test_what_is_offered_is_what_a_search_of_all_words_finds(monkeypatch, size, unknown):
    laid, asked = lay_out(model_of(decoder_layers=1), "int8", shared=size > 1), []
    own = LaidModel.offer

    def counted(self, *arguments):
        asked.append(1)
        return own(self, *arguments)

    monkeypatch.setattr(LaidModel, "offer", counted)
    options = SearchOptions(beam_size=size, n_best=size, max_length=4)
    found, expected = (
        decode(stepper, SOURCE, LENGTHS, options, bos=2, eos=3, banned=(0, 2), unknown=unknown)
        for stepper in (laid, Whole(laid))
    )
    assert bool(asked) == (native.library() is not None and size < (17 if unknown else 18))
    for one, other in zip(found, expected, strict=True):
        assert [hypothesis.tokens for hypothesis in one] == [hypothesis.tokens for hypothesis in other]
        assert [hypothesis.log_prob for hypothesis in one] == pytest.approx(
            [hypothesis.log_prob for hypothesis in other], abs=1e-5
        )


@pytest.mark.usefixtures("kernels")
def test_groups_of_one_hypothesis_are_read_in_their_order():
    """Their words lie two apart in what a step has found."""
    model = model_of(hidden_size=16)
    options = SearchOptions(beam_size=3, diverse_groups=3, n_best=3, max_length=5)
    found = [decode(stepper, SOURCE, LENGTHS, options, bos=2, eos=3) for stepper in (lay_out(model, "int8"), model)]
    for one, other in zip(*found, strict=True):
        assert [hypothesis.score for hypothesis in one] == pytest.approx(
            [hypothesis.score for hypothesis in other], abs=0.1
        )


@pytest.mark.usefixtures("kernels")
def test_prices_are_those_of_the_model():
    model = model_of(hidden_size=16)
    laid, said = lay_out(model, "int8"), [[(5, 6, 7), (8,)]] * 5
    words = torch.randint(0, 20, (8, 5))
    spoken(laid, words)  # so that there is a table
    one, other = (price(stepper, SOURCE, LENGTHS, said, bos=2, eos=3) for stepper in (laid, model))
    assert_close(torch.tensor(one), torch.tensor(other), rtol=0.02, atol=0)
