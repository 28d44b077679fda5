"""Text in, text out: tokenise, batch, search, detokenise. What the command line and programs call."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from nmt import checkpoint
from nmt.batches import collate_sources
from nmt.checkpoint import Tokenizers
from nmt.model import products
from nmt.model.decoding import LaidModel, lay_out
from nmt.model.narrowed import NarrowedModel
from nmt.model.seq2seq import Seq2Seq
from nmt.search import Hypothesis, SearchOptions, Stepper, beam_search
from nmt.shortlist import Shortlist, load_shortlist
from nmt.tokenizer import BOS, EOS, PAD, UNK, Tokenizer

Precision = Literal["auto", "fp32", "bf16", "int8"]
WINDOW = 4096  # lines read ahead, to be sorted by length
LONGEST = 1000  # pieces of one line


class OptionError(ValueError):
    """An option that cannot be."""

    exit_code = 2


class Candidate(NamedTuple):
    """One translation of a line."""

    text: str
    pieces: tuple[str, ...]
    score: float  # what ranks it: log-probability over the length penalty
    log_prob: float  # natural log
    alignment: Tensor | None  # (T, S) attention to source pieces, the last one EOS; None without attention or unasked


class Translation(NamedTuple):
    """A line's translations, best first; a blank line has one, which is blank."""

    source: str
    source_pieces: tuple[str, ...]
    candidates: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        """The best one."""
        return self.candidates[0].text


BLANK = (Candidate("", (), 0.0, 0.0, None),)


