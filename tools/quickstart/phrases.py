"""Noun phrases in both languages: articles, adjective endings, cases, pronouns, prepositions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from quickstart.lexicon import NONE, Adjective, Noun, Text

CASES = ("nom", "acc", "dat", "gen")
FIRST, YOU, THIRD, WE, THEY = range(5)  # person of the verb: ich, du, er/sie/es, wir, sie

DER = {
    "m": ("der", "den", "dem", "des"),
    "f": ("die", "die", "der", "der"),
    "n": ("das", "das", "dem", "des"),
    "p": ("die", "die", "den", "der"),
}
STRONG = {
    "m": ("er", "en", "em", "en"),
    "f": ("e", "e", "er", "er"),
    "n": ("es", "es", "em", "en"),
    "p": ("e", "e", "en", "er"),
}
WEAK = {
    "m": ("e", "en", "en", "en"),
    "f": ("e", "e", "en", "en"),
    "n": ("e", "e", "en", "en"),
    "p": ("en", "en", "en", "en"),
}
EIN = {
    "m": ("", "en", "em", "es"),
    "f": ("e", "e", "er", "er"),
    "n": ("", "", "em", "es"),
    "p": ("e", "e", "en", "er"),
}
# English word: German stem, and how it inflects: like "dieser", like "mein", not at all, or before a strong adjective
DETERMINERS = {
    "the": ("d", "der"),
    "this": ("dies", "dies"),
    "every": ("jed", "dies"),
    "which": ("welch", "dies"),
    "all": ("all", "dies"),
    "a": ("ein", "ein"),
    "no": ("kein", "ein"),
    "my": ("mein", "ein"),
    "your": ("dein", "ein"),
    "his": ("sein", "ein"),
    "her": ("ihr", "ein"),
    "our": ("unser", "ein"),
    "their": ("ihr", "ein"),
    "many": ("viel", "viel"),
    "some": ("einig", "viel"),
    "": ("", "bare"),
}
POSSESSIVES = ("my", "your", "his", "her", "our", "their")
INDEFINITE = ("a", "", "many", "some", "no")
NUMBERS = dict(
    zip(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        ("zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"),
        strict=True,
    )
)
CONTRACTIONS = (
    ("in dem ", "im "),
    ("in das ", "ins "),
    ("an dem ", "am "),
    ("zu dem ", "zum "),
    ("zu der ", "zur "),
    ("von dem ", "vom "),
    ("bei dem ", "beim "),
)


@dataclass(frozen=True)
class Phrase:
    """A noun phrase. `german` holds nominative, accusative, dative, genitive; the tail is a relative clause."""

    english: str
    german: tuple[str, ...]
    person: int = THIRD
    gender: str = "m"
    english_object: str = ""
    definite: bool = True
    pronoun: bool = False
    without: tuple[str, ...] = ()  # the German cases with "kein", for "not a ..."
    human: bool = False
    tail: Text = NONE

    @property
    def as_object(self) -> str:
        """English object form: him, the man."""
        return self.english_object or self.english

    def case(self, name: str) -> str:
        """German form in a case."""
        return self.german[CASES.index(name)]


def with_adjectives(words: tuple[Adjective, ...], ending: str) -> str:
    """German adjectives with their ending and a space: "klein", "er" give "kleiner "."""
    stems = (word.german.removesuffix("e") if ending else word.predicate for word in words)
    return "".join(f"{stem}{ending} " for stem in stems)


def german_noun(noun: Noun, plural: bool, case: int) -> str:
    """The noun in a case: des Mannes, den Jungen, den Kindern."""
    if plural:
        needs_n = case == 2 and not noun.german_plural.endswith(("n", "s"))
        return noun.german_plural + "n" * needs_n
    return (noun.german, noun.oblique, noun.oblique, noun.genitive)[case]


def german_case(determiner: str, words: tuple[Adjective, ...], noun: Noun, plural: bool, case: int) -> str:
    """Article, adjectives and noun in one case."""
    gender = "p" if plural else noun.gender
    stem, kind = DETERMINERS.get(determiner, (NUMBERS.get(determiner, ""), "bare"))
    ending, article = STRONG[gender][case], stem
    if kind == "der":
        article, ending = DER[gender][case], WEAK[gender][case]
    elif kind == "dies":
        article, ending = stem + DER_WORD[gender][case], WEAK[gender][case]
    elif kind == "ein":
        article = stem + EIN[gender][case]
        ending = WEAK[gender][case] if EIN[gender][case] else STRONG[gender][case]
    elif kind == "viel":
        article = stem + DER_WORD[gender][case]
    return f"{article} {with_adjectives(words, ending)}{german_noun(noun, plural, case)}".strip()


DER_WORD = STRONG | {"m": ("er", "en", "em", "es"), "n": ("es", "es", "em", "es")}


def article_for(word: str) -> str:
    """The English indefinite article before a word: a book, an old book, a university, an honest man."""
    vowel = word.startswith(("a", "e", "i", "o", "umb", "unc", "hon")) and not word.startswith(("one", "eur", "honey"))
    return "an" if vowel else "a"


def english_noun_phrase(determiner: str, words: tuple[Adjective, ...], noun: Noun, plural: bool) -> str:
    """English determiner, adjectives and noun."""
    rest = " ".join([*(word.english for word in words), noun.english_plural if plural else noun.english])
    if determiner == "a":
        return f"{article_for(rest)} {rest}"
    if determiner == "this" and plural:
        return f"these {rest}"
    return f"{determiner} {rest}".strip()


def nominal(determiner: str, noun: Noun, *words: Adjective, plural: bool = False) -> Phrase:
    """A noun phrase; the determiner is the English word ("" for none), or a number."""
    plural = plural or noun.gender == "p"
    german = tuple(german_case(determiner, words, noun, plural, case) for case in range(4))
    bare = determiner in ("a", "")
    return Phrase(
        english=english_noun_phrase(determiner, words, noun, plural),
        german=german,
        person=THEY if plural else THIRD,
        gender="p" if plural else noun.gender,
        definite=determiner not in INDEFINITE and determiner not in NUMBERS,
        without=tuple(german_case("no", words, noun, plural, case) for case in range(4)) if bare else (),
        human=noun.suits(("adult", "child", "kin", "baby")),
    )


def proper(name: Text, gender: str) -> Phrase:
    """A person's name."""
    return Phrase(name.english, (name.german,) * 3 + (name.german + "s",), gender=gender, human=True)


