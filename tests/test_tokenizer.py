"""Text becomes ids and comes back; a vocabulary is what was asked for, or the error says what can be had."""

import hashlib
import re
import subprocess
import sys

import pytest

from nmt.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, TokenizerOptions, sampled, train_tokenizer

NOUNS = ["boat", "cat", "house", "river", "garden", "mountain", "brother", "sister", "window", "table", "market"]
VERBS = ["finds", "paints", "carries", "leaves", "remembers", "follows"]
SENTENCES = [f"A very old {one} {verb} the {other} …" for verb in VERBS for one in NOUNS for other in NOUNS]
SENTENCES.append("Größe: 5 m²")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(SENTENCES, TokenizerOptions(vocab_size=48), tmp_path_factory.mktemp("spm") / "spm.model")


def test_text_comes_back_as_it_went_in(tokenizer):
    # sentencepiece's default normalisation would answer "..." and "m2"
    assert tokenizer.decode(tokenizer.encode(SENTENCES)) == SENTENCES


def test_only_composition_tabs_and_runs_of_spaces_are_normalised(tokenizer):
    text = "  Gro\u0308ße:  5\tm² "  # an o and a combining diaeresis
    assert tokenizer.decode(tokenizer.encode([text])) == ["Größe: 5 m²"]


def test_ids_hold_no_sentence_ends_and_blank_is_empty(tokenizer):
    assert tokenizer.encode(["", "The old boat …"])[0] == []
    assert not {PAD, BOS, EOS} & set(tokenizer.encode(SENTENCES)[3])
    assert tokenizer.encode([]) == []
    assert tokenizer.decode([[], []]) == ["", ""]


def test_special_ids_say_nothing_but_the_unknown_shows(tokenizer):
    boat = tokenizer.encode(["boat"])[0]
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)
    assert tokenizer.decode([[BOS, *boat, EOS, PAD, PAD]]) == ["boat"]
    assert UNK in tokenizer.encode(["舟"])[0]
    assert tokenizer.decode([[*boat, UNK]]) == ["boat\u2047"]


def test_pieces_put_together_are_the_text(tokenizer):
    pieces = tokenizer.pieces(tokenizer.encode(["A very old boat …"])[0])
    assert "".join(pieces).replace("\u2581", " ") == " A very old boat …"


def test_sampling_draws_other_segmentations_of_the_same_text(tokenizer):
    drawn = tokenizer.encode(["A very old mountain …"] * 50, sample=0.1)
    assert len(set(map(tuple, drawn))) > 10
    assert set(tokenizer.decode(drawn)) == {"A very old mountain …"}
    assert len(set(map(tuple, tokenizer.encode(["A very old mountain …"] * 50)))) == 1
    assert len({tuple(tokenizer.encode(["A very old mountain …"], sample=0.1)[0]) for _ in range(50)}) > 10


def test_of_many_sentences_all_are_as_likely_to_be_learnt_from():
    """Of 10,000 numbers 1,000, drawn wherever they stand: a tenth lies in each tenth, deviation 0.9 %."""
    found = [int(number) for number in sampled(map(str, range(10_000)), 1000)]
    assert len(set(found)) == 1000
    for tenth in range(10):
        assert 65 <= sum(number // 1000 == tenth for number in found) <= 135
    assert sampled(map(str, range(10_000)), 1000) == [str(number) for number in found]
    assert sampled("abc", 3) == sampled("abc", 9) == ["a", "b", "c"]


def test_a_vocabulary_of_a_sample_is_learnt_again_in_another_process(tmp_path):
    code = """if True:
        import sys
        from nmt import tokenizer
        tokenizer.SAMPLED_SENTENCES = 300
        lines = open(sys.argv[1], encoding="utf8").read().splitlines()
        print(tokenizer.train_tokenizer(lines, tokenizer.TokenizerOptions(vocab_size=48), sys.argv[2]).digest)
    """
    text = tmp_path / "text"
    text.write_text("\n".join(SENTENCES[:-1]), encoding="utf8")
    assert len(SENTENCES) > 700
    command = [sys.executable, "-c", code, text, tmp_path / "spm.model"]
    one, two = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert one == two != ""


def test_lines_are_told_alike_one_by_one_and_together(tokenizer):
    rows = tokenizer.encode(SENTENCES)
    assert [tokenizer.encode([line])[0] for line in SENTENCES] == rows
    assert [tokenizer.decode([row])[0] for row in rows] == tokenizer.decode(rows)


def test_threads_change_nothing(tokenizer):
    assert tokenizer.encode(SENTENCES * 20, threads=4) == tokenizer.encode(SENTENCES * 20)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_same_text_gives_the_same_model_of_the_size_asked_for(tmp_path, kind):
    options = TokenizerOptions(type=kind, vocab_size=48)
    one = train_tokenizer(iter(SENTENCES), options, tmp_path / "one.model")
    two = train_tokenizer(iter(SENTENCES), options, tmp_path / "two.model")
    assert one.digest == two.digest == hashlib.sha256((tmp_path / "one.model").read_bytes()).hexdigest()
    assert one.size == len(one) == 48


def test_byte_fallback_spells_what_it_never_saw(tmp_path):
    options = TokenizerOptions(vocab_size=300, byte_fallback=True)
    assert train_tokenizer(SENTENCES, options, tmp_path / "spm.model").size == 300
    loaded = Tokenizer.load(tmp_path / "spm.model")
    assert loaded.decode(loaded.encode(["Ein 舟 …"])) == ["Ein 舟 …"]


def test_what_is_decoded_is_a_line_whatever_bytes_are_said(tmp_path):
    options = TokenizerOptions(vocab_size=300, byte_fallback=True)
    tokenizer = train_tokenizer(SENTENCES, options, tmp_path / "spm.model")
    feed, returned, letter = (tokenizer.processor.piece_to_id(f"<0x{code}>") for code in ("0A", "0D", "41"))
    assert tokenizer.decode([[letter, feed, letter, returned, letter], [feed]]) == ["A A A", " "]


def test_a_long_sentence_is_learnt_from_too(tmp_path):
    # sentencepiece skips sentences of over 4192 bytes by default; Ω is in no other
    tokenizer = train_tokenizer([*SENTENCES, "Ω " * 4000], TokenizerOptions(vocab_size=48), tmp_path / "spm.model")
    assert UNK not in tokenizer.encode(["Ω"])[0]


def test_a_sentence_with_a_tab_is_learnt_from_too(tmp_path):
    tokenizer = train_tokenizer([*SENTENCES, "Ω\tΩ"], TokenizerOptions(vocab_size=48), tmp_path / "spm.model")
    assert UNK not in tokenizer.encode(["Ω"])[0]


def test_saving_and_loading_change_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "copy.model")
    assert Tokenizer.load(tmp_path / "copy.model").digest == tokenizer.digest
    assert [path.name for path in tmp_path.iterdir()] == ["copy.model"]


