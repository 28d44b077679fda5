"""The options of a training run: the dataclasses of the modules put together, read from files, then from flags.

Defaults < configs (in the order given) < the command line. Unknown keys are refused with the nearest name.
"""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from nmt.corpus import DataOptions
from nmt.model.seq2seq import ModelOptions
from nmt.search import SearchOptions
from nmt.tokenizer import TokenizerOptions
from nmt.training import TrainingOptions

Task = Literal["translation", "language-model"]
SECTIONS = {
    "data": DataOptions,
    "tokenizer": TokenizerOptions,
    "model": ModelOptions,
    "training": TrainingOptions,
    "search": SearchOptions,
}


@dataclass(frozen=True)
class Config:
    """All that decides a training run.

    Attributes:
        task: translation, or language-model: of plain text or the target side of parallel text, in that order. Its
            layers are model.decoder_layers; it has no encoder and no attention.
        data: the text.
        tokenizer: the vocabulary.
        model: the network.
        training: the optimisation.
        search: how the trained model decodes unless told otherwise.
        output: the model folder to write.
        init: a model folder to start from: its weights, vocabulary and shape (fine-tuning); empty for random weights.
        seed: of weights, batches and dropout.
    """

    task: Task = "translation"
    data: DataOptions = field(default_factory=DataOptions)
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    output: str = "model"
    init: str = ""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.model.tie_embeddings == "all" and not self.tokenizer.joint:
            raise ValueError(
                "model.tie_embeddings all needs one vocabulary for both sides: "
                "use tokenizer.joint true or model.tie_embeddings target"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be at least 0 and below {2**32}, not {self.seed}")
        if self.task not in get_args(Task):
            raise ValueError(f"task is {' or '.join(get_args(Task))}, not {self.task!r}")
        if self.task == "language-model":
            self._check_language_model()
        else:
            self.model.check_encoder()
            self.data.check_sides()
            if self.model.attention == "none" and self.training.guide_updates not in (0, TrainingOptions.guide_updates):
                raise ValueError("training.guide_updates is for attention, and model.attention is none: leave it out")

    def _check_language_model(self) -> None:
        """Refuse what a language model has not, and ask for what it needs."""
        usual = Config()
        of_source = ("encoder_layers", "bidirectional", "reverse_source", "attention", "context", "context_size")
        absent = [("model", name) for name in (*of_source, "bridge")] + [("tokenizer", "joint")]
        absent += [("training", name) for name in ("validation_beam", "validation_sentences", "guide_updates")]
        absent += [("search", field.name) for field in dataclasses.fields(SearchOptions)]
        for section, name in absent:
            value, found = (getattr(getattr(one, section), name) for one in (usual, self))
            if found != value and (name, found) != ("guide_updates", 0):
                raise ValueError(
                    f"{section}.{name} is for task translation, not language-model: leave it at {str(value).lower()}"
                )
        if self.model.tie_embeddings == "all":
            raise ValueError("model.tie_embeddings all is for task translation: a language model has one, use target")
        if not self.training.truncate:
            raise ValueError("task language-model reads running text in stretches: set training.truncate, say to 35")
        needed = {"validation_metric": "loss", "loss_per": "word", "devices": 1}
        for name, value in needed.items():
            if (other := getattr(self.training, name)) != value:
                raise ValueError(f"task language-model needs training.{name} {value}, not {other}")


class ConfigError(ValueError):
    """An option that cannot be: unknown, of the wrong type, or out of range."""

    exit_code = 2


def parser(program: str) -> ArgumentParser:
    """Flags for every key: `--model.hidden_size 512`."""
    made = ArgumentParser(prog=program, exit_on_error=False, add_help=False, usage=f"{program} [-c FILE ...] [options]")
    for name, options in SECTIONS.items():
        made.add_class_arguments(options, name)
    for name, meaning in remarks(SearchOptions).items():  # which its docstring does not tell
        made._option_string_actions[f"--search.{name}"].help = meaning
    made.add_argument("--task", type=Task, default=Config.task, help="what is trained")
    made.add_argument("-o", "--output", type=str, default=Config.output, help="the model folder to write")
    made.add_argument("--init", type=str, default=Config.init, help="a model folder to start from")
    made.add_argument("--seed", type=int, default=Config.seed, help="of weights, batches and dropout")
    return made


def remarks(options: type) -> dict[str, str]:
    """What stands beside each field of a class of options in its source."""
    return dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(options), re.MULTILINE))


