"""The corpus check finds what was planted, and names its line."""

import pytest

from nmt.check import check, check_data
from nmt.corpus import DataOptions

LANGUAGES = ("en", "de")


def write(folder, name, pairs):
    for side, language in enumerate(LANGUAGES):
        (folder / f"{name}.{language}").write_bytes("".join(pair[side] + "\n" for pair in pairs).encode())
    return str(folder / name)


def test_each_oddity_is_counted_and_placed(tmp_path):
    pairs = [
        ("A boat .", "Ein Boot ."),
        ("A boat .", "Ein Boot ."),  # 2: a duplicate
        ("A boat .", "Das Boot ."),  # 3: the same source only
        ("", "leer"),  # 4: blank
        ("Berlin", "Berlin"),  # 5: a copy
        ("Yes", "J" * 20),  # 6: 20 > 3 * 3
        ("Yes", "J" * 19),  # 7: as unlike, but short
        ("seven..", "J" * 21),  # 8: 21 is not over 3 * 7
        ("caf\ufffd", "Café"),  # 9
        ("a\u2028b", "a b"),  # 10
        ("für", "fÃ¼r"),  # 11
        ("R &amp; D", "F & E"),  # 12
    ]
    path = write(tmp_path, "train", pairs)
    assert check(path, LANGUAGES, "train").lines() == [
        # (3*8 + 6 + 2*3 + 7 + 4 + 3 + 3 + 9) / 11 = 5.6
        # (3*10 + 6 + 20 + 19 + 21 + 4 + 3 + 4 + 5) / 11 = 10.2
        f"train: 12 pairs, 11 usable; 6 and 10 characters on average, 21 at most ({path}.de:8)",
        f"  a side is blank: 1, first at {path}.en:4",
        "  exact duplicates: 1",
        f"  target is a copy of the source: 1, first at {path}.en:5",
        f"  one side over 3 times as long as the other: 1, first at {path}.de:6",
        f"  replacement character (U+FFFD): 1, first at {path}.en:9",
        f"  control character or line separator: 1, first at {path}.en:10",
        f"  UTF-8 read as another encoding (such as Ã¼): 1, first at {path}.de:11",
        f"  HTML entity (such as &amp;): 1, first at {path}.en:12",
    ]


def test_of_a_table_both_sides_are_in_one_file(tmp_path):
    (tmp_path / "a.tsv").write_text("A boat .\tf\u00c3\u00bcr\nx\t\n", encoding="utf8")
    report = check(str(tmp_path / "a.tsv"), LANGUAGES, "train")
    assert report.oddities["UTF-8 read as another encoding (such as \u00c3\u00bc)"].places == [f"{tmp_path}/a.tsv:1"]
    assert report.blank.places == [f"{tmp_path}/a.tsv:2"]


def test_three_places_are_named_and_all_are_counted(tmp_path):
    path = write(tmp_path, "train", [(f"Berlin {n}",) * 2 for n in range(1000)])
    finding = check(path, LANGUAGES, "train").oddities["target is a copy of the source"]
    assert str(finding) == f"1,000, first at {path}.en:1, {path}.en:2, {path}.en:3"


def test_source_sentences_shared_with_an_earlier_split_are_counted(tmp_path):
    train = write(tmp_path, "train", [("one", "eins"), ("two", "zwei"), ("two", "zwo")])
    validation = write(tmp_path, "validation", [("two", "ZWEI"), ("three", "drei")])
    test = write(tmp_path, "test", [("three", "drei"), ("two", "2"), ("one", "1")])
    options = DataOptions(train=[train], validation=validation, test=test)
    reports = check_data(options)
    assert [report.split for report in reports] == ["train", "validation", "test"]
    assert [report.overlaps for report in reports] == [{}, {"train": 1}, {"train": 2, "validation": 2}]
    assert "source sentences also in train: 2" in str(reports[2])
    assert [report.split for report in check_data(DataOptions(test=test))] == ["test"]


def test_several_sources_are_one_split(tmp_path):
    first, second = write(tmp_path, "a", [("x", "y")]), write(tmp_path, "b", [("x", "y"), ("z", "z")])
    report = check([first, second], LANGUAGES, "train")
    assert (report.read, report.duplicates) == (3, 1)
    assert report.oddities["target is a copy of the source"].places == [f"{second}.en:2"]


def test_a_corpus_without_a_usable_pair_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"empty has no usable pair"):
        check([write(tmp_path, "a", [("x", "y")]), write(tmp_path, "empty", [("", "y")])], LANGUAGES, "train")
