"""Text to subword ids and back, raw text in, raw text out; one `sentencepiece` model file is the whole vocabulary."""

import hashlib
import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import sentencepiece

PAD, UNK, BOS, EOS = 0, 1, 2, 3

SAMPLED_SENTENCES = 500_000  # training reads a uniform sample of this many, which bounds its memory
LONGEST_SENTENCE = 1 << 20  # bytes; sentencepiece silently skips what is longer, by default already at 4192
FEW = 8  # lines that are told one by one: for a list sentencepiece starts a thread, which takes as long as they do
TRAINING_THREADS = 4  # fixed, not "all cores": unigram sums in thread order, so the pieces depend on this number


@dataclass(frozen=True)
class TokenizerOptions:
    """How the subword vocabulary is learnt.

    Attributes:
        type: unigram (Kudo 2018) or bpe (Sennrich et al. 2016).
        vocab_size: pieces in the vocabulary, the four special ones counted. Little text wants few: 2000 for 100k words.
        joint: one vocabulary for both languages, which lets their embeddings be tied; false trains one for each.
        character_coverage: share of the characters seen that get a piece; 0.9995 for large alphabets or noisy text.
        byte_fallback: spell unknown characters as UTF-8 bytes (256 pieces) instead of <unk>.
        model: a model folder whose vocabulary is taken over, as it was learnt; a language model takes its target side.
    """

    type: Literal["unigram", "bpe"] = "unigram"
    vocab_size: int = 8000
    joint: bool = True
    character_coverage: float = 1.0
    byte_fallback: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        if self.type not in ("unigram", "bpe"):
            raise ValueError(f"tokenizer.type is unigram or bpe, not {self.type!r}")
        if self.vocab_size <= EOS + 1:
            raise ValueError(f"tokenizer.vocab_size is {self.vocab_size}: 4 pieces are special, and text needs more")
        if not 0 < self.character_coverage <= 1:
            raise ValueError(f"tokenizer.character_coverage lies in (0, 1], not at {self.character_coverage}")


class Tokenizer:
    """A trained sentencepiece model, given as the bytes of its file.

    Raises ValueError for bytes that are no such model, or one whose special ids are not our PAD, UNK, BOS and EOS.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor()
        if not model:  # sentencepiece takes the empty string for a model without pieces
            raise ValueError("the model is empty")
        try:
            self.processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError("these bytes are no sentencepiece model") from error
        ids = tuple(getattr(self.processor, name)() for name in ("pad_id", "unk_id", "bos_id", "eos_id"))
        if ids != (PAD, UNK, BOS, EOS):
            raise ValueError(f"its ids of (pad, unk, bos, eos) are {ids}, not {(PAD, UNK, BOS, EOS)}")
        self.known = Pieces(self.processor)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a model file. FileNotFoundError where there is none, ValueError where it is damaged or foreign."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}: it is written there when a model is trained")
        try:
            return cls(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is not a tokenizer of ours: {error}. Copy it again, or train it anew") from error

    def save(self, path: str | Path) -> None:
        """Write the model file, whole or not at all."""
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        beside.write_bytes(self.model)
        beside.replace(path)

    def encode(self, lines: Sequence[str], sample: float = 0.0, threads: int = 1) -> list[list[int]]:
        """Ids of each line, without BOS and EOS; `sample` > 0 draws one of its segmentations.

        Subword regularisation: `sample` is alpha for unigram (Kudo 2018), drop rate for BPE (Provilkov et al. 2020).
        """
        normal = [normalise(line) for line in lines]
        if len(normal) <= FEW and not sample:
            return [self.processor.encode(line) for line in normal]
        ids: list[list[int]] = self.processor.encode(
            normal,
            enable_sampling=sample > 0,
            alpha=sample,
            nbest_size=-1,  # of all segmentations, not of the n best; unigram only
            num_threads=threads,
        )
        return ids

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """A line of text for each row of ids: line ends, which byte pieces can say, become spaces.

        PAD, BOS and EOS say nothing; UNK reads as U+2047 (a double question mark).
        """
        rows = [[int(i) for i in row] for row in ids]
        if len(rows) <= FEW:
            text: list[str] = [self.processor.decode(row) for row in rows]
        else:
            text = self.processor.decode(rows, num_threads=1)  # its own are as many as cores, and dear to start
        return [line.replace("\n", " ").replace("\r", " ") for line in text]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces behind ids, for people to look at; a U+2581 stands where a word begins."""
        return [self.known[int(i)] for i in ids]

    @property
    def size(self) -> int:
        """Pieces in the vocabulary, the special ones counted (V)."""
        return int(self.processor.get_piece_size())

    def __len__(self) -> int:
        return self.size

    @property
    def digest(self) -> str:
        """SHA-256 of the model, in hexadecimal: equal digests encode alike."""
        return hashlib.sha256(self.model).hexdigest()


