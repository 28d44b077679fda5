"""New scores for what another system made, as Moses writes it: lists of n-best translations, and phrase tables.

An n-best list has lines `i ||| hypothesis ||| features ||| score`, the lists of all sentences in order, i counted from
0; features read `name= value value ... name= value`. A phrase table has lines `source ||| target ||| scores ||| ...`.
What other fields hold is left as it is.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from nmt.corpus import Pair
from nmt.scoring import Scorer
from nmt.translator import WINDOW, OptionError

SEPARATOR = "|||"
OWN = "score"  # what weights call the score that a list came with


class Entry(NamedTuple):
    """A line of an n-best list."""

    line: int  # from 1
    sentence: int  # from 0
    fields: tuple[str, ...]  # as they stand, spaces and all
    features: dict[str, float]  # one of several values as name.1, name.2, ...
    score: float

    @property
    def hypothesis(self) -> str:
        """The translation; three bars in a row are spelt as in `streams.py`."""
        return self.fields[1].strip().replace("&#124;" * 3, SEPARATOR)


def feature_names(scorers: Sequence[Scorer]) -> list[str]:
    """`nmt`, `reverse` and `lm`, by the kind of model; a second of one kind is `nmt2`, and so on."""
    seen: Counter[str] = Counter()
    names = []
    for scorer in scorers:
        seen[scorer.kind] += 1
        names.append(scorer.kind + (str(seen[scorer.kind]) if seen[scorer.kind] > 1 else ""))
    return names


def parse_weights(text: str) -> dict[str, float]:
    """`lm=0.5,nmt=1` as a dict. OptionError for what does not read so."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().rpartition("=")
        number = _number(value)
        if not name or name in weights or number is None:
            raise OptionError(f"--weights reads name=number,name=number with each name once, not {part.strip()!r}")
        weights[name] = number
    return weights


