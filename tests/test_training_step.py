"""One update with a pencil: the rate, the loss, the gradient; and the arithmetic it is done in."""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn, tensor
from torch.testing import assert_close

from nmt import training
from nmt.batches import Batch, collate
from nmt.curvature import Spelling, objective
from nmt.model.recurrent import recurrent_layers
from nmt.model.seq2seq import ModelOptions, build_model
from nmt.tokenizer import PAD
from nmt.training import (
    TrainingOptions,
    TranslationModule,
    choose_precision,
    planned_updates,
    rate,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec")  # Lightning's use of torch, not ours

# ---- the schedules


def rates(steps: Sequence[int], *, per_epoch: int = 10, planned: int = 40, halvings: int = 0, **options: Any) -> list:
    chosen = TrainingOptions(**({"learning_rate": 2.0, "warmup_steps": 0, "guide_updates": 0} | options))
    return [pytest.approx(rate(chosen, step, per_epoch, planned, halvings), abs=1e-12) for step in steps]


def test_constant():
    assert rates([0, 7, 1000], schedule="constant") == [2, 2, 2]


def test_the_warmup_grows_to_the_peak():
    # update 0 is the first, and already counts
    assert rates([0, 1, 2, 3, 4, 5], schedule="constant", warmup_steps=4) == [0.5, 1, 1.5, 2, 2, 2]


def test_inverse_sqrt():
    # the peak at update 4, half of it at update 16
    assert rates([0, 3, 15, 35], schedule="inverse-sqrt", warmup_steps=4) == [0.5, 2, 1, 2 / 3]
    assert rates([0, 3, 15], schedule="inverse-sqrt") == [2, 1, 0.5]


def test_cosine_ends_at_the_last_planned_step():
    eighth = 1 + math.cos(math.pi / 4)
    assert rates([0, 10, 20, 40, 50], schedule="cosine") == [2, eighth, 1, 0, 0]
    assert rates([1, 20], schedule="cosine", warmup_steps=4) == [(1 + math.cos(math.pi / 40)) / 2, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epochs": 5}, (10, 50)),
        ({"max_epochs": 5, "accumulate": 8}, (2, 10)),  # the last two batches of an epoch are an update too
        ({"max_epochs": 5, "max_steps": 30}, (10, 30)),
        ({"max_epochs": 5, "max_steps": 99}, (10, 50)),
    ],
)
def test_planned_updates_of_ten_batches(options, expected):
    assert planned_updates(TrainingOptions(**options), 10) == expected


@pytest.mark.parametrize(("halvings", "expected"), [(0, 2), (1, 1), (3, 0.25)])
def test_plateau(halvings, expected):
    assert rates([0, 99], schedule="plateau", halvings=halvings) == [expected, expected]


def test_halving_is_that_of_sutskever():
    # 5 epochs of 10 updates at the full rate, halved there and at every half epoch after
    steps = [0, 49, 50, 54, 55, 59, 60, 74]
    assert rates(steps, schedule="halving", halve_after=5, halve_every=0.5) == [2, 2, 1, 1, 0.5, 0.5, 0.25, 1 / 16]
    assert rates([0, 9, 10, 30], schedule="halving", halve_after=1, halve_every=2) == [2, 2, 1, 0.5]


@pytest.mark.parametrize("schedule", ["constant", "inverse-sqrt", "cosine", "plateau", "halving"])
def test_every_schedule_warms_up(schedule):
    first, second = (
        rate(TrainingOptions(schedule=schedule, warmup_steps=100), step, 1000, 10**9, 0) for step in (0, 1)
    )
    assert second == pytest.approx(2 * first)


# ---- the loss


class Says(nn.Module):
    """A network that says the same of every word, whatever it reads: logits as given, NaN where the target is padding.

    What stands in `bias` is added, so that its gradient is the sum of those of the logits.
    """

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.logits, self.bias = tensor(logits), nn.Parameter(torch.zeros(len(logits)))

    def forward(self, source: Tensor, lengths: Tensor, target_in: Tensor, truncate: int = 0) -> Tensor:
        readout = self.logits.expand(*target_in.shape, -1)
        return torch.where(target_in[:, :, None] == PAD, torch.nan, readout)

    def output(self, readout: Tensor) -> Tensor:
        return readout + self.bias