# ---- what is wrong ----


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_vocabulary_that_the_text_cannot_fill_names_the_most_that_it_can(tmp_path, kind):
    with pytest.raises(
        ValueError, match=r"tokenizer\.vocab_size is 4000, but this text can fill only \d+ pieces"
    ) as error:
        train_tokenizer(SENTENCES, TokenizerOptions(type=kind, vocab_size=4000), tmp_path / "spm.model")
    assert not list(tmp_path.iterdir())
    most = int(re.search(r"set it to (\d+) or less", str(error.value))[1])
    assert train_tokenizer(SENTENCES, TokenizerOptions(type=kind, vocab_size=most), tmp_path / "spm.model").size == most


def test_a_vocabulary_smaller_than_the_alphabet_is_refused(tmp_path):
    complaint = (
        r"vocab_size is 10, but this text needs \d+ for .* or lower tokenizer\.character_coverage, which is 1\.0"
    )
    with pytest.raises(ValueError, match=complaint):
        train_tokenizer(SENTENCES, TokenizerOptions(vocab_size=10), tmp_path / "spm.model")


@pytest.mark.parametrize("nothing", [[], ["", " "]])
def test_no_text_is_refused(tmp_path, nothing):
    with pytest.raises(ValueError, match="there is no text to train a tokenizer on"):
        train_tokenizer(nothing, TokenizerOptions(), tmp_path / "spm.model")


def test_another_complaint_of_sentencepiece_is_passed_on_in_one_line(tmp_path, monkeypatch):
    def refuse(**_options):
        raise RuntimeError("INTERNAL: something\nelse")

    monkeypatch.setattr("sentencepiece.SentencePieceTrainer.train", refuse)
    with pytest.raises(ValueError, match="sentencepiece cannot train a tokenizer: INTERNAL: something else"):
        train_tokenizer(SENTENCES, TokenizerOptions(), tmp_path / "spm.model")


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at \S+spm\.model: it is written there when"):
        Tokenizer.load(tmp_path / "spm.model")


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"", "the model is empty"), (b"A boat .", "these bytes are no sentencepiece model")]
)
def test_a_damaged_model_is_named(tmp_path, content, complaint):
    (tmp_path / "spm.model").write_bytes(content)
    with pytest.raises(ValueError, match=rf"spm\.model is not a tokenizer of ours: {complaint}\. Copy it again"):
        Tokenizer.load(tmp_path / "spm.model")


def test_a_model_with_other_special_ids_is_refused(tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(tmp_path / "spm"), vocab_size=48, minloglevel=2
    )
    with pytest.raises(ValueError, match=r"its ids of \(pad, unk, bos, eos\) are \(-1, 0, 1, 2\), not \(0, 1, 2, 3\)"):
        Tokenizer.load(tmp_path / "spm.model")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"type": "word"}, r"tokenizer\.type is unigram or bpe, not 'word'"),
        ({"vocab_size": 4}, r"tokenizer\.vocab_size is 4: 4 pieces are special"),
        ({"character_coverage": 0.0}, r"tokenizer\.character_coverage lies in \(0, 1\], not at 0\.0"),
    ],
)
def test_options_out_of_range_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        TokenizerOptions(**options)
