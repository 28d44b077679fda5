"""All families of sentences with their weights: the whole grammar in one table."""

from __future__ import annotations

from collections.abc import Callable

from quickstart import amounts, being, questions, relatives, requests, statements, subordinates, things
from quickstart.draw import Draw
from quickstart.lexicon import Text

Family = Callable[[Draw], Text]

FAMILIES: tuple[tuple[Family, float], ...] = (
    (statements.progressive, 6),
    (statements.habit, 6),
    (statements.state, 4),
    (statements.past, 7),
    (statements.future, 5),
    (statements.perfect, 4),
    (statements.modal, 5),
    (statements.negation, 6),
    (statements.liking, 2),
    (statements.hobby, 2.5),
    (statements.both_do, 2.5),
    (questions.yes_no, 5),
    (questions.who_acts, 2),
    (questions.asked_object, 2),
    (questions.where, 1.5),
    (questions.when_or_why, 2),
    (questions.how_many, 2),
    (subordinates.opinion, 3),
    (subordinates.doubt, 2),
    (subordinates.excuse, 2),
    (subordinates.cause, 1),
    (subordinates.thanks, 1),
    (subordinates.concession, 1.5),
    (subordinates.condition, 1.5),
    (subordinates.childhood, 1),
    (subordinates.sequence, 2),
    (subordinates.lost_and_found, 1),
    (subordinates.verdict, 2),
    (relatives.relative_on_subject, 1.5),
    (relatives.relative_on_object, 1.5),
    (relatives.relative_thing, 2),
    (relatives.long_one, 1),
    (requests.request, 3),
    (requests.proposal, 1),
    (requests.intention, 2),
    (requests.judgement, 1.3),
    (requests.purpose, 1.5),
    (being.being_so, 4),
    (being.comparison, 2),
    (being.profession, 1),
    (being.presence, 2),
    (being.weather, 2.5),
    (being.existence, 1.5),
    (amounts.age, 2.5),
    (amounts.price, 2.5),
    (amounts.time_of_day, 3),
    (things.possession, 2.5),
    (things.posture, 2),
    (things.putting, 2),
)
