"""Families of requests and infinitives: please open, let us go, he forgot to call, in order to buy."""

from __future__ import annotations

from dataclasses import replace

from quickstart.clauses import (
    Clause,
    close,
    english_end,
    german_middle,
    imperative,
    infinitive,
    join,
    sentence,
    statement,
)
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Text, verb
from quickstart.nominals import draw_subject
from quickstart.phrases import (
    PRONOUNS,
)
from quickstart.predicates import (
    draw_clause,
    draw_place,
)
from quickstart.shared import IT, is_so, spoken, unfronted, verb_of

REQUESTS = (
    "open", "close", "switch on", "switch off", "bring", "give", "show", "help", "call", "wait for", "listen to",
    "read", "write", "eat", "drink", "wash", "clean", "tidy up", "buy", "come back", "get up", "pick up", "feed",
    "answer", "explain", "send", "put on", "take off", "invite", "check", "fill in", "pay", "sit down", "hurry",
    "look after",
)  # fmt: skip
REFUSALS = (
    "open",
    "close",
    "switch on",
    "switch off",
    "forget",
    "lose",
    "wake",
    "miss",
    "sell",
    "follow",
    "use",
    "throw",
)
OUTINGS = (
    "go", "play", "cook", "visit", "go for a walk", "go shopping", "watch television", "dance", "swim", "drink", "sing",
    "have breakfast", "order", "drive", "bake", "travel", "invite", "help", "clean", "tidy up", "learn",
)  # fmt: skip
ATTEMPTS = (
    "repair", "open", "understand", "find", "learn", "call", "help", "fall asleep", "sleep", "translate", "catch",
    "close",
)  # fmt: skip
DUTIES = (
    "close", "switch off", "call", "feed", "buy", "pay", "pack", "thank", "invite", "wash", "answer", "pick up",
    "fill in",
)  # fmt: skip
VOWS = ("help", "call", "come back", "visit", "clean", "pay", "repair", "tidy up", "write", "look after", "feed")
PLANS = ("visit", "buy", "sell", "learn", "travel", "rent", "invite", "build", "fly", "take part in", "cook", "stay")
JUDGED = {
    "important": ("learn", "help", "check", "thank", "listen to", "understand", "read"),
    "difficult": (*ATTEMPTS, "correct", "speak"),
    "easy": ("repair", "translate", "understand", "correct", "find"),
    "interesting": ("visit", "read", "learn", "travel"),
    "boring": ("wait for", "tidy up", "correct", "wash"),
    "healthy": ("swim", "go for a walk", "dance", "sleep"),
}


def request(draw: Draw) -> Text:
    """Please open the window. Do not forget the key!"""
    you = PRONOUNS["you"]
    if draw.chance(0.7):
        clause = draw_clause(draw, "infinitive", verb=verb_of(draw, REQUESTS), subject=you, plain=True)
        draw.combine("clause", clause.verb.english, "request")
        polite = draw.chance(0.6)
        return sentence(imperative(clause, please=polite), "." if polite else "!")
    clause = draw_clause(draw, "infinitive", verb=verb_of(draw, REFUSALS), subject=you, plain=True, negated=True)
    if any(part.without for part in clause.complements):
        raise Unsuitable
    draw.combine("clause", clause.verb.english, "request")
    return sentence(imperative(clause), "!")


def proposal(draw: Draw) -> Text:
    """Let us go to the cinema tonight."""
    clause = draw_clause(draw, "future", verb=verb_of(draw, OUTINGS), subject=PRONOUNS["we"])
    clause = unfronted(clause)
    draw.combine("clause", clause.verb.english, "let us")
    german = join("lass uns", german_middle(clause), clause.verb.infinitive)
    return sentence(Text(join("let us", clause.verb.english, english_end(clause)), german))


def intention(draw: Draw) -> Text:
    """He forgot to call his aunt; she is trying to open the door."""
    name, form, deeds = draw.one(
        (
            ("try", "progressive", ATTEMPTS),
            ("try", "past", ATTEMPTS),
            ("forget to", "past", DUTIES),
            ("promise", "past", VOWS),
            ("decide", "past", PLANS),
        )
    )
    main = verb_of(draw, (name,))
    subject = draw_subject(draw, ("person",))
    clause = draw_clause(draw, "infinitive", verb=verb_of(draw, deeds), subject=subject, plain=True)
    draw.combine("clause", clause.verb.english, "infinitive")
    first = statement(Clause(subject, spoken(main), form))
    then = infinitive(clause)
    return sentence(Text(f"{first.english} {then.english}", f"{first.german}, {then.german}"))


def judgement(draw: Draw) -> Text:
    """It is important to learn this word."""
    name = draw.one(tuple(JUDGED))
    clause = draw_clause(
        draw, "infinitive", verb=verb_of(draw, JUDGED[name]), subject=PRONOUNS["we"], plain=name != "healthy"
    )
    clause = replace(clause, time=None, manner=None, front=False)
    draw.combine("clause", clause.verb.english, "infinitive")
    main = statement(is_so(draw, IT, name))
    then = infinitive(clause)
    return sentence(Text(f"{main.english} {then.english}", f"{main.german}, {then.german}"))


def purpose(draw: Draw) -> Text:
    """Anna is going to the market to buy apples."""
    found = verb_of(
        draw, ("buy", "read", "meet", "pick up", "eat", "cook", "swim", "dance", "go for a walk", "order", "try on")
    )
    frame = draw.one([frame for frame in found.frames if frame.places and frame.subject[0] in ("person", "adult")])
    subject = draw_subject(draw, frame.subject)
    way = close(draw_place(draw, (frame.places,), to=True))
    clause = draw_clause(draw, "infinitive", verb=replace(found, frames=(frame,)), subject=subject, plain=True)
    if "at home" in way.english or way.english == "home":
        raise Unsuitable
    draw.combine("clause", found.english, "in order to")
    form = draw.one(("progressive", "past", "future", "want to"))
    draw.note("verb go")
    first, then = statement(Clause(subject, verb("go"), form, (way,))), infinitive(clause, um=True)
    return sentence(Text(f"{first.english} {then.english}", f"{first.german}, {then.german}"))
