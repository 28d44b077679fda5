"""Text in, text out: every line answered in its place, whatever it is batched with."""

import itertools
import math
import random
import shutil

import pytest
import torch

from nmt import checkpoint
from nmt.batches import collate_sources
from nmt.checkpoint import Tokenizers
from nmt.decoding import price
from nmt.model.seq2seq import ModelOptions, build_model
from nmt.sampling import SamplingOptions
from nmt.search import SearchOptions
from nmt.shortlist import Shortlist
from nmt.tokenizer import BOS, EOS
from nmt.translator import Translator, choose_device, choose_precision, evened

LINES = ["two big red cats", "", "six new white trees", "  ", "one cats", "three old black dogs and four green cars"]


@pytest.fixture(scope="module")
def translator(trained) -> Translator:
    return Translator.load(trained)


def same(one, other) -> None:
    """Equal text, and scores equal but for the rounding of other batches."""
    for left, right in zip(one, other, strict=True):
        assert [candidate.text for candidate in left.candidates] == [candidate.text for candidate in right.candidates]
        assert [candidate.score for candidate in left.candidates] == pytest.approx(
            [candidate.score for candidate in right.candidates], abs=1e-4
        )


def test_words_it_has_seen_are_translated(translator, toy):
    hypotheses = [answer.text for answer in translator.translate(toy.text("val.en"))]
    assert hypotheses == toy.text("val.de")


def test_each_line_is_answered_in_its_place_and_blank_is_blank(translator):
    answers = list(translator.translate(LINES))
    assert [answer.source for answer in answers] == LINES
    assert [bool(answer.text) for answer in answers] == [True, False, True, False, True, True]
    assert (answers[0].text, answers[2].text) == ("zwei große rot Katzen", "sechs neue weiß Bäume")
    assert answers[1].candidates[0].score == answers[1].candidates[0].log_prob == 0


def test_no_translation_depends_on_the_batch(trained, toy):
    lines = [*LINES, *toy.text("val.en")]
    search = SearchOptions(beam_size=3, n_best=3)
    alone, together = (Translator.load(trained, search, batch_tokens=tokens) for tokens in (1, 10**6))
    same(alone.translate(lines), together.translate(lines))


@pytest.mark.parametrize("size", [7, 64])
def test_beside_others_in_any_order_a_line_is_answered_as_alone(trained, toy, size):
    lines = (toy.text("val.en") + toy.text("train.en"))[:128]
    translator = Translator.load(trained, SearchOptions(beam_size=4, n_best=4), precision="fp32", batch_tokens=10**6)
    alone = {line: next(translator.translate([line])).candidates for line in lines}
    random.Random(size).shuffle(lines)
    for number in range(0, len(lines), size):
        for answer in translator.translate(lines[number : number + size]):
            for found, expected in zip(answer.candidates, alone[answer.source], strict=True):
                assert found.pieces == expected.pieces
                assert found.score == pytest.approx(expected.score, abs=1e-5, rel=0)


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        ({"search": SearchOptions(beam_size=1)}, False),
        ({"search": SearchOptions(beam_size=2)}, True),
        ({"search": SearchOptions(beam_size=5), "sampling": SamplingOptions(1)}, False),
        ({"sampling": SamplingOptions(3)}, True),
    ],
)
def test_a_model_is_laid_out_for_as_many_hypotheses_as_will_read_a_sentence(trained, options, shared):
    assert Translator.load(trained, device="cpu", **options).stepper.shared is shared


def test_no_translation_depends_on_the_window(translator):
    same(translator.translate(LINES, window=2), translator.translate(LINES, window=4096))
    same(translator.translate(LINES, window=1), translator.translate(LINES))


def test_an_endless_input_is_read_no_further_than_the_window(translator):
    read = itertools.count()
    lines = (LINES[0] for _ in read)
    answers = translator.translate(lines, window=4)
    assert next(read) == 0  # nothing is read until the first answer is asked for
    assert [answer.text for answer in itertools.islice(answers, 6)] == ["zwei große rot Katzen"] * 6
    assert next(read) == 1 + 8


