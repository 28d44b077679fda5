"""Families of questions: yes or no, who, what, where, when, why, how many, which."""

from __future__ import annotations

from dataclasses import replace

from quickstart.clauses import (
    Clause,
    join,
    question,
    sentence,
    statement,
)
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Text, Verb
from quickstart.nominals import draw_noun, draw_subject
from quickstart.phrases import (
    NUMBERS,
    PRONOUNS,
    WHO,
    Phrase,
    nominal,
)
from quickstart.predicates import (
    able,
    draw_clause,
    draw_verb,
)
from quickstart.shared import draw_last_slot, verb_of


def answerable(subject: Phrase) -> Phrase:
    """The subject of a question: anyone but the speaker, who would know."""
    if subject.english == "I" or subject.english.startswith(("a ", "an ", "many ", *(f"{name} " for name in NUMBERS))):
        raise Unsuitable
    return subject


def yes_no(draw: Draw) -> Text:
    """Is the woman reading a book?"""
    form = draw.one(("progressive", "past", "past", "future", "present", "can", "want to", "have to", "perfect"))
    clause = draw_clause(draw, form, subject=PRONOUNS["you"] if draw.chance(0.25) else None)
    if form == "perfect":
        clause = replace(clause, already=True)
    answerable(clause.subject)
    draw.combine("clause", clause.verb.english, "question")
    return sentence(question(replace(clause, front=False)), "?")


def who_acts(draw: Draw) -> Text:
    """Who is reading the book?"""
    clause = draw_clause(draw, draw.one(("progressive", "past", "future", "can", "want to")), subject=WHO)
    clause = replace(clause, front=False)
    draw.note("interrogative who")
    draw.combine("clause", clause.verb.english, "question")
    return sentence(statement(clause), "?")


def asked_object(draw: Draw) -> Text:
    """What is the woman reading? Whom (English: who) is she helping?"""
    clause, found, asked = open_object(draw, draw.one(("progressive", "past", "future")))
    draw.combine("clause", found.english, "question")
    return sentence(question(replace(clause, front=False), asked), "?")


def open_object(draw: Draw, form: str) -> tuple[Clause, Verb, Text]:
    """A clause whose object is asked for, its verb, and the interrogative."""
    found = draw_verb(draw, form)
    draw.combine("form", found.english, form)
    frame = draw.one([frame for frame in found.frames if len(frame.slots) == 1])
    slot = frame.slots[0]
    if slot.case not in ("acc", "dat"):
        raise Unsuitable
    person = not {"person", "kin", "adult", "child"}.isdisjoint(slot.classes)
    if not person and (slot.preposition or slot.case == "dat"):
        raise Unsuitable
    subject = answerable(draw_subject(draw, frame.subject))
    if person:
        asked = Text("who", join(slot.preposition, "wen" if slot.case == "acc" else "wem"))
    else:
        asked = Text("what", "was")
    draw.note(f"interrogative {asked.english}")
    return Clause(subject, found, form), found, asked


def where(draw: Draw) -> Text:
    """Where does your aunt live? Where is she going: wohin?"""
    found = verb_of(draw, ("live", "sit", "go", "fly", "drive", "travel", "work", "buy", "meet", "sleep", "play"))
    form = draw.one(("past", "past", "present" if found.stative else "progressive"))
    clause = draw_clause(draw, form, verb=found, plain=True)
    answerable(clause.subject)
    slot = draw_last_slot(found)
    if slot:
        clause = replace(clause, complements=())
    draw.note("interrogative where")
    draw.combine("form", found.english, form)
    draw.combine("clause", found.english, "question")
    return sentence(question(clause, Text("where", "wohin" if slot == "dir" else "wo")), "?")


def when_or_why(draw: Draw) -> Text:
    """When did the train leave? Why are you laughing?"""
    asked = draw.one((Text("when", "wann"), Text("why", "warum")))
    form = draw.one(("past", "future") if asked.english == "when" else ("past", "progressive", "future"))
    clause = draw_clause(draw, form, plain=True)
    answerable(clause.subject)
    if asked.english == "when" and set(clause.verb.notes) & {"stative", "event"}:
        raise Unsuitable
    draw.note(f"interrogative {asked.english}")
    draw.combine("clause", clause.verb.english, "question")
    return sentence(question(clause, asked), "?")


def how_many(draw: Draw) -> Text:
    """How many dogs does Anna have? Which book is she reading?"""
    form = draw.one(("past", "future", "present"))
    found = verb_of(draw, tuple(word.english for word in able(form) if "num" in word.notes and word.english != "see"))
    form = "present" if found.stative else form
    frame = draw.one([frame for frame in found.frames if frame.slots and frame.slots[0].case == "acc"])
    subject = answerable(draw_subject(draw, frame.subject))
    thing = draw_noun(draw, tuple(name for name in frame.slots[0].classes if name != "person"))
    if not thing.has_plural or thing.suits(("kin", "adult", "child")):
        raise Unsuitable
    draw.combine("form", found.english, form)
    draw.combine("clause", found.english, "question")
    clause = Clause(subject, found, form)
    if draw.chance(0.6) and "make" not in found.notes:
        phrase = nominal("which", thing)
        draw.note("interrogative which")
        return sentence(question(clause, Text(phrase.english, phrase.case("acc"))), "?")
    many = nominal("", thing, plural=True)
    draw.note("interrogative how many")
    return sentence(question(clause, Text(f"how many {many.english}", f"wie viele {many.case('acc')}")), "?")
