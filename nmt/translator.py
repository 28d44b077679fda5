"""Text in, text out: tokenise, batch, search, detokenise. What the command line and programs call."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from nmt.answers import BLANK, AnswerOptions, Translation, answer
from nmt.batches import collate_sources
from nmt.checkpoint import Tokenizers
from nmt.decoding import decode, price
from nmt.members import Folders, listed, load_members
from nmt.model import products
from nmt.model.attention import Attention
from nmt.model.graphed import GraphedModel
from nmt.model.laid import LaidModel, can_be_laid_out, lay_out
from nmt.model.language_model import LanguageModel
from nmt.model.narrowed import NarrowedModel
from nmt.model.seq2seq import Seq2Seq
from nmt.sampling import SamplingOptions
from nmt.search import Hypothesis, SearchOptions, Stepper
from nmt.shortlist import Shortlist, load_shortlist
from nmt.steppers import Ensemble, Rounded, ShallowFusion, Space
from nmt.tokenizer import BOS, EOS, PAD, UNK

Precision = Literal["auto", "fp32", "bf16", "int8"]
WINDOW = 4096  # lines read ahead, to be sorted by length
LONGEST = 1000  # pieces of one line
SHARES, LEAST = 4, 1024  # batches that each core gets at least, but none for that of so few pieces times the beam


class OptionError(ValueError):
    """An option that cannot be."""

    exit_code = 2


class Request(NamedTuple):
    """A line to translate, and what its translation must have in it."""

    source: str
    prefix: str = ""  # what it begins with; its last word may go on
    phrases: tuple[str, ...] = ()  # what stands somewhere in it, from the beginning of a word on


class Job(NamedTuple):
    """A line as ids."""

    number: int
    source: list[int]
    prefix: list[int]
    phrases: list[list[int]]


class Translator:
    """Models, their tokenizers and how to search; `Translator.load(folder)` makes one from a model folder.

    Args:
        model: In evaluation mode; changes made to its weights later are not followed.
        tokenizers: One per side.
        search: How to search.
        precision: Arithmetic of the matrix products; auto is bf16 on what has instructions for it, else fp32. int8 is
            for CPUs (docs/benchmarks.md says what it gains and costs); a language model beside stays in fp32 there, and
            so does what words say to a first layer where our own kernels do not serve.
        batch_tokens: Padded source pieces of a batch, times the beam. No translation depends on it, but for rounding.
        longest: Pieces of the longest line that is taken; more is an error that names the line.
        shortlist: The target pieces to choose from; without it, all. For one model on a CPU.
        others: Further models, of the same vocabularies: the translator is their ensemble.
        space: Where an ensemble averages: linear, the probabilities; log, their logarithms.
        language_model: Of the target side and its vocabulary; has a say in each word (shallow fusion), of ...
        language_weight: ... so much. Scores are then those of both; a candidate's log_prob stays without it.
        sampling: Draw translations instead of searching for the best.
        answers: What is made of the translations found.
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
        others: Sequence[Seq2Seq] = (),
        space: Space = "linear",
        language_model: LanguageModel | None = None,
        language_weight: float = 0.0,
        sampling: SamplingOptions | None = None,
        answers: AnswerOptions | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise OptionError(f"batch_tokens must be at least 1, not {batch_tokens}")
        self.device = model.output.weight.device
        laid = all(can_be_laid_out(one) for one in (model, *others))
        self.precision = choose_precision(precision, self.device, laid)
        self.search, self.sampling = search or SearchOptions(), sampling
        width = sampling.samples if sampling else self.search.beam_size
        members = [ready(one, self.precision, width > 1) for one in (model, *others)]
        if shortlist is not None and not (len(members) == 1 and isinstance(members[0], LaidModel)):
            raise OptionError(
                "a shortlist is for one model, on a CPU, without deep transitions and zoneout: leave it out"
            )
        if shortlist is not None and language_model is not None:
            raise OptionError("a shortlist is for a translation model by itself: leave it out, or the language model")
        self.shortlist = shortlist
        self.stepper: Stepper[Any] = Ensemble(members, space) if others else members[0]
        self.fused = (
            ShallowFusion(self.stepper, language_model, language_weight) if language_model is not None else None
        )
        self.tokenizers, self.answers = tokenizers, answers or AnswerOptions()
        if self.answers.copy_unknown:
            if not any(isinstance(one.decoder.attention, Attention) for one in (model, *others)):
                raise OptionError("unknown words are copied by attention, and this model has none")
            self.search = replace(self.search, allow_unknown=True)
        self.batch_tokens, self.longest, self.each = batch_tokens, longest, SideBySide(self.device)

    @classmethod
    def load(
        cls,
        folders: Folders,
        search: SearchOptions | None = None,
        *,
        device: str = "auto",
        language_model: str | Path | None = None,
        shortlist: bool = False,
        **options: Any,
    ) -> "Translator":
        """Read a model folder, or several of one vocabulary, which translate together, and a language model's.

        Without `search`, with the decoding defaults that the first folder holds; `options` are those of a translator.
        Raises ValueError for models that cannot speak together; with `shortlist`, FileNotFoundError for a folder that
        has none.
        """
        members = load_members(folders, language_model, choose_device(device))
        language = str(members.config["data"]["target_language"])
        search = search or SearchOptions(**members.config.get("search", {}))
        model, *others = members.models
        options |= {"others": others, "language_model": members.language_model}
        options["answers"] = replace(options.get("answers") or AnswerOptions(), language=language)
        if shortlist:
            options["shortlist"] = load_shortlist(listed(folders)[0], members.tokenizers)
        return cls(model, members.tokenizers, search, **options)

    def translate(
        self, lines: Iterable[str | Request], *, with_alignment: bool = False, window: int = WINDOW
    ) -> Iterator[Translation]:
        """Translate line by line, in order. At most `window` lines are held, so the input may be endless.

        Raises ValueError, naming the line, for one of more than `longest` pieces, and for a prefix or phrase that
        cannot be said.
        """
        source, start = iter(lines), 1
        while held := list(islice(source, window)):
            yield from self.window(held, start, with_alignment)
            start += len(held)

    def window(self, lines: Sequence[str | Request], start: int, with_alignment: bool) -> list[Translation]:
        """Translate lines together, those of like length in a batch.

        `start` is the number of the first, for errors, and for sampling, which draws by number.
        """
        requests = [Request(line) if isinstance(line, str) else line for line in lines]
        ids = self.tokenizers.source.encode([request.source.strip() and request.source for request in requests])
        jobs = [self._job(*one) for one in zip(range(start, start + len(ids)), ids, requests, strict=True)]
        batches = self._batches([len(row) for row in ids])
        search = partial(self._search, with_alignment=with_alignment or self.answers.copy_unknown)
        found: list[list[Hypothesis]] = [[] for _ in jobs]
        answers = self.each(lambda chosen: search([jobs[index] for index in chosen]), batches)
        for chosen, batch in zip(batches, answers, strict=True):
            for index, hypotheses in zip(chosen, batch, strict=True):
                found[index] = hypotheses
        for job, hypotheses in zip(jobs, found, strict=True):
            if job.source and not hypotheses:
                raise ValueError(f"line {job.number}: no translation has any probability under these options")
        pieces = self.tokenizers.source.pieces
        blank = [
            Translation(request.source, tuple(pieces(row)), BLANK) for request, row in zip(requests, ids, strict=True)
        ]
        drawn, target = self.sampling is not None, self.tokenizers.target
        return answer(blank, found, target, self.answers, drawn=drawn, with_alignment=with_alignment)

    def _job(self, number: int, source: list[int], request: Request) -> Job:
        """A line, checked, with the ids of what is asked for."""
        if len(source) > self.longest:
            raise ValueError(
                f"line {number} has {len(source):,} pieces ({len(request.source.split()):,} words), more than "
                f"{self.longest:,}: split it into sentences, one a line"
            )
        if not request.prefix.strip() and not request.phrases:
            return Job(number, source, [], [])
        if self.shortlist is not None:
            raise ValueError(f"line {number}: nothing can be asked for among the words of a shortlist: leave it out")
        asked = request.prefix.strip() and request.prefix, *request.phrases
        prefix, *phrases = rows = self.tokenizers.target.encode(asked)
        if not source and any(rows):
            raise ValueError(f"line {number} is blank, and so is its translation: ask for nothing in it")
        for text, row in zip(asked, rows, strict=True):
            if UNK in row:
                known = " ".join(self.tokenizers.target.pieces(row))
                raise ValueError(f"line {number}: the model cannot say {text!r}, only {known}: leave it out")
        return Job(number, source, prefix, [phrase for phrase in phrases if phrase])

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the lines that have any pieces, longest first, cut into batches of at most `batch_tokens`.

        On a CPU each core gets several of them, and all get as many, or one would wait for the other in the end.
        """
        order = sorted((index for index, length in enumerate(lengths) if length), key=lambda index: -lengths[index])
        width = self.sampling.samples if self.sampling else self.search.beam_size
        budget = self.batch_tokens // width
        if self.device.type == "cpu":
            share = (sum(lengths) + len(lengths)) // (SHARES * torch.get_num_threads())
            budget = min(budget, max(share, LEAST // width))
        batches = []
        while order:
            size = max(1, budget // (lengths[order[0]] + 1))
            batches.append(order[:size])
            order = order[size:]
        return evened(batches, torch.get_num_threads()) if self.device.type == "cpu" else batches

    def _search(self, jobs: list[Job], with_alignment: bool) -> list[list[Hypothesis]]:
        source, lengths = (part.to(self.device) for part in collate_sources([job.source for job in jobs]))
        if self.shortlist is None:
            found = self._decode(self.fused or self.stepper, source, lengths, jobs, self._text, with_alignment)
            return self._own(found, source, lengths) if self.fused else found
        assert isinstance(self.stepper, LaidModel)
        ids, allowed = self.shortlist.candidates(source)
        numbers = ids.tolist()

        def full(tokens: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(numbers[token] for token in tokens)

        narrowed = NarrowedModel(self.stepper, ids, allowed)
        found = self._decode(narrowed, source, lengths, jobs, lambda tokens: self._text(full(tokens)), with_alignment)
        found = [[hypothesis._replace(tokens=full(hypothesis.tokens)) for hypothesis in one] for one in found]
        return self._own(found, source, lengths) if self.answers.priced else found

    def _decode(
        self,
        stepper: Stepper[Any],
        source: Tensor,
        lengths: Tensor,
        jobs: list[Job],
        text: Callable[[tuple[int, ...]], str],
        with_alignment: bool,
    ) -> list[list[Hypothesis]]:
        return decode(
            stepper,
            source,
            lengths,
            self.search,
            bos=BOS,
            eos=EOS,
            banned=(PAD, BOS),
            unknown=UNK,
            prefixes=[job.prefix for job in jobs],
            constraints=[job.phrases for job in jobs],
            sampling=self.sampling,
            numbers=[job.number for job in jobs],
            distinct=text if self.answers.distinct else None,
            with_alignment=with_alignment,
        )

    def _own(self, found: list[list[Hypothesis]], source: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """The same, their log-probabilities those of the translation models alone, as `nmt score` has them."""
        said = [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in found]
        prices = price(self.stepper, source, lengths, said, bos=BOS, eos=EOS)
        return [
            [hypothesis._replace(log_prob=own) for hypothesis, own in zip(hypotheses, row, strict=True)]
            for hypotheses, row in zip(found, prices, strict=True)
        ]

    def _text(self, tokens: tuple[int, ...]) -> str:
        return self.tokenizers.target.decode([tokens])[0]


def ready(model: Seq2Seq, precision: products.Precision, shared: bool) -> Stepper[Any]:
    """A model ready to decode, as fast as its device can; `shared`: several hypotheses of a sentence at once."""
    laid, device = lay_out(model, precision, shared), model.output.weight.device
    if isinstance(laid, LaidModel):
        return GraphedModel(laid) if device.type == "cuda" else laid
    return Rounded(laid, device.type) if precision == "bf16" else laid


def evened(batches: list[list[int]], cores: int) -> list[list[int]]:
    """The same lines in batches of which each of so many cores gets as many: each that is over is dealt out to all.

    As far as its lines go.
    """
    over = len(batches) % cores if len(batches) > cores else 0
    found = batches[: len(batches) - over]
    for batch in batches[len(batches) - over :]:
        parts = min(cores, len(batch))
        found += [batch[len(batch) * part // parts : len(batch) * (part + 1) // parts] for part in range(parts)]
    return found


class SideBySide:
    """A `map` over batches: on a CPU, each on a thread with one core, which small products use best.

    The threads stay for the next call.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool: ThreadPoolExecutor | None = None

    def __call__(self, search: Callable[[list[int]], Any], batches: Sequence[list[int]]) -> list[Any]:
        """The searches of all batches, in order."""
        cores = torch.get_num_threads()
        if self.device.type != "cpu" or min(cores, len(batches)) < 2:
            return list(map(search, batches))
        self.pool = self.pool or ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
        try:
            return list(self.pool.map(search, batches))
        finally:
            torch.set_num_threads(cores)  # what later threads start with


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU. OptionError for a device that is not here.

    On a GPU fp32 is fp32 from then on: cuDNN otherwise rounds what it multiplies to 10 bits (TF32).
    """
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
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return device


def choose_precision(precision: Precision, device: torch.device, laid: bool = True) -> products.Precision:
    """`auto` is bf16 on a device that multiplies it in hardware, else fp32; `laid` is whether models are laid out.

    OptionError for int8 where there is none.
    """
    if precision == "auto":
        in_hardware = products.has_bf16() if device.type == "cpu" else products.has_bf16_on_gpu()
        return "bf16" if laid and in_hardware else "fp32"
    if precision == "int8" and (device.type != "cpu" or not products.has_int8()):
        raise OptionError(f"precision int8 needs an x86 CPU, not {device}: use auto, bf16 or fp32")
    if precision == "int8" and not laid:
        raise OptionError("precision int8 is not for deep transitions and zoneout: use auto, bf16 or fp32")
    return precision