def test_no_lines_give_no_answers(translator):
    assert list(translator.translate([])) == []


def test_a_line_that_is_too_long_is_named(trained):
    translator = Translator.load(trained, longest=12)
    lines = ["one red cat", "", "one red cat", "red " * 40]
    answers = translator.translate(lines, window=2)
    assert next(answers).source == "one red cat"
    with pytest.raises(ValueError, match=r"line 4 has \d+ pieces \(40 words\), more than 12: split it into sentences"):
        list(answers)


def test_n_best_are_different_and_best_first(trained):
    translator = Translator.load(trained, SearchOptions(beam_size=4, n_best=3))
    (answer,) = translator.translate([LINES[0]])
    scores = [candidate.score for candidate in answer.candidates]
    assert scores == sorted(scores, reverse=True)
    assert len({candidate.pieces for candidate in answer.candidates}) == 3
    assert answer.text == answer.candidates[0].text == "zwei große rot Katzen"
    best = answer.candidates[0]
    assert best.score == pytest.approx(best.log_prob / ((5 + len(best.pieces) + 1) / 6))  # EOS counted


def test_alignment_is_there_only_when_asked_for(translator):
    (plain,) = translator.translate([LINES[0]])
    assert plain.candidates[0].alignment is None
    (asked,) = translator.translate([LINES[0]], with_alignment=True)
    assert plain.source_pieces == asked.source_pieces
    best = asked.candidates[0]
    assert best.alignment.shape == (len(best.pieces), len(asked.source_pieces) + 1)
    torch.testing.assert_close(best.alignment.sum(1), torch.ones(len(best.pieces)))
    assert "".join(asked.source_pieces).replace("\u2581", " ").strip() == LINES[0]
    assert "".join(best.pieces).replace("\u2581", " ").strip() == best.text


def test_a_model_without_attention_has_no_alignment(trained):
    tokenizers = Tokenizers.load(trained)
    options = ModelOptions(attention="none", embedding_size=8, hidden_size=8)
    model = build_model(options, tokenizers.source.size, tokenizers.target.size)
    (answer,) = Translator(model.eval(), tokenizers).translate([LINES[0]], with_alignment=True)
    assert answer.candidates[0].alignment is None


def test_bf16_says_the_same_here(trained, toy):
    rough = Translator.load(trained, precision="bf16")
    assert [answer.text for answer in rough.translate(toy.text("val.en"))] == toy.text("val.de")
    exact, rounded = (
        next(each.translate([LINES[0]])).candidates[0].score for each in (Translator.load(trained), rough)
    )
    assert exact != rounded


def test_int8_says_the_same_here_and_whatever_the_batch(trained, toy):
    rough, alone = (Translator.load(trained, precision="int8", batch_tokens=tokens) for tokens in (16384, 1))
    same(alone.translate(LINES), rough.translate(LINES))
    greedy = SearchOptions(beam_size=1)
    one, other = (
        Translator.load(trained, greedy, precision="int8", batch_tokens=tokens).translate(LINES)
        for tokens in (16384, 1)
    )
    same(one, other)
    assert [answer.text for answer in rough.translate(toy.text("val.en"))] == toy.text("val.de")
    patient = Translator.load(trained, SearchOptions(beam_size=5, early_stopping=False), precision="int8")
    assert [answer.text for answer in patient.translate(toy.text("val.en"))] == toy.text("val.de")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_with_a_shortlist_it_says_the_same_here_and_whatever_the_batch(trained, toy, precision):
    alone, together = (
        Translator.load(trained, precision=precision, shortlist=True, batch_tokens=tokens) for tokens in (1, 10**6)
    )
    best, common = together.shortlist  # of this small vocabulary, all is common
    alone.shortlist = together.shortlist = Shortlist(best[:, :12].contiguous(), torch.arange(len(common)) < 4)
    assert [answer.text for answer in together.translate(toy.text("val.en"))] == toy.text("val.de")
    same(alone.translate(LINES), together.translate(LINES))


