"""Look over a parallel corpus before training on it: what is odd, how often, and where it is first seen.

Memory is 16 bytes a pair, for hashes; the text itself is never kept.
"""

import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nmt.corpus import DataOptions, Languages, Pair, all_pairs, files, is_blank, nothing_in, sources

LIKE_LENGTH = 3  # a side over this many times as long as the other is odd ...
SHORT = 20  # ... unless it is a short one, in characters
PLACES = 3  # of each oddity, so many are named

CONTROL = re.compile(r"[\x01-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
MOJIBAKE = re.compile(
    r"[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac"
)  # how UTF-8 reads when taken for Latin-1 or Windows-1252
ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-fA-F]+|amp|lt|gt|quot|apos|nbsp);")


Side = int | None  # 0, source, or 1, target: where a pair is odd; None if it is not


def either(pattern: re.Pattern[str]) -> Callable[[Pair], Side]:
    """The first side where a pattern is found."""
    return lambda pair: next((side for side, text in enumerate(pair) if pattern.search(text)), None)


def unlike(pair: Pair) -> Side:
    """The side that is far longer than the other."""
    long = longer(pair)
    return long if len(pair[long]) >= SHORT and len(pair[long]) > LIKE_LENGTH * len(pair[1 - long]) else None


def longer(pair: Pair) -> int:
    """The longer side."""
    return int(len(pair.target) > len(pair.source))


ODDITIES: dict[str, Callable[[Pair], Side]] = {
    "target is a copy of the source": lambda pair: 0 if pair.source == pair.target else None,
    f"one side over {LIKE_LENGTH} times as long as the other": unlike,
    "replacement character (U+FFFD)": either(re.compile("\ufffd")),
    "control character or line separator": either(CONTROL),
    "UTF-8 read as another encoding (such as \u00c3\u00bc)": either(MOJIBAKE),
    "HTML entity (such as &amp;)": either(ENTITY),
}


@dataclass
class Finding:
    """How often something was seen, and where first."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < PLACES:
            self.places.append(place)

    def __str__(self) -> str:
        return f"{self.count:,}" + (f", first at {', '.join(self.places)}" if self.places else "")


@dataclass
class CheckReport:
    """What `check` found in one split.

    Attributes:
        split: train, validation or test.
        read: lines, or rows.
        blank: pairs with a blank side, which training drops; they count for nothing below.
        duplicates: pairs that are exact repetitions of an earlier one.
        characters: on (source side, target side).
        longest: characters of the longest sentence, and its place.
        oddities: by what is odd.
        overlaps: by the name of an earlier split, how many source sentences here occur there too.
    """

    split: str
    read: int = 0
    blank: Finding = field(default_factory=Finding)
    duplicates: int = 0
    characters: tuple[int, int] = (0, 0)
    longest: tuple[int, str] = (0, "")
    oddities: dict[str, Finding] = field(default_factory=lambda: {name: Finding() for name in ODDITIES})
    overlaps: dict[str, int] = field(default_factory=dict)
    source_hashes: "array[int]" = field(default_factory=lambda: array("q"), repr=False)
    pair_hashes: "array[int]" = field(default_factory=lambda: array("q"), repr=False)

    def add(self, pair: Pair, places: tuple[str, str]) -> None:
        """Take one pair into account, whose sides stand at these places."""
        self.read += 1
        if is_blank(pair):
            return self.blank.add(places[bool(pair.source.strip())])
        source, target = map(len, pair)
        self.characters = (self.characters[0] + source, self.characters[1] + target)
        found = max(source, target), places[longer(pair)]
        self.longest = max(self.longest, found, key=lambda found: found[0])
        for name, odd in ODDITIES.items():
            if (side := odd(pair)) is not None:
                self.oddities[name].add(places[side])
        self.source_hashes.append(hash(pair.source))
        self.pair_hashes.append(hash(pair))
        return None

    def lines(self) -> list[str]:
        """The report for people; what was not seen is not mentioned, but for duplicates and overlaps."""
        usable = self.read - self.blank.count
        source, target = (count / usable for count in self.characters)
        return [
            f"{self.split}: {self.read:,} pairs, {usable:,} usable; {source:.0f} and {target:.0f} characters on "
            f"average, {self.longest[0]:,} at most ({self.longest[1]})",
            *([f"  a side is blank: {self.blank}"] if self.blank.count else []),
            f"  exact duplicates: {self.duplicates:,}",
            *(f"  {name}: {finding}" for name, finding in self.oddities.items() if finding.count),
            *(f"  source sentences also in {split}: {count:,}" for split, count in self.overlaps.items()),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def check(names: str | list[str], languages: Languages, split: str, earlier: Sequence[CheckReport] = ()) -> CheckReport:
    """Read the sources of one split and report on them; `earlier` reports are searched for the same source sentences.

    Raises what `corpus.read_pairs` raises.
    """
    import numpy as np

    report = CheckReport(split)
    for name in sources(names):
        (left, right), before = both_sides(name, languages), report.read - report.blank.count
        for number, pair in enumerate(all_pairs(name, languages, split), 1):
            report.add(pair, (f"{left}:{number}", f"{right}:{number}"))
        if report.read - report.blank.count == before:
            raise nothing_in(name)
    report.duplicates = len(report.pair_hashes) - len(np.unique(hashes(report.pair_hashes)))
    report.overlaps = {
        other.split: int(np.isin(hashes(report.source_hashes), hashes(other.source_hashes)).sum()) for other in earlier
    }
    return report


def check_data(data: DataOptions) -> list[CheckReport]:
    """Check each split that is given, also for sentences that it shares with the ones before it."""
    reports: list[CheckReport] = []
    for split in ("train", "validation", "test"):
        if names := sources(getattr(data, split)):
            reports.append(check(names, data.languages, split, reports))
    return reports


def both_sides(name: str, languages: Languages) -> tuple[str, str]:
    """What stands before the line number in a place, on either side."""
    found = [name] if name.startswith("hf:") else [str(path) for path in files(name, languages)]
    return found[0], found[-1]


def hashes(values: "array[int]") -> Any:
    """The values as a numpy array, without a copy."""
    import numpy as np

    return np.frombuffer(values, np.int64)
