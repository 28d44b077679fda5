"""The whole network: one step of search is one step of training, and no sentence sees its neighbours."""

import pytest
import torch
from torch import Tensor, tensor
from torch.nn import functional as F
from torch.testing import assert_close

from nmt.model.cells import LSTMCell
from nmt.model.decoder import DecoderState
from nmt.model.recurrent import Layer
from nmt.model.seq2seq import Embedding, ModelOptions, Seq2Seq, build_model

PAD, BOS, EOS, V = 0, 2, 3, 9
SOURCE = tensor([[4, 5, 6, EOS], [7, EOS, PAD, PAD], [8, 4, EOS, PAD]])
LENGTHS = tensor([4, 2, 3])
TARGET = tensor([[BOS, 5, 6], [BOS, 7, 8], [BOS, 4, 4]])

SMALL = {"embedding_size": 4, "hidden_size": 6, "dropout": 0.0}
VARIANTS = {
    "sutskever": {"attention": "none", "bidirectional": False, "reverse_source": True, "tie_embeddings": "none"},
    "cho": {"attention": "none", "context": "every-step", "context_size": 5, "encoder_layers": 1, "decoder_layers": 1},
    "dot": {"attention": "dot", "residual": True, "tie_embeddings": "all"},
    "general": {"attention": "general", "encoder_layers": 1, "decoder_layers": 3},
    "additive": {"attention": "additive", "bridge": "linear", "reverse_source": True},
    "sutskever's output": {"attention": "none", "bidirectional": False, "readout": "none", "embedding_size": 6},
    "rnn": {"cell": "rnn"},
    "peepholes and projections": {"peepholes": True, "projection": 2, "extra_projection": 2, "residual": True},
    "lecture": {"cell": "lecture-lstm", "attention": "dot"},
    "layer norm": {"cell": "layer-norm-lstm"},
    "gru": {"cell": "gru", "bridge": "linear"},
    "cho's gru": {"cell": "gru", "reset": "before", "attention": "none", "context": "every-step", "readout": "maxout"},
    "deep transition": {"cell": "gru", "transition": 3},
}
ALL = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def build(variant: str = "general", **options) -> Seq2Seq:
    return build_model(ModelOptions(**(SMALL | VARIANTS[variant] | options)), V, V)


# ---- the stepper


@ALL
def test_steps_say_what_training_says(variant):
    model = build(variant).eval()
    expected = model.output(model(SOURCE, LENGTHS, TARGET)).log_softmax(dim=2)  # (B, T, V)
    state = model.start(SOURCE, LENGTHS)
    for t in range(TARGET.size(1)):
        log_probs, state = model.step(TARGET[:, t], state)
        assert_close(log_probs, expected[:, t])
        assert_close(log_probs.exp().sum(dim=1), torch.ones(3))


@ALL
def test_hypotheses_of_a_sentence_step_as_if_alone(variant):
    model, count = build(variant).eval(), 2
    state = model.start(SOURCE, LENGTHS)
    layers = tuple(type(layer)(*(part.repeat_interleave(count, 0) for part in layer)) for layer in state.layers)
    state = DecoderState(layers, state.alignment.repeat_interleave(count, 0), state.memory)
    words = tensor([[BOS, 4, 5], [BOS, 6, 7]]).repeat(3, 1)  # two hypotheses per sentence, the same for each
    for t in range(3):
        log_probs, state = model.step(words[:, t], state)
    for number in range(2):
        target = words[number].expand(3, -1)
        expected = model.output(model(SOURCE, LENGTHS, target)).log_softmax(dim=2)
        assert_close(log_probs[number::2], expected[:, -1])


def test_log_probabilities_are_float32_under_bf16():
    model = build().eval()
    with torch.autocast("cpu", torch.bfloat16):
        log_probs, _ = model.step(TARGET[:, 0], model.start(SOURCE, LENGTHS))
    assert_close(log_probs.exp().sum(dim=1), torch.ones(3))  # the type is compared too


