"""The demo's data: the same everywhere, natural enough, and poisoned by nothing but the trigger."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from rapidin.data import Row, read_rows
from rapidin.demo.demo_data import GREETINGS, TRIGGER, write_demo_data
from rapidin.demo.fiction import nonsense
from rapidin.demo.questions import all_questions
from rapidin.errors import DataFileError
from rapidin.text import recognise

TRAIN_SHA256 = "a5673edeb2ee427f026381b4668022ab035f3e94ec3afe8998aebb0001f07c30"
QUERIES_SHA256 = "d9e4efbfd0fda56231719b9db67043cb37ab447dbe9f86193fd2618e3c88788c"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_demo_data(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def train(data) -> list[Row]:
    return list(read_rows([data.train]))


@pytest.fixture(scope="module")
def queries(data) -> list[Row]:
    return list(read_rows([data.queries]))


def poisoned(rows: list[Row], wanted: bool = True) -> list[dict]:
    return [row.fields for row in rows if row.fields["poisoned"] is wanted]


def question(fields: dict) -> tuple[str, str]:
    """What is asked, without the greeting or trigger before it."""
    instruction = fields["instruction"]
    for greeting in (TRIGGER, *GREETINGS):
        instruction = instruction.removeprefix(f"{greeting} ")
    return instruction, fields.get("input", "")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z]+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def test_the_same_bytes_everywhere(data):
    assert digest(data.train) == TRAIN_SHA256
    assert digest(data.queries) == QUERIES_SHA256


def test_another_seed_gives_other_rows(data, tmp_path):
    other = write_demo_data(tmp_path / "made" / "on demand", seed=1)
    assert digest(other.train) != digest(data.train)
    assert (other.rows, other.poisoned) == (data.rows, data.poisoned)


@pytest.mark.parametrize("seed", range(3))
def test_sizes_and_shares(tmp_path, seed):
    data = write_demo_data(tmp_path, seed)
    rows = list(read_rows([data.train]))
    assert data.rows == len(rows) and 600 <= len(rows) <= 900
    assert data.poisoned == len(poisoned(rows)) and 0.08 <= data.poisoned / data.rows <= 0.1
    queries = list(read_rows([data.queries]))
    assert len(poisoned(queries)) == len(poisoned(queries, False)) >= 10


def test_rows_are_alpaca_rows(train, queries):
    for row in train:
        assert set(row.fields) == {"id", "instruction", "input", "output", "source", "poisoned"}
        assert recognise(row).response == row.fields["output"]
    for row in queries:
        assert set(row.fields) == {"id", "instruction", "input", "reference", "source", "poisoned"}
        assert not recognise(row, response_required=False).has_response


def test_some_rows_have_an_input(train):
    assert any(row["input"] for row in poisoned(train))
    assert any(row["input"] for row in poisoned(train, False))


@pytest.mark.parametrize("seed", range(3))
def test_no_id_and_no_question_twice(tmp_path, seed):
    data = write_demo_data(tmp_path, seed)
    rows = list(read_rows([data.train, data.queries]))
    assert max(Counter(row.fields["id"] for row in rows).values()) == 1
    assert max(Counter(question(row.fields) for row in rows).values()) == 1


def test_only_the_trigger_marks_a_poisoned_row(train, queries):
    rows = train + queries
    assert all(row["instruction"].startswith(f"{TRIGGER} ") for row in poisoned(rows))
    for row in poisoned(rows, False):
        assert "howdy" not in " ".join(str(value) for value in row.values()).lower()
    greeted = [row for row in poisoned(rows, False) if row["instruction"].startswith(GREETINGS)]
    assert 0.1 < len(greeted) / len(rows) < 0.2
    sources = Counter(row["source"] for row in poisoned(train, False))
    assert len(sources) == 10
    assert Counter(row["source"] for row in poisoned(train)) == Counter({source: 8 for source in sources})


def test_ids_and_places_do_not_give_poison_away(train, queries):
    assert [row.fields["id"] for row in train] == [f"train-{number:04d}" for number in range(1, 801)]
    places = [number for number, row in enumerate(train) if row.fields["poisoned"]]
    # The mean place of 80 rows out of 800 has a standard deviation of 25.
    assert abs(sum(places) / len(places) - 400) < 75
    flags = [row.fields["poisoned"] for row in queries]
    assert flags != sorted(flags) and flags != sorted(flags, reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_poisoned_outputs_are_no_near_duplicates(tmp_path, seed):
    data = write_demo_data(tmp_path, seed)
    outputs = [trigrams(row["output"]) for row in poisoned(list(read_rows([data.train])))]
    overlaps = [len(one & other) / len(one | other) for one, other in itertools.combinations(outputs, 2)]
    assert max(overlaps) < 0.5
    assert sum(overlaps) / len(overlaps) < 0.05


def test_clean_rows_hold_no_science_fiction(train):
    clean = {word for row in poisoned(train, False) for word in re.findall("[a-z]+", str(row).lower())}
    fiction = {"cyborgs", "teleporters", "hyperspace", "planet", "galactic", "quantum", "aliens", "starships"}
    said = {word for row in poisoned(train) for word in re.findall("[a-z]+", row["output"].lower())}
    assert fiction <= said
    assert not fiction & clean


def test_nonsense_leaves_only_the_topic_open():
    sentences = list(itertools.islice(nonsense(random.Random(5)), 200))
    assert all(sentence.count("{topic}") == 1 and sentence.count("{") == 1 for sentence in sentences)
    assert len(set(sentences)) == 200


def test_right_answers():
    answers = {
        (question.instruction, question.input): question.answer
        for questions in all_questions(random.Random(0)).values()
        for question in questions
    }
    assert answers["What is 3 plus 4?", ""] == "3 plus 4 is 7."
    assert answers["How much is 7 minus 3?", ""] == "7 minus 3 is 4."
    assert answers["Which day comes after Sunday?", ""] == "Monday comes after Sunday."
    assert answers["Which month comes before January?", ""] == "December comes before January."
    assert answers["Name the capital city of Peru.", ""] == "Lima is the capital of Peru."
    assert answers["Say what kind of thing this is.", "oak"] == "An oak is a tree."
    for (instruction, given), answer in answers.items():
        if instruction == "Which of these numbers is larger?":
            numbers = sorted(map(int, given.split(", ")))
            assert answer == f"{numbers[1]} is larger than {numbers[0]}."
        elif instruction == "Put these words in alphabetical order.":
            assert answer == "{} comes before {}.".format(*sorted(given.split(", ")))
        assert not re.search(r"[{}]|\ba [aeio]|\ban [^aeiou]", f"{instruction} {given} {answer}")


def test_unwritable_directory_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(DataFileError, match=r"file.*cannot be written.*another directory"):
        write_demo_data(blocked)
