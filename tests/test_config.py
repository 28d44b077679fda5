"""Options from files and flags: which wins, what is refused, and that every config that ships can be read."""

from pathlib import Path

import pytest
import torch

from nmt import config
from nmt.cli import main
from nmt.config import Config, ConfigError
from nmt.model.language_model import build_language_model
from nmt.model.seq2seq import build_model

CONFIGS = Path(__file__).parent.parent / "configs"
OVER = {"no-attention.yaml": "multi30k.yaml", "sutskever2014-small.yaml": "sutskever2014.yaml"}  # to be stacked


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_defaults_then_files_in_order_then_flags(tmp_path):
    first = write(tmp_path, "a.yaml", "model: {dropout: 0.1, hidden_size: 8, embedding_size: 7}\nseed: 5\n")
    second = write(tmp_path, "b.yaml", "model: {dropout: 0.2, hidden_size: 16}\n")
    found = config.read([first, second], ["--model.dropout", "0.4", "--training.schedule=constant"])
    assert (found.model.dropout, found.model.hidden_size, found.model.embedding_size) == (0.4, 16, 7)
    assert config.read([write(tmp_path, "c.yaml", "search: {max_length: null}")], []).search.max_length is None
    assert (found.seed, found.training.schedule) == (5, "constant")
    assert found.model.decoder_layers == Config().model.decoder_layers
    assert config.read([second, first], []).model.dropout == 0.1


def test_flags_win_even_before_the_files(tmp_path, capsys):
    file = write(tmp_path, "a.yaml", "model: {dropout: 0.1}\noutput: of-the-file\n")
    assert main(["train", "--model.dropout", "0.4", "-o", "of-the-flag", "-c", file, "--print-config"]) == 0
    printed = config.read([write(tmp_path, "printed.yaml", capsys.readouterr().out)], [])
    assert (printed.model.dropout, printed.output) == (0.4, "of-the-flag")


def test_what_is_printed_can_be_read_back(tmp_path, capsys):
    flags = ["--data.train", "ä/train", "--data.validation", "[a, b]", "--search.max_length", "7", "--seed", "3"]
    found = config.read([], flags)
    assert (found.data.train, found.data.validation, found.search.max_length) == ("ä/train", ["a", "b"], 7)
    assert config.read([write(tmp_path, "a.yaml", config.dump(found))], []) == found
    assert config.build(config.to_dict(found)) == found
    assert main(["train", *flags, "--print-config"]) == 0
    assert capsys.readouterr().out == config.dump(found)