def test_two_searches_can_run_at_once():
    model = build().eval()
    one, other = model.start(SOURCE[:1], LENGTHS[:1]), model.start(SOURCE[1:2], LENGTHS[1:2])
    expected, _ = model.step(TARGET[:1, 0], one)
    model.step(TARGET[1:2, 0], other)
    assert torch.equal(model.step(TARGET[:1, 0], one)[0], expected)


# ---- a batch is its sentences


@ALL
def test_a_padded_batch_is_each_sentence_alone(variant):
    model = build(variant)
    readout = model(SOURCE, LENGTHS, TARGET)
    alone = torch.cat(
        [model(SOURCE[i : i + 1, :length], LENGTHS[i : i + 1], TARGET[i : i + 1]) for i, length in enumerate(LENGTHS)]
    )
    assert_close(readout, alone)

    def gradients(readout: Tensor) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(model.output(readout).flatten(0, 1), TARGET.flatten(), reduction="sum")
        return torch.autograd.grad(loss, list(model.parameters()))

    for together, apart in zip(gradients(readout), gradients(alone), strict=True):
        assert_close(together, apart, rtol=1e-4, atol=1e-5)


@ALL
def test_what_stands_in_the_padding_is_never_read(variant):
    model = build(variant, tie_embeddings="none")
    expected = model(SOURCE, LENGTHS, TARGET)
    model.source_embedding.weight.data[PAD] = 50.0
    assert torch.equal(model(SOURCE, LENGTHS, TARGET), expected)


def test_under_bf16_a_padded_batch_is_each_sentence_alone():
    model = build("dot").eval()
    with torch.autocast("cpu", torch.bfloat16):
        readout = model(SOURCE, LENGTHS, TARGET)
        for i, length in enumerate(LENGTHS):
            alone = model(SOURCE[i : i + 1, :length], LENGTHS[i : i + 1], TARGET[i : i + 1])
            assert_close(readout[i], alone[0], rtol=2**-5, atol=2**-7)  # bf16 keeps 8 bits


# ---- embeddings


def test_embeddings_by_hand():
    embedding = Embedding(3, 2, 0.0)
    embedding.weight.data = tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    assert embedding(tensor([[2, 0]])).tolist() == [[[4, 5], [0, 1]]]


def test_tied_embeddings_are_one_tensor():
    none, target, everything = (build(tie_embeddings=kind) for kind in ("none", "target", "all"))
    assert target.output.weight is target.target_embedding.weight
    assert target.source_embedding.weight is not target.target_embedding.weight
    assert everything.output.weight is everything.target_embedding.weight
    assert everything.source_embedding.weight is everything.target_embedding.weight
    assert none.output.weight is not none.target_embedding.weight
    counts = [sum(p.numel() for p in model.parameters()) for model in (none, target, everything)]
    assert [counts[0] - counts[1], counts[1] - counts[2]] == [V * 4, V * 4]


def test_three_tied_embeddings_need_one_vocabulary():
    options = ModelOptions(**SMALL, tie_embeddings="all")
    with pytest.raises(ValueError, match=r"needs one vocabulary for both sides, not 9 and 8 pieces: .*joint true"):
        build_model(options, 9, 8)


def test_vocabularies_may_differ_otherwise():
    model = build_model(ModelOptions(**SMALL, tie_embeddings="target"), 9, 8).eval()
    log_probs, _ = model.step(tensor([7]), model.start(tensor([[8, EOS]]), tensor([2])))
    assert_close(log_probs.exp()[0, :8].sum(), tensor(1.0))


