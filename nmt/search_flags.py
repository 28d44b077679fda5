"""Flags of all verbs that translate: which models, how to search, on what; and the translator that they ask for."""

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from nmt.verbs import UsageError, add_device_options

if TYPE_CHECKING:
    from nmt.answers import AnswerOptions
    from nmt.sampling import SamplingOptions
    from nmt.search import SearchOptions
    from nmt.translator import Translator

SEARCH = (
    *("beam_size", "length_penalty", "normalization", "length_reward", "coverage_penalty", "early_stopping"),
    *("max_length", "min_length", "no_repeat_ngram", "allow_unknown", "diverse_groups", "diversity", "n_best"),
)
BEAM = ("beam_size", "early_stopping", "diverse_groups", "diversity", "n_best", "constraints")  # none when sampling
DRAW = ("temperature", "top_k", "top_p", "seed")
RANK = ("length_penalty", "normalization", "length_reward", "coverage_penalty")  # none among samples that vote


def add_model_options(verb: argparse.ArgumentParser, *, required: bool) -> None:
    """Which models translate."""
    verb.add_argument(
        "-m",
        "--model",
        action="append",
        required=required,
        default=None if required else [],
        metavar="FOLDER",
        help="a model folder; several translate together, by the decoding defaults of the first",
    )
    group = verb.add_argument_group("models together")
    group.add_argument(
        "--ensemble", choices=("linear", "log"), help="average probabilities (linear, the default) or logarithms"
    )
    group.add_argument("--lm", metavar="FOLDER", help="a language model that has a say in each word (shallow fusion)")
    group.add_argument("--lm-weight", type=float, metavar="W", help="how much of a say; 0 is none")


def add_search_options(verb: argparse.ArgumentParser) -> None:
    """How to search."""
    group = verb.add_argument_group("search")
    add = group.add_argument
    add("-b", "--beam-size", type=int, metavar="K", help="open hypotheses per sentence; 1 is greedy")
    add("--length-penalty", type=float, metavar="A", help="exponent; above 1 favours longer translations, 0 is off")
    add("--normalization", choices=("gnmt", "power", "none"), help="what the exponent is of: (5 + length) / 6, length")
    add("--length-reward", type=float, metavar="R", help="added to the score for each piece")
    add("--coverage-penalty", type=float, metavar="B", help="weight of source pieces that were not looked at")
    add("--no-early-stopping", dest="early_stopping", action="store_false", default=None, help="search to the proof")
    add("--max-length", type=int, metavar="N", help="most pieces of a translation")
    add("--min-length", type=int, metavar="N", help="fewest pieces of a translation, but no more than --max-length")
    add("--no-repeat-ngram", type=int, metavar="N", help="no N pieces in a row twice")
    add("--allow-unknown", action="store_true", default=None, help="let the unknown word be said; it reads U+2047")
    add("--copy-unknown", action="store_true", help="and put the source word that it looked at in its place")
    add("--diverse-groups", type=int, metavar="G", help="groups of the beam that avoid what others say")
    add("--diversity", type=float, metavar="D", help="how strongly they do")


def add_choice_options(verb: argparse.ArgumentParser, *, sample: bool) -> None:
    """Sampling, and minimum Bayes risk over samples; `sample` for a verb that can print several translations."""
    group = verb.add_argument_group("sampling and minimum Bayes risk")
    add = group.add_argument
    if sample:
        add("--sample", type=int, metavar="N", help="draw N translations instead of searching")
    add("--temperature", type=float, metavar="T", help="of samples; below 1 favours the probable")
    add("--top-k", type=int, metavar="K", help="draw from the K most probable pieces only")
    add("--top-p", type=float, metavar="P", help="draw from the fewest pieces that have P of the probability only")
    add("--seed", type=int, metavar="N", help="decides, with a line's number, what is drawn for it (default: 0)")
    add("--mbr", type=int, metavar="N", help="of N translations the one closest to all others")
    add("--mbr-utility", choices=("chrf", "bleu"), help="what closeness is (default: chrf)")
    add("--mbr-from", choices=("samples", "n-best"), help="which N: drawn (the default), or the best")


def add_machine_options(verb: argparse.ArgumentParser) -> Any:
    """Where and how fast; the group, for more of the kind."""
    group = verb.add_argument_group("machine")
    group.add_argument(
        "--batch-tokens",
        type=int,
        default=16384,
        metavar="N",
        help="pieces searched at once, beams counted; on a GPU 65536 are faster",
    )
    add_device_options(group, "int8")
    group.add_argument(
        "--shortlist",
        action="store_true",
        help="choose among likely words only, as learnt in training: a smaller output layer, on a CPU "
        "(log-probabilities that are shown are still those of all words)",
    )
    return group


