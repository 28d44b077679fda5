"""The encoder: a batch is its sentences one by one, in the order in which they are to be read."""

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.testing import assert_close

from nmt.model.encoder import Encoded, Encoder, _reading_order

E, H = 3, 4
LENGTHS = tensor([4, 2, 1, 3])
WORDS = torch.arange(4) < LENGTHS[:, None]
VARIANTS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True},
        {"reverse_source": True},
        {"bidirectional": True, "reverse_source": True, "residual": True},
    ],
    ids=lambda options: "+".join(options) or "forward",
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def pulled(encoded: Encoded, pulls: list[Tensor]) -> Tensor:
    """A number that depends on every output at a word and on every final state."""
    parts = [encoded.outputs * encoded.mask[:, :, None], *(part for state in encoded.final for part in state)]
    return sum((part * pull).sum() for part, pull in zip(parts, pulls, strict=True))


@VARIANTS
def test_a_padded_batch_is_each_sentence_alone(options):
    encoder, embedded = Encoder(E, H, 2, **options), torch.randn(4, 4, E, requires_grad=True)
    encoded = encoder(embedded, LENGTHS)
    pulls = [torch.randn(4, 4, H), *torch.randn(4, 4, H)]  # outputs; h and c of two layers
    loss = torch.zeros(())
    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder(embedded[row : row + 1, :length], LENGTHS[row : row + 1])
        assert_close(encoded.outputs[row, :length], alone.outputs[0])
        for state, expected in zip(encoded.final, alone.final, strict=True):
            assert_close(state.hidden[row], expected.hidden[0])
            assert_close(state.cell[row], expected.cell[0])
        loss = loss + pulled(alone, [pulls[0][row : row + 1, :length], *(pull[row : row + 1] for pull in pulls[1:])])
    of = [embedded, *encoder.parameters()]
    found, wanted = torch.autograd.grad(pulled(encoded, pulls), of), torch.autograd.grad(loss, of)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(encoded.mask, WORDS)


@VARIANTS
def test_garbage_in_the_padding_changes_nothing(options):
    encoder, clean = Encoder(E, H, 2, **options), torch.randn(4, 4, E)
    encoded = encoder(clean, LENGTHS)
    garbled = encoder(torch.where(WORDS[:, :, None], clean, 100 * torch.randn(4, 4, E)), LENGTHS)
    assert torch.equal(encoded.outputs[WORDS], garbled.outputs[WORDS])
    for state, other in zip(encoded.final, garbled.final, strict=True):
        assert torch.equal(state.hidden, other.hidden)
        assert torch.equal(state.cell, other.cell)


def test_the_final_state_is_that_at_the_last_word():
    encoded = Encoder(E, H, 2)(torch.randn(4, 4, E), LENGTHS)
    assert_close(encoded.final[1].hidden, encoded.outputs[range(4), LENGTHS - 1])


def test_each_direction_knows_what_it_has_read():
    encoder, words = Encoder(E, H, 1, bidirectional=True), torch.randn(1, 4, E)
    other = words.clone()
    other[0, 2] += 1
    outputs, changed = (encoder(embedded, LENGTHS[:1]).outputs[0] for embedded in (words, other))
    same = (outputs == changed).all(dim=1), (outputs[:, :2] == changed[:, :2]).all(dim=1)
    assert not same[0].any()
    assert same[1].tolist() == [True, True, False, False]  # forwards
    assert (outputs[:, 2:] == changed[:, 2:]).all(dim=1).tolist() == [False, False, False, True]  # backwards


# ---- the source reversed


def test_the_reading_order_by_hand():
    order = _reading_order(tensor([4, 3, 2, 1]), 4)
    assert order.tolist() == [
        [2, 1, 0, 3],  # a b c EOS is read c b a EOS
        [1, 0, 2, 3],  # a b EOS, then padding
        [0, 1, 2, 3],
        [0, 1, 2, 3],
    ]


def test_the_reading_order_is_its_own_inverse():
    order = _reading_order(torch.arange(1, 10), 9)
    assert torch.equal(order.gather(1, order), torch.arange(9).expand(9, 9))


def test_a_reversed_source_is_read_backwards_and_answered_in_its_order():
    straight, reverse = Encoder(E, H, 2), Encoder(E, H, 2, reverse_source=True)
    reverse.load_state_dict(straight.state_dict())
    words = torch.randn(1, 4, E)
    found, expected = reverse(words, LENGTHS[:1]), straight(words[:, [2, 1, 0, 3]], LENGTHS[:1])
    assert_close(found.outputs, expected.outputs[:, [2, 1, 0, 3]])
    assert_close(found.final[1], expected.final[1])


# ---- layers


def silent_second_layer(**options: bool) -> Encoder:
    """Weights of zero make g = tanh(0) = 0, so that the second layer says 0 whatever it reads."""
    encoder = Encoder(E, H, 2, **options)
    for parameter in encoder.layers[1].parameters():
        nn.init.zeros_(parameter)
    return encoder


def test_a_residual_adds_the_input_from_the_second_layer_on():
    encoder, words = silent_second_layer(residual=True), torch.randn(4, 4, E)
    first, state = encoder.layers[0](words, lengths=LENGTHS)
    encoded = encoder(words, LENGTHS)
    assert_close(encoded.outputs[WORDS], first[WORDS])
    assert_close(encoded.final[0], state)  # the first layer has no residual
    assert (encoded.final[1].hidden == 0).all()  # and the state is the layer's own
    assert (silent_second_layer()(words, LENGTHS).outputs[WORDS] == 0).all()


def test_dropout_is_for_training_only():
    encoder, plain = Encoder(E, H, 2, dropout=0.5), Encoder(E, H, 2)
    plain.load_state_dict(encoder.state_dict())
    words = torch.randn(4, 4, E)
    trained, expected = encoder(words, LENGTHS).outputs, plain(words, LENGTHS).outputs
    assert not torch.equal(trained[WORDS], expected[WORDS])
    assert torch.equal(encoder.eval()(words, LENGTHS).outputs[WORDS], plain.eval()(words, LENGTHS).outputs[WORDS])


def test_dropout_reads_every_layers_input():
    encoder = Encoder(200, 200, 2, dropout=0.5)
    seen = []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    encoder(torch.ones(1, 3, 200), LENGTHS[3:])
    for x in seen:
        assert 0.3 < (x == 0).float().mean() < 0.7
        assert torch.equal(x[0, 0] == 0, x[0, 2] == 0)


def test_what_a_residual_adds_is_not_dropped():
    """Upper layers that say nothing put out what the first says, in training too."""
    encoder = Encoder(8, 8, 3, residual=True, dropout=0.5)
    for layer in encoder.layers[1:]:
        for weight in layer.parameters():
            nn.init.zeros_(weight)
    first = []
    encoder.layers[0].register_forward_hook(lambda _, arguments, found: first.append(found[0]))
    outputs = encoder(torch.randn(4, 4, 8), LENGTHS).outputs
    assert torch.equal(outputs[WORDS], first[0][WORDS])


def test_two_directions_share_the_hidden_size():
    encoder = Encoder(E, 6, 2, bidirectional=True)
    assert [[cell.hidden_size for cell in layer.cells] for layer in encoder.layers] == [[3, 3], [3, 3]]
