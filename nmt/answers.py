"""From what the search found to translations as text: detokenised, unknown words copied, the least risky one chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from nmt.alignment import Links, align, copy_unknown
from nmt.risk import UTILITIES, Utility, expected_utilities, sentence_utility
from nmt.search import Hypothesis
from nmt.tokenizer import UNK, Tokenizer


class Candidate(NamedTuple):
    """One translation of a line."""

    text: str
    pieces: tuple[str, ...]  # as they were said, UNK among them
    score: float  # what ranks it: see `SearchOptions`, or its expected utility in percent
    log_prob: float  # natural log, of the translation model or models alone, EOS included
    alignment: Tensor | None  # (T, S) attention to source pieces, the last one EOS; None without attention or unasked
    links: Links | None = None  # which words of source and text belong together; None as for alignment


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


@dataclass(frozen=True)
class AnswerOptions:
    """What is made of the translations that were found."""

    copy_unknown: bool = False  # UNK may be said, and reads as the source word that it looked at (Luong et al. 2015b)
    distinct: bool = False  # no text twice in an n-best list, which may be shorter then
    utility: str = ""  # chrf or bleu: of all that was found, only the one closest to the others (minimum Bayes risk)
    language: str = ""  # of the translations, by which bleu splits words
    priced: bool = True  # log_prob is the whole model's; without, of a shortlist it may be among its words, for less

    def __post_init__(self) -> None:
        if self.utility and self.utility not in UTILITIES:
            raise ValueError(f"utility is one of {', '.join(UTILITIES)}, not {self.utility!r}")


def answer(
    lines: Sequence[Translation],
    found: Sequence[Sequence[Hypothesis]],
    tokenizer: Tokenizer,
    options: AnswerOptions,
    *,
    drawn: bool = False,
    with_alignment: bool = False,
) -> list[Translation]:
    """The lines with what was found for each, best first; a line for which nothing was found stays as it is.

    `drawn` if found by sampling. Texts that differ as they were found may be one once unknown words are copied: of a
    `distinct` list the first of them stays.
    """
    texts = iter(tokenizer.decode([hypothesis.tokens for hypotheses in found for hypothesis in hypotheses]))
    utility = sentence_utility(options.utility, options.language) if options.utility else None
    answered = []
    for line, hypotheses in zip(lines, found, strict=True):
        made = [_candidate(line, one, next(texts), tokenizer, options, with_alignment) for one in hypotheses]
        if options.distinct and not drawn:
            made = _first_of_each_text(made)
        if made and utility:
            made = [least_risky(made, utility, drawn=drawn)]
        answered.append(line._replace(candidates=tuple(made)) if made else line)
    return answered


def _first_of_each_text(candidates: Sequence[Candidate]) -> list[Candidate]:
    firsts: dict[str, Candidate] = {}
    for candidate in candidates:
        firsts.setdefault(candidate.text, candidate)
    return list(firsts.values())


def least_risky(candidates: Sequence[Candidate], utility: Utility, *, drawn: bool) -> Candidate:
    """The candidate of the highest expected utility, which becomes its score; the first of equals.

    Samples that were `drawn` count alike, translations that were searched for as they are probable.
    """
    log_probs = None if drawn else [candidate.log_prob for candidate in candidates]
    texts = [candidate.text for candidate in candidates]
    expected = expected_utilities(texts, utility, log_probs)
    best = max(range(len(expected)), key=expected.__getitem__)
    return candidates[best]._replace(score=expected[best])


def _candidate(
    line: Translation,
    hypothesis: Hypothesis,
    text: str,
    tokenizer: Tokenizer,
    options: AnswerOptions,
    with_alignment: bool,
) -> Candidate:
    tokens, score, log_prob, looks = hypothesis
    pieces = tuple(tokenizer.pieces(tokens))
    if looks is None or not looks.size(1):  # a model without attention
        return Candidate(text, pieces, score, log_prob, None)
    if options.copy_unknown and UNK in tokens:
        text = copy_unknown(text, tokens, UNK, looks, line.source, line.source_pieces)
    if not with_alignment:
        return Candidate(text, pieces, score, log_prob, None)
    links = align(looks, line.source_pieces, pieces) if text.strip() else []
    return Candidate(text, pieces, score, log_prob, looks, links)