A, EOS = 1, 3
# P(PAD, A, BOS, EOS) = 1/8, 1/2, 1/8, 1/4
EIGHTHS = [math.log(1), math.log(4), math.log(1), math.log(2)]
# A A EOS and A EOS: 5 words, 1 padding
TWO = collate([([A], [A, A]), ([A, A], [A])])


def loss_of(options: TrainingOptions, *, validation: bool = False) -> tuple[Tensor | None, dict[str, float]]:
    module, logged = TranslationModule(Says(EIGHTHS), options, None, []), {}
    module.log = lambda name, value, **_: logged.update({name: float(value.detach())})
    loss = module.validation_step(TWO, 0) if validation else module.training_step(TWO, 0)
    return loss, logged


NLL = 3 * math.log(2) + 2 * math.log(4)  # A three times, EOS twice


def test_the_loss_is_the_cross_entropy_of_the_words():
    loss, logged = loss_of(TrainingOptions(label_smoothing=0.0, guide_updates=0))
    assert float(loss.detach()) == pytest.approx(NLL)
    assert logged == {"loss": pytest.approx(NLL / 5)}


def test_label_smoothing_spreads_a_share_over_all_pieces():
    uniform = 5 * (math.log(8) + math.log(2) + math.log(8) + math.log(4)) / 4
    loss, logged = loss_of(TrainingOptions(label_smoothing=0.2, guide_updates=0))
    assert float(loss.detach()) == pytest.approx(0.8 * NLL + 0.2 * uniform)
    assert logged == {"loss": pytest.approx((0.8 * NLL + 0.2 * uniform) / 5)}


def test_validation_is_not_smoothed():
    _, logged = loss_of(TrainingOptions(label_smoothing=0.2, guide_updates=0), validation=True)
    assert logged == {"val_loss": pytest.approx(NLL / 5)}


# ---- the gradient


