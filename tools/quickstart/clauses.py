"""Clauses in both languages: verb forms, word order of statements, questions, subordinate clauses, infinitives."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quickstart.lexicon import NONE, Text, Verb, german_stem
from quickstart.phrases import FIRST, THIRD, Phrase, prepositional

BE = Verb("be", "was", "been", "being", "sein", "", "bist", "ist", "gewesen", "sein", False, ("stative",), ())
LIE = replace(BE, german="liegen", du="liegst", er="liegt")
STAND = replace(BE, german="stehen", du="stehst", er="steht")
REFLEXIVE = ("mich", "dich", "sich", "uns", "sich")
HABEN = ("habe", "hast", "hat", "haben", "haben")
SEIN = ("bin", "bist", "ist", "sind", "sind")
SIMPLE_PAST = {
    "haben": ("hatte", "hattest", "hatte", "hatten", "hatten"),
    "sein": ("war", "warst", "war", "waren", "waren"),
}
FUTURE = ("werde", "wirst", "wird", "werden", "werden")
# form: English auxiliary where it does not change, words before the infinitive, German finite verb by person
MODALS = {
    "can": ("can", "", ("kann", "kannst", "kann", "können", "können")),
    "could": ("could", "", ("konnte", "konntest", "konnte", "konnten", "konnten")),
    "should": ("should", "", ("sollte", "solltest", "sollte", "sollten", "sollten")),
    "would like to": ("would", "like to", ("möchte", "möchtest", "möchte", "möchten", "möchten")),
    "be allowed to": ("be", "allowed to", ("darf", "darfst", "darf", "dürfen", "dürfen")),
    "have to": ("", "have to", ("muss", "musst", "muss", "müssen", "müssen")),
    "had to": ("", "had to", ("musste", "musstest", "musste", "mussten", "mussten")),
    "want to": ("", "want to", ("will", "willst", "will", "wollen", "wollen")),
    "wanted to": ("", "wanted to", ("wollte", "wolltest", "wollte", "wollten", "wollten")),
}
# ranks of what stands between the German verbs
PRONOUN_ACC, PRONOUN_DAT, TIME, DATIVE, OFTEN, DEFINITE, LATE_TIME, NEGATION, MANNER, PLACE, INDEFINITE, CLOSE = range(
    12
)


@dataclass(frozen=True)
class Complement:
    """Something the verb asks for, with its rank in the German middle field and its form after "kein"."""

    english: str
    german: str
    rank: int
    without: str = ""
    tail: Text = NONE


def accusative(phrase: Phrase) -> Complement:
    """A direct object."""
    rank = PRONOUN_ACC if phrase.pronoun else DEFINITE if phrase.definite else INDEFINITE
    without = phrase.without[1] if phrase.without else ""
    return Complement(phrase.as_object, phrase.case("acc"), rank, without, phrase.tail)


def dative(phrase: Phrase, english: str = "") -> Complement:
    """A dative object; `english` is the preposition that English may need."""
    rank = PRONOUN_DAT if phrase.pronoun else DATIVE
    return Complement(f"{english} {phrase.as_object}".strip(), phrase.case("dat"), rank, tail=phrase.tail)


def close(text: Text, tail: Text = NONE, without: str = "") -> Complement:
    """What stands right before the last verb: a place, a predicate, an object with a preposition."""
    return Complement(text.english, text.german, CLOSE, without, tail)


def with_preposition(preposition: Text, case: str, phrase: Phrase) -> Complement:
    """An object with a preposition."""
    return close(prepositional(preposition, case, phrase), phrase.tail)


@dataclass(frozen=True)
class Clause:
    """A clause before its words are put in order. `front` says whether the time opens it."""

    subject: Phrase
    verb: Verb
    form: str
    complements: tuple[Complement, ...] = ()
    time: Text | None = None
    often: Text | None = None
    manner: Text | None = None
    place: Text | None = None
    negated: bool = False
    already: bool = False
    front: bool = False


def join(*parts: str) -> str:
    """Words joined by single spaces, empty ones left out."""
    return " ".join(part for part in parts if part)


# English


def third_person(base: str) -> str:
    """Third person singular: goes, watches, carries, has."""
    if base == "have":
        return "has"
    if base.endswith("y") and base[-2] not in "aeou":
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("s", "x", "ch", "sh", "o", "ss")) else "s")


def be(person: int, past: bool = False) -> str:
    """Finite form of "be"."""
    if past:
        return "was" if person in (FIRST, THIRD) else "were"
    return "am" if person == FIRST else "is" if person == THIRD else "are"


def english_verb(clause: Clause, support: bool) -> tuple[str, str]:
    """Auxiliary (may be empty) and the rest of the verb; `support` asks for "do" where there is no auxiliary."""
    verb, person = clause.verb, clause.subject.person
    word, _, particle = verb.english.partition(" ")
    if clause.form in MODALS:
        return english_modal(clause.form, verb.english, person, support)
    if clause.form == "future":
        return "will", verb.english
    if clause.form == "perfect":
        return third_person("have") if person == THIRD else "have", join(verb.participle, particle)
    if verb.english == "be":
        return be(person, clause.form == "past"), ""
    if clause.form == "progressive":
        return be(person), join(verb.ing, particle)
    return english_simple(clause.form, word, verb.past, particle, person, support)


def english_simple(form: str, word: str, past: str, rest: str, person: int, support: bool) -> tuple[str, str]:
    """Simple present, simple past, and "like to", with or without "do"."""
    if form == "like to":
        return english_simple("present", "like", "liked", f"to {join(word, rest)}", person, support)
    if form == "past":
        return ("did", join(word, rest)) if support else ("", join(past, rest))
    if support:
        return ("does" if person == THIRD else "do"), join(word, rest)
    return "", join(third_person(word) if person == THIRD else word, rest)


def english_modal(form: str, base: str, person: int, support: bool) -> tuple[str, str]:
    """Modal verbs, and the verbs with "to" that stand for one."""
    auxiliary, words, _ = MODALS[form]
    if auxiliary:
        return be(person) if auxiliary == "be" else auxiliary, join(words, base)
    past = {"had to": ("have", "had"), "wanted to": ("want", "wanted")}.get(form)
    word, old = past or (words.removesuffix(" to"), "")
    return english_simple("past" if past else "present", word, old, f"to {base}", person, support)


def english_end(clause: Clause, with_time: bool = True) -> str:
    """All that follows the verb."""
    parts = []
    for part in clause.complements:
        parts.append(join(part.english, part.tail.english))
    parts += [part.english for part in (clause.manner, clause.place) if part]
    if clause.time and with_time and not clause.front:
        parts.append(clause.time.english)
    if clause.already and clause.negated:
        parts.append("yet")
    return join(*parts)


def english_middle(clause: Clause) -> tuple[str, str]:
    """What stands between auxiliary and verb: "not", "already" and adverbs such as "often"."""
    often = clause.often.english if clause.often else ""
    if clause.already:
        return ("not", often) if clause.negated else ("", "already")
    return ("not" if clause.negated else ""), often


def english_statement(clause: Clause) -> str:
    """A statement without capital and full stop."""
    auxiliary, rest = english_verb(clause, support=clause.negated)
    no, often = english_middle(clause)
    front = clause.time.english if clause.front and clause.time else ""
    subject = join(clause.subject.english, clause.subject.tail.english)
    words = join(front, subject, auxiliary, no, often, rest, english_end(clause))
    return words.replace("can not ", "cannot ")


def english_question(clause: Clause, asked: str = "") -> str:
    """A question; `asked` is the interrogative that opens it."""
    auxiliary, rest = english_verb(clause, support=True)
    no, often = english_middle(clause)
    return join(asked, auxiliary, clause.subject.english, no, often, rest, english_end(clause))


# German


def conjugate(verb: Verb, person: int) -> str:
    """Present tense without prefix."""
    if verb is BE:
        return SEIN[person]
    irregular = verb.german in ("mögen", "wissen")
    first = verb.er if irregular else german_stem(verb.german) + "e"
    return (first, verb.du, verb.er, verb.german, verb.german)[person]


def german_verb(clause: Clause) -> tuple[str, str, str]:
    """Finite verb, prefix that separates, and the part that closes the clause."""
    verb, person, form = clause.verb, clause.subject.person, clause.form
    if form in MODALS:
        return MODALS[form][2][person], "", verb.infinitive
    if form == "future":
        return FUTURE[person], "", verb.infinitive
    if form == "past" and verb.german in SIMPLE_PAST:
        return SIMPLE_PAST[verb.german][person], "", ""
    if form in ("past", "perfect"):
        return (HABEN if verb.auxiliary == "haben" else SEIN)[person], "", verb.partizip
    return conjugate(verb, person), verb.prefix, ""


def german_negation(clause: Clause) -> str:
    """The word in the place of "nicht"."""
    kein = clause.negated and any(part.without for part in clause.complements)
    if clause.already:
        return ("noch" if kein else "noch nicht") if clause.negated else "schon"
    never = clause.often is not None and clause.often.german == "nie"
    return "nie" if never else "nicht" if clause.negated and not kein else ""


def german_middle(clause: Clause) -> str:
    """All between the verbs but the subject, in order of rank."""
    ranked = [(PRONOUN_ACC, REFLEXIVE[clause.subject.person])] if clause.verb.reflexive else []
    ranked += [
        (part.rank, part.without if clause.negated and part.without else part.german) for part in clause.complements
    ]
    if clause.time and not clause.front:
        late = clause.negated or clause.often is not None  # "oft um sieben Uhr", "den Mann heute nicht"
        ranked.append((LATE_TIME if late else TIME, clause.time.german))
    if clause.often and clause.often.german != "nie":
        ranked.append((OFTEN, clause.often.german))
    ranked.append((NEGATION, german_negation(clause)))
    if clause.form == "like to":
        ranked.append((NEGATION, "gern"))
    ranked += [(rank, part.german) for rank, part in ((MANNER, clause.manner), (PLACE, clause.place)) if part]
    return join(*(words for _, words in sorted(ranked, key=lambda pair: pair[0])))


def german_tail(clause: Clause) -> str:
    """Relative clause that waits for the end of the clause."""
    return "".join(f", {part.tail.german}" for part in clause.complements if part.tail.german)


def german_subject(clause: Clause) -> str:
    """The subject with its relative clause between commas."""
    tail = clause.subject.tail.german
    return clause.subject.case("nom") + (f", {tail}," if tail else "")


def inverted(clause: Clause, opening: str) -> str:
    """Main clause with the subject behind the verb; "sich" goes before a subject that is no pronoun."""
    finite, prefix, last = german_verb(clause)
    subject, middle = german_subject(clause), german_middle(clause)
    if clause.verb.reflexive and not clause.subject.pronoun:
        mark, _, middle = middle.partition(" ")
        subject = f"{mark} {subject}"
    return join(opening, finite, subject, middle, prefix.strip(), last) + german_tail(clause)


def german_statement(clause: Clause) -> str:
    """Main clause without capital and full stop."""
    if clause.front and clause.time:
        return inverted(clause, clause.time.german)
    finite, prefix, last = german_verb(clause)
    return join(german_subject(clause), finite, german_middle(clause), prefix.strip(), last) + german_tail(clause)


def german_final(clause: Clause) -> str:
    """Subordinate clause, finite verb last: "den Mann gestern angerufen hat"."""
    finite, prefix, last = german_verb(clause)
    return join(german_subject(clause), german_middle(clause), last, prefix + finite) + german_tail(clause)


# Both


def statement(clause: Clause) -> Text:
    """A main clause in both languages."""
    return Text(english_statement(clause), german_statement(clause))


def question(clause: Clause, asked: Text = NONE) -> Text:
    """A question in both languages, with or without an interrogative."""
    return Text(english_question(clause, asked.english), inverted(clause, asked.german))


def subordinate(conjunction: Text, clause: Clause) -> Text:
    """A subordinate clause with its conjunction."""
    return Text(f"{conjunction.english} {english_statement(clause)}", f"{conjunction.german} {german_final(clause)}")


def before_main(opening: Text, main: Clause) -> Text:
    """A subordinate clause, a comma, and the main clause, whose German verb then comes first."""
    return Text(f"{opening.english}, {english_statement(main)}", f"{opening.german}, {inverted(main, '')}")


def after_main(main: Text, closing: Text) -> Text:
    """The main clause and then a subordinate one, which German marks off by a comma."""
    return Text(f"{main.english} {closing.english}", f"{main.german}, {closing.german}")


def infinitive(clause: Clause, um: bool = False) -> Text:
    """The clause as an infinitive with "to" and "zu"; the subject only serves the reflexive pronoun."""
    verb, link = clause.verb, "zu " if not clause.verb.prefix or clause.verb.prefix.endswith(" ") else "zu"
    ending = f"{verb.prefix}{link}{verb.german}"
    german = join("um" if um else "", german_middle(clause), ending) + german_tail(clause)
    return Text(join("to", verb.english, english_end(clause)), german)


def imperative(clause: Clause, please: bool = False) -> Text:
    """A request to one person; the subject is "you"."""
    verb = clause.verb
    no = join("do not", verb.english) if clause.negated else verb.english
    finite = join(german_imperative(verb), german_middle(clause), verb.prefix.strip())
    if please:
        return Text(join("please", no, english_end(clause)), join("bitte", finite))
    return Text(join(no, english_end(clause)), finite)


def german_imperative(verb: Verb) -> str:
    """Singular imperative: kauf, warte, gib, lies, fahr."""
    stem = german_stem(verb.german)
    if verb.er != regular_er(verb) and not {"ä", "ö"} & set(verb.er):
        return verb.du.removesuffix("st") if verb.german not in S_STEMS else verb.er.removesuffix("t")
    return stem + ("e" if stem.endswith(("t", "d", "ffn", "chn", "er")) else "")


S_STEMS = ("lesen", "essen", "vergessen")


def regular_er(verb: Verb) -> str:
    """Third person that the verb would have if its vowel did not change."""
    stem = german_stem(verb.german)
    return stem + ("et" if stem.endswith(("t", "d", "ffn", "chn", "gn")) else "t")


def reading(clause: Clause, form: str) -> Clause:
    """The clause in another form of the verb."""
    return replace(clause, form=form)


def sentence(text: Text, mark: str = ".") -> Text:
    """Capital and final mark."""
    return Text(*(part[0].upper() + part[1:] + mark for part in text))
