"""What several families of sentences share: conjunctions, "it is so", excuses."""

from __future__ import annotations

from dataclasses import replace

from quickstart.clauses import (
    BE,
    Clause,
    accusative,
    close,
    subordinate,
)
from quickstart.draw import Draw
from quickstart.lexicon import Text, Verb, adjective, noun, verb, verbs
from quickstart.phrases import (
    Phrase,
    nominal,
    pronoun_for,
)
from quickstart.predicates import (
    draw_clause,
)

IT = Phrase("it", ("es", "es", "ihm"), gender="n", pronoun=True)
BECAUSE, ALTHOUGH = Text("because", "weil"), Text("although", "obwohl")
IF, WHEN, AS = Text("if", "wenn"), Text("when", "wenn"), Text("when", "als")
THAT, WHETHER = Text("that", "dass"), Text("whether", "ob")
BEFORE, WHILE = Text("before", "bevor"), Text("while", "während")
EFFORT = (
    "cook", "bake", "read", "write", "wash", "clean", "repair", "play", "learn", "visit", "meet", "help", "go", "dance",
    "swim", "go for a walk", "go shopping", "tidy up", "pick up", "feed", "translate", "correct", "plant", "work",
    "take part in", "draw", "paint", "sing",
)  # fmt: skip
OUTDOOR = ("go for a walk", "swim", "go", "plant", "drive")


def sub(draw: Draw, kind: str, link: Text, clause: Clause) -> Text:
    """A subordinate clause, noted with its verb."""
    draw.note(f"conjunction {link.english}")
    draw.combine("clause", clause.verb.english, kind)
    return subordinate(link, clause)


def is_so(draw: Draw, subject: Phrase, name: str, form: str = "present") -> Clause:
    """Someone or something is as an adjective says."""
    word = adjective(name)
    draw.note(f"adjective {name}")
    return Clause(subject, BE, form, (close(Text(word.english, word.predicate)),))


def verb_of(draw: Draw, names: tuple[str, ...]) -> Verb:
    """One of the verbs of those names."""
    return draw.word([word for word in verbs() if word.english in names])


def unfronted(clause: Clause) -> Clause:
    """The clause with its time back in its usual place, as after a conjunction."""
    return replace(clause, front=False)


def spoken(found: Verb) -> Verb:
    """The verb with the English word it is said with: "know that" is listed apart from "know" (kennen)."""
    return replace(found, english=found.english.split()[0])


def draw_last_slot(found: Verb) -> str:
    """Kind of the place that the verb asks for, or nothing."""
    cases = [slot.case for frame in found.frames for slot in frame.slots if slot.case in ("loc", "dir")]
    return cases[0] if cases else ""


def reason_not(draw: Draw, clause: Clause, form: str) -> Clause:
    """Why someone does not do a thing."""
    who = pronoun_for(clause.subject)
    if clause.verb.english in OUTDOOR and draw.chance(0.4):
        return Clause(IT, verb("rain"), form if form == "past" else "progressive")
    if draw.chance(0.35):
        return is_so(draw, who, draw.one(("tired", "sick")), form)
    if draw.chance(0.4):
        none = nominal("no", noun("time"))
        draw.note("noun time")
        return Clause(who, verb("have"), form, (accusative(none),))
    duty = verb_of(draw, ("work", "learn", "cook", "help", "clean", "tidy up", "feed", "repair", "write", "wash"))
    form = "had to" if form == "past" else "have to"
    return draw_clause(draw, form, verb=duty, subject=who, plain=True)
