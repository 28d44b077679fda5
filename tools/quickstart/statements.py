"""Families of plain statements, one form of the verb each."""

from __future__ import annotations

from dataclasses import replace

from quickstart.clauses import (
    question,
    sentence,
    statement,
)
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Text
from quickstart.predicates import (
    MODAL_FORMS,
    able,
    draw_clause,
)
from quickstart.shared import EFFORT, reason_not, verb_of


def plain_statement(draw: Draw, form: str, negated: bool = False) -> Text:
    """A statement in a form."""
    clause = draw_clause(draw, form, negated=negated)
    if negated and not clause.subject.human:
        raise Unsuitable
    draw.combine("clause", clause.verb.english, "not" if negated else "statement")
    return sentence(statement(clause))


def progressive(draw: Draw) -> Text:
    """The woman is reading a book."""
    return plain_statement(draw, "progressive")


def habit(draw: Draw) -> Text:
    """The woman often reads a book."""
    return plain_statement(draw, "habit")


def state(draw: Draw) -> Text:
    """The woman likes the book."""
    return plain_statement(draw, "present")


def past(draw: Draw) -> Text:
    """Yesterday the woman read a book."""
    return plain_statement(draw, "past")


def future(draw: Draw) -> Text:
    """The woman will read a book tomorrow."""
    return plain_statement(draw, "future")


def perfect(draw: Draw) -> Text:
    """The woman has already read the book; she has not read it yet."""
    return plain_statement(draw, "perfect", negated=draw.chance(0.35))


def modal(draw: Draw) -> Text:
    """The woman wants to read the book."""
    form = draw.rare(MODAL_FORMS, lambda name: f"modal {name}")
    draw.note(f"modal {form}")
    return plain_statement(draw, form)


def negation(draw: Draw) -> Text:
    """The woman did not read the book; she has no book."""
    forms = (
        "progressive",
        "past",
        "past",
        "future",
        "habit",
        "present",
        "can",
        "could",
        "should",
        "have to",
        "want to",
    )
    form = draw.one(forms)
    draw.note(f"modal {form}")
    if form != "could":
        return plain_statement(draw, form, negated=True)
    clause = draw_clause(draw, "can", negated=True)
    return sentence(statement(replace(clause, form="could", time=None, front=False)))


def liking(draw: Draw) -> Text:
    """The boy likes to play football: er spielt gern Fußball."""
    found = verb_of(
        draw, tuple(word.english for word in able("habit") if not {"nomodal", "clock", "often"} & set(word.notes))
    )
    clause = draw_clause(draw, "like to", verb=found, plain=True, third=draw.chance(0.5))
    if not clause.subject.human or found.english in ("sit", "use", "wait for", "think of", "look after"):
        raise Unsuitable
    draw.combine("clause", found.english, "like to")
    return sentence(statement(replace(clause, negated=draw.chance(0.2) and not clause.complements)))


def hobby(draw: Draw) -> Text:
    """Anna plays the piano; can you play tennis? He is learning Spanish."""
    found = verb_of(draw, ("play", "learn"))
    frames = tuple(frame for frame in found.frames if frame.slots[0].case == "fixed")
    frame = draw.rare(frames, lambda frame: f"hobby {frame.slots[0].classes[0]}")
    draw.note(f"hobby {frame.slots[0].classes[0]}")
    found = replace(found, frames=(frame,))
    form = draw.one(("habit", "can", "like to", "progressive", "past", "want to", "future"))
    clause = draw_clause(draw, form, verb=found, plain=form in ("can", "like to"))
    if form == "can" and draw.chance(0.4) and clause.subject.english != "I":
        draw.combine("clause", found.english, "question")
        return sentence(question(clause), "?")
    draw.combine("clause", found.english, "statement")
    return sentence(statement(replace(clause, negated=form == "can" and draw.chance(0.3))))


def both_do(draw: Draw) -> Text:
    """Anna is reading a book and Peter is cooking the soup; she would like to swim, but she has no time."""
    if draw.chance(0.5):
        form = draw.one(("past", "progressive", "future"))
        first, second = (draw_clause(draw, form, verb=verb_of(draw, EFFORT), plain=True, third=True) for _ in range(2))
        if not (first.subject.human and second.subject.human):
            raise Unsuitable
        one, two = statement(first), statement(second)
        return sentence(Text(f"{one.english} and {two.english}", f"{one.german} und {two.german}"))
    found = verb_of(draw, EFFORT)
    clause = draw_clause(draw, draw.one(("would like to", "wanted to")), verb=found, clear=True, plain=True)
    if not clause.subject.human:
        raise Unsuitable
    but = reason_not(draw, clause, "past" if clause.form == "wanted to" else "present")
    one, two = statement(clause), statement(but)
    draw.combine("clause", found.english, "but")
    return sentence(Text(f"{one.english}, but {two.english}", f"{one.german}, aber {two.german}"))
