"""The decoder: a whole target at once is the same as word by word, and hypotheses side by side as one by one."""

import math

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.testing import assert_close

from nmt.model.attention import AdditiveAttention, DotAttention, FixedContext, GeneralAttention, NoContext
from nmt.model.cells import LSTMState
from nmt.model.decoder import Bridge, Decoder, DecoderState, MaxoutReadout, vector
from nmt.model.encoder import Encoded

B, K, S, T, E, H, L, R = 2, 3, 5, 4, 3, 4, 2, 3
LENGTHS = tensor([3, 5])
SIZES = ((H, H),) * L
KINDS = {
    "none": NoContext,
    "every-step": lambda: FixedContext(2 * L * H, 6),
    "dot": lambda: DotAttention(H, H),
    "general": lambda: GeneralAttention(H, H),
    "additive": lambda: AdditiveAttention(H, H),
}
ATTENTIONS = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def build(kind: str, **options) -> Decoder:
    attention = KINDS[kind]()
    return Decoder(E, H, L, R, bridge=Bridge(SIZES), attention=attention, **options)


def encoded() -> Encoded:
    final = tuple(LSTMState(*torch.randn(2, B, H)) for _ in range(L))
    return Encoded(torch.randn(B, S, H), torch.arange(S) < LENGTHS[:, None], final)


def sentence(batch: Encoded, number: int) -> Encoded:
    """One sentence by itself, without its padding."""
    one, length = slice(number, number + 1), int(LENGTHS[number])
    final = tuple(LSTMState(h[one], c[one]) for h, c in batch.final)
    return Encoded(batch.outputs[one, :length], batch.mask[one, :length], final)


def hypotheses(state: DecoderState, count: int) -> DecoderState:
    """Every row `count` times, side by side; the memory stays as it is."""
    layers = tuple(LSTMState(*(part.repeat_interleave(count, 0) for part in layer)) for layer in state.layers)
    return DecoderState(layers, state.alignment.repeat_interleave(count, 0), state.memory)


def assert_same_state(one: DecoderState, other: DecoderState) -> None:
    assert_close(one.alignment, other.alignment)
    for layer, expected in zip(one.layers, other.layers, strict=True):
        assert_close(layer.hidden, expected.hidden)
        assert_close(layer.cell, expected.cell)


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@ATTENTIONS
def test_a_whole_target_is_its_words_step_by_step(kind, residual):
    decoder, words = build(kind, residual=residual), torch.randn(K * B, T, E)
    start = state = hypotheses(decoder.start(encoded()), K)
    readout, _ = decoder(words, start)
    for t in range(T):
        step, state = decoder(words[:, t : t + 1], state)
        assert_close(step[:, 0], readout[:, t])
        assert_same_state(state, decoder(words[:, : t + 1], start)[1])