def read(
    files: Sequence[str], flags: Sequence[str], base: Mapping[str, Any] | None = None, program: str = "nmt train"
) -> Config:
    """The config of `base` under these files under these flags. Raises ConfigError in one line."""
    reader = parser(program)
    defaults = flatten(reader.get_defaults().as_dict())
    known = sorted(defaults)
    found = reader.get_defaults()
    for name, values in [("the model's config.yaml", base or {}), *((file, load_file(file)) for file in files)]:
        _refuse_unknown(flatten(values), known, name)
        _refuse_bare(values, name)
        _refuse_empty(flatten(values), defaults, name)
        found = _parse(reader, lambda base=found, values=values: reader.parse_object(dict(values), base), name)
    flags = _appending(flags)
    given = [_key(flag).removesuffix("+") for flag in flags if flag.startswith("--")]
    _refuse_unknown(given, known, "the command line", prefix="--")
    found = _parse(reader, lambda: reader.parse_args(flags, namespace=found), "the command line")
    return build(found.as_dict())


def load_file(file: str) -> dict[str, Any]:
    """The nested values of a YAML file. Raises ConfigError in one line."""
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config {file}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{file} holds no options: it should read like `model: {{hidden_size: 512}}`")
    return values or {}


def build(values: Mapping[str, Any]) -> Config:
    """The config of nested plain values. Raises ConfigError for values out of range."""
    try:
        sections = {name: options(**values[name]) for name, options in SECTIONS.items() if name in values}
        return Config(**{**values, **sections})
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values, as `build` takes them."""
    return dataclasses.asdict(config)


def dump(config: Config) -> str:
    """The config as YAML."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"cell": "lstm"}} -> {"model.cell": "lstm"}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return flat


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ: (old, new)."""
    before, after = flatten(old), flatten(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def _appending(flags: Sequence[str]) -> list[str]:
    """The same, but a second source of a list is added to the first, as jsonargparse has it behind a plus sign."""
    found, seen = [], set[str]()
    for flag in flags:
        name, equals, value = flag.partition("=")
        again = name in ("--data.train", "--data.validation", "--data.test") and name in seen
        found.append(f"{name}+{equals}{value}" if again else flag)
        seen.add(name)
    return found


def _key(flag: str) -> str:
    return flag[2:].split("=", 1)[0]


def _refuse_unknown(
    keys: Sequence[str] | Mapping[str, Any], known: Sequence[str], place: str, prefix: str = ""
) -> None:
    for key in keys:
        inside = [name for name in known if name.startswith(f"{key}.")]
        if inside and prefix:
            example = "data.train" if key == "data" else inside[0]
            raise ConfigError(f"{prefix}{key} alone is no option; its own are {prefix}{key}.NAME, as {prefix}{example}")
        if key not in known and not inside:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            same_name = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
            hint = (same_name or near)[:1]
            did_you_mean = (
                f"; did you mean {prefix}{hint[0]}?" if hint else f"; {prefix}help lists them all" * bool(prefix)
            )
            raise ConfigError(f"{place} has the unknown option {prefix}{key}{did_you_mean}")


def _refuse_bare(values: Mapping[str, Any], place: str) -> None:
    for name in SECTIONS:
        if not isinstance(values.get(name, {}), Mapping):
            raise ConfigError(f"{place}: {name} holds options, as in `{name}: {{...}}`, not {values[name]!r}")


def _refuse_empty(values: Mapping[str, Any], defaults: Mapping[str, Any], place: str) -> None:
    for key, value in values.items():
        if value is None and defaults[key] is not None:
            raise ConfigError(f"{place}: {key} has no value; leave it out for its default, {defaults[key]!r}")


def _parse(reader: ArgumentParser, parse: Any, place: str) -> Namespace:
    try:
        parsed: Namespace = parse()
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"{place}: {_explain(str(error))}") from error
    return parsed


def _explain(message: str) -> str:
    """jsonargparse's complaint of a value, in one line: `model.cell must be one of 'lstm', not lsmt`."""
    found = re.search(r'key "([^"]+)":.*?Expected an? (.+?)\. Got value: ([^\n]*)', message, re.DOTALL)
    if not found:
        return " ".join(message.split())
    key, expected, value = found.groups()
    expected = re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", re.sub(r"<class '(\w+)'>", r"\1", expected))
    return f"{key} must be {expected}, not {value}"