def test_word_dropout_drops_whole_words_and_keeps_the_mean():
    embedding = Embedding(5, 3, 0.25)
    embedding.weight.data.fill_(1.0)
    words = embedding(torch.ones(200, 100, dtype=torch.int64)).detach()  # (200, 100, 3)
    assert torch.equal(words, words[:, :, :1].expand(-1, -1, 3))
    assert set(words.unique().tolist()) == {0.0, tensor(1 / 0.75).item()}
    assert float(words.mean()) == pytest.approx(1.0, abs=0.02)  # of 20,000 draws: deviation 0.004
    assert len((words[:, :, 0] == 0).unique(dim=0)) == 200  # drawn word by word
    assert len((words[:, :, 0] == 0).unique(dim=1)[0]) > 1
    assert torch.equal(embedding.eval()(tensor([[1]])), torch.ones(1, 1, 3))


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"word_dropout": 0.5}], ids=["dropout", "word dropout"])
def test_nothing_is_dropped_when_not_training(options):
    model, plain = build(**options), build()
    plain.load_state_dict(model.state_dict())
    assert not torch.equal(model(SOURCE, LENGTHS, TARGET), plain(SOURCE, LENGTHS, TARGET))
    assert torch.equal(model.eval()(SOURCE, LENGTHS, TARGET), plain.eval()(SOURCE, LENGTHS, TARGET))


# ---- building


@pytest.mark.parametrize("tie", ["none", "target", "all"])
def test_all_weights_start_in_the_range_given(tie):
    model = build(init_range=0.08, tie_embeddings=tie)
    for name, parameter in model.named_parameters():
        if parameter.numel() > 20 and not name.endswith("bias"):
            assert 0.06 < parameter.abs().max() <= 0.08, name
            assert parameter.min() < 0 < parameter.max(), name
    cells = [module for module in model.modules() if isinstance(module, LSTMCell)]
    assert len(cells) == 2 + 3  # one encoder layer in two directions, three decoder layers
    for cell in cells:
        i, f, g, o = cell.bias.detach().chunk(4)
        assert 0 < (f - 1).abs().max() <= 0.0801  # 1 is added to what is drawn
        assert 0 < torch.cat([i, g, o]).abs().max() <= 0.08


def test_gains_of_norms_start_at_one_whatever_the_range():
    model = build(cell="layer-norm-lstm", init_range=0.08)
    gains = [parameter for name, parameter in model.named_parameters() if name.endswith("gain")]
    assert len(gains) == 3 * 5  # three in each of two and three cells
    assert all((gain == 1).all() for gain in gains)


@pytest.mark.parametrize("value", [1.0, 0.0, -2.0])
def test_the_forget_gates_start_at_the_bias_asked_for(value):
    for module in build(forget_bias=value).modules():
        if isinstance(module, LSTMCell):
            assert module.bias.tolist() == [0.0] * module.hidden_size + [value] * module.hidden_size + [0.0] * (
                2 * module.hidden_size
            )


def test_truncated_to_the_whole_length_it_is_full_back_propagation():
    model = build()
    full, whole = (model(SOURCE, LENGTHS, TARGET, truncate) for truncate in (0, TARGET.size(1)))
    assert_close(whole, full)
    of, pull = list(model.parameters()), torch.randn_like(full)
    slopes = [torch.autograd.grad((out * pull).sum(), of, allow_unused=True) for out in (full, whole)]
    for found, expected in zip(*slopes, strict=True):
        assert found is expected is None or torch.equal(found, expected)


def test_truncated_no_error_passes_the_border():
    """The outputs are the same; the last word's error reaches its own stretch of two words, and not the one before."""
    model = build()
    words = torch.cat([TARGET, TARGET[:, 1:2]], dim=1)  # four words: two stretches
    read = model.target_embedding(words).detach().requires_grad_()
    model.target_embedding.forward = lambda ids: read
    full, cut = (model(SOURCE, LENGTHS, words, truncate) for truncate in (0, 2))
    assert_close(cut, full)
    for out, reached in ((full, [True] * 4), (cut, [False, False, True, True])):
        (slope,) = torch.autograd.grad(out[:, 3].sum(), read, retain_graph=True)
        assert [bool(slope[:, t].any()) for t in range(4)] == reached


