"""Training a language model: truncated back-propagation through running text, its state carried on and on.

The state that the last update left is the first of the next (Mikolov et al. 2010; Williams & Peng 1990), so the model
remembers more than the errors travel back. It is part of every checkpoint: a resumed run goes on with it.

Shapes: **B** streams, **T** steps of a stretch, **R** readout.
"""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from nmt.model.cells import like
from nmt.model.language_model import LanguageModel, LanguageState
from nmt.monolingual import EncodedText, SentenceLoader, Stretch, Stretches, StretchLoader
from nmt.training import TrainingModule, TrainingOptions


class TextModule(pl.LightningDataModule):
    """Stretches of a training text, and the sentences of a validation text, each by itself."""

    def __init__(self, train: EncodedText, validation: EncodedText, options: TrainingOptions) -> None:
        super().__init__()
        self.train, self.validation, self.options = train, validation, options

    def train_dataloader(self) -> StretchLoader:
        """The text in its order, resumable at any stretch."""
        return StretchLoader(Stretches(self.train.ids, self.options.batch_tokens, self.options.truncate))

    def val_dataloader(self) -> SentenceLoader:
        """The whole validation text."""
        return SentenceLoader(self.validation, self.options.batch_tokens)


class LanguageModule(TrainingModule):
    """A language model over running text; validation by perplexity of single sentences, as `nmt score` computes it."""

    model: LanguageModel

    def __init__(self, model: LanguageModel, options: TrainingOptions) -> None:
        super().__init__(model, options)
        self.carried: LanguageState | None = None  # after the last stretch that was trained on

    def read(self, batch: Stretch) -> Tensor:
        """The readout (B, T, R) of each token; in training, going on from the stretch before."""
        state = self.model.start(batch.target_in, batch.target_in)
        if not batch.fresh and self.carried is not None:
            state = self.carried
        readout: Tensor
        readout, state = self.model(batch.target_in, state)
        if self.training:
            self.carried = state.detach()
        return readout

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What an uninterrupted run would still know, the carried state with it."""
        super().on_save_checkpoint(checkpoint)
        carried = None if self.carried is None else [tuple(layer) for layer in self.carried.layers]
        checkpoint["nmt"]["carried"] = carried

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        super().on_load_checkpoint(checkpoint)
        layers = checkpoint["nmt"]["carried"]
        if layers is not None:
            rows = layers[0][0]  # (B, H)
            zero = self.model.start(rows, rows)
            device = zero.alignment.device
            states = zip(zero.layers, layers, strict=True)
            kept = tuple(like(layer, (part.to(device) for part in parts)) for layer, parts in states)
            self.carried = zero._replace(layers=kept)