class Pieces(dict[int, str]):
    """The pieces behind ids, looked up when they are first wanted."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __missing__(self, number: int) -> str:
        piece: str = self.processor.id_to_piece(number)
        return self.setdefault(number, piece)


def normalise(line: str) -> str:
    """One spelling per character (NFC), and no tabs, for sentencepiece's trainer skips lines that have them.

    Nothing more, so that text comes back as it went in: sentencepiece's own default (nmt_nfkc) turns an ellipsis into
    three dots and a superscript into a digit, which a reference in raw text would not. Runs of spaces become one.
    """
    return unicodedata.normalize("NFC", line).replace("\t", " ")


def train_tokenizer(sentences: Iterable[str], options: TokenizerOptions, path: str | Path) -> Tokenizer:
    """Learn a vocabulary, write it to `path` and return it. Memory is bounded; the same sentences give the same model.

    Raises ValueError where the sentences are none, or cannot fill `vocab_size`, or have more characters than that.
    """
    model, some = BytesIO(), sampled(sentences, SAMPLED_SENTENCES)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=map(normalise, some),
            model_writer=model,
            model_type=options.type,
            vocab_size=options.vocab_size,
            character_coverage=options.character_coverage,
            byte_fallback=options.byte_fallback,
            normalization_rule_name="identity",
            unk_surface="\u2047",
            input_sentence_size=SAMPLED_SENTENCES,
            shuffle_input_sentence=True,
            max_sentence_length=LONGEST_SENTENCE,
            num_threads=TRAINING_THREADS,
            minloglevel=2,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
        )
    except RuntimeError as error:
        raise training_error(str(error), options) from error
    tokenizer = Tokenizer(model.getvalue())
    tokenizer.save(path)
    return tokenizer


def sampled(sentences: Iterable[str], most: int) -> list[str]:
    """At most so many of the sentences, each as likely as any other (Vitter 1985, algorithm R), the same each time.

    sentencepiece would draw others in every process, so that no vocabulary of a large corpus could be learnt again.
    """
    draw, kept = random.Random(1), list[str]()
    for number, sentence in enumerate(sentences):
        if number < most:
            kept.append(sentence)
        elif (place := int(draw.random() * (number + 1))) < most:
            kept[place] = sentence
    return kept


def training_error(message: str, options: TokenizerOptions) -> ValueError:
    """What sentencepiece's complaint asks of the user, in the names of our options."""
    size = f"tokenizer.vocab_size is {options.vocab_size}"
    if found := re.search(r"too high .*<= (\d+)", message):
        return ValueError(f"{size}, but this text can fill only {found[1]} pieces: set it to {found[1]} or less")
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return ValueError(
            f"{size}, but this text needs {found[1]} for its single characters alone: set it higher, "
            f"or lower tokenizer.character_coverage, which is {options.character_coverage}"
        )
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return ValueError("there is no text to train a tokenizer on: every sentence is blank")
    return ValueError(f"sentencepiece cannot train a tokenizer: {' '.join(message.split())}")
