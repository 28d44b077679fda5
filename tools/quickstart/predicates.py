"""Draws whole clauses: a verb, a form it can take, what it asks for, a time that suits the form, and a place."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from quickstart.clauses import INDEFINITE, Clause, Complement, accusative, close, dative, with_preposition
from quickstart.draw import Draw, Unsuitable
from quickstart.lexicon import Entry, Frame, Place, Slot, Text, Verb, entries, places, verbs
from quickstart.nominals import draw_noun, draw_object, draw_person_object, draw_subject
from quickstart.phrases import NUMBERS, THIRD, Phrase

PEOPLE = ("person", "kin", "adult", "child", "friend", "guest", "baby")
GENERAL = ("habit", "present", "like to")
MODAL_FORMS = ("can", "should", "would like to", "be allowed to", "have to", "had to", "want to", "wanted to")
ORDINALS = {
    "first": "ersten", "second": "zweiten", "third": "dritten", "fourth": "vierten", "fifth": "fünften",
    "sixth": "sechsten", "seventh": "siebten", "eighth": "achten", "ninth": "neunten", "tenth": "zehnten",
    "eleventh": "elften", "twelfth": "zwölften", "twentieth": "zwanzigsten",
}  # fmt: skip
HOURS = {"one": "eins", **NUMBERS}


def forms(verb: Verb) -> tuple[str, ...]:
    """Forms in which a verb sounds natural; "habit" is the simple present of what happens again and again."""
    if "clausal" in verb.notes:
        return ()
    if "event" in verb.notes:
        return ("past",)
    if verb.stative:
        return ("present", "past", "can") if "sense" in verb.notes else ("present", "past")
    found = ["progressive", "past"]
    if "nofuture" not in verb.notes:
        found.append("future")
    if {"habit", "often", "clock"} & set(verb.notes):
        found.append("habit")
    if "act" not in verb.notes:
        found.append("perfect")
    if "nomodal" not in verb.notes:
        found += MODAL_FORMS
    return tuple(found)


@cache
def able(form: str) -> tuple[Verb, ...]:
    """Verbs that can take a form."""
    return tuple(verb for verb in verbs() if form in forms(verb))


def draw_verb(draw: Draw, form: str) -> Verb:
    """A verb that can take the form."""
    return draw.word(able(form))


def draw_entry(draw: Draw, kind: str, note: str | None = None) -> Entry:
    """A word or phrase of a kind that does not inflect."""
    return draw.word([entry for entry in entries(kind) if note is None or entry.note == note])


def draw_place(draw: Draw, tags: tuple[str, ...], to: bool = False) -> Text:
    """A place with one of the tags, or the way there."""
    found = [place for place in places() if any(tag in place.tags for tag in tags) and (place.to.english or not to)]
    place = draw.rare(found, place_name)
    draw.note(place_name(place))
    return place.to if to else place.at


def place_name(place: Place) -> str:
    """Name under which a place is counted: "place park"."""
    word = place.at.english.removeprefix("at ").removeprefix("in ").removeprefix("on ").removeprefix("by ")
    return f"place {word.removeprefix('the ')}"


def clock(draw: Draw, hours: tuple[str, ...] = tuple(HOURS)) -> Text:
    """A time of day without preposition: half past three, halb vier."""
    hour = draw.rare(hours, lambda name: f"number {name}")
    names = tuple(HOURS)
    following = names[(names.index(hour) + 1) % 12]
    draw.note(f"number {hour}")
    kind = draw.one(("o'clock", "half", "quarter past", "quarter to"))
    draw.note(f"clock {kind}")
    return clock_time(hour, following, kind)


def clock_time(hour: str, following: str, kind: str) -> Text:
    """A time of day; German counts the half from the hour that follows."""
    if kind == "o'clock":
        return Text(f"{hour} o'clock", f"{HOURS[hour].removesuffix('s') if hour == 'one' else HOURS[hour]} Uhr")
    if kind == "half":
        return Text(f"half past {hour}", f"halb {HOURS[following]}")
    if kind == "quarter past":
        return Text(f"quarter past {hour}", f"Viertel nach {HOURS[hour]}")
    return Text(f"quarter to {following}", f"Viertel vor {HOURS[following]}")


def at_clock(draw: Draw, hours: tuple[str, ...] = tuple(HOURS)) -> Text:
    """At a time of day."""
    time = clock(draw, hours)
    return Text(f"at {time.english}", f"um {time.german}")


def on_date(draw: Draw) -> Text:
    """On a day of the year."""
    day = draw.rare(tuple(ORDINALS), lambda name: f"ordinal {name}")
    draw.note(f"ordinal {day}")
    month = draw_entry(draw, "month").text
    return Text(f"on the {day} of {month.english}", f"am {ORDINALS[day]} {month.german}")


def on_day(draw: Draw) -> Text:
    """On a day of the week."""
    day = draw_entry(draw, "day").text
    return Text(f"on {day.english}", f"am {day.german}")


def draw_time(draw: Draw, verb: Verb, form: str) -> Text | None:
    """A time that suits the form of the verb, or none."""
    if form in ("past", "had to", "wanted to"):
        return past_time(draw, verb)
    if form == "future":
        return future_time(draw, verb)
    if form == "progressive" and not set(verb.notes) & {"home"}:
        lasting = {"habit", "act"} & set(verb.notes)
        return draw_entry(draw, "now", None if lasting else "").text if draw.chance(0.3) else None
    if form in MODAL_FORMS and "far" not in verb.notes and draw.chance(0.4):
        return draw_entry(draw, "today").text
    return None


def past_time(draw: Draw, verb: Verb) -> Text | None:
    """Yesterday, on Monday, last year."""
    if verb.stative or draw.chance(0.2):
        return None
    if "far" in verb.notes and draw.chance(0.6):
        dated = "make" not in verb.notes and draw.chance(0.3)
        return on_date(draw) if dated else draw_entry(draw, "past", "far" if draw.chance(0.7) else "week").text
    if "weekly" in verb.notes and draw.chance(0.25):
        return draw_entry(draw, "past", "week").text
    if "clock2" in verb.notes and draw.chance(0.5):
        return at_clock(draw)
    if {"clock", "late"} & set(verb.notes):
        return draw.one((on_day(draw), Text("yesterday", "gestern")))
    return on_day(draw) if draw.chance(0.25) else draw_entry(draw, "past", "").text


def future_time(draw: Draw, verb: Verb) -> Text:
    """Tomorrow, next week, on the third of May."""
    if "far" in verb.notes and draw.chance(0.6):
        dated = "make" not in verb.notes and draw.chance(0.3)
        return on_date(draw) if dated else draw_entry(draw, "future", "far" if draw.chance(0.8) else "week").text
    if "weekly" in verb.notes and draw.chance(0.1):
        return draw_entry(draw, "future", "week").text
    if "clock2" in verb.notes and draw.chance(0.5):
        return at_clock(draw) if draw.chance(0.7) else draw_entry(draw, "future", "near").text
    if {"clock", "late"} & set(verb.notes):
        return on_day(draw) if draw.chance(0.5) else Text("tomorrow", "morgen")
    return on_day(draw) if draw.chance(0.25) else draw_entry(draw, "future", "").text


def habit_times(draw: Draw, verb: Verb, negated: bool) -> tuple[Text | None, Text | None]:
    """When something happens again and again: a time, or an adverb such as "often"."""
    if negated:
        return None, None
    if "clock" in verb.notes:
        often = draw_entry(draw, "often", "").text if draw.chance(0.5) else None
        return at_clock(draw, ("six", "seven", "eight", "nine")), often
    if "often" in verb.notes or draw.chance(0.45):
        return None, draw_entry(draw, "often").text
    if "season" in verb.notes and draw.chance(0.4):
        season = draw_entry(draw, "season")
        return Text(f"in {season.text.english}", season.note), None
    if "weekly" in verb.notes and draw.chance(0.4):
        day = draw_entry(draw, "day").text
        return Text(f"every {day.english}", f"jeden {day.german}"), None
    return draw_entry(draw, "habit").text, None


def draw_complement(draw: Draw, verb: Verb, slot: Slot, subject: Phrase, form: str, negated: bool) -> Complement:
    """Fill one slot of a verb."""
    if slot.case in ("loc", "dir"):
        return close(draw_place(draw, slot.classes, to=slot.case == "dir"))
    if slot.case == "fixed":
        entry = draw_entry(draw, slot.classes[0])
        return Complement(entry.text.english, entry.text.german, INDEFINITE, entry.note)
    phrase = draw_phrase(draw, verb, slot, subject, form, negated)
    if slot.preposition:
        return with_preposition(Text(slot.english, slot.preposition), slot.case, phrase)
    return accusative(phrase) if slot.case == "acc" else dative(phrase, slot.english)


def draw_phrase(draw: Draw, verb: Verb, slot: Slot, subject: Phrase, form: str, negated: bool) -> Phrase:
    """The noun phrase that fills a slot."""
    people = tuple(name for name in slot.classes if name in PEOPLE)
    things = tuple(name for name in slot.classes if name not in PEOPLE)
    teachers = tuple(name for name in things if name in ("teacher", "neighbour", "boss", "son", "daughter"))
    things = tuple(name for name in things if name not in teachers)
    pick_person = people and (not things or draw.chance(0.45))
    if pick_person or (teachers and draw.chance(0.2)):
        pronouns = not verb.english.endswith((" up", " on", " off", " out")) and not slot.english
        return draw_person_object(draw, people if pick_person else teachers, subject, pronouns)
    return draw_object(draw, verb, things, subject, form, bool(slot.preposition), negated)


def draw_clause(
    draw: Draw,
    form: str,
    *,
    verb: Verb | None = None,
    subject: Phrase | None = None,
    negated: bool = False,
    third: bool = False,
    clear: bool = False,
    plain: bool = False,
) -> Clause:
    """A clause that makes sense; `plain` leaves out time, place and manner. Raises Unsuitable when it finds none."""
    verb = verb or draw_verb(draw, form)
    draw.combine("form", verb.english, "present" if form == "habit" else form)
    frame = draw_frame(draw, verb, subject)
    subject = subject or draw_subject(draw, frame.subject, third=third, clear=clear, general=form in GENERAL)
    if form in MODAL_FORMS and not subject.human:
        raise Unsuitable
    complements = tuple(draw_complement(draw, verb, slot, subject, form, negated) for slot in frame.slots)
    clause = Clause(subject, verb, "present" if form == "habit" else form, complements, negated=negated)
    if form == "habit" and negated and not any(part.without for part in complements):
        raise Unsuitable
    clause = clause if plain else adorn(draw, clause, frame, form)
    if vague(clause) or odd(clause, form):
        raise Unsuitable
    return clause


def vague(clause: Clause) -> bool:
    """Whether English leaves the tense open, as in "they read the book"."""
    base = clause.verb.english.split()[0]
    open_form = clause.form == "past" and clause.verb.past == base and clause.subject.person != THIRD
    return open_form and not clause.time and not clause.negated


def odd(clause: Clause, form: str) -> bool:
    """Whether it is grammatical but strange: holidays that end on the hour, "she usually sleeps"."""
    on_the_hour = clause.time is not None and clause.time.english.startswith("at ")
    if on_the_hour and any(name in clause.subject.english for name in ("holidays", "course")):
        return True
    return form == "habit" and clause.verb.english == "sleep" and not clause.place


def draw_frame(draw: Draw, verb: Verb, subject: Phrase | None) -> Frame:
    """A frame of the verb; with a given human subject, one that people in general can fill."""
    open_to_all = [frame for frame in verb.frames if {"person", "adult"} & set(frame.subject)]
    return draw.one(open_to_all if subject is not None else verb.frames)


def adorn(draw: Draw, clause: Clause, frame: Frame, form: str) -> Clause:
    """The clause with time, place or manner."""
    verb, plain = clause.verb, not clause.negated and form != "perfect"
    if frame.places:  # what is done at its usual place is a small thing, and not dated by the year
        verb = replace(verb, notes=tuple(note for note in verb.notes if note != "far"))
    time, often = habit_times(draw, verb, clause.negated) if form == "habit" else (draw_time(draw, verb, form), None)
    if clause.negated and time and time.english == "soon":
        time = None
    place = draw_place(draw, tuple(frame.places.split())) if frame.places and plain and draw.chance(0.4) else None
    slow = verb.english in SLOW and plain and not place and not often and draw.chance(0.25)
    manner = draw_entry(draw, "manner", SLOW[verb.english]).text if slow else None
    front = time is not None and draw.chance(0.35)
    already = form == "perfect"
    return replace(clause, time=time, often=often, place=place, manner=manner, front=front, already=already)


SLOW: dict[str, str] = {
    "open": "quiet", "close": "quiet", "eat": "speed", "drink": "speed", "read": "speed", "write": "speed",
    "repair": "speed", "wash": "care", "clean": "care",
    "get dressed": "speed", "pack": "speed", "correct": "care", "translate": "care", "check": "care",
    "talk to": "quiet", "sing": "quiet", "answer": "speed",
}  # fmt: skip

__all__ = ["draw_clause", "draw_noun"]