def _number(text: str) -> float | None:
    """A finite number, or None for text that is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# ---- n-best lists ----


def rescore(
    lines: Iterable[str],
    sources: Iterable[str],
    scorers: Sequence[Scorer],
    weights: Mapping[str, float] | None = None,
    *,
    names: tuple[str, str] = ("the n-best list", "the source"),
    window: int = WINDOW,
) -> Iterator[str]:
    """Lines of an n-best list, each with one more feature per scorer, called by `feature_names`.

    With `weights`, the score of a line becomes the weighted sum of the features that they name, its own score among
    them as `score`, and the lines of a sentence are ranked by it, equal ones as they were (Sutskever et al. 2014,
    section 3.2). Without, order and scores stay. About `window` lines are held, and never less than those of one
    sentence. `names` of the two streams stand in errors: ValueError for a line that is none of a list, has no source
    sentence, or lacks what `weights` name; and for a list that ends before the source does, blank lines aside.
    """
    added, sentences = feature_names(scorers), enumerate(sources)
    for block in blocks(read_entries(lines, names[0]), window):
        source = _sources(block, sentences, names)
        pairs = [Pair(source[entry.sentence], entry.hypothesis) for entry in block]
        place = partial(_place, block, names)
        columns = [[found.log_prob for found in scorer.score(pairs, place=place)] for scorer in scorers]
        values = zip(*columns, strict=True)
        scored = [
            _add(entry, dict(zip(added, row, strict=True)), names[0]) for entry, row in zip(block, values, strict=True)
        ]
        for entry in scored if weights is None else rank(scored, weights, names[0]):
            yield SEPARATOR.join(entry.fields)
    for number, sentence in sentences:
        if sentence.strip():
            raise ValueError(
                f"{names[1]}:{number + 1} reads {sentence[:80]!r}, but {names[0]} ends before it: give the whole list, "
                "and the text that was translated"
            )


def _place(block: Sequence[Entry], names: tuple[str, str], number: int, side: int) -> str:
    """The line that an entry of the block, from 1, stands in, or its source."""
    entry = block[number - 1]
    return f"{names[0]}:{entry.line}" if side else f"{names[1]}:{entry.sentence + 1}"


def read_entries(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """The lines of an n-best list, checked. ValueError with file and line for one that is none."""
    last = 0
    for number, line in enumerate(lines, 1):
        entry = _entry(line, number, name)
        if entry.sentence < last:
            raise ValueError(
                f"{name}:{number} is of sentence {entry.sentence} after one of {last}: sort the list by its first field"
            )
        last = entry.sentence
        yield entry


def _entry(line: str, number: int, name: str) -> Entry:
    fields = tuple(line.split(SEPARATOR))
    if len(fields) < 4:
        raise ValueError(
            f"{name}:{number} has {len(fields)} fields, not `i ||| hypothesis ||| features ||| score`: {line[:80]!r}"
        )
    sentence, score = fields[0].strip(), _number(fields[3])
    if not (sentence.isascii() and sentence.isdigit()):
        raise ValueError(f"{name}:{number} begins with {sentence[:80]!r}, not the number of its sentence, from 0")
    if score is None:
        raise ValueError(f"{name}:{number} has the score {fields[3].strip()[:80]!r}, which is no number")
    return Entry(number, int(sentence), fields, _features(fields[2], f"{name}:{number}"), score)


def _features(text: str, place: str) -> dict[str, float]:
    """`d= 0 tm= -1.5 -2` -> {"d": 0, "tm.1": -1.5, "tm.2": -2}."""
    groups: dict[str, list[float]] = {}
    for word in text.split():
        number = _number(word)
        if word.endswith("="):
            if (name := word[:-1]) in groups:
                raise ValueError(f"{place} has the feature {name[:80]} twice: rename one of them, or take it out")
            groups[name] = []
        elif number is None or not groups:
            raise ValueError(f"{place} has the feature {word[:80]!r}: features read `name= number name= number`")
        else:
            groups[name].append(number)
    return {
        name if len(numbers) == 1 else f"{name}.{index}": number
        for name, numbers in groups.items()
        for index, number in enumerate(numbers, 1)
    }


def blocks(entries: Iterable[Entry], window: int) -> Iterator[list[Entry]]:
    """Entries by the `window` or a little more, those of one sentence together."""
    block: list[Entry] = []
    for entry in entries:
        if len(block) >= window and entry.sentence != block[-1].sentence:
            yield block
            block = []
        block.append(entry)
    if block:
        yield block


def _sources(block: list[Entry], sentences: Iterator[tuple[int, str]], names: tuple[str, str]) -> dict[int, str]:
    """The source sentences of a block, by number; those before it are passed over."""
    found: dict[int, str] = {}
    for entry in block:
        while entry.sentence not in found:
            number, sentence = next(sentences, (-1, ""))
            if number < 0:
                raise ValueError(
                    f"{names[0]}:{entry.line} is of sentence {entry.sentence}, counted from 0, but {names[1]} has no "
                    "such line: give the text that was translated"
                )
            if number >= block[0].sentence:
                found[number] = sentence
    return found


def _add(entry: Entry, features: Mapping[str, float], name: str) -> Entry:
    """The entry with more features."""
    for feature in features:
        if feature in entry.features:
            raise ValueError(f"{name}:{entry.line} has a feature {feature} already: rename it, or take it out")
    text = "".join(f" {feature}= {value:.4f}" for feature, value in features.items())
    fields = (*entry.fields[:2], _append(entry.fields[2], text), *entry.fields[3:])
    return entry._replace(fields=fields, features={**entry.features, **features})


def _append(field: str, text: str) -> str:
    """Text behind a field, before the spaces that it ends with; one space stands before it."""
    body = field.rstrip()
    return body + text + field[len(body) :] if body else f"{text} "


def rank(entries: Sequence[Entry], weights: Mapping[str, float], name: str) -> list[Entry]:
    """The entries under weighted sums as scores, those of a sentence best first."""
    scored = [_weighted(entry, weights, name) for entry in entries]
    return sorted(scored, key=lambda entry: (entry.sentence, -entry.score))


def _weighted(entry: Entry, weights: Mapping[str, float], name: str) -> Entry:
    known = entry.features | {OWN: entry.score}
    for feature in weights:
        if feature not in known:
            raise ValueError(
                f"{name}:{entry.line} has no feature {feature}, which --weights name; it has {', '.join(known)}"
            )
    score = math.fsum(weight * known[feature] for feature, weight in weights.items())
    field = entry.fields[3]
    spaced = f" {score:.4f}" + field[len(field.rstrip()) :]
    return entry._replace(score=score, fields=(*entry.fields[:3], spaced, *entry.fields[4:]))


# ---- phrase tables ----


def extend_table(
    lines: Iterable[str], scorers: Sequence[Scorer], *, name: str = "the phrase table", window: int = WINDOW
) -> Iterator[str]:
    """Lines of a phrase table, with one more score per scorer (Cho et al. 2014, section 3.1): a probability, as the
    others are, of which Moses takes the logarithm; never 0. At most `window` lines are held.

    Raises ValueError with file and line for one that is none.
    """
    waiting, first = iter(lines), 1
    while held := list(islice(waiting, window)):
        rows = [_phrases(line, f"{name}:{number}") for number, line in enumerate(held, first)]
        pairs = [Pair(row[0].strip(), row[1].strip()) for row in rows]
        found = [scorer.score(pairs, place=partial(_row, name, first)) for scorer in scorers]
        for row, scores in zip(rows, zip(*found, strict=True), strict=True):
            text = "".join(f" {max(math.exp(score.log_prob), sys.float_info.min):.6g}" for score in scores)
            yield SEPARATOR.join([*row[:2], _append(row[2], text), *row[3:]])
        first += len(held)


def _row(name: str, first: int, number: int, side: int) -> str:
    """The line of a table that a pair stands in."""
    return f"{name}:{first + number - 1}"


def _phrases(line: str, place: str) -> list[str]:
    fields = line.split(SEPARATOR)
    if len(fields) < 3 or any(_number(word) is None for word in fields[2].split()):
        raise ValueError(f"{place} is not `source ||| target ||| scores`, each score a number: {line[:80]!r}")
    return fields
