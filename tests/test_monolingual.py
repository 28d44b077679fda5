"""Running text: which lines become sentences, how they lie on disk, and that parallel streams are the text again."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt import monolingual
from nmt.batches import TokenBatches
from nmt.corpus import DataOptions, Report
from nmt.monolingual import EncodedText, SentenceLoader, Stretches, StretchLoader, encode_text, read_sentences
from nmt.tokenizer import BOS, EOS, PAD, Tokenizer, TokenizerOptions, train_tokenizer

LANGUAGES = ("en", "de")


def sentences(source: object, report: Report | None = None) -> list[str]:
    return list(read_sentences(str(source), LANGUAGES, "train", report))


# ---- reading ----


def test_plain_text_is_read_line_by_line_and_blank_lines_are_counted(tmp_path):
    report = Report()
    (tmp_path / "a.txt").write_bytes("eins\n \n\nzw\u2028ei\r\n".encode())
    assert sentences(tmp_path / "a.txt", report) == ["eins", "zw\u2028ei"]
    assert (report.read, report.blank, report.kept) == (4, 2, 2)


def test_parallel_text_gives_its_target_side(tmp_path):
    for code, text in (("en", "one\ntwo\n"), ("de", "eins\nzwei\n")):
        (tmp_path / f"c.{code}").write_text(text)
    (tmp_path / "c.tsv").write_text("one\teins\n")
    (tmp_path / "c.jsonl").write_text('{"en": "two", "de": "zwei"}\n')
    with gzip.open(tmp_path / "d.de.gz", "wt") as file:
        file.write("drei\n")
    assert sentences(tmp_path / "c") == sentences(f"{tmp_path}/c.en,{tmp_path}/c.de") == ["eins", "zwei"]
    assert sentences(tmp_path / "c.de") == ["eins", "zwei"]
    assert sentences(tmp_path / "c.tsv") == ["eins"]
    assert sentences(tmp_path / "c.jsonl") == ["zwei"]
    assert sentences(tmp_path / "d") == sentences(tmp_path / "d.de.gz") == ["drei"]  # its source side is not needed


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("nowhere", None, r"there is no \S+nowhere or \S+nowhere\.de"),
        ("a.txt", b"\n \n", r"a\.txt has no sentence: it is empty, or every line is blank"),
        ("a.txt", b"", r"a\.txt has no sentence"),
        ("a.txt", b"gut\n\xe4h\n", r"a\.txt:2 is not UTF-8: its byte 1 is 0xe4"),
        ("", None, r"is a folder, not a file"),
    ],
)
def test_text_that_cannot_be_read_is_named(tmp_path, name, text, complaint):
    if text is not None:
        (tmp_path / name).write_bytes(text)
    with pytest.raises((OSError, ValueError), match=complaint):
        sentences(tmp_path / name if name else tmp_path)


# ---- the encoded text ----


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "t.spm"
    return train_tokenizer(["ab ba aab bba", "abba baab"] * 20, TokenizerOptions(vocab_size=12), path)


@pytest.fixture
def data(tmp_path) -> DataOptions:
    return DataOptions(cache=str(tmp_path / "cache"), workers=1, max_length=8)


def test_the_text_is_every_sentence_with_its_end(tmp_path, data, tokenizer):
    (tmp_path / "a.txt").write_text("ab ba\n\nabba\n" + "ab " * 20 + "\nba\n")
    text = encode_text(str(tmp_path / "a.txt"), "train", data, tokenizer)
    rows = tokenizer.encode(["ab ba", "abba", "ba"])
    assert text.ids.tolist() == [token for row in rows for token in (*row, EOS)]
    assert text.report == Report(read=5, blank=1, too_long=1)
    assert len(text) == 3
    assert text.lengths.tolist() == [len(row) + 1 for row in rows]
    assert text.lengths is text.lengths  # once for all batches
    assert [row.tolist() for row in text.sentences(np.array([2, 0]))] == [rows[2], rows[0]]


def test_the_text_is_encoded_once_and_anew_when_it_changes(tmp_path, data, tokenizer, monkeypatch):
    (tmp_path / "a.txt").write_text("ab\n")
    encode_text([str(tmp_path / "a.txt")], "train", data, tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(monolingual, "write_text", lambda *_: pytest.fail("written again"))
        encode_text([str(tmp_path / "a.txt")], "train", data, tokenizer)
    (tmp_path / "a.txt").write_text("ab\nba\n")
    assert len(encode_text([str(tmp_path / "a.txt")], "train", data, tokenizer)) == 2
    assert not list(tmp_path.rglob("*.part"))


def test_text_to_learn_nothing_from_is_refused(tmp_path, data, tokenizer):
    with pytest.raises(ValueError, match=r"data\.train names no text"):
        encode_text([], "train", data, tokenizer)
    (tmp_path / "a.txt").write_text("ab " * 20)
    complaint = r"no sentence to learn from: each of its 1 has more than data\.max_length = 8 pieces"
    with pytest.raises(ValueError, match=complaint):
        encode_text(str(tmp_path / "a.txt"), "train", data, tokenizer)
    assert not list((tmp_path / "cache").iterdir())


# ---- streams ----


def test_two_streams_by_hand():
    ids = np.array([5, 6, EOS, 7, EOS, 8, 9], np.int32)  # cut into [5 6 . 7] and [. 8 9]
    stretches = Stretches(ids, tokens=4, steps=2)
    assert (stretches.streams, stretches.width, len(stretches)) == (2, 4, 2)
    first, second = stretches.stretch(0), stretches.stretch(1)
    assert first.target_in.tolist() == [[BOS, 5], [7, BOS]]
    assert first.target_out.tolist() == [[5, 6], [EOS, 8]]
    assert second.target_in.tolist() == [[6, BOS], [8, 9]]
    assert second.target_out.tolist() == [[EOS, 7], [9, PAD]]
    assert [part.words.tolist() for part in (first, second)] == [[0, 1, 2, 3], [0, 1, 2]]
    assert (first.fresh, second.fresh) == (True, False)


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(EOS, 9), min_size=1, max_size=60), tokens=st.integers(1, 30), steps=st.integers(1, 9))
def test_streams_one_after_another_are_the_text(ids, tokens, steps):
    stretches = Stretches(np.array(ids, np.int32), tokens, steps)
    parts = [stretches.stretch(number) for number in stretches.epoch(0)]
    said = np.concatenate([part.target_out.numpy() for part in parts], axis=1)
    read = np.concatenate([part.target_in.numpy() for part in parts], axis=1)
    assert said.flatten()[: len(ids)].tolist() == ids
    assert (said.flatten()[len(ids) :] == PAD).all()
    before = [BOS, *(BOS if token == EOS else token for token in ids[:-1])]
    assert read.flatten()[: len(ids)].tolist() == before
    assert (said[:, 0] != PAD).all()  # no stream is empty
    assert all(part.target_out.shape[1] <= steps for part in parts)
    assert stretches.streams <= max(1, tokens // steps)


def test_the_loader_goes_on_where_its_state_was_taken():
    stretches = Stretches(np.arange(4, 40, dtype=np.int32), tokens=6, steps=3)

    def endless(loader):
        while True:
            yield from loader

    loader = StretchLoader(stretches)
    stream = endless(loader)
    for _ in range(len(stretches) + 2):
        next(stream)
    resumed = StretchLoader(stretches)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    for one, other, _ in zip(stream, endless(resumed), range(2 * len(stretches)), strict=False):
        assert one.target_out.equal(other.target_out)
        assert one.fresh == other.fresh


def test_sentences_for_validation_stand_alone(tmp_path, data, tokenizer):
    (tmp_path / "a.txt").write_text("ab ba\nabba\nba\n")
    text = encode_text(str(tmp_path / "a.txt"), "validation", data, tokenizer)
    loader = SentenceLoader(text, tokens=1000)
    assert isinstance(loader.batches, TokenBatches)
    [batch] = loader
    assert batch.fresh
    assert batch.target_in[:, 0].tolist() == [BOS] * 3
    rows = [row[row != PAD].tolist() for row in batch.target_out]
    assert sorted(rows) == sorted([*row, EOS] for row in tokenizer.encode(["ab ba", "abba", "ba"]))


def test_a_text_whose_report_is_gone_is_no_text(tmp_path):
    (tmp_path / "x.ids").write_bytes(b"\0" * 8)
    assert monolingual.open_text(Path(tmp_path / "x.ids")) is None
    with pytest.raises(FileNotFoundError, match=r"x\.json"):
        EncodedText(tmp_path / "x.ids")