def check_usage(options: argparse.Namespace) -> None:
    """Refuse flags that do not go together, by name."""
    given = {name for name, value in vars(options).items() if value is not None and value is not False}
    given |= {"early_stopping"} if options.early_stopping is False else set()
    drawn = "sample" in given or ("mbr" in given and options.mbr_from != "n-best")
    _needs(given, ("mbr_utility", "mbr_from"), options.mbr is not None, "--mbr N")
    _needs(given, DRAW, drawn, "samples: --sample N or --mbr N")
    _needs(given, ("diversity",), (options.diverse_groups or 1) > 1, "--diverse-groups 2 or more")
    _needs(given, ("lm_weight",), options.lm is not None, "--lm FOLDER")
    _needs(given, ("lm",), options.lm_weight is not None, "--lm-weight W, best tuned on development text")
    _needs(given, ("ensemble",), len(options.model) > 1, "several models: -m FOLDER -m FOLDER")
    _excludes(given, "sample", ("mbr",))
    _excludes(given, "mbr", ("n_best",))
    if drawn:
        _excludes(given, "sample" if "sample" in given else "mbr", BEAM)
        _excludes(given, "mbr", RANK)
    _excludes(given, "constraints", ("diverse_groups",))
    _excludes(given, "shortlist", ("constraints", "prefix", "lm", "ensemble"))
    if options.normalization == "none" and options.length_penalty:
        raise UsageError("--normalization none has no exponent: leave out --length-penalty")
    if options.mbr is not None and options.mbr < 2:
        raise UsageError(f"--mbr compares translations: give it 2 or more, not {options.mbr}")


def flag(name: str) -> str:
    """An option as it is typed."""
    return "--no-early-stopping" if name == "early_stopping" else f"--{name.replace('_', '-')}"


def _needs(given: set[str], names: Iterable[str], there: bool, needed: str) -> None:
    for name in names:
        if name in given and not there:
            raise UsageError(f"{flag(name)} needs {needed}")


def _excludes(given: set[str], name: str, others: Iterable[str]) -> None:
    for other in others:
        if {name, other} <= given:
            raise UsageError(f"{flag(name)} and {flag(other)} do not go together: leave one out")


# ---- the translator ----


def loader(options: argparse.Namespace) -> "Callable[[], Translator]":
    """What makes the translator of these options; all that can be wrong with folders and flags is said now."""
    from nmt.members import check_members
    from nmt.translator import Translator

    check_usage(options)
    check_members(options.model, options.lm)
    search = search_options(options)
    if options.copy_unknown or options.coverage_penalty:
        require_attention(options, "--copy-unknown" if options.copy_unknown else "--coverage-penalty")
    return partial(
        Translator.load,
        options.model,
        search,
        device=options.device,
        precision=options.precision,
        batch_tokens=options.batch_tokens,
        shortlist=options.shortlist,
        space=options.ensemble or "linear",
        language_model=options.lm,
        language_weight=_weight(options.lm_weight),
        sampling=sampling_options(options),
        answers=answer_options(options),
    )


def _weight(given: float | None) -> float:
    if given is not None and not 0 <= given < float("inf"):
        raise UsageError(f"--lm-weight is at least 0 and finite, not {given}")
    return given or 0.0


def require_attention(options: argparse.Namespace, asking: str) -> None:
    """Refuse what looks at the source where no model does."""
    from nmt import checkpoint

    if all(checkpoint.read_folder(folder)[0]["model"]["attention"] == "none" for folder in options.model):
        raise UsageError(f"{asking} needs a model with attention, and {options.model[0]} has none")


def search_options(options: argparse.Namespace) -> "SearchOptions":
    """The decoding defaults of the first model folder, under the flags given."""
    from nmt import checkpoint
    from nmt.search import SearchOptions

    given = {name: value for name in SEARCH if (value := getattr(options, name, None)) is not None}
    config, _ = checkpoint.read_folder(options.model[0])
    kept = config.get("search", {})
    if kept.get("normalization") == "none" and options.normalization not in (None, "none"):
        kept = {name: value for name, value in kept.items() if name not in ("length_penalty", "length_reward")}
    search = {**kept, **given}
    if options.length_penalty and search.get("normalization") == "none":
        raise UsageError(
            f"--length-penalty is an exponent, and {options.model[0]} divides by nothing (normalization none): add "
            "--normalization gnmt, or leave it out"
        )
    if options.mbr and options.mbr_from == "n-best":
        search["n_best"] = options.mbr
    try:
        if options.mbr and options.beam_size is None and search.get("n_best", 1) > search.get("beam_size", 1):
            search["beam_size"] = options.mbr
        return SearchOptions(**search)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except TypeError as error:
        raise ValueError(
            f"{options.model[0]}/config.yaml holds a search option of another nmt, or is damaged: {error}"
        ) from error


def sampling_options(options: argparse.Namespace) -> "SamplingOptions | None":
    """What to draw, if anything."""
    from nmt.sampling import SamplingOptions

    samples = getattr(options, "sample", None)
    if options.mbr is not None and options.mbr_from != "n-best":
        samples = options.mbr
    if samples is None:
        return None
    given = {name: value for name in DRAW if (value := getattr(options, name)) is not None}
    try:
        return SamplingOptions(samples, **given)
    except ValueError as error:
        raise UsageError(str(error)) from error


def lists(options: argparse.Namespace) -> bool:
    """Whether several translations of a line are asked for."""
    return bool(options.n_best or (options.sample or 1) > 1)


def answer_options(options: argparse.Namespace) -> "AnswerOptions":
    """What is made of the translations found."""
    from nmt.answers import AnswerOptions

    utility = (options.mbr_utility or "chrf") if options.mbr else ""
    told = options.verb == "translate" and (options.jsonl or lists(options))  # log-probabilities, that is
    priced = bool(told or options.mbr_from == "n-best")
    return AnswerOptions(options.copy_unknown, getattr(options, "distinct", False), utility, priced=priced)
