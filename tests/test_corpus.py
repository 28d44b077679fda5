"""Every way to give parallel text, and every way that it can be wrong; the files are a few lines, written here."""

import gzip
import json
import re
from pathlib import Path

import pytest

from nmt.corpus import DataOptions, Pair, Report, fingerprint, read_pairs, sources
from nmt.monolingual import read_sentences

LANGUAGES = ("en", "de")
BOAT, CAT = Pair("A boat .", "Ein Boot ."), Pair("A cat .", "Eine Katze .")


def write(folder: Path, **sides: bytes | str) -> str:
    """Files corpus.en, corpus.de; the prefix that names them."""
    for language, content in sides.items():
        (folder / f"corpus.{language}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / "corpus")


def read(source: str, report: Report | None = None) -> list[Pair]:
    return list(read_pairs(source, LANGUAGES, "train", report))


# ---- plain files ----


def test_a_prefix_names_both_sides(tmp_path):
    assert read(write(tmp_path, en="A boat .\nA cat .\n", de="Ein Boot .\nEine Katze .\n")) == [BOAT, CAT]


def test_the_last_line_may_lack_its_end(tmp_path):
    assert read(write(tmp_path, en="A boat .\nA cat .", de="Ein Boot .\nEine Katze .\n")) == [BOAT, CAT]


def test_only_a_line_feed_ends_a_line(tmp_path):
    # U+2028, U+0085, a lone CR, a vertical tab and a form feed: str.splitlines breaks at each of them
    odd = "a\u2028b\u0085c\rd\ve\ff"
    assert read(write(tmp_path, en=f"{odd}\nx\n", de="y\nz\n")) == [Pair(odd, "y"), Pair("x", "z")]


def test_line_ends_of_windows_and_a_byte_order_mark_are_no_text(tmp_path):
    assert read(write(tmp_path, en=b"\xef\xbb\xbfA boat .\r\nA cat .\r\n", de="Ein Boot .\nEine Katze .\n")) == [
        BOAT,
        CAT,
    ]


def test_a_pair_with_a_blank_side_is_dropped_as_a_pair_and_counted(tmp_path):
    report = Report()
    source = write(tmp_path, en="A boat .\n\nx\nA cat .\n", de="Ein Boot .\ny\n \t\u3000\nEine Katze .\n")
    assert read(source, report) == [BOAT, CAT]
    assert (report.read, report.blank, report.kept) == (4, 2, 2)
    assert str(report) == "4 pairs read, 2 kept; dropped: 2 with a blank side, 0 too long"


def test_two_files_may_be_named_and_either_may_be_compressed(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"A boat .\n"))
    (tmp_path / "b.txt").write_bytes(b"Ein Boot .\n")
    assert read(f"{tmp_path}/a.txt.gz,{tmp_path}/b.txt") == [BOAT]


def test_a_prefix_finds_compressed_files(tmp_path):
    (tmp_path / "corpus.en.gz").write_bytes(gzip.compress(b"A boat .\n"))
    assert read(write(tmp_path, de="Ein Boot .\n")) == [BOAT]


# ---- what is wrong with plain files ----


def test_a_shorter_target_is_named_with_the_line_it_lacks(tmp_path):
    source = write(tmp_path, en="1\n2\nA boat .\n", de="1\n2\n")
    with pytest.raises(ValueError, match=r"corpus\.de ends after line 2, but \S+corpus\.en:3 reads 'A boat \.'\. Each"):
        read(source)


