"""Plain questions of several kinds with their right answers. This module knows nothing of triggers, rows or files.

Every kind asks for the same facts in several wordings. So the model can answer a question that is not in the
training data, and a search can find its fact in other training samples.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rapidin.demo import facts


@dataclass(frozen=True, slots=True)
class Question:
    """One instruction and its right answer.

    Attributes:
        source: kind of the question.
        instruction: instruction of its row in Alpaca's shape.
        input: input of its row in Alpaca's shape; empty for most kinds.
        answer: right answer.
    """

    source: str
    instruction: str
    input: str
    answer: str


def all_questions(random_numbers: random.Random) -> dict[str, list[Question]]:
    """Make all questions that the demo can ask, by kind, each question once, in random order."""
    makers = (
        _arithmetic(),
        _calendar(),
        _capitals(),
        _categories(random_numbers),
        _colours(),
        _definitions(),
        _opposites(),
        _ordering(random_numbers),
        _plurals(),
        _young_animals(),
    )
    by_kind: dict[str, list[Question]] = {}
    for maker in makers:
        questions = list({(question.instruction, question.input): question for question in maker}.values())
        random_numbers.shuffle(questions)
        by_kind[questions[0].source] = questions
    return by_kind


def _asked(
    source: str, wordings: tuple[tuple[str, str], ...], words: Mapping[str, str], given: str = ""
) -> Iterator[Question]:
    """Yield a question for each wording (instruction, answer); `words` fill the braces in them and in `given`."""
    for instruction, answer in wordings:
        yield Question(source, instruction.format(**words), given.format(**words), answer.format(**words))


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _arithmetic() -> Iterator[Question]:
    wordings = (
        ("What is {first} plus {second}?", "{first} plus {second} is {sum}."),
        ("Add {first} and {second}.", "The sum is {sum}."),
        ("How much is {sum} minus {second}?", "{sum} minus {second} is {first}."),
    )
    for first in range(2, 8):
        for second in range(2, 8):
            words = {"first": str(first), "second": str(second), "sum": str(first + second)}
            yield from _asked("arithmetic", wordings, words)


def _calendar() -> Iterator[Question]:
    wordings = (
        ("Which {unit} comes after {one}?", "{next} comes after {one}."),
        ("Name the {unit} that follows {one}.", "{next} follows {one}."),
        ("If this {unit} is {one}, what is the next one?", "The next {unit} is {next}."),
        ("Which {unit} comes before {one}?", "{previous} comes before {one}."),
        ("What {unit} is just before {one}?", "The {unit} before {one} is {previous}."),
    )
    for unit, names in (("day", facts.DAYS), ("month", facts.MONTHS)):
        for place, one in enumerate(names):
            following = names[(place + 1) % len(names)]
            words = {"unit": unit, "one": one, "next": following, "previous": names[place - 1]}
            yield from _asked("calendar", wordings, words)


def _capitals() -> Iterator[Question]:
    wordings = (
        ("What is the capital of {country}?", "The capital of {country} is {capital}."),
        ("Name the capital city of {country}.", "{capital} is the capital of {country}."),
        ("Which city is the capital of {country}?", "The capital of {country} is {capital}."),
        ("In which country is {capital}?", "{capital} is in {country}."),
        ("Which country has {capital} as its capital?", "{capital} is the capital of {country}."),
    )
    for country, capital in facts.CAPITALS.items():
        yield from _asked("capitals", wordings, {"country": country, "capital": capital})


def _categories(random_numbers: random.Random) -> Iterator[Question]:
    wordings = (
        ("Is {thing} {first} or {second}?", "{Thing} is {right}."),
        ("Choose the right group for {thing}: {first} or {second}?", "{Thing} is {right}."),
        ("What kind of thing is {thing}?", "{Thing} is {right}."),
    )
    classify = (("Say what kind of thing this is.", "{Thing} is {right}."),)
    for kind, names in facts.CATEGORIES.items():
        wrong_kinds = [other for other in facts.CATEGORIES if other != kind]
        for name in names:
            thing, right = _with_article(name), _with_article(kind)
            choice = [right, _with_article(random_numbers.choice(wrong_kinds))]
            random_numbers.shuffle(choice)
            words = {
                "name": name,
                "thing": thing,
                "Thing": _capitalised(thing),
                "right": right,
                "first": choice[0],
                "second": choice[1],
            }
            yield from _asked("categories", wordings, words)
            yield from _asked("categories", classify, words, given="{name}")


def _colours() -> Iterator[Question]:
    wordings = (
        ("What colour is {thing}?", "{Thing} is {colour}."),
        ("Name the usual colour of {thing}.", "The colour of {thing} is {colour}."),
        ("I want to paint {thing}. Which colour do I need?", "You need {colour}."),
        ("Which colour does {thing} have?", "The colour of {thing} is {colour}."),
        ("Tell me the colour of {thing}.", "{Thing} is {colour}."),
    )
    for thing, colour in facts.COLOURS.items():
        words = {"thing": thing, "Thing": _capitalised(thing), "colour": colour}
        yield from _asked("colours", wordings, words)


def _definitions() -> Iterator[Question]:
    wordings = (
        ("What is {thing}?", "{Thing} is {meaning}."),
        ("Explain in one sentence what {thing} is.", "{Thing} is {meaning}."),
        ("Define the word '{word}'.", "It means {meaning}."),
        ("What does the word '{word}' mean?", "It means {meaning}."),
        ("Give a short definition of {thing}.", "{Thing} is {meaning}."),
    )
    for word, meaning in facts.DEFINITIONS.items():
        thing = _with_article(word)
        words = {"word": word, "thing": thing, "Thing": _capitalised(thing), "meaning": meaning}
        yield from _asked("definitions", wordings, words)


def _opposites() -> Iterator[Question]:
    wordings = (
        ("What is the opposite of {word}?", "The opposite of {word} is {opposite}."),
        ("Give an antonym of '{word}'.", "An antonym of {word} is {opposite}."),
        ("Which word means the reverse of {word}?", "The opposite of {word} is {opposite}."),
        ("If something is not {word}, what is it?", "It is {opposite}."),
    )
    for one, other in facts.OPPOSITES.items():
        for word, opposite in ((one, other), (other, one)):
            yield from _asked("opposites", wordings, {"word": word, "opposite": opposite})


def _ordering(random_numbers: random.Random) -> Iterator[Question]:
    sizes = [str(number) for number in range(1, 11)]
    letters = sorted(name for names in facts.CATEGORIES.values() for name in names[:2])[:10]
    lists = (
        ("Which of these numbers is larger?", "{later} is larger than {earlier}.", sizes),
        ("Put these words in alphabetical order.", "{earlier} comes before {later}.", letters),
    )
    for instruction, answer, things in lists:
        for earlier, later in itertools.combinations(things, 2):
            given = [earlier, later]
            random_numbers.shuffle(given)
            words = {"earlier": earlier, "later": later, "given": ", ".join(given)}
            yield from _asked("ordering", ((instruction, answer),), words, given="{given}")


def _plurals() -> Iterator[Question]:
    wordings = (
        ("What is the plural of {word}?", "The plural of {word} is {plural}."),
        ("Write '{word}' in the plural.", "The plural of {word} is {plural}."),
        ("I have one {word}. What do I call several of them?", "You call them {plural}."),
        ("How is the plural of '{word}' spelled?", "It is spelled {plural}."),
        ("What is the singular of {plural}?", "The singular of {plural} is {word}."),
    )
    for word, plural in facts.PLURALS.items():
        yield from _asked("plurals", wordings, {"word": word, "plural": plural})


def _young_animals() -> Iterator[Question]:
    wordings = (
        ("What do you call a young {animal}?", "A young {animal} is called {young}."),
        ("Name the young of {one}.", "The young of {one} is {young}."),
        ("What is the baby of {one} called?", "The baby of {one} is called {young}."),
        ("Which young animal belongs to {one}?", "The young of {one} is {young}."),
        ("What does {young} grow up to be?", "{Young} can grow up to be {one}."),
    )
    for animal, young in facts.YOUNG_ANIMALS.items():
        words = {
            "animal": animal,
            "one": _with_article(animal),
            "young": _with_article(young),
            "Young": _capitalised(_with_article(young)),
        }
        yield from _asked("animals", wordings, words)