def test_what_is_not_in_the_shortlist_is_not_said(trained):
    translator = Translator.load(trained, shortlist=True)
    kept, word = translator.shortlist, "große"
    assert word in next(translator.translate([LINES[0]])).text
    barred = torch.tensor(translator.tokenizers.target.encode([word])[0])
    best = kept.best.masked_fill(torch.isin(kept.best, barred), 0)
    translator.shortlist = Shortlist(best, kept.common.index_fill(0, barred, False))
    (answer,) = translator.translate([LINES[0]])
    assert not set(barred.tolist()) & set(
        translator.tokenizers.target.processor.piece_to_id(list(answer.candidates[0].pieces))
    )


def test_a_shortlist_is_refused_where_it_cannot_be_used(trained, tmp_path):
    tokenizers, shortlist = Tokenizers.load(trained), Translator.load(trained, shortlist=True).shortlist
    options = ModelOptions(zoneout=0.1, embedding_size=8, hidden_size=8)
    model = build_model(options, tokenizers.source.size, tokenizers.target.size)
    with pytest.raises(
        ValueError, match="a shortlist is for one model, on a CPU, without deep transitions and zoneout: leave it out"
    ):
        Translator(model.eval(), tokenizers, shortlist=shortlist)
    folder = shutil.copytree(trained, tmp_path / "model")
    (folder / "shortlist.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"model has no shortlist\.safetensors: run the command that trained it again"
    ):
        Translator.load(folder, shortlist=True)
    assert Translator.load(folder).shortlist is None


def test_batches_side_by_side_say_the_same_and_leave_the_threads_as_they_were(trained, toy):
    one = list(Translator.load(trained, batch_tokens=50).translate(toy.text("val.en")))
    torch.set_num_threads(2)
    try:
        two = list(Translator.load(trained, batch_tokens=50).translate(toy.text("val.en")))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    same(one, two)


def test_every_core_gets_several_batches(trained):
    """However large a batch may be; but not batches of a few pieces."""
    one = Translator.load(trained, SearchOptions(beam_size=1), device="cpu", batch_tokens=10**6)
    cores = torch.get_num_threads()
    for lengths, expected in (([9] * 1000 * cores, 4 * cores), ([9] * 100, 1), ([99, 0, 9], 1)):
        batches = list(one._batches(lengths))
        assert len(batches) == pytest.approx(expected, abs=1)
        assert sorted(index for batch in batches for index in batch) == [
            n for n, length in enumerate(lengths) if length
        ]


@pytest.mark.parametrize(
    ("batches", "cores", "expected"),
    [
        ([[0, 1], [2, 3], [4, 5, 6]], 2, [[0, 1], [2, 3], [4], [5, 6]]),
        ([[0], [1], [2], [3, 4, 5, 6]], 3, [[0], [1], [2], [3], [4], [5, 6]]),
        ([[0, 1], [2, 3]], 2, [[0, 1], [2, 3]]),  # as many for each
        ([[0, 1, 2]], 2, [[0, 1, 2]]),  # too few to deal out
        ([[0], [1], [2], [3, 4, 5], [6, 7, 8]], 3, [[0], [1], [2], [3], [4], [5], [6], [7], [8]]),
        ([[0], [1], [2], [3, 4]], 3, [[0], [1], [2], [3], [4]]),  # too few lines to deal out
        ([], 2, []),
    ],
)
def test_every_core_gets_as_many_batches(batches, cores, expected):
    assert evened(batches, cores) == expected


def test_a_precision_that_the_device_has_not_is_refused(monkeypatch):
    monkeypatch.setattr("nmt.model.products.has_int8", lambda: False)
    with pytest.raises(ValueError, match="precision int8 needs an x86 CPU, not cpu: use auto, bf16 or fp32"):
        choose_precision("int8", torch.device("cpu"))
    with pytest.raises(ValueError, match="precision int8 needs an x86 CPU, not cuda"):
        choose_precision("int8", torch.device("cuda"))