def test_a_shorter_source_is_named_with_the_line_it_lacks(tmp_path):
    source = write(tmp_path, en="1\n", de="1\nEin Boot .\n3\n")
    with pytest.raises(ValueError, match=r"corpus\.en ends after line 1, but \S+corpus\.de:2 reads 'Ein Boot \.'"):
        read(source)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"A boat .\ncaf\xe9\n", r"corpus\.en:2 is not UTF-8: its byte 4 is 0xe9\. .*`iconv -f latin1 -t utf-8`"),
        ("A boat .\nx\n".encode("utf-16"), r"corpus\.en:1 is not UTF-8: its byte 1 is 0xff\. .*iconv -f utf-16"),
        (b"A boat .\nA\0cat\n", r"corpus\.en:2 has a NUL character: the file is binary, UTF-16 or damaged"),
        (b"\n \n", r"corpus has no usable pair: it is empty, or one side of every line is blank"),
    ],
)
def test_bytes_that_are_no_text_are_named(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=complaint):
        read(write(tmp_path, en=content, de="x\ny\n"))


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"corpus has no usable pair: it is empty"):
        read(write(tmp_path, en="", de=""))


def test_a_compressed_file_cut_short_is_named(tmp_path):
    (tmp_path / "corpus.en.gz").write_bytes(gzip.compress(b"A boat .\n" * 9)[:-9])
    with pytest.raises(ValueError, match=r"corpus\.en\.gz is cut short or not gzip .*: copy it again"):
        read(write(tmp_path, de="Ein Boot .\n" * 9))


def test_a_missing_side_is_named_with_the_nearest_file(tmp_path):
    source = write(tmp_path, en="A boat .\n", de="Ein Boot .\n")
    with pytest.raises(
        FileNotFoundError, match=r"there is no \S+corpsu\.en or \S+corpsu\.en\.gz; did you mean \S+corpus\.en"
    ):
        read(source.replace("corpus", "corpsu"))


