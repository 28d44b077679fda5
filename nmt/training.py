"""Training: the Lightning module and data module and their options; `fit.py` runs them.

Shapes: **B** sentences, **T** target length, **W** words of the batch, padding not counted, **R** readout,
**V** vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from nmt.batches import Batch, BatchLoader, EncodedCorpus, TokenBatches
from nmt.checkpoint import Tokenizers
from nmt.corpus import Pair
from nmt.curvature import Spelling, objective
from nmt.evaluation import evaluate
from nmt.guidance import Guide
from nmt.hessian_free import HessianFree
from nmt.model.language_model import LanguageModel
from nmt.model.loss import cross_entropy
from nmt.model.products import has_bf16, has_bf16_on_gpu
from nmt.model.recurrent import recurrent_layers
from nmt.model.seq2seq import Seq2Seq
from nmt.search import SearchOptions
from nmt.translator import OptionError, Translator

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Model = Seq2Seq | LanguageModel
CHOICE = "val_choice"  # BLEU; while that is still 0, the loss


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        batch_tokens: Padded pieces of a batch, on the longer of its two sides.
        accumulate: Batches summed into one update.
        loss_per: The gradient is of the mean loss per word, or per sentence (Sutskever et al. 2014: gradient / 128).
        optimizer: adam (with decoupled weight decay), sgd (without momentum), rmsprop (Tieleman & Hinton 2012), or
            hessian-free (Martens & Sutskever 2011), which wants large batches and no dropout, and has no rate, schedule
            or clipping.
        learning_rate: The peak rate, which the schedule scales. The default suits adam and rmsprop; sgd wants far more,
            such as 0.7 with loss_per sentence.
        schedule: constant; inverse-sqrt; cosine (to 0 at the last planned step); plateau (halved when the validation
            loss does not improve); halving (constant for `halve_after` epochs, then halved every `halve_every`).
        warmup_steps: Updates over which the rate grows from 0, whatever the schedule.
        halve_after: Epochs before the first halving.
        halve_every: Epochs between halvings.
        adam_beta2: Decay of Adam's second moment.
        damping: Where the damping of hessian-free starts; it adapts itself.
        structural_damping: How much of it holds the hidden states, of hessian-free.
        truncate: Target words beyond which no error goes back in time; 0 for full back-propagation. Each stretch of so
            many words draws dropout anew. A language model reads running text in stretches of so many pieces, and
            batch_tokens / truncate streams of it at once.
        weight_decay: Decoupled weight decay of adam.
        clip_norm: The gradient is scaled down to this norm; 0 for never.
        label_smoothing: Share of the target distribution spread over all pieces.
        guide_updates: Updates over which attention is drawn to the diagonal, ever less (`guidance.py`); 0 for never.
        max_epochs: Passes over the training text.
        max_steps: Updates; 0 for no limit.
        max_minutes: Minutes; 0 for no limit.
        validate_every: Updates between validations; 0 for one at the end of each epoch. Not with `accumulate`.
        validation_metric: What chooses the best checkpoints and stops early: bleu, by beam search, and while that is 0
            the loss; or loss alone. Between the best of them and their mean, BLEU decides.
        validation_sentences: How many validation sentences are translated for BLEU (spread evenly); 0 for all.
        validation_beam: Beam of that search; 1 is greedy.
        patience: Validations without improvement before stopping; 0 for never.
        average: Best checkpoints whose weights are averaged at the end.
        precision: Arithmetic of the products; auto takes what the device is fast in.
        devices: Processes, one per GPU (or per share of the cores).
    """

    batch_tokens: int = 2048
    accumulate: int = 1
    loss_per: Literal["word", "sentence"] = "word"
    optimizer: Literal["adam", "sgd", "rmsprop", "hessian-free"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "inverse-sqrt", "cosine", "plateau", "halving"] = "cosine"
    warmup_steps: int = 400
    halve_after: float = 5.0
    halve_every: float = 0.5
    adam_beta2: float = 0.98
    damping: float = 1.0
    structural_damping: float = 0.0
    truncate: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    guide_updates: int = 500
    max_epochs: int = 20
    max_steps: int = 0
    max_minutes: float = 0.0
    validate_every: int = 0
    validation_metric: Literal["bleu", "loss"] = "bleu"
    validation_sentences: int = 500
    validation_beam: int = 1
    patience: int = 10
    average: int = 3
    precision: Precision = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(TrainingOptions).items():
            if get_args(kind) and getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ValueError(f"training.{name} must be one of {known}, not {getattr(self, name)}")
        for name in ("batch_tokens", "accumulate", "max_epochs", "validation_beam", "average", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "halve_every", "damping"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training.{name} must be above 0, not {getattr(self, name)}")
        may_be_0: tuple[str, ...]
        may_be_0 = ("warmup_steps", "halve_after", "weight_decay", "clip_norm", "max_steps", "max_minutes", "truncate")
        may_be_0 += ("validate_every", "validation_sentences", "patience", "structural_damping", "guide_updates")
        for name in may_be_0:
            if not getattr(self, name) >= 0:
                raise ValueError(f"training.{name} must be at least 0, not {getattr(self, name)}")
        if self.validate_every and self.accumulate > 1:
            raise ValueError("training.validate_every counts updates of one batch: set it to 0, or accumulate to 1")
        for name in ("label_smoothing", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"training.{name} lies in [0, 1), not {getattr(self, name)}")
        self._check_optimizer()
        for name in ("halve_after", "halve_every"):
            usual = TrainingOptions.__dataclass_fields__[name].default
            if self.schedule != "halving" and getattr(self, name) != usual:
                raise ValueError(
                    f"training.{name} is for training.schedule halving, not {self.schedule}: leave it at {usual}"
                )

    def _check_optimizer(self) -> None:
        """Refuse what this optimiser has not, or cannot do."""
        first_order = "learning_rate", "schedule", "warmup_steps", "halve_after", "halve_every", "clip_norm", "loss_per"
        owners = [
            (("weight_decay", "adam_beta2"), ("adam",)),
            (("damping", "structural_damping"), ("hessian-free",)),
            ((*first_order, "guide_updates"), ("adam", "sgd", "rmsprop")),
        ]
        for name, having in [(name, having) for names, having in owners for name in names]:
            usual, value = TrainingOptions.__dataclass_fields__[name].default, getattr(self, name)
            if self.optimizer not in having and value != usual and (name, value) != ("guide_updates", 0):
                raise ValueError(
                    f"training.{name} is for training.optimizer {' or '.join(having)}, not {self.optimizer}: "
                    f"leave it at {usual}"
                )
        if self.optimizer == "hessian-free" and (self.accumulate > 1 or self.devices > 1 or self.truncate):
            name = "truncate" if self.truncate else "accumulate" if self.accumulate > 1 else "devices"
            raise ValueError(
                f"training.optimizer hessian-free takes one whole batch on one device: leave training.{name} at "
                f"{TrainingOptions.__dataclass_fields__[name].default}"
                + (", and set batch_tokens higher" if name == "accumulate" else "")
            )


def planned_updates(options: TrainingOptions, batches: int) -> tuple[int, int]:
    """(updates in an epoch of so many batches, updates in the whole run); minutes and patience may end it earlier."""
    per_epoch = max(1, math.ceil(batches / options.accumulate))
    limits = [options.max_epochs * per_epoch, *([options.max_steps] if options.max_steps else [])]
    return per_epoch, min(limits)


def rate(options: TrainingOptions, step: int, steps_per_epoch: int, planned_steps: int, halvings: int = 0) -> float:
    """The learning rate of update `step`, the first being 0; `halvings` are those of the plateau schedule so far."""
    warm = min(1.0, (step + 1) / (options.warmup_steps or 1))
    match options.schedule:
        case "inverse-sqrt":
            factor = math.sqrt(max(options.warmup_steps, 1) / max(step + 1, options.warmup_steps, 1))
        case "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(planned_steps, 1))))
        case "plateau":
            factor = 0.5**halvings
        case "halving":
            factor = 0.5 ** max(0, 1 + math.floor((step / steps_per_epoch - options.halve_after) / options.halve_every))
        case "constant":
            factor = 1.0
    return options.learning_rate * warm * factor


class DataModule(pl.LightningDataModule):
    """Batches of an encoded training corpus and an encoded validation corpus."""

    def __init__(self, train: EncodedCorpus, validation: EncodedCorpus, options: TrainingOptions, seed: int) -> None:
        super().__init__()
        self.train, self.validation, self.options, self.seed = train, validation, options, seed

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of this rank, resumable at any batch."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(self.train, shuffle=True, rank=rank, world=world)

    def val_dataloader(self) -> BatchLoader:
        """The whole validation corpus, on every rank."""
        return self._loader(self.validation, shuffle=False)

    def _loader(self, corpus: EncodedCorpus, *, shuffle: bool, rank: int = 0, world: int = 1) -> BatchLoader:
        batches = TokenBatches(
            corpus.source_lengths,
            corpus.target_lengths,
            self.options.batch_tokens,
            self.seed,
            rank=rank,
            world=world,
            shuffle=shuffle,
        )
        return BatchLoader(corpus, batches)


class TrainingModule(pl.LightningModule):
    """What every kind of model is trained by: cross-entropy summed, optimisers, schedules; validation by perplexity.

    A kind of model says how a batch is read, in `read`; of a batch, `target_out` (B, T) is what the model must say, and
    `words` (W,) are the places in it, row after row, that are no padding.
    """

    def __init__(self, model: Model, options: TrainingOptions) -> None:
        super().__init__()
        self.model, self.options = model, options
        self.units = 0  # words or sentences whose gradients wait for the next update
        self.halvings, self.best_loss = 0, math.inf
        self.random_state: list[Tensor] = []  # of the CPU, then of the GPU if there is one
        self.batch: Any = None  # that of the update under way

    def read(self, batch: Any) -> Tensor:
        """The readout (B, T, R) of a batch."""
        raise NotImplementedError

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """From pinned memory a GPU fetches a batch while it computes; the host does not wait for it."""
        if self.device.type != "cuda":
            return batch
        return batch._make(part.pin_memory() if isinstance(part, Tensor) else part for part in batch)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The summed loss of a batch; `configure_gradient_clipping` divides by the units of the whole update."""
        self.batch = batch
        loss, words = self._loss(batch, self.options.label_smoothing)
        self.units += words if self.options.loss_per == "word" else batch.target_out.size(0)
        self.log("loss", loss.detach() / words, batch_size=words, prog_bar=True)
        return loss * self.options.accumulate  # Lightning divides by it

    def _loss(self, batch: Any, smoothing: float) -> tuple[Tensor, int]:
        """Cross-entropy summed over the batch, and its words; the output layer sees no padding."""
        readout = self.read(batch).flatten(0, 1).index_select(0, batch.words)  # (W, R)
        logits = self.model.output(readout)  # (W, V)
        return cross_entropy(logits, batch.target_out.flatten()[batch.words], smoothing), len(batch.words)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser; its rate is set before every update, so a resumed run obeys the options it is given."""
        options, parameters = self.options, self.model.parameters()
        if options.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=options.learning_rate)
        if options.optimizer == "rmsprop":
            return torch.optim.RMSprop(parameters, lr=options.learning_rate, alpha=0.9)
        if options.optimizer == "hessian-free":
            assert isinstance(self.model, Seq2Seq)
            for layer in recurrent_layers(self.model):
                layer.looped = True  # curvature needs more than the one backward pass that is written out
            return HessianFree(
                Spelling(self.model).named_parameters(),
                damping=options.damping,
                structural_damping=options.structural_damping,
            )
        betas = (0.9, options.adam_beta2)
        fused = self.trainer.precision != "16-mixed"  # fused, it would unscale fp16 gradients only after the clipping
        return torch.optim.AdamW(
            parameters, lr=options.learning_rate, betas=betas, weight_decay=options.weight_decay, fused=fused
        )

    def optimizer_step(
        self, epoch: int, batch_index: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """One update; hessian-free is told the function that it lowers."""
        if self.options.optimizer != "hessian-free":
            super().optimizer_step(epoch, batch_index, optimizer, optimizer_closure)
            return
        assert optimizer_closure is not None
        optimizer_closure()  # logs the loss and gives the gradient
        assert self.batch is not None
        assert isinstance(self.model, Seq2Seq)
        optimizer.step(objective=objective(self.model, self.batch, self.options.label_smoothing))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the rate of this update."""
        per_epoch, planned = planned_updates(self.options, int(self.trainer.num_training_batches))
        for group in optimizer.param_groups:
            group["lr"] = rate(self.options, self.global_step, per_epoch, planned, self.halvings)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Divide the summed gradient by its words or sentences and clip its norm, in one pass."""
        units: float | Tensor = float(self.units)
        if self.options.devices > 1:
            units = self.trainer.strategy.reduce(torch.tensor(units, device=self.device), reduce_op="mean")
        self.units = 0
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) / units
        scale = ((self.options.clip_norm or math.inf) / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, scale / units)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Cross-entropy per word, unsmoothed."""
        loss, words = self._loss(batch, 0.0)
        self.log("val_loss", loss / words, batch_size=words, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Take note of the loss; checkpoints are saved after this."""
        self._judge_loss(float(self.trainer.callback_metrics["val_loss"]))

    def _judge_loss(self, loss: float) -> None:
        """The plateau schedule: halve the rate when the loss has not improved."""
        self.halvings += loss >= self.best_loss
        self.best_loss = min(loss, self.best_loss)

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop at the last planned update by request: then Lightning validates and saves it, wherever it falls."""
        if self.global_step >= planned_updates(self.options, int(self.trainer.num_training_batches))[1]:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What an uninterrupted run would still know: the random state of dropout, and the plateau's count."""
        gpu = self.device if self.device.type == "cuda" else None
        random = [torch.get_rng_state(), *([torch.cuda.get_rng_state(gpu)] if gpu else [])]
        checkpoint["nmt"] = {"random": random, "halvings": self.halvings, "best_loss": self.best_loss}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        state = checkpoint["nmt"]
        self.random_state, self.halvings, self.best_loss = state["random"], state["halvings"], state["best_loss"]

    def on_train_start(self) -> None:
        """Restore the random state last, when nothing else draws before the first batch."""
        if self.random_state:
            torch.set_rng_state(self.random_state[0])
        if self.random_state and self.trainer.global_rank:  # it was that of the first process: each draws its own
            torch.manual_seed(int(torch.randint(2**62, ())) + self.trainer.global_rank)
        elif self.device.type == "cuda" and len(self.random_state) > 1:
            torch.cuda.set_rng_state(self.random_state[1], self.device)


