"""Several processes say what one says, in its order."""

import itertools
import resource
from functools import partial
from pathlib import Path

import pytest
from torch.testing import assert_close

from nmt import workers
from nmt.translator import Request, Translator

pytestmark = pytest.mark.slow  # each process imports torch


def test_the_answers_are_those_of_one_process_line_by_line(trained, toy):
    lines = [*toy.text("val.en"), "", *toy.text("val.en")[:5]]
    expected = [answer.text for answer in Translator.load(trained).translate(lines)]
    found = workers.translate(partial(Translator.load, trained), lines, 2, window=4)
    assert [(answer.source, answer.text) for answer in found] == list(zip(lines, expected, strict=True))


def test_alignments_come_by_value_and_not_each_as_an_open_file(trained, toy):
    lines = toy.text("train.en")[:200]
    expected = Translator.load(trained).translate(lines, with_alignment=True)
    found = workers.translate(partial(Translator.load, trained), lines, 1, with_alignment=True)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 60, before[1]))
    try:
        answers = list(found)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for one, other in zip(expected, answers, strict=True):
        assert_close(other.candidates[0].alignment, one.candidates[0].alignment, atol=1e-4, rtol=0)


def test_what_is_asked_of_a_line_goes_with_it(trained):
    lines = [Request("two big red cats", prefix="drei"), Request("one old dogs", phrases=("weiß",)), Request("")]
    first, second, blank = (answer.text for answer in workers.translate(partial(Translator.load, trained), lines, 2))
    assert first.startswith("drei ")
    assert "weiß" in second.split()
    assert blank == ""


def test_an_endless_input_is_read_no_further_than_two_windows_a_process(trained):
    read = itertools.count()
    answers = workers.translate(partial(Translator.load, trained), ("two big red cats" for _ in read), 1, window=3)
    assert next(answers).text == "zwei große rot Katzen"
    answers.close()
    assert next(read) == 6


def test_a_line_that_is_too_long_is_named(trained):
    load = partial(Translator.load, trained, longest=12)
    with pytest.raises(ValueError, match=r"line 4 has \d+ pieces \(40 words\), more than 12: split it into sentences"):
        list(workers.translate(load, ["one red cat", "", "one red cat", "red " * 40], 1, window=2))


def test_a_model_that_cannot_be_loaded_is_said(tmp_path):
    with pytest.raises((ValueError, OSError), match=str(tmp_path)):
        list(workers.translate(partial(Translator.load, tmp_path), ["one red cat"], 1))