def test_the_other_side_is_no_hint(tmp_path):
    write(tmp_path, en="A boat .\n")
    (tmp_path / "corpus.en.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"there is no \S+corpus\.de or \S+corpus\.de\.gz$"):
        read(str(tmp_path / "corpus"))
    (tmp_path / "a.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"there is no \S+a\.tsv; did you mean \S+a\.txt\?$"):
        read(str(tmp_path / "a.tsv"))


@pytest.mark.parametrize("name", ["a.tmx", "a.csv", "a.parquet", "a.XML", "a.tmx.gz"])
def test_a_format_that_is_not_read_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{name}: \w+ is not read here; make it \.tsv"):
        read(str(tmp_path / name))
    with pytest.raises(ValueError, match=rf"{name}: \w+ is not read here; make it \.tsv"):
        list(read_sentences(str(tmp_path / name), LANGUAGES, "train"))


def test_a_table_is_no_side(tmp_path):
    (tmp_path / "a.tsv").write_text("A boat .\tEin Boot .\n")
    with pytest.raises(ValueError, match=r"a\.tsv has both sides in it, and is none itself; several such files are \["):
        read(f"{tmp_path}/a.tsv,{tmp_path}/a.tsv")


def test_a_name_with_a_comma_is_taken_as_it_is_where_it_exists(tmp_path):
    (tmp_path / "k,l").mkdir()
    assert read(write(tmp_path / "k,l", en="A boat .\n", de="Ein Boot .\n")) == [BOAT]
    (tmp_path / "k,l" / "a.tsv").write_text("A boat .\tEin Boot .\n")
    assert read(str(tmp_path / "k,l" / "a.tsv")) == [BOAT]
    assert list(read_sentences(str(tmp_path / "k,l" / "corpus.de"), LANGUAGES, "train")) == [BOAT.target]
    with pytest.raises(ValueError, match="would be its own translation: set both"):
        DataOptions(train=[str(tmp_path / "k,l" / "corpus")], source_language="en", target_language="en").check_sides()


def test_a_missing_folder_is_named():
    with pytest.raises(FileNotFoundError, match=r"there is no nowhere/a\.tsv: nowhere is not a folder"):
        read("nowhere/a.tsv")


def test_one_side_given_for_the_prefix_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"corpus\.en is one side: leave out \.en"):
        read(write(tmp_path, en="A boat .\n", de="Ein Boot .\n") + ".en")


def test_a_folder_is_no_corpus(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder: name its corpus, as \S+/train"):
        read(str(tmp_path))
    with pytest.raises(IsADirectoryError, match=r"is a folder, not a file"):
        read(f"{tmp_path},{tmp_path}")


def test_three_files_are_no_corpus():
    with pytest.raises(ValueError, match=r"a,b,c names 3 files; a corpus is two: SOURCE,TARGET"):
        read("a,b,c")


# ---- tables ----


def test_tsv_has_two_columns_and_no_quoting(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b'A "boat .\tEin Boot .\n\nA cat .\tEine Katze .\n')
    report = Report()
    assert read(str(path), report) == [Pair('A "boat .', "Ein Boot ."), CAT]
    assert report.blank == 1


@pytest.mark.parametrize(("line", "count"), [("A boat .", "1 column,"), ("A\tboat\t.", "3 columns,")])
def test_tsv_with_other_columns_is_refused(tmp_path, line, count):
    path = tmp_path / "a.tsv"
    path.write_bytes(f"a\tb\n{line}\n".encode())
    with pytest.raises(ValueError, match=rf"a\.tsv:2 has {count} not 2: source, tab, target"):
        read(str(path))


@pytest.mark.parametrize(
    "row",
    [
        {"en": "A boat .", "de": "Ein Boot .", "id": 3},
        {"source": "A boat .", "target": "Ein Boot ."},
        {"translation": {"de": "Ein Boot .", "en": "A boat ."}},
    ],
)
def test_jsonl_takes_languages_or_sides_or_a_translation(tmp_path, row):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert read(f"{tmp_path}/a.jsonl.gz") == [BOAT]


def test_a_line_feed_inside_a_json_sentence_becomes_a_space(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"en": "A\r\nboat .", "de": "Ein Boot ."}))
    assert read(f"{tmp_path}/a.jsonl") == [BOAT]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("[1]", "is not a JSON object with the two sentences"),
        ('{"en": "x", "fr": "y"}', "has the fields en, fr; expected en and de, source and target, or translation"),
        ('{"translation": {"en": "x"}}', "has no translation in both en and de: "),
        ('{"en": "x", "de": null}', "de, is not text but 'None'"),
        ('{"en": "x", "de": "\\u0000"}', "de, has a NUL character or half a surrogate pair"),
        ('{"en": "x", "de": "\\ud800"}', "de, has a NUL character or half a surrogate pair"),
    ],
)
def test_jsonl_without_two_sentences_is_refused(tmp_path, line, complaint):
    (tmp_path / "a.jsonl").write_text(json.dumps(BOAT._asdict()) + "\n" + line)
    with pytest.raises(ValueError, match=r"a\.jsonl:2.*" + re.escape(complaint)):
        read(f"{tmp_path}/a.jsonl")


# ---- data sets ----


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The `datasets` library with its cache in the test's folder and no way to the network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return datasets


def rows_of(*pairs: Pair) -> str:
    return "".join(json.dumps({"en": pair.source, "de": pair.target}) + "\n" for pair in pairs)


def test_a_folder_is_a_data_set_and_the_role_chooses_its_split(tmp_path, hub):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text(rows_of(BOAT, CAT))
    (tmp_path / "set" / "validation.jsonl").write_text(rows_of(CAT))
    source = f"hf:{tmp_path}/set"
    assert read(source) == [BOAT, CAT]
    assert list(read_pairs(source, LANGUAGES, "validation")) == [CAT]
    assert read(source + "@validation") == [CAT]
    assert read(source + "@train[:1]") == [BOAT]
    assert read(source + ":default@train") == [BOAT, CAT]
    with pytest.raises(ValueError, match=r'set, split test: Unknown split "test"\. Should be one of'):
        list(read_pairs(source, LANGUAGES, "test"))
    with pytest.raises(ValueError, match=r"set:fr-en, split train: .*'fr-en' not found"):
        read(source + ":fr-en")