@ATTENTIONS
def test_hypotheses_side_by_side_read_their_own_sentence(kind):
    decoder, words, batch = build(kind), torch.randn(K * B, T, E), encoded()
    readout, state = decoder(words, hypotheses(decoder.start(batch), K))
    for row in range(K * B):
        alone, final = decoder(words[row : row + 1], decoder.start(sentence(batch, row // K)))
        assert_close(readout[row], alone[0])
        assert_close(state.alignment[row, : final.alignment.size(1)], final.alignment[0])
        assert (state.alignment[row, final.alignment.size(1) :] == 0).all()
        for layer, expected in zip(state.layers, final.layers, strict=True):
            assert_close(layer.cell[row], expected.cell[0])


@ATTENTIONS
def test_no_word_sees_those_after_it(kind):
    decoder, words = build(kind), torch.randn(B, T, E)
    other = words.clone()
    other[:, 2] += 1
    start = decoder.start(encoded())
    changed = (decoder(words, start)[0] - decoder(other, start)[0]).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.tolist() == [False, False, True, True]


@ATTENTIONS
def test_garbage_in_the_padding_of_the_source_changes_nothing(kind):
    decoder, words, batch = build(kind), torch.randn(B, T, E), encoded()
    garbled = batch._replace(outputs=torch.where(batch.mask[:, :, None], batch.outputs, 100.0))
    readout, state = decoder(words, decoder.start(batch))
    expected, other = decoder(words, decoder.start(garbled))
    assert torch.equal(readout, expected)
    assert_same_state(state, other)


# ---- who reads what


def read_by(decoder: Decoder, batch: Encoded, changed: Encoded) -> dict[str, bool]:
    """Which parts of the decoder's answer to one word differ between two sources."""
    words = torch.randn(B, 1, E)
    (readout, state), (other, other_state) = (decoder(words, decoder.start(source)) for source in (batch, changed))
    differ = [not torch.equal(a.hidden, b.hidden) for a, b in zip(state.layers, other_state.layers, strict=True)]
    return {"first": differ[0], "second": differ[1], "readout": not torch.equal(readout, other)}


@ATTENTIONS
def test_the_context_feeds_the_layers_above_the_first(kind):
    batch = encoded()
    read = read_by(build(kind), batch, batch._replace(outputs=batch.outputs + 1))
    looks = kind not in ("none", "every-step")  # these never see the encoder's outputs
    assert read == {"first": False, "second": looks, "readout": looks}


def test_a_context_at_every_step_feeds_all_layers():
    batch, decoder = encoded(), build("every-step")
    decoder.bridge.forward = lambda final, summary: batch.final  # what differs comes by way of the context alone
    changed = batch._replace(final=tuple(LSTMState(h + 1, c) for h, c in batch.final))
    assert read_by(decoder, batch, changed) == {"first": True, "second": True, "readout": True}


def test_the_readout_reads_the_context_by_hand():
    decoder = build("general")
    decoder.readout.weight.data = torch.cat([torch.zeros(R, H), torch.eye(R, H)], dim=1)  # the context's first three
    decoder.readout.bias.data = tensor([0.0, 0.0, 1.0])
    one_word = encoded()._replace(mask=tensor([[False, True, False, False, False]] * B))  # all it can look at
    readout, state = decoder(torch.randn(B, T, E), decoder.start(one_word))
    expected = (one_word.outputs[:, 1, :3] + tensor([0.0, 0.0, 1.0])).tanh()
    assert_close(readout, expected[:, None].expand(B, T, R))
    assert state.alignment.tolist() == [[0, 1, 0, 0, 0]] * B


def test_the_readout_reads_the_top_layer_by_hand():
    decoder = build("none")
    decoder.readout.weight.data, decoder.readout.bias.data = torch.eye(R, H), torch.zeros(R)
    readout, state = decoder(torch.randn(B, T, E), decoder.start(encoded()))
    assert_close(readout[:, -1], state.layers[1].hidden[:, :R].tanh())


@pytest.mark.parametrize("residual", [False, True])
def test_a_residual_adds_what_the_layer_below_said(residual):
    decoder = build("none", residual=residual)
    for parameter in decoder.layers[1].parameters():
        nn.init.zeros_(parameter)  # i g = 1/2 tanh(0) = 0: from a state of zeros the layer says 0
    decoder.readout.weight.data, decoder.readout.bias.data = torch.eye(R, H), torch.zeros(R)
    zeros = tuple(LSTMState(torch.zeros(B, H), torch.zeros(B, H)) for _ in range(L))
    readout, state = decoder(torch.randn(B, T, E), decoder.start(encoded()._replace(final=zeros)))
    below = state.layers[0].hidden[:, :R].tanh()
    assert_close(readout[:, -1], below if residual else torch.zeros(B, R))
    assert (below != 0).all()


def test_nothing_was_looked_at_before_the_first_word():
    assert (build("dot").start(encoded()).alignment == torch.zeros(B, S)).all()


def test_dropout_is_for_training_only():
    decoder, plain = build("general", dropout=0.5), build("general")
    plain.load_state_dict(decoder.state_dict())
    words, batch = torch.randn(B, T, E), encoded()
    for same in (False, True):
        expected, _ = plain(words, plain.start(batch))
        assert torch.equal(decoder(words, decoder.start(batch))[0], expected) is same
        plain.eval()
        decoder.eval()


def test_dropout_reads_every_layers_input_and_the_readouts():
    decoder = Decoder(200, 200, 2, 200, bridge=nn.Identity(), attention=GeneralAttention(200, 200), dropout=0.5)
    seen = []
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    decoder.readout.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments[:2]))
    state = LSTMState(torch.zeros(1, 200), torch.zeros(1, 200))
    memory = decoder.attention.prepare(torch.ones(1, 3, 200), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 0))
    decoder(torch.ones(1, 3, 200), DecoderState((state, state), torch.zeros(1, 3), memory))
    assert len(seen) == 4  # two layers, and of the readout what the last said and the context
    for x in seen:
        assert 0.3 < (x == 0).float().mean() < 0.7
        assert torch.equal(x[0, 0] == 0, x[0, 2] == 0)