class Translator:
    """A model, its tokenizers and how to search; `Translator.load(folder)` makes one from a model folder.

    Args:
        model: In evaluation mode; changes made to its weights later are not followed.
        tokenizers: One per side.
        search: How to search.
        precision: Arithmetic of the matrix products; auto is bf16 on a CPU with instructions for it, else fp32. int8 is
            the fastest on a CPU, at some loss (see docs/benchmarks.md).
        batch_tokens: Padded source pieces of a batch, times the beam. No translation depends on it.
        longest: Pieces of the longest line that is taken; more is an error that names the line.
        shortlist: The target pieces to choose from; without it, all. On a CPU alone.
    """

    def __init__(
        self,
        model: Seq2Seq,
        tokenizers: Tokenizers,
        search: SearchOptions | None = None,
        *,
        precision: Precision = "auto",
        batch_tokens: int = 16384,
        longest: int = LONGEST,
        shortlist: Shortlist | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise OptionError(f"batch_tokens must be at least 1, not {batch_tokens}")
        self.device = model.output.weight.device
        self.precision = choose_precision(precision, self.device)
        self.stepper, self.shortlist = lay_out(model, self.precision), shortlist
        if shortlist is not None and not isinstance(self.stepper, LaidModel):
            raise OptionError(
                "a shortlist is for translating on a CPU, and for models without deep transitions and zoneout"
            )
        self.tokenizers, self.search = tokenizers, search or SearchOptions()
        self.batch_tokens, self.longest = batch_tokens, longest

    @classmethod
    def load(
        cls,
        folder: str | Path,
        search: SearchOptions | None = None,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_tokens: int = 16384,
        longest: int = LONGEST,
        shortlist: bool = False,
    ) -> "Translator":
        """Read a model folder; without `search`, with the decoding defaults that it holds.

        With `shortlist`, FileNotFoundError for a folder that has none.
        """
        saved = checkpoint.load(folder, choose_device(device))
        return cls(
            saved.model,
            saved.tokenizers,
            search or SearchOptions(**saved.config.get("search", {})),
            precision=precision,
            batch_tokens=batch_tokens,
            longest=longest,
            shortlist=load_shortlist(folder, saved.tokenizers) if shortlist else None,
        )

    def translate(
        self, lines: Iterable[str], *, with_alignment: bool = False, window: int = WINDOW
    ) -> Iterator[Translation]:
        """Translate line by line, in order. At most `window` lines are held, so the input may be endless.

        Raises ValueError, naming the line, for one of more than `longest` pieces.
        """
        source, start = iter(lines), 1
        while texts := list(islice(source, window)):
            yield from self.window(texts, start, with_alignment)
            start += len(texts)

    def window(self, texts: list[str], start: int, with_alignment: bool) -> list[Translation]:
        """Translate lines together, those of like length in a batch; `start` is the number of the first, for errors."""
        ids = self.tokenizers.source.encode(texts)
        for number, (text, row) in enumerate(zip(texts, ids, strict=True), start):
            if len(row) > self.longest:
                raise ValueError(
                    f"line {number} has {len(row):,} pieces ({len(text.split()):,} words), more than {self.longest:,}: "
                    "split it into sentences, one a line"
                )
        results = [Translation(text, (), BLANK) for text in texts]
        batches = list(self._batches([len(row) for row in ids]))
        with _side_by_side(len(batches), self.device) as each:
            found = each(lambda chosen: self._search([ids[index] for index in chosen], with_alignment), batches)
            answers = [_detokenise(one, self.tokenizers.target) for one in found]
        for chosen, candidates in zip(batches, answers, strict=True):
            for index, answer in zip(chosen, candidates, strict=True):
                pieces = tuple(self.tokenizers.source.pieces(ids[index]))
                results[index] = Translation(texts[index], pieces, answer or BLANK)
        return results

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Indices of the lines that have any pieces, longest first, cut into batches of `batch_tokens`."""
        order = sorted((index for index, length in enumerate(lengths) if length), key=lambda index: -lengths[index])
        budget = self.batch_tokens // self.search.beam_size
        while order:
            size = max(1, budget // (lengths[order[0]] + 1))
            yield order[:size]
            order = order[size:]

    def _search(self, rows: list[list[int]], with_alignment: bool) -> list[list[Hypothesis]]:
        source, lengths = collate_sources(rows)
        if self.shortlist is None:
            return self._found(self.stepper, source, lengths, with_alignment)
        assert isinstance(self.stepper, LaidModel)
        ids, allowed = self.shortlist.candidates(source)
        found = self._found(NarrowedModel(self.stepper, ids, allowed), source, lengths, with_alignment)
        numbers = ids.tolist()
        return [[h._replace(tokens=tuple(numbers[token] for token in h.tokens)) for h in one] for one in found]

    def _found(
        self, stepper: Stepper[Any], source: Tensor, lengths: Tensor, with_alignment: bool
    ) -> list[list[Hypothesis]]:
        reduced = self.device.type == "cuda" and self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            return beam_search(
                stepper,
                source.to(self.device),
                lengths.to(self.device),
                self.search,
                bos=BOS,
                eos=EOS,
                banned=(PAD, UNK, BOS),
                with_alignment=with_alignment,
            )


@contextmanager
def _side_by_side(batches: int, device: torch.device) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over batches: on a CPU, each on a thread of its own with one core, which small products use best."""
    threads = min(torch.get_num_threads(), batches)
    if device.type != "cpu" or threads < 2:
        yield map
        return
    cores = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(cores)  # what later threads start with


def _detokenise(found: list[list[Hypothesis]], tokenizer: Tokenizer) -> list[tuple[Candidate, ...]]:
    """Hypotheses of each sentence -> candidates of each sentence."""
    texts = iter(tokenizer.decode([hypothesis.tokens for hypotheses in found for hypothesis in hypotheses]))
    return [
        tuple(
            Candidate(next(texts), tuple(tokenizer.pieces(h.tokens)), h.score, h.log_prob, _kept(h.alignment))
            for h in hypotheses
        )
        for hypotheses in found
    ]


def _kept(alignment: Tensor | None) -> Tensor | None:
    """An alignment of width 0, from a model without attention, is none."""
    return alignment if alignment is not None and alignment.size(-1) else None


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU. OptionError for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"no such device: {name!r}. Use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"device {name}: only cpu and cuda are known here")
    if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"device {name}: this machine has {torch.cuda.device_count()} GPUs, counted from cuda:0")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"device {name}: this machine has no GPU that torch can use. Use --device cpu")
    return device


def choose_precision(precision: Precision, device: torch.device) -> products.Precision:
    """`auto` is bf16 on a CPU that multiplies it in hardware, else fp32. OptionError for int8 where there is none."""
    if precision == "auto":
        return "bf16" if device.type == "cpu" and products.has_bf16() else "fp32"
    if precision == "int8" and (device.type != "cpu" or not products.has_int8()):
        raise OptionError(f"precision int8 needs an x86 CPU, not {device}: use auto, bf16 or fp32")
    return precision