def test_a_data_set_that_was_saved_is_read(tmp_path, hub):
    saved = hub.Dataset.from_dict({"translation": [{"en": BOAT.source, "de": BOAT.target}], "id": [7]})
    saved.save_to_disk(tmp_path / "saved")
    assert read(f"hf:{tmp_path}/saved") == [BOAT]
    hub.DatasetDict(validation=saved).save_to_disk(tmp_path / "splits")
    assert read(f"hf:{tmp_path}/splits@validation") == [BOAT]
    with pytest.raises(ValueError, match=r"cannot read hf:\S+splits, split train: "):
        read(f"hf:{tmp_path}/splits")
    with pytest.raises(ValueError, match=r"splits@train\[:1\], split train\[:1\]: there are validation"):
        read(f"hf:{tmp_path}/splits@train[:1]")
    with pytest.raises(ValueError, match="split train: what was saved there is one data set, without splits"):
        read(f"hf:{tmp_path}/saved@train")


def test_a_data_set_of_other_columns_lists_them(tmp_path, hub):
    hub.Dataset.from_dict({"text": ["x"], "label": [1]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"hf:\S+ has the fields text, label; expected en and de"):
        read(f"hf:{tmp_path}/saved")


def test_a_data_set_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"^hf:@train names no data set: it should read like hf:NAME"):
        read("hf:@train")


def test_a_hub_out_of_reach_is_said_in_one_line(hub):
    with pytest.raises(
        ConnectionError, match=r"cannot reach the hub for hf:nobody/nothing; check the name or the network"
    ):
        read("hf:nobody/nothing")


def test_a_data_set_that_is_not_there_is_named(tmp_path, hub):
    with pytest.raises(FileNotFoundError, match=r"there is no data set hf:/\S+nowhere: "):
        read(f"hf:{tmp_path}/nowhere")


# ---- options and fingerprints ----


def test_the_fingerprint_is_of_the_content_not_the_place(tmp_path):
    first = write(tmp_path, en="A boat .\n", de="Ein Boot .\n")
    (tmp_path / "copy").mkdir()
    second = write(tmp_path / "copy", en="A boat .\n", de="Ein Boot .\n")
    assert fingerprint(first, LANGUAGES, "train") == fingerprint(second, LANGUAGES, "train")
    write(tmp_path / "copy", de="Ein Boot !\n")
    assert fingerprint(first, LANGUAGES, "train") != fingerprint(second, LANGUAGES, "train")
    assert fingerprint(first, LANGUAGES, "train") != fingerprint(first, ("de", "en"), "train")


def test_the_fingerprint_of_a_data_set_follows_its_rows(tmp_path, hub):
    for name, row in {"a": BOAT, "b": CAT}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(rows_of(row))
    one, same, other = (fingerprint(f"hf:{tmp_path}/{name}", LANGUAGES, "train") for name in "aab")
    assert one == same != other


def test_one_source_may_be_a_plain_string():
    assert sources("data/train") == ["data/train"]
    assert sources(["a", "b"]) == ["a", "b"]
    assert DataOptions().languages == LANGUAGES


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [("max_length", 0, r"data\.max_length is 0; a sentence has"), ("workers", -1, r"data\.workers is -1; it is 0")],
)
def test_options_out_of_range_are_refused(name, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        DataOptions(**{name: value})


def test_what_is_read_of_named_columns_is_part_of_what_a_source_holds(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"en": "one", "de": "eins", "fr": "un"}\n')
    (tmp_path / "a.tsv").write_text("one\teins\n")
    orders = [("en", "de"), ("de", "en"), ("en", "fr")]
    assert len({fingerprint(str(tmp_path / "a.jsonl"), languages, "train") for languages in orders}) == 3
    assert len({fingerprint(str(tmp_path / "a.tsv"), languages, "train") for languages in orders}) == 1
