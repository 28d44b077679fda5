"""From where the decoder looked to which words belong together.

Attention is over pieces, people align words. Sentencepiece marks where a word begins with U+2581, so a piece that opens
with the mark begins a word, and all others go on with the word before; the first piece begins the first word, marked or
not. A mark alone belongs to the word that follows it, and at the end to the one before. Words are then what stands
between spaces, punctuation included, as in the text itself.

Shapes: T target pieces, S source pieces and one for EOS, P source words, Q target words.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

MARK = "\u2581"  # where a word begins
UNKNOWN = "\u2047"  # how UNK reads in text

Links = list[tuple[int, int]]  # (source word, target word), from 0


def word_numbers(pieces: Sequence[str]) -> list[int]:
    """The number of the word that each piece belongs to."""
    last = max((place for place, piece in enumerate(pieces) if piece != MARK), default=-1)
    begins = [
        int(0 < place <= last and piece.startswith(MARK) and pieces[place - 1] != MARK)
        for place, piece in enumerate(pieces)
    ]
    return list(accumulate(begins))


def memberships(pieces: Sequence[str]) -> Tensor:
    """(pieces, words) 1 where a piece belongs to a word."""
    numbers = word_numbers(pieces)
    table = torch.zeros(len(numbers), numbers[-1] + 1 if numbers else 0)
    for place, number in enumerate(numbers):
        table[place, number] = 1
    return table


def word_attention(attention: Tensor, source_pieces: Sequence[str], target_pieces: Sequence[str]) -> Tensor:
    """Where each target word looked: (Q, P + 1), the last column EOS.

    Attention (T, S) is summed over the pieces of a source word and averaged over those of a target word.
    Raises ValueError where its shape is not that of the pieces.
    """
    if attention.shape != (len(target_pieces), len(source_pieces) + 1):
        raise ValueError(
            f"attention of shape {tuple(attention.shape)} does not belong to {len(target_pieces)} target pieces and "
            f"{len(source_pieces)} source pieces with EOS"
        )
    to_words = torch.block_diag(memberships(source_pieces), torch.ones(1, 1))  # (S, P + 1)
    target = memberships(target_pieces)  # (T, Q)
    looks: Tensor = (target / target.sum(0)).T @ attention.float() @ to_words
    return looks


def align(attention: Tensor, source_pieces: Sequence[str], target_pieces: Sequence[str]) -> Links:
    """Each target word with the source word that it looked at most; without a link where that was EOS."""
    looks = word_attention(attention, source_pieces, target_pieces)
    end = looks.size(1) - 1
    return [(source, target) for target, source in enumerate(looks.argmax(1).tolist()) if source != end]


def pharaoh(links: Links) -> str:
    """The format of Pharaoh and Moses: `0-0 1-2`, source word first, in its order."""
    return " ".join(f"{source}-{target}" for source, target in sorted(links))


def words(text: str) -> list[str]:
    """What stands between spaces; a tab and a U+2581 are spaces, as the tokenizer has it."""
    return [word for word in text.replace("\t", " ").replace(MARK, " ").split(" ") if word]


def copy_unknown(
    text: str, tokens: Sequence[int], unknown: int, attention: Tensor, source: str, source_pieces: Sequence[str]
) -> str:
    """The translation `text` of `tokens` with each UNK replaced by the source word that it looked at most.

    Luong et al. 2015b, without their dictionary. Attention is (T, S), its last column EOS, which is not copied. Of UNKs
    in a row that looked at the same word, the first copies it and the others vanish. The text stays as it is where the
    words of the source are not those of its pieces, or U+2047 stands in the text for other pieces than UNK too.
    """
    places = [place for place, token in enumerate(tokens) if token == unknown]
    if not places:
        return text
    parts, surface = text.split(UNKNOWN), words(source)
    groups = memberships(source_pieces)  # (S - 1, P)
    if len(parts) != len(places) + 1 or len(surface) != groups.size(1):
        return text
    looks = attention[places, :-1].float() @ groups  # (unknowns, P)
    copied, rest = [parts[0]], zip(places, looks.argmax(1).tolist(), parts[1:], strict=True)
    before = (-2, -1)
    for place, word, following in rest:
        again = before == (place - 1, word)
        copied += ["" if again else surface[word], following]
        before = (place, word)
    return "".join(copied)
