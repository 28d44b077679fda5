"""The translation that is closest to all others (minimum Bayes risk), and signs that a line may be wrong."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

Utility = Callable[[str, str], float]  # of a translation and what it is compared to; more is better
UTILITIES = ("chrf", "bleu")


def sentence_utility(name: str, language: str = "") -> Utility:
    """chrF (Popovic 2015) or BLEU of two sentences, of the n-grams that they are long enough for, as in sacrebleu.

    BLEU splits words as the `language` needs it: zh, ja and ko have their own ways.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    if name not in UTILITIES:
        raise ValueError(f"utility is one of {', '.join(UTILITIES)}, not {name!r}")
    metric = CHRF() if name == "chrf" else BLEU(effective_order=True, trg_lang=language)
    return lambda translation, other: float(metric.sentence_score(translation, [other]).score)


def expected_utilities(
    candidates: Sequence[str], utility: Utility, log_probs: Sequence[float] | None = None
) -> list[float]:
    """The mean utility of each candidate, with every candidate (itself too) taken for the truth in turn.

    Eikema & Aziz 2020, section 5. Samples count alike; candidates of an n-best list count as they are probable, if
    their log-probabilities are given. Equal texts are compared once. Raises ValueError if there are no candidates.
    """
    if not candidates:
        raise ValueError("there are no candidates to choose from")
    given = [0.0] * len(candidates) if log_probs is None else log_probs
    weights, best = dict.fromkeys(candidates, 0.0), max(given)
    for text, log_prob in zip(candidates, given, strict=True):
        weights[text] += math.exp(log_prob - best)
    total = sum(weights.values())
    expected = {
        text: sum(weight * utility(text, other) for other, weight in weights.items()) / total for text in weights
    }
    return [expected[text] for text in candidates]


def least_risk(candidates: Sequence[str], utility: Utility, log_probs: Sequence[float] | None = None) -> int:
    """The place of the candidate with the highest expected utility; the first of equals."""
    expected = expected_utilities(candidates, utility, log_probs)
    return max(range(len(expected)), key=expected.__getitem__)


@dataclass(frozen=True)
class RiskOptions:
    """When to raise a flag; lengths are in pieces."""

    shortest: float = 0.5  # pieces per piece of the source: fewer may have left something out
    longest: float = 2.0  # more may have made something up
    ngram: int = 4  # the size of the n-grams whose repetition is counted
    repeats: int = 2  # how much more often than any in the source an n-gram may not occur (Guerreiro et al. 2023)
    log_prob: float = -1.5  # nats per piece, EOS counted: less, and the model itself was at a loss
    attention: float = 0.1  # a source piece that got less attention in all was not looked at
    gap: int = 3  # so many pieces in a row that were not looked at may have been left out


def length_ratio(source: Sequence[Hashable], target: Sequence[Hashable]) -> float:
    """Pieces of the translation per piece of the source, which has one at least."""
    return len(target) / len(source)


def most_repeated(pieces: Sequence[Hashable], size: int) -> int:
    """How often the most frequent n-gram of this size occurs; 0 where there is none."""
    grams = Counter(tuple(pieces[place : place + size]) for place in range(len(pieces) - size + 1))
    return max(grams.values(), default=0)


def mean_log_prob(log_prob: float, target: Sequence[Hashable]) -> float:
    """Nats per piece, EOS counted."""
    return log_prob / (len(target) + 1)


def gaps(alignment: Tensor, attention: float, shortest: int) -> list[tuple[int, int]]:
    """Stretches [start, end) of at least `shortest` source pieces that got less attention each, from (T, S).

    The last column is EOS, and counts for nothing.
    """
    seen = [total >= attention for total in alignment[:, :-1].sum(0).tolist()]
    found, start = [], 0
    for place, looked in enumerate([*seen, True]):
        if looked:
            found += [(start, place)] * (place - start >= shortest)
            start = place + 1
    return found


def flags(
    source: Sequence[Hashable],
    target: Sequence[Hashable],
    log_prob: float,
    alignment: Tensor | None,
    options: RiskOptions | None = None,
) -> list[str]:
    """What looks wrong with a translation, of `short`, `long`, `repetition`, `improbable` and `gap`.

    From the pieces of both sides, the log-probability, and the alignment (T, S) if there is one. A blank source has no
    flags.
    """
    if not source:
        return []
    limits, ratio = options or RiskOptions(), length_ratio(source, target)
    signs = {
        "short": ratio < limits.shortest,
        "long": ratio > limits.longest,
        "repetition": most_repeated(target, limits.ngram) - most_repeated(source, limits.ngram) >= limits.repeats,
        "improbable": mean_log_prob(log_prob, target) < limits.log_prob,
        "gap": alignment is not None and bool(gaps(alignment, limits.attention, limits.gap)),
    }
    return [name for name, raised in signs.items() if raised]