class TranslationModule(TrainingModule):
    """Teacher forcing; validation also by BLEU of beam-decoded sentences."""

    model: Seq2Seq

    def __init__(
        self,
        model: Seq2Seq,
        options: TrainingOptions,
        tokenizers: Tokenizers,
        validation: list[Pair],
        language: str = "",
    ) -> None:
        super().__init__(model, options)
        self.tokenizers, self.validation, self.language = tokenizers, validation, language
        self.guide = Guide(model, options.guide_updates if options.optimizer != "hessian-free" else 0)

    def _loss(self, batch: Batch, smoothing: float) -> tuple[Tensor, int]:
        """The same, and in training what the guide adds for where attention lies."""
        loss, words = super()._loss(batch, smoothing)
        return loss + self.guide.penalty(self.global_step, batch), words

    def read(self, batch: Batch) -> Tensor:
        """The readout (B, T, R) of each target word, given those before it and the source."""
        truncate = self.options.truncate if self.training else 0
        readout: Tensor = self.model(batch.source, batch.source_lengths, batch.target_in, truncate)
        return readout

    def on_validation_epoch_end(self) -> None:
        """BLEU of the validation sentences, translated by the real search."""
        if self.options.validation_metric == "bleu":
            search = SearchOptions(beam_size=self.options.validation_beam)
            translator = Translator(self.model, self.tokenizers, search)
            hypotheses = [answer.text for answer in translator.translate(pair.source for pair in self.validation)]
            references = [[pair.target for pair in self.validation]]
            [bleu] = evaluate(hypotheses, references, metrics=("bleu",), language=self.language)
            self.log("val_bleu", bleu.score, sync_dist=True)
            loss = min(1e3, float(self.trainer.callback_metrics["val_loss"]))
            self.log(CHOICE, bleu.score - 1e-6 * loss, sync_dist=True)
        super().on_validation_epoch_end()


def choose_precision(precision: Precision, device: torch.device) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Lightning's name; `auto` is bf16 where the device multiplies it in hardware, fp16 on older GPUs, else fp32."""
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if has_bf16_on_gpu() else "fp16"
        else:
            precision = "bf16" if has_bf16() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise OptionError("training.precision fp16 needs a GPU: on a CPU use bf16, fp32 or auto")
    names: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]]
    names = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    return names[precision]
