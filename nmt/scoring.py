"""How probable a model finds text that is given: a translation of its source, or a sentence by itself.

Log-probabilities are natural logarithms and count the end of the sentence. A line that has no pieces on either side is
blank, as `translate` has it: log-probability 0. A side that alone is blank is scored as it stands, as a sentence that
ends at once.

Shapes: **B** pairs, **T** target length, **W** words of a batch without padding, **R** readout, **V** vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from nmt import checkpoint
from nmt.alignment import words
from nmt.batches import Batch, Ids, TokenBatches, collate
from nmt.checkpoint import Tokenizers
from nmt.corpus import Pair
from nmt.evaluation import Score
from nmt.model.language_model import LanguageModel
from nmt.model.seq2seq import Seq2Seq
from nmt.states import select
from nmt.tokenizer import PAD
from nmt.translator import LONGEST, WINDOW, OptionError, choose_device

OUTPUT_ROWS = 1024  # words whose logits are in memory at once

Place = Callable[[int, int], str]  # what a line is called: that of a pair, from 1, on side 0, source, or 1, target
Kind = Literal["nmt", "reverse", "lm"]
Precision = Literal["auto", "fp32", "bf16"]


class Scored(NamedTuple):
    """What a model makes of one line."""

    pieces: tuple[str, ...]  # of the side that is scored, the EOS last; none for a blank line
    log_probs: tuple[float, ...]  # of each piece, given those before it
    words: int  # between spaces, and the end of the sentence; 0 for a blank line

    @property
    def log_prob(self) -> float:
        """Of the whole line."""
        return math.fsum(self.log_probs)

    @property
    def per_word(self) -> float:
        """The mean of its words, the end of the sentence among them; 0 for a blank line."""
        return self.log_prob / max(self.words, 1)


BLANK = Scored((), (), 0)


@dataclass
class Totals:
    """What the lines of a text add up to; blank ones are counted apart."""

    lines: int = 0
    blank: int = 0
    words: int = 0
    pieces: int = 0
    log_prob: float = 0.0

    def add(self, scored: Scored) -> None:
        """Take one line into account."""
        self.lines += 1
        self.blank += not scored.words
        self.words += scored.words
        self.pieces += len(scored.pieces)
        self.log_prob += scored.log_prob

    def perplexity(self, units: int) -> float:
        """exp of the mean negative log-probability of so many words or pieces."""
        return math.exp(min(-self.log_prob / max(units, 1), 700.0))

    def __str__(self) -> str:
        blank = f" ({self.blank:,} blank)" if self.blank else ""
        return (
            f"{self.lines:,} lines{blank}, {self.words:,} words, {self.pieces:,} pieces, ends of sentences counted: "
            f"log-probability {self.log_prob:.2f}, perplexity {self.perplexity(self.words):.2f} per word, "
            f"{self.perplexity(self.pieces):.2f} per piece"
        )


class Scorer:
    """A model and its tokenizers; `Scorer.load(folder)` makes one from the folder of a translator or language model.

    Args:
        model: Used in evaluation mode, on the device where it is.
        tokenizers: One per side; of a language model only the target's is used.
        reverse: Whether it is the source that is scored, given the target: the model translates the other way.
        precision: Arithmetic of the matrix products; auto is fp32.
        batch_tokens: Padded pieces of a batch, on the longer of its sides. No score depends on it.
        longest: Pieces of the longest side that is taken; more is an error that names the line.
    """

    def __init__(
        self,
        model: Seq2Seq | LanguageModel,
        tokenizers: Tokenizers,
        *,
        reverse: bool = False,
        precision: Precision = "auto",
        batch_tokens: int = 4096,
        longest: int = LONGEST,
    ) -> None:
        if batch_tokens < 1:
            raise OptionError(f"batch_tokens must be at least 1, not {batch_tokens}")
        if precision not in get_args(Precision):
            raise OptionError(f"precision of a scorer is one of {', '.join(get_args(Precision))}, not {precision}")
        self.model, self.tokenizers, self.reverse = model, tokenizers, reverse
        self.precision, self.batch_tokens, self.longest = precision, batch_tokens, longest

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        reverse: bool = False,
        device: str = "auto",
        precision: Precision = "auto",
        batch_tokens: int = 4096,
    ) -> "Scorer":
        """Read a model folder of either kind. OptionError for a language model that is to be reversed."""
        if checkpoint.task(folder) == "translation":
            model, tokenizers, *_ = checkpoint.load(folder, choose_device(device))
            return cls(model, tokenizers, reverse=reverse, precision=precision, batch_tokens=batch_tokens)
        if reverse:
            raise OptionError(f"{folder} holds a language model, which reads no source: give it as -m {folder}")
        language, tokenizers, *_ = checkpoint.load_language_model(folder, choose_device(device))
        return cls(language, tokenizers, precision=precision, batch_tokens=batch_tokens)

    @property
    def kind(self) -> Kind:
        """A translation model, one that scores the source, or a language model."""
        if isinstance(self.model, LanguageModel):
            return "lm"
        return "reverse" if self.reverse else "nmt"

    def score(
        self, pairs: Iterable[Pair], *, place: Place = lambda number, side: f"line {number}", window: int = WINDOW
    ) -> Iterator[Scored]:
        """Score pair by pair, in order; a language model reads the target alone. At most `window` pairs are held.

        Raises ValueError for a side of more than `longest` pieces, called what `place` calls it.
        """
        waiting, first = iter(pairs), 1
        while held := list(islice(waiting, window)):
            yield from self._window(held, place, first)
            first += len(held)

    def _window(self, pairs: list[Pair], place: Place, first: int) -> list[Scored]:
        pairs = [Pair(*(side.strip() and side for side in pair)) for pair in pairs]
        if self.reverse:
            pairs = [Pair(target, source) for source, target in pairs]
        given = [""] * len(pairs) if self.kind == "lm" else [pair.source for pair in pairs]
        sources = self.tokenizers.source.encode(given)
        targets = self.tokenizers.target.encode([pair.target for pair in pairs])
        for number, rows in enumerate(zip(sources, targets, strict=True), first):
            for side, row in enumerate(rows):
                if len(row) > self.longest:
                    named = place(number, 1 - side if self.reverse else side)
                    raise ValueError(
                        f"{named} has {len(row):,} pieces, more than {self.longest:,}: split it into sentences"
                    )
        found = iter(self.score_ids([rows for rows in zip(sources, targets, strict=True) if any(rows)]))
        return [
            Scored(self._pieces(target), next(found), len(words(pair.target)) + 1) if source or target else BLANK
            for pair, source, target in zip(pairs, sources, targets, strict=True)
        ]

    def _pieces(self, ids: list[int]) -> tuple[str, ...]:
        return (*self.tokenizers.target.pieces(ids), "</s>")

    @torch.inference_mode()
    def score_ids(self, rows: Sequence[tuple[Ids, Ids]]) -> list[tuple[float, ...]]:
        """Log-probabilities of each target's ids, and of its EOS, given its source's; both without BOS and EOS."""
        found: list[tuple[float, ...]] = [()] * len(rows)
        if not rows:
            return found
        sources, targets = (np.array([len(row[side]) + 1 for row in rows]) for side in (0, 1))
        for indices in TokenBatches(sources, targets, self.batch_tokens, seed=0, shuffle=False).epoch(0):
            answers = self._batch(collate([rows[index] for index in indices]))
            for index, answer in zip(indices, answers, strict=True):
                found[index] = tuple(answer.tolist())
        return found

    def _batch(self, batch: Batch) -> tuple[Tensor, ...]:
        """Log-probabilities (T,) of each of B targets."""
        device = self.model.output.weight.device
        batch = Batch(*(part.to(device) for part in batch))
        real = batch.target_out != PAD  # (B, T)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            readout = self._read(batch)[real]  # (W, R)
            words = batch.target_out[real]  # (W,)
            parts = zip(readout.split(OUTPUT_ROWS), words.split(OUTPUT_ROWS), strict=True)
            found = torch.cat([_log_probs(self.model.output(part), said) for part, said in parts])  # (W,)
        if found.isnan().any():
            raise ValueError("the model gave NaN log-probabilities: look at its loss, or try another precision")
        rows: tuple[Tensor, ...] = found.cpu().split(real.sum(1).tolist())
        return rows

    def _read(self, batch: Batch) -> Tensor:
        """The readout (B, T, R) of each target word."""
        if isinstance(self.model, LanguageModel):
            readout, _ = self.model(batch.target_in, self.model.start(batch.source, batch.source_lengths))
            assert isinstance(readout, Tensor)
            return readout
        source, which = batch.source.unique(dim=0, return_inverse=True)  # n-best lists have one source many times
        state = select(self.model.start(source, (source != PAD).sum(1)), which, which)
        return self.model.read(batch.target_in, state)[0]


def _log_probs(logits: Tensor, words: Tensor) -> Tensor:
    """Of the words (W,) under logits (W, V), in float32, as a step of the model has them."""
    return logits.float().log_softmax(dim=1).gather(1, words[:, None])[:, 0]


def perplexity(scorer: Scorer, sentences: Iterable[str]) -> list[Score]:
    """Of sentences under a language model, each by itself: per piece, and per word, whatever the pieces."""
    totals = Totals()
    for scored in scorer.score(Pair("", sentence) for sentence in sentences):
        totals.add(scored)
    vocabulary = scorer.tokenizers.target.digest[:8]
    return [
        Score("perplexity", totals.perplexity(totals.pieces), f"per:piece|eos:yes|state:zero|pieces:{vocabulary}"),
        Score("word perplexity", totals.perplexity(totals.words), "per:word|eos:yes|state:zero|split:space"),
    ]