def both(first: Phrase, second: Phrase) -> Phrase:
    """Two phrases joined by "and"."""
    german = tuple(f"{a} und {b}" for a, b in zip(first.german, second.german, strict=True))
    english = f"{first.as_object} and {second.as_object}"
    return Phrase(english, german, person=THEY, gender="p", human=first.human)


PRONOUNS = {
    "I": Phrase("I", ("ich", "mich", "mir"), FIRST, "m", "me", pronoun=True, human=True),
    "you": Phrase("you", ("du", "dich", "dir"), YOU, "m", "you", pronoun=True, human=True),
    "he": Phrase("he", ("er", "ihn", "ihm"), THIRD, "m", "him", pronoun=True, human=True),
    "she": Phrase("she", ("sie", "sie", "ihr"), THIRD, "f", "her", pronoun=True, human=True),
    "we": Phrase("we", ("wir", "uns", "uns"), WE, "p", "us", pronoun=True, human=True),
    "they": Phrase("they", ("sie", "sie", "ihnen"), THEY, "p", "them", pronoun=True, human=True),
}
WHO = Phrase("who", ("wer", "wen", "wem"), THIRD, "m", "who", human=True)


def pronoun_for(phrase: Phrase) -> Phrase:
    """The pronoun that takes a phrase up again: he, she, they; for a thing "it" with the gender of the noun."""
    if phrase.pronoun:
        return phrase
    if phrase.person == THEY:
        return PRONOUNS["they"]
    if phrase.human:
        return PRONOUNS["she" if phrase.gender == "f" else "he"]
    german = {"m": ("er", "ihn", "ihm"), "f": ("sie", "sie", "ihr"), "n": ("es", "es", "ihm")}[phrase.gender]
    return Phrase("it", german, THIRD, phrase.gender, "it", pronoun=True)


def possessive_for(phrase: Phrase) -> str:
    """The English possessive that goes with a person: he, his."""
    if not phrase.human and phrase.person == THIRD:
        return "my"  # "its" would leave the German gender open
    if phrase.english in ("who", "that"):
        phrase = replace(phrase, pronoun=False)
    return dict(zip(PRONOUNS, ("my", "your", "his", "her", "our", "their"), strict=True))[pronoun_for(phrase).english]


def owned_by(thing: Phrase, owner: Phrase, english: str) -> Phrase:
    """A thing and its owner: "my father's car", das Auto meines Vaters; `thing` has the definite article."""
    german = tuple(f"{form} {owner.case('gen')}" for form in thing.german)
    mark = "'" if owner.person == THEY and owner.english.endswith("s") else "'s"
    return replace(thing, english=f"{owner.english}{mark} {english}", german=german)


def contract(german: str) -> str:
    """Melt preposition and article: in dem Park, im Park."""
    for long, short in CONTRACTIONS:
        german = re.sub(rf"^{long}", short, german)
    return german


def prepositional(preposition: Text, case: str, phrase: Phrase) -> Text:
    """A preposition with its phrase; the German one asks for the case."""
    german = contract(f"{preposition.german} {phrase.case(case)}")
    return Text(f"{preposition.english} {phrase.as_object}".strip(), german)


def relative(phrase: Phrase, tail: Text) -> Phrase:
    """The phrase with a relative clause behind it."""
    return replace(phrase, tail=tail)


def relative_pronoun(phrase: Phrase, case: str) -> str:
    """The German relative pronoun: der, den, dem; denen in the dative plural."""
    if phrase.gender == "p" and case == "dat":
        return "denen"
    return DER[phrase.gender][CASES.index(case)]