class Loader:
    """Lightning takes a list for several loaders."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def train(model: nn.Module, batches: Sequence[Batch], **options: Any) -> nn.Module:
    """Run real updates over the batches, once, by plain gradient descent at a rate of 1."""
    plain = {"optimizer": "sgd", "schedule": "constant", "warmup_steps": 0, "learning_rate": 1.0, "clip_norm": 0.0}
    plain = {} if options.get("optimizer") == "hessian-free" else plain  # which has none of these
    chosen = TrainingOptions(**(plain | {"label_smoothing": 0.0, "guide_updates": 0} | options))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=chosen.accumulate,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(TranslationModule(model, chosen, None, []), Loader(batches), Loader([]))
    return model


# Of each word p - y: (1/8, 1/2, 1/8, 1/4) less 1 at the word; of all five of TWO:
GRADIENT = tensor([5 / 8, 5 / 2 - 3, 5 / 8, 5 / 4 - 2])
NORM = math.sqrt(25 + 16 + 25 + 36) / 8


@pytest.mark.parametrize(("per", "units"), [("word", 5), ("sentence", 2)])
def test_the_gradient_is_the_mean_over_words_or_sentences(per, units):
    assert_close(train(Says(EIGHTHS), [TWO], loss_per=per).bias.data, -GRADIENT / units)


@pytest.mark.parametrize(("per", "units"), [("word", 5), ("sentence", 2)])
def test_a_long_gradient_is_scaled_to_the_norm(per, units):
    moved = train(Says(EIGHTHS), [TWO], loss_per=per, clip_norm=0.1).bias.data
    assert_close(moved, -0.1 * GRADIENT / NORM, rtol=1e-4, atol=0)
    assert float(moved.norm()) == pytest.approx(0.1, rel=1e-4)


def test_a_short_gradient_is_left_alone():
    assert NORM / 5 < 0.3 < NORM  # it is short once divided by its words
    assert_close(train(Says(EIGHTHS), [TWO], clip_norm=0.3).bias.data, -GRADIENT / 5)


def test_the_rate_is_that_of_the_update():
    # the first of 4 updates of warming up
    assert_close(train(Says(EIGHTHS), [TWO], warmup_steps=4).bias.data, -GRADIENT / 5 / 4)


def test_rmsprop_by_hand():
    """The rate times g / root of the mean square, which the first update puts at 1/10 of g^2."""
    moved = train(Says(EIGHTHS), [TWO], optimizer="rmsprop", learning_rate=0.01).bias.data
    assert_close(moved, -0.01 * GRADIENT.sign() * math.sqrt(10), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("updates", "share"), [(2, 0.95), pytest.param(15, 0.3, marks=pytest.mark.slow)])
def test_hessian_free_lowers_the_loss_of_a_network_far_below_one_step_of_descent(updates, share):
    model, batch = network(), collate(PAIRS)

    def loss(model: nn.Module) -> float:
        return float(objective(model, batch, 0.0).loss(dict(Spelling(model).named_parameters())).detach())

    before, descended = loss(model), loss(train(network(), [batch]))
    after = loss(train(model, [batch] * updates, optimizer="hessian-free"))
    assert after < share * before
    assert after < descended


def test_what_hessian_free_lowers_is_the_loss_that_is_logged():
    model, batch = network(), collate(PAIRS)
    module = TranslationModule(model, TrainingOptions(label_smoothing=0.2, guide_updates=0), None, [])
    expected, words = module._loss(batch, 0.2)
    found = objective(model, batch, 0.2)
    assert_close(found.loss(dict(Spelling(model).named_parameters())), expected / words)
    hidden = found.forward(dict(Spelling(model).named_parameters())).hidden
    sizes = [batch.source.numel() * 8] * 2 + [len(batch.words) * 8] * 2  # two layers a side, of 8 in all
    assert hidden.numel() == sum(sizes)


@pytest.mark.parametrize(
    ("setting", "way_out"),
    [
        ({"accumulate": 2}, r"accumulate at 1, and set batch_tokens higher$"),
        ({"devices": 2}, r"devices at 1$"),
        ({"truncate": 5}, r"truncate at 0$"),
    ],
    ids=str,
)
def test_hessian_free_takes_one_whole_batch(setting, way_out):
    with pytest.raises(ValueError, match=rf"takes one whole batch on one device: leave training\.{way_out}"):
        TrainingOptions(optimizer="hessian-free", **setting)


@pytest.mark.parametrize(
    ("optimizer", "setting", "owner"),
    [
        ("sgd", {"weight_decay": 0.1}, "adam"),
        ("rmsprop", {"adam_beta2": 0.9}, "adam"),
        ("adam", {"damping": 3.0}, "hessian-free"),
        ("sgd", {"structural_damping": 0.1}, "hessian-free"),
        ("hessian-free", {"learning_rate": 0.01}, "adam or sgd or rmsprop"),
        ("hessian-free", {"schedule": "constant"}, "adam or sgd or rmsprop"),
        ("hessian-free", {"warmup_steps": 10}, "adam or sgd or rmsprop"),
        ("hessian-free", {"halve_after": 1.0}, "adam or sgd or rmsprop"),
        ("hessian-free", {"halve_every": 1.0}, "adam or sgd or rmsprop"),
        ("hessian-free", {"clip_norm": 5.0}, "adam or sgd or rmsprop"),
        ("hessian-free", {"loss_per": "sentence"}, "adam or sgd or rmsprop"),
        ("hessian-free", {"guide_updates": 5}, "adam or sgd or rmsprop"),
    ],
    ids=str,
)
def test_what_another_optimizer_has_is_refused(optimizer, setting, owner):
    [name] = setting
    message = rf"training\.{name} is for training\.optimizer {owner}, not {optimizer}: leave it at"
    with pytest.raises(ValueError, match=message):
        TrainingOptions(optimizer=optimizer, **setting)


@pytest.mark.parametrize("name", ["halve_after", "halve_every"])
def test_halvings_are_for_the_schedule_that_halves(name):
    with pytest.raises(ValueError, match=rf"training\.{name} is for training\.schedule halving, not cosine: leave it"):
        TrainingOptions(**{name: 3.0})


def test_truncation_is_for_training():
    seen = []
    model = Says(EIGHTHS)
    model.forward = lambda source, lengths, target_in, truncate: (
        seen.append(truncate) or Says.forward(model, source, lengths, target_in)
    )
    module = TranslationModule(model, TrainingOptions(truncate=7, guide_updates=0), None, [])
    module._loss(TWO, 0.0)
    module.eval()._loss(TWO, 0.0)
    assert seen == [7, 0]


def network() -> nn.Module:
    torch.manual_seed(1)
    return build_model(ModelOptions(embedding_size=6, hidden_size=8, dropout=0.0), 8, 8)


PAIRS = [([4, 5, 6], [5]), ([7], [4, 4, 6, 7]), ([5, 5], [6]), ([4], [7, 6]), ([6, 7, 7, 4], [5, 4, 7])]


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    start = network().state_dict()
    for name, weight in one.state_dict().items():
        assert_close(weight, other.state_dict()[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(weight, start[name]) for name, weight in one.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"loss_per": "sentence"}, {"clip_norm": 0.05}], ids=str)
def test_two_batches_accumulated_are_one_batch_of_both(options):
    apart = [collate(PAIRS[:1]), collate(PAIRS[1:])]  # 2 and 14 words
    assert_same_weights(train(network(), apart, accumulate=2, **options), train(network(), [collate(PAIRS)], **options))


def test_what_is_left_at_the_end_of_an_epoch_is_an_update_of_its_own():
    first, second, third = collate(PAIRS[:1]), collate(PAIRS[1:3]), collate(PAIRS[3:])
    found = train(network(), [first, second, third], accumulate=2, loss_per="sentence")
    once = train(network(), [collate(PAIRS[:3])], loss_per="sentence")
    assert_same_weights(found, train(once, [third], loss_per="sentence"))


def test_a_padded_batch_trains_as_its_sentences_accumulated():
    alone = [collate([pair]) for pair in PAIRS]
    assert_same_weights(train(network(), alone, accumulate=5), train(network(), [collate(PAIRS)]))


def test_of_several_processes_the_gradient_is_over_the_mean_of_their_words():
    """As the gradients themselves are averaged over the processes: so it is that of all words together."""
    module = TranslationModule(Says(EIGHTHS), TrainingOptions(devices=2, clip_norm=0, guide_updates=0), None, [])
    asked = []
    strategy = SimpleNamespace(reduce=lambda units, reduce_op: asked.append((float(units), reduce_op)) or tensor(4.0))
    module._trainer = SimpleNamespace(strategy=strategy)
    module.units, module.model.bias.grad = 5, tensor([1.0, 2.0, 3.0, 4.0])
    module.configure_gradient_clipping(None)
    assert asked == [(5.0, "mean")]
    assert_close(module.model.bias.grad, tensor([0.25, 0.5, 0.75, 1.0]))


def test_hessian_free_gets_its_options(monkeypatch):
    options = TrainingOptions(optimizer="hessian-free", damping=3.0, structural_damping=0.1, label_smoothing=0.2)
    module = TranslationModule(network(), options, None, [])
    optimizer = module.configure_optimizers()
    assert optimizer.param_groups[0]["damping"] == 3.0
    assert optimizer.structural_damping == 0.1
    told = []
    monkeypatch.setattr(training, "objective", lambda *arguments: told.append(arguments) or "objective")
    monkeypatch.setattr(optimizer, "step", lambda objective: told.append(objective))
    module.batch = TWO
    module.optimizer_step(0, 0, optimizer, lambda: None)
    assert told == [(module.model, TWO, 0.2), "objective"]


def test_the_beam_of_validation_is_that_asked_for(monkeypatch):
    beams = []

    class Translates:
        def __init__(self, model, tokenizers, search):
            beams.append(search.beam_size)

        def translate(self, lines):
            return []

    monkeypatch.setattr(training, "Translator", Translates)
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: [SimpleNamespace(score=7.0)])
    module = TranslationModule(network(), TrainingOptions(validation_beam=4), None, [])
    module._trainer = SimpleNamespace(callback_metrics={"val_loss": tensor(2.0)})
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module.on_validation_epoch_end()
    assert beams == [4]


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("rmsprop", torch.optim.RMSprop)]
)
def test_the_optimizer_is_the_one_asked_for(name, kind):
    options = TrainingOptions(
        optimizer=name, guide_updates=0, **({"adam_beta2": 0.9, "weight_decay": 0.5} if name == "adam" else {})
    )
    module = TranslationModule(Says(EIGHTHS), options, None, [])
    trainer = module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    optimizer = module.configure_optimizers()
    assert trainer.precision == "32-true"
    assert type(optimizer) is kind
    if name == "adam":
        assert optimizer.defaults["betas"] == (0.9, 0.9)
        assert optimizer.defaults["weight_decay"] == 0.5
    else:
        assert optimizer.defaults["momentum"] == 0


# ---- the arithmetic

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_precision_as_asked():
    assert [choose_precision(name, CPU) for name in ("fp32", "bf16")] == ["32-true", "bf16-mixed"]
    assert [choose_precision(name, GPU) for name in ("fp32", "bf16", "fp16")] == ["32-true", "bf16-mixed", "16-mixed"]


@pytest.mark.parametrize(("has", "cpu", "gpu"), [(True, "bf16-mixed", "bf16-mixed"), (False, "32-true", "16-mixed")])
def test_precision_as_the_device_can(monkeypatch, has, cpu, gpu):
    monkeypatch.setattr(training, "has_bf16", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has or including_emulation)
    assert choose_precision("auto", CPU) == cpu
    assert choose_precision("auto", GPU) == gpu


def test_no_fp16_on_a_cpu():
    with pytest.raises(ValueError, match=r"fp16 needs a GPU: on a CPU use bf16, fp32 or auto"):
        choose_precision("fp16", CPU)


# ---- the options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: 0}, rf"training\.{name} must be at least 1, not 0")
            for name in ("batch_tokens", "accumulate", "max_epochs", "validation_beam", "average", "devices")
        ),
        ({"learning_rate": 0.0}, r"training\.learning_rate must be above 0, not 0\.0"),
        ({"label_smoothing": 1.0}, r"training\.label_smoothing lies in \[0, 1\), not 1\.0"),
        ({"label_smoothing": -0.1}, r"training\.label_smoothing lies in \[0, 1\), not -0\.1"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)


def test_structural_damping_holds_the_states_of_words_and_not_of_padding():
    torch.manual_seed(1)
    model = build_model(ModelOptions(embedding_size=4, hidden_size=4, dropout=0.0), 9, 9)
    for layer in recurrent_layers(model):
        layer.looped = True
    batch = collate([([5, 6, 7], [6, 7]), ([8], [4])])
    wider = [nn.functional.pad(part, (0, 3), value=PAD) for part in (batch.target_in, batch.target_out)]
    steps = batch.target_in.size(1)
    words = batch.words // steps * (steps + 3) + batch.words % steps
    padded = batch._replace(target_in=wider[0], target_out=wider[1], words=words)
    plain, more = (
        objective(model, one, 0.1).forward(dict(Spelling(model).named_parameters())) for one in (batch, padded)
    )
    assert_close(more.predictions, plain.predictions)
    assert_close(more.hidden, plain.hidden)
    decoder = 2 * 5 * 4  # layers, words with their EOS, cells
    assert plain.hidden.numel() == decoder + 2 * 2 * 4 * 4  # and the encoder's, of four places a row