def test_changes_are_dotted_and_sorted():
    old, new = {"a": {"c": 1, "b": 2}, "gone": 4}, {"a": {"c": 1, "b": 3}, "come": 5}
    assert list(config.changes(old, new).items()) == [("a.b", (2, 3)), ("come", (None, 5)), ("gone", (4, None))]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_that_ships_is_read(path):
    base = [str(CONFIGS / OVER[path.name])] if path.name in OVER else []
    found = config.read([*base, str(path)], [])
    assert found != config.read(base, [])
    with torch.device("meta"):
        if found.task == "language-model":
            build_language_model(found.model, 100)
        else:
            build_model(found.model, 100, 100)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "model: {hiden_size: 8}",
            r"a\.yaml has the unknown option model\.hiden_size; did you mean model\.hidden_size\?",
        ),
        ("hidden_size: 8", r"unknown option hidden_size; did you mean model\.hidden_size\?"),
        ("modell: {cell: lstm}", r"unknown option modell\.cell; did you mean model\.cell\?"),
        (
            "model: {cell: lsmt}",
            r"a\.yaml: model\.cell must be one of 'rnn', 'lstm', 'lecture-lstm', 'layer-norm-lstm', 'gru', not lsmt",
        ),
        (
            "model: {attention: genral}",
            r"model\.attention must be one of 'none', 'dot', 'general', 'additive', not genr",
        ),
        ("training: {schedule: linear}", r"training\.schedule must be one of 'constant', "),
        ("model: {hidden_size: wide}", r"model\.hidden_size must be int, not wide"),
        ("model: {hidden_size: 1.5}", r"model\.hidden_size must be int, not 1\.5"),
        ("model: {hidden_size: [8]}", r"model\.hidden_size must be int, not \[8\]"),
        ("model: {bidirectional: perhaps}", r"model\.bidirectional must be bool, not perhaps"),
        ("training: {learning_rate: fast}", r"training\.learning_rate must be float, not fast"),
        ("data: {train: 3}", r"data\.train"),
        ("seed: null", r"a\.yaml: seed has no value; leave it out for its default, 1"),
        ("model: {hidden_size: null}", r"a\.yaml: model\.hidden_size has no value"),
        ("seed: x", r"seed must be int, not x"),
        ("model: 3", r"a\.yaml: model holds options, as in `model: \{\.\.\.\}`, not 3"),
        ("model:", r"a\.yaml: model holds options, as in `model: \{\.\.\.\}`, not None"),
        ("model: {hidden_size: 0}", r"model\.hidden_size must be at least 1, not 0"),
        ("model: {dropout: 1.0}", r"model\.dropout is a probability below 1, not 1\.0"),
        ("model: {context: every-step}", r"model\.context every-step is for model\.attention none"),
        (
            "{model: {tie_embeddings: all}, tokenizer: {joint: false}}",
            r"model\.tie_embeddings all needs one vocabulary for both sides: use tokenizer\.joint true or model\.tie",
        ),
        ("tokenizer: {vocab_size: 4}", r"tokenizer\.vocab_size is 4: 4 pieces are special"),
        ("search: {beam_size: 0}", r"beam_size must be at least 1"),
        ("search: {n_best: 9}", r"n_best is 9, more than the 5 of beam_size"),
        ("training: {average: 0}", r"training\.average must be at least 1, not 0"),
        ("training: {learning_rate: 0.0}", r"training\.learning_rate must be above 0, not 0"),
        ("training: {label_smoothing: 1.0}", r"training\.label_smoothing lies in \[0, 1\), not 1"),
        ("training: {clip_norm: -1.0}", r"training\.clip_norm must be at least 0, not -1"),
        ("training: {patience: -1}", r"training\.patience must be at least 0, not -1"),
        ("training: {halve_every: 0.0}", r"training\.halve_every must be above 0, not 0"),
        ("- 3", r"a\.yaml holds no options: it should read like `model: \{hidden_size: 512\}`"),
        ("model: {hidden_size: 8", r"a\.yaml is not YAML: .*line 1"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(tmp_path, text, complaint):
    with pytest.raises(ConfigError, match=complaint) as refused:
        config.read([write(tmp_path, "a.yaml", text)], [])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            ["--model.hiden_size=8"],
            r"command line has the unknown option --model\.hiden_size; did you mean --model\.hid",
        ),
        (["--hidden_size", "8"], r"unknown option --hidden_size; did you mean --model\.hidden_size\?"),
        (["--data", "corpus/train"], r"--data alone is no option; its own are --data\.NAME, as --data\.train"),
        (["--model=m"], r"--model alone is no option; its own are --model\.NAME, as --model\.\w+"),
        (
            ["--model.attention=none", "--training.guide_updates=9"],
            r"guide_updates is for attention, and model\.attention",
        ),
        (["--seed=-1"], r"seed must be at least 0 and below 4294967296, not -1"),
        (["--zzz"], r"the command line has the unknown option --zzz; --help lists them all"),
        (
            ["--model.cell=lsmt"],
            r"the command line: model\.cell must be one of 'rnn', 'lstm', .*, 'gru', not lsmt",
        ),
        (["--model.attention", "genral"], r"command line: model\.attention must be one of 'none', .*, not genral"),
        (["--model.hidden_size=wide"], r"the command line: model\.hidden_size must be int, not wide"),
        (["--model.hidden_size=-1"], r"model\.hidden_size must be at least 1, not -1"),
        (["--model.hidden_size"], r"the command line: .*expected one argument"),
        (["train.yaml"], r"the command line: .*train\.yaml"),
    ],
)
def test_a_flag_that_is_wrong_is_refused_in_one_line(flags, complaint):
    with pytest.raises(ConfigError, match=complaint) as refused:
        config.read([], flags)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the config nowhere\.yaml: No such file or directory"):
        config.read(["nowhere.yaml"], [])
    with pytest.raises(ConfigError, match=r"cannot read the config \S+: Is a directory"):
        config.read([str(tmp_path)], [])
    (tmp_path / "latin.yaml").write_bytes(b"output: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"cannot read the config \S+latin\.yaml: 'utf-8' codec can't decode"):
        config.read([str(tmp_path / "latin.yaml")], [])


def test_only_an_encoder_of_two_directions_needs_even_widths():
    with pytest.raises(ConfigError, match=r"bidirectional encoder needs an even model\.hidden_size, not 255"):
        config.read([], ["--model.hidden_size=255"])
    found = config.read([], ["--model.hidden_size=255", "--model.bidirectional=false"])
    assert found.model.hidden_size == 255
    flags = ["--model.hidden_size=255", "--model.projection=65"]
    model = config.read([str(CONFIGS / "language-model.yaml")], flags).model
    assert build_language_model(model, 100).layers[0].output_size == 65


def test_a_source_given_again_is_added(tmp_path):
    (tmp_path / "file.yaml").write_text("data: {train: z}")
    flags = ["--data.train", "a", "--data.train=b", "--data.train+=c", "--data.test", "d"]
    data = config.read([str(tmp_path / "file.yaml")], flags).data
    assert (data.train, data.test) == (["a", "b", "c"], "d")


def test_both_sides_of_two_named_files_may_be_of_one_language():
    flags = ["--data.source_language=de", "--data.train=a,b", "--data.train=c.tsv"]
    assert config.read([], flags).data.languages == ("de", "de")