# ---- the bridge


def pair(hidden: float, cell: float) -> LSTMState:
    return LSTMState(tensor([[float(hidden)]]), tensor([[float(cell)]]))


def flat(states: tuple[LSTMState, ...]) -> list[float]:
    return [part.item() for state in states for part in state]


def test_the_vector_is_h_and_c_of_each_layer():
    assert vector((pair(1, 2), pair(3, 4))).tolist() == [[1, 2, 3, 4]]


def test_a_bridge_from_no_vector_copies():
    states = pair(1, 2), pair(3, 4)
    assert flat(Bridge(((1, 1), (1, 1)))(states, vector(states))) == [1, 2, 3, 4]


def test_the_linear_bridge_by_hand():
    bridge = Bridge(((1, 1), (1, 1)), vector_size=2)
    bridge.linear.weight.data = tensor([[math.log(3) / 2, 0], [3, 0], [0, math.log(2) / 2], [1, 10]])
    bridge.linear.bias.data = tensor([0, 0, 0, 0.5])
    final = bridge((pair(7, 7),), tensor([[1.0, 2.0]]))
    assert flat(final) == pytest.approx([1 / 2, 3, 3 / 5, 21.5])  # h through tanh, c not


def test_a_linear_bridge_reads_the_summary_that_every_step_reads():
    attention, batch = FixedContext(2 * L * H, 6), encoded()
    decoder = Decoder(E, H, L, R, bridge=Bridge(SIZES, 6), attention=attention)
    summary = attention.summary(vector(batch.final)).tanh()
    first, *_ = decoder.bridge.linear(summary).split(H, dim=1)
    assert_close(decoder.start(batch).layers[0].hidden, first.tanh())


def test_the_maxout_readout_by_hand():
    readout = MaxoutReadout(1, 1, 1, 2)  # of h = 1, c = 2, e = 3
    readout.weight.data = tensor([[1.0, 1, 1], [0, 0, 3], [-1, 0, 0], [0, -1, 0]])
    readout.bias.data = tensor([0.0, 0, 0, 0.5])
    hidden, context, embedded = (torch.full((1, 1, 1), value) for value in (1.0, 2.0, 3.0))
    assert readout(hidden, context, embedded).tolist() == [[[9.0, -1.0]]]  # max(6, 9), max(-1, -1.5)


def test_the_decoder_starts_where_the_bridge_ends():
    decoder, batch = build("none"), encoded()
    state = decoder.start(batch)
    for layer, final in zip(state.layers, batch.final, strict=True):
        assert torch.equal(layer.hidden, final.hidden)
        assert torch.equal(layer.cell, final.cell)


def test_gradients_of_hypotheses_add_up_in_the_memory():
    decoder, words, batch = build("additive"), torch.randn(K * B, T, E), encoded()
    outputs = batch.outputs.requires_grad_()
    (together,) = torch.autograd.grad(decoder(words, hypotheses(decoder.start(batch), K))[0].sum(), outputs)

    def alone(number: int) -> Tensor:
        return decoder(words[number::K], decoder.start(batch))[0].sum()

    (apart,) = torch.autograd.grad(alone(0) + alone(1) + alone(2), outputs)
    assert_close(together, apart)
