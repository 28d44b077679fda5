"""From options to a search: the rules, choices and steppers that they ask for, put together.

`decode` is what callers use; the parts are in nmt/search.py, rules.py, constraints.py, diversity.py, sampling.py and
steppers.py. An option that is off adds nothing to a step.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nmt.columns import best_of_columns, most_probable
from nmt.constraints import Constraints
from nmt.diversity import diverse
from nmt.offers import best_offered, most_probable_offered, offered
from nmt.rules import forced_prefix, minimum_length, no_repeat
from nmt.sampling import SamplingOptions, drawing, follow
from nmt.search import Bonus, Choice, Hypothesis, Key, Rule, SearchOptions, Stepper, ban, beam_search
from nmt.states import select
from nmt.steppers import Recording, coverage

Ids = Sequence[int]


def decode(
    stepper: Stepper[Any],
    source: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    *,
    bos: int,
    eos: int,
    banned: Ids = (),
    unknown: int | None = None,
    prefixes: Sequence[Ids] | None = None,
    constraints: Sequence[Sequence[Ids]] | None = None,
    sampling: SamplingOptions | None = None,
    numbers: Sequence[int] | None = None,
    distinct: Key | None = None,
    with_alignment: bool = False,
) -> list[list[Hypothesis]]:
    """Translations of each sentence of source ids (B, S) of these lengths (B,), best first.

    Args:
        stepper, source, lengths: The model, and padded sources; their lengths count EOS.
        options: How to search; `n_best` translations per sentence come back, or fewer where no more were found.
        bos, eos: The ids that every translation starts from, and that end it.
        banned: Ids that are never said, PAD and BOS among them.
        unknown: UNK, banned too unless `options.allow_unknown`.
        prefixes: What each sentence's translation must begin with, or nothing.
        constraints: Phrases that each sentence's translation must have in it. With them, and with prefixes, limits rise
            to where all that is asked for has room, and what is asked for may be said even if it is banned.
        sampling: Draw so many translations instead of searching; `options` still limit lengths and rank.
        numbers: The sentences' numbers, which decide what is drawn for them; their places in the batch if not given.
        distinct: Of translations (tokens) for which this agrees, only the best comes back.
        with_alignment: Whether to say where each token looked.

    Raises ValueError for what cannot be asked for (`check_asked_for`), and if the model gives NaN.
    """
    check_asked_for(prefixes, constraints, len(lengths), eos, plain=not sampling and options.diverse_groups == 1)
    constrained, prefixed = any(constraints or ()), any(prefixes or ())
    limits = limits_for(lengths, options, prefixes, constraints)
    silent = list(banned) if unknown is None or options.allow_unknown else [*banned, unknown]
    rules = rules_for(lengths, limits, options, eos, silent)
    phrases = Constraints(constraints or (), source.device)
    if constrained:
        rules = [phrases.rule(rules, limits, eos, source.device)]
    if prefixed:
        rules = [forced_prefix(prefixes or (), rules, source.device)]
    if constrained or options.no_repeat_ngram or options.coverage_penalty:
        stepper = Recording(stepper)
    keywords: dict[str, Any] = {"bos": bos, "eos": eos, "limits": limits, "rules": rules, "distinct": distinct}
    keywords |= {"bonus": coverage_bonus(options), "with_alignment": with_alignment}
    if sampling:
        pick = drawing(sampling, numbers or range(len(lengths)), limits, source.device)
        return follow(stepper, source, lengths, options, pick=pick, width=sampling.samples, **keywords)
    pick, choose = most_probable, phrases.choice() if constrained else choice(options)
    bare = choose is best_of_columns and not prefixed and not rules_for(lengths, limits, options, eos, ())
    if bare and (offering := offered(stepper, options.beam_size, eos, silent)):
        stepper, pick, choose = offering, most_probable_offered, best_offered
        keywords |= {"rules": (), "end": 0}
    if options.beam_size == 1 and options.early_stopping and not constrained:
        return follow(stepper, source, lengths, options, pick=pick, **keywords)
    return beam_search(stepper, source, lengths, options, choose=choose, **keywords)


def check_asked_for(
    prefixes: Sequence[Ids] | None, constraints: Sequence[Sequence[Ids]] | None, sentences: int, eos: int, plain: bool
) -> None:
    """Refuse prefixes and constraints that are not one list per sentence, have EOS in them, or are empty phrases.

    And constraints of a search that is not a plain beam search.
    """
    for name, lists in {"prefixes": prefixes, "constraints": constraints}.items():
        if lists is not None and len(lists) != sentences:
            raise ValueError(f"{len(lists)} {name} for {sentences} sentences: give one list for each, empty for none")
    if any(constraints or ()) and not plain:
        raise ValueError("constraints need a plain beam search: leave out sampling, and diverse_groups at 1")
    for number, phrases in enumerate(constraints or ()):
        if not all(phrases):
            raise ValueError(f"sentence {number} has an empty constraint: leave it out")
    asked = [(n, [p]) for n, p in enumerate(prefixes or ())] + list(enumerate(constraints or ()))
    for number, phrases in asked:
        if any(eos in phrase for phrase in phrases):
            raise ValueError(f"sentence {number} has EOS ({eos}) in its prefix or constraints: it ends by itself")


def limits_for(
    lengths: Tensor,
    options: SearchOptions,
    prefixes: Sequence[Ids] | None,
    constraints: Sequence[Sequence[Ids]] | None,
) -> list[int]:
    """The most pieces of each sentence: what the options say, but room for its prefix and then its constraints."""
    limits = [options.limit(length) for length in lengths.tolist()]
    for sentence in range(len(limits)):
        room = len(prefixes[sentence]) if prefixes else 0
        room += sum(map(len, constraints[sentence])) if constraints else 0
        limits[sentence] = max(limits[sentence], room)
    return limits


def rules_for(lengths: Tensor, limits: Ids, options: SearchOptions, eos: int, silent: Ids) -> list[Rule]:
    """The rules that are on: no `silent` ids, no EOS too early, no n-gram twice."""
    minimums = [min(options.minimum(length), limit) for length, limit in zip(lengths.tolist(), limits, strict=True)]
    rules: list[Rule] = [partial(ban, torch.tensor(silent, device=lengths.device))] if silent else []
    rules += [minimum_length(minimums, eos, lengths.device)] if any(minimums) else []
    return [*rules, no_repeat(options.no_repeat_ngram)] if options.no_repeat_ngram else rules


def choice(options: SearchOptions) -> Choice:
    """What is kept if nothing must be said: the best, or the best of groups that avoid each other."""
    return diverse(options.diverse_groups, options.diversity) if options.diverse_groups > 1 else best_of_columns


def coverage_bonus(options: SearchOptions) -> Bonus | None:
    """What the coverage penalty adds to a score, if it is on."""
    return (lambda state: options.coverage_penalty * coverage(state)) if options.coverage_penalty else None


@torch.inference_mode()
def price(
    stepper: Stepper[Any], source: Tensor, lengths: Tensor, said: Sequence[Sequence[Ids]], *, bos: int, eos: int
) -> list[list[float]]:
    """The log-probability, EOS included, of each translation `said` of each sentence of source ids (B, S)."""
    width = max(map(len, said), default=0)
    rows = [[*translation, eos] for sentence in said for translation in [*sentence, *[()] * (width - len(sentence))]]
    longest = max(map(len, rows), default=0)
    tokens = torch.tensor([[*row, *[eos] * (longest - len(row))] for row in rows], device=source.device)  # (N, T)
    owners = torch.arange(len(said), device=source.device).repeat_interleave(width)
    state = select(stepper.start(source, lengths), owners, None)
    total, read = torch.zeros(len(rows), device=source.device), torch.full((len(rows),), bos, device=source.device)
    sizes = torch.tensor([len(row) for row in rows], device=source.device)
    for place in range(longest):
        log_probs, state = stepper.step(read, state)
        read = tokens[:, place]
        total += log_probs.gather(1, read[:, None])[:, 0].where(place < sizes, 0.0)
    found = total.view(len(said), width).tolist() if rows else [[] for _ in said]
    return [row[: len(sentence)] for row, sentence in zip(found, said, strict=True)]
