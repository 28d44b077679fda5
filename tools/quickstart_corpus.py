"""Write the quick-start corpus, English to German, from its own grammar: `python tools/quickstart_corpus.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from quickstart.corpus import Corpus, build, files

FOLDER = Path(__file__).parents[1] / "data" / "quickstart"


def differing(folder: Path, made: dict[str, bytes]) -> list[str]:
    """Names of the files that are missing in the folder or not as the grammar makes them."""
    return [
        name
        for name, content in made.items()
        if not (folder / name).exists() or (folder / name).read_bytes() != content
    ]


def summary(corpus: Corpus) -> str:
    """Counts for the data card, one part to a line."""
    lines = []
    for name, part in corpus.parts.items():
        english, german = (sum(len(example.text[side].split()) for example in part) for side in (0, 1))
        lines.append(f"{name}: {len(part)} pairs, {english} English and {german} German words")
    families = sorted({example.family for example in corpus.parts["train"]})
    return "\n".join([*lines, f"{len(corpus.lemmas())} lemmas, {len(families)} families"])


def main() -> int:
    """Write the files, or check that those in the folder are what the grammar makes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the files (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare the files in the folder instead of writing them")
    options = parser.parse_args()
    corpus = build()
    made = files(corpus)
    if options.check:
        wrong = differing(options.output, made)
        print(
            f"not as the grammar makes them: {', '.join(wrong)}" if wrong else "all files are as the grammar makes them"
        )
        return 1 if wrong else 0
    options.output.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (options.output / name).write_bytes(content)
    print(summary(corpus))
    return 0


if __name__ == "__main__":
    sys.exit(main())
