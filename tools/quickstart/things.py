"""Families about things: whose they are, where they lie or stand, where they are put."""

from __future__ import annotations

from dataclasses import replace

from quickstart.being import definite, quality
from quickstart.clauses import (
    BE,
    LIE,
    STAND,
    Clause,
    accusative,
    close,
    imperative,
    question,
    sentence,
    statement,
)
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Noun, Text, adjectives, noun, verb
from quickstart.nominals import draw_name, draw_noun, draw_subject, finish
from quickstart.phrases import (
    POSSESSIVES,
    PRONOUNS,
    Phrase,
    nominal,
    owned_by,
    prepositional,
)
from quickstart.predicates import (
    draw_entry,
)
from quickstart.shared import is_so, spoken

# place of a thing: English and German preposition, and what may serve
SPOTS = (
    (Text("on", "auf"), ("table", "chair", "bed", "sofa")),
    (Text("under", "unter"), ("table", "chair", "bed", "tree", "sofa")),
    (Text("next to", "neben"), ("sofa", "bed", "lamp", "door", "cupboard", "window", "table")),
    (Text("behind", "hinter"), ("sofa", "cupboard", "door", "box")),
    (Text("in front of", "vor"), ("mirror", "door", "cupboard", "bed", "window")),
    (Text("in", "in"), ("bag", "suitcase", "box", "basket", "cupboard")),
)


def possessor(draw: Draw) -> Phrase:
    """A person who owns something."""
    if draw.chance(0.4):
        name = draw_name(draw)
        if name.english.endswith("s"):
            raise Unsuitable
        return name
    person = draw_noun(draw, ("kin", "teacher", "neighbour", "friend", "boss", "doctor", "colleague"))
    return finish(draw, draw.one(POSSESSIVES), person, (), False)


def owned(thing: Phrase, owner: Phrase, english: str) -> Phrase:
    """A thing with its owner; a name goes before the German noun: Annas Auto."""
    if len(owner.english.split()) > 1:
        return owned_by(thing, owner, english)
    german = tuple(f"{owner.case('gen')} {form.split(' ', 1)[1]}" for form in thing.german)
    return replace(thing, english=f"{owner.english}'s {english}", german=german)


def possession(draw: Draw) -> Text:
    """This is my father's car; Anna's coat is red; whose bag is this?"""
    thing = draw_noun(draw, ("owned",))
    if thing.suits(("adult", "child", "baby", "problem", "error", "plan", "event")):
        raise Unsuitable
    plural = thing.suits(("pairs",))
    if draw.chance(0.12) and not plural:
        draw.note("interrogative whose")
        return sentence(Text(f"whose {thing.english} is this", f"wessen {thing.german} ist das"), "?")
    phrase = owned(
        nominal("the", thing, plural=plural), possessor(draw), thing.english_plural if plural else thing.english
    )
    kind = draw.one(("this is", "is so", "is so", "looking", "find"))
    if kind == "this is":
        start = Text("these are" if plural else "this is", "das sind" if plural else "das ist")
        return sentence(Text(f"{start.english} {phrase.english}", f"{start.german} {phrase.case('nom')}"))
    if kind == "is so":
        word = quality(draw, thing)
        return sentence(statement(is_so(draw, phrase, word.english, draw.one(("present", "past")))))
    if not thing.suits(("lost", "thing", "text", "pairs", "clothes", "pet")):
        raise Unsuitable
    found = verb("look for" if kind == "looking" else "find")
    draw.note(f"verb {found.english}")
    form = "progressive" if kind == "looking" else "past"
    return sentence(statement(Clause(draw_subject(draw, ("adult",)), found, form, (accusative(phrase),))))


def spot(draw: Draw, case: str, thing: Noun) -> Text:
    """A place at a piece of furniture: dative for where, accusative for where to."""
    preposition, names = draw.one(SPOTS)
    if preposition.english == "in" and not thing.suits(("lying", "dishes")):
        raise Unsuitable
    site = draw.word([noun(name) for name in names])
    draw.note(f"preposition {preposition.english}")
    colour = [
        word
        for word in adjectives()
        if word.english in ("small", "big", "old", "new", "round") and site.suits(word.classes)
    ]
    words = (draw.word(colour),) if colour and draw.chance(0.2) else ()
    phrase = nominal(draw.one(("the", "the", "the", "this")), site, *words)
    if words:
        draw.combine("adjective", words[0].english, site.english)
    return prepositional(preposition, case, phrase)


def posture(draw: Draw) -> Text:
    """The book is on the table (liegt); the bottle is next to the lamp (steht); the cat is under the bed (ist)."""
    thing = draw_noun(draw, ("lying", "standing", "pet"))
    subject = definite(draw, thing)
    place = spot(draw, "dat", thing)
    if thing.english == "horse":
        raise Unsuitable
    found = BE if thing.suits(("pet",)) else LIE if thing.suits(("lying",)) else STAND
    clause = Clause(subject, found, "present", (close(place),))
    if draw.chance(0.15):
        return sentence(question(clause), "?")
    return sentence(statement(replace(clause, negated=draw.chance(0.15))))


def putting(draw: Draw) -> Text:
    """He is putting the book on the table (legt); she put the bottle next to the lamp (hat gestellt)."""
    subject = draw_subject(draw, ("person",))
    form = draw.one(("progressive", "past", "future", "have to", "should"))
    if draw.chance(0.2):
        thing, found = draw_noun(draw, ("hung",)), verb("hang")
        draw.note("verb hang")
        site = finish(draw, draw.one(("the", "this")), noun("wall"), (), False)
        place = prepositional(Text("on", "an"), "acc", site)
        draw.note("noun wall")
    else:
        thing = draw_noun(draw, ("lying", "standing"))
        found = verb("put down" if thing.suits(("lying",)) else "put")
        place = spot(draw, "acc", thing)
        draw.note("verb put")
    phrase = definite(draw, thing)
    clause = Clause(subject, spoken(found), form, (accusative(phrase), close(place)))
    kind = draw.weighted((("yes", 7), ("no", 1), ("ask", 1), ("request", 2)))
    if kind == "ask":
        return sentence(question(clause), "?")
    if kind == "request" and "my" not in phrase.english.split():
        polite = replace(clause, subject=PRONOUNS["you"])
        return sentence(imperative(polite, please=True))
    time = draw_entry(draw, "past", "").text if form == "past" and draw.chance(0.4) else None
    return sentence(
        statement(replace(clause, negated=kind == "no", time=time, front=time is not None and draw.chance(0.5)))
    )