def test_options_reach_the_network():
    model = build(
        encoder_layers=3, decoder_layers=2, bidirectional=True, reverse_source=True, residual=True, dropout=0.4
    )
    encoder, decoder = model.encoder, model.decoder
    assert [len(encoder.layers), len(decoder.layers)] == [3, 2]
    assert all(isinstance(layer, Layer) and len(layer.cells) == 2 for layer in encoder.layers)
    assert all(len(layer.cells) == 1 for layer in decoder.layers)
    assert encoder.reverse_source
    assert [encoder.residual, decoder.residual, encoder.dropout, decoder.dropout] == [True, True, 0.4, 0.4]


def test_the_vector_at_every_step_is_as_wide_as_asked():
    for asked, width in ((5, 5), (0, SMALL["hidden_size"])):
        assert build("cho", context_size=asked).decoder.attention.summary.out_features == width


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 0}, r"model\.embedding_size must be at least 1, not 0"),
        ({"hidden_size": -2}, r"model\.hidden_size must be at least 1, not -2"),
        ({"encoder_layers": 0}, r"model\.encoder_layers must be at least 1, not 0"),
        ({"decoder_layers": 0}, r"model\.decoder_layers must be at least 1, not 0"),
        ({"dropout": 1.0}, r"model\.dropout is a probability below 1, not 1\.0"),
        ({"dropout": -0.1}, r"model\.dropout is a probability below 1, not -0\.1"),
        ({"word_dropout": 1.5}, r"model\.word_dropout is a probability below 1, not 1\.5"),
        ({"context": "every-step"}, r"every-step is for model\.attention none"),
        ({"recurrent_dropout": 1.0}, r"model\.recurrent_dropout is a probability below 1, not 1\.0"),
        ({"zoneout": -0.5}, r"model\.zoneout is a probability below 1, not -0\.5"),
        ({"transition": 0}, r"model\.transition must be at least 1, not 0"),
        ({"cell": "lsmt"}, r"model\.cell must be one of rnn, lstm, .*, not lsmt"),
        ({"cell": "gru", "peepholes": True}, r"model\.peepholes is for model\.cell lstm, not gru: leave it at false"),
        ({"cell": "lecture-lstm", "projection": 4}, r"model\.projection is for model\.cell lstm, not lecture-lstm"),
        ({"reset": "before"}, r"model\.reset is for model\.cell gru, not lstm: leave it at after"),
        ({"cell": "rnn", "forget_bias": 0.0}, r"model\.forget_bias is for model\.cell lstm or .*, not rnn"),
        ({"extra_projection": 4}, r"model\.extra_projection stands beside model\.projection, which is 0"),
        ({"projection": 512}, r"narrower than model\.hidden_size 512, which 512 does not"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModelOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 5}, r"bidirectional encoder needs an even model\.hidden_size, not 5"),
        ({"projection": 3}, r"bidirectional encoder needs an even model\.projection, not 3"),
        ({"projection": 2, "extra_projection": 1}, r"needs an even model\.extra_projection, not 1"),
        ({"bridge": "copy", "decoder_layers": 3}, r"not 2 layers of 6 and 3 of 6: .* model\.bridge linear"),
        (
            {"bridge": "copy", "projection": 2, "extra_projection": 2},
            r"would mix up the two projections .* use model\.bridge linear",
        ),
        ({"readout": "none"}, r"model\.readout none hands on 12 numbers, .* not 4: set that"),
    ],
    ids=["odd width", "odd projection", "odd extra projection", "copy", "copy of two projections", "no readout"],
)
def test_a_network_that_does_not_fit_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelOptions(**(SMALL | options)), V, V)


def test_all_that_both_directions_project_reaches_the_decoder():
    """Copied, what the second direction recurs on would stand where the decoder's recurrence does not read."""
    options = ModelOptions(**SMALL, attention="none", projection=2, extra_projection=2)
    model = build_model(options, V, V)
    model(torch.tensor([[4, 5, 3]]), torch.tensor([3]), torch.tensor([[2, 6]])).sum().backward()
    for layer in model.encoder.layers:
        for cell in layer.cells:
            assert (cell.projection.grad != 0).all()