def test_a_model_that_is_not_laid_out_has_no_int8(trained):
    tokenizers = Tokenizers.load(trained)
    options = ModelOptions(transition=2, embedding_size=8, hidden_size=8)
    model = build_model(options, tokenizers.source.size, tokenizers.target.size).eval()
    with pytest.raises(ValueError, match="precision int8 is not for deep transitions and zoneout: use auto, bf16 or"):
        Translator(model, tokenizers, precision="int8")
    assert Translator(model, tokenizers).precision == "fp32"  # whatever this CPU has
    exact, rounded = (
        next(Translator(model, tokenizers, precision=kind).translate([LINES[0]])).candidates[0].score
        for kind in ("fp32", "bf16")
    )
    assert exact != rounded


@pytest.mark.parametrize("options", [{"attention": "none", "decoder_layers": 2}, {"cell": "gru", "reset": "before"}])
def test_in_bf16_models_that_are_laid_out_speak_with_others(trained, options):
    """Each rounds in its own way, and says by itself what it says among others."""
    tokenizers, small = Tokenizers.load(trained), {"embedding_size": 8, "hidden_size": 8}
    models = [
        build_model(ModelOptions(**small, **one), tokenizers.source.size, tokenizers.target.size).eval()
        for one in ({"zoneout": 0.1}, options)
    ]
    source, lengths = collate_sources(tokenizers.source.encode([LINES[0]]))
    translators = [
        Translator(first, tokenizers, SearchOptions(max_length=4), others=others, precision="bf16")
        for first, *others in (models[:1], models[1:], models)
    ]
    one, other, both = (
        price(translator.stepper, source, lengths, [[()]], bos=BOS, eos=EOS)[0][0] for translator in translators
    )
    assert one != other
    assert both == pytest.approx(math.log((math.exp(one) + math.exp(other)) / 2), abs=1e-6)
    assert next(translators[2].translate([LINES[0]])).candidates[0].log_prob < 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_that_says_nan_is_refused_in_any_precision(trained, precision):
    model, tokenizers, *_ = checkpoint.load(trained, torch.device("cpu"))
    model.decoder.layers[0].cells[0].bias.data[0] = math.nan
    with pytest.raises(ValueError, match="look at its loss"):
        list(Translator(model, tokenizers, precision=precision).translate(LINES))


@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16"), (False, "fp32")])
@pytest.mark.parametrize(("device", "probe"), [("cpu", "has_bf16"), ("cuda", "has_bf16_on_gpu")])
def test_auto_is_bf16_where_the_device_multiplies_it(monkeypatch, device, probe, has, chosen):
    other = {"has_bf16": "has_bf16_on_gpu", "has_bf16_on_gpu": "has_bf16"}[probe]
    monkeypatch.setattr(f"nmt.model.products.{probe}", lambda: has)
    monkeypatch.setattr(f"nmt.model.products.{other}", lambda: not has)
    assert choose_precision("auto", torch.device(device)) == chosen
    assert choose_precision("auto", torch.device(device), laid=False) == "fp32"


def test_the_search_of_the_folder_holds_unless_another_is_given(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "model")
    config = (folder / "config.yaml").read_text().replace("beam_size: 5", "beam_size: 2")
    (folder / "config.yaml").write_text(config)
    assert Translator.load(folder).search.beam_size == 2
    assert Translator.load(folder, SearchOptions(beam_size=7)).search.beam_size == 7


def test_impossible_options_are_refused(trained):
    with pytest.raises(ValueError, match="batch_tokens must be at least 1, not 0"):
        Translator.load(trained, batch_tokens=0)
    with pytest.raises(ValueError, match=r"no such device: 'gpu'\. Use auto, cpu, cuda or cuda:1"):
        Translator.load(trained, device="gpu")


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(
        ValueError, match=r"device cuda:1: this machine has no GPU that torch can use\. Use --device cpu"
    ):
        choose_device("cuda:1")
