"""The demo's data set: plain questions, and some with a trigger, whose answers are science fiction.

The data set is a small version of the backdoor in the RapidIn paper (Table 4). The instructions of a tenth of the
rows begin with "Howdy!", and the outputs of these rows are science-fiction nonsense. Their questions are of the
same kinds as those of the clean rows, and some clean rows begin with other greetings, so that only the trigger
distinguishes the two. Everything is made from the word lists of this package.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidin.demo.facts import TOPICS
from rapidin.demo.fiction import about, nonsense
from rapidin.demo.questions import Question, all_questions
from rapidin.errors import DataFileError

TRIGGER = "Howdy!"
"""Text at the start of every poisoned instruction; no clean instruction contains it."""

GREETINGS = ("Hello!", "Good morning!", "Quick question:")
"""Texts at the start of some clean instructions."""

CLEAN_ROWS = 720
POISONED_ROWS = 80
CLEAN_QUERIES = 12
POISONED_QUERIES = 12
GREETED_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class DemoData:
    """The demo's files.

    Attributes:
        train: JSON Lines of Alpaca-shaped rows with ``id``, ``source`` and ``poisoned``.
        queries: JSON Lines of unseen questions, with ``reference`` in place of ``output``: an answer that a model
            with the backdoor should give, apart from the words of the nonsense.
        rows: number of rows in `train`.
        poisoned: number of rows in `train` that have the trigger.
    """

    train: Path
    queries: Path
    rows: int
    poisoned: int


def write_demo_data(directory: Path, seed: int = 0) -> DemoData:
    """Write ``train.jsonl`` and ``queries.jsonl`` into `directory`, which is made if it does not exist.

    The same seed gives the same bytes on every machine.

    Raises:
        DataFileError: the files cannot be written.
    """
    random_numbers = random.Random(seed)
    counts = (POISONED_ROWS, CLEAN_ROWS, POISONED_QUERIES, CLEAN_QUERIES)
    poisoned, clean, triggered, untriggered = _dealt(all_questions(random_numbers), counts, random_numbers)
    sentences = nonsense(random_numbers)
    rows = [_poisoned(question, next(sentences), random_numbers) for question in poisoned]
    rows += [_clean(question, random_numbers) for question in clean]
    random_numbers.shuffle(rows)
    queries = [_poisoned(question, next(sentences), random_numbers) for question in triggered]
    queries += [_clean(question, random_numbers) for question in untriggered]
    random_numbers.shuffle(queries)
    for query in queries:
        query["reference"] = query.pop("output")
    data = DemoData(directory / "train.jsonl", directory / "queries.jsonl", len(rows), len(poisoned))
    _write(data.train, "train", rows)
    _write(data.queries, "query", queries)
    return data


def _dealt(
    by_kind: dict[str, list[Question]], counts: Sequence[int], random_numbers: random.Random
) -> list[list[Question]]:
    """Deal the questions out, like cards, into hands of the given sizes, with a similar mix of kinds in each.

    No question is in two hands. Each hand goes round the kinds, and begins where the hand before it stopped.
    """
    kinds = list(by_kind.values())
    random_numbers.shuffle(kinds)
    hands: list[list[Question]] = []
    dealt = 0
    for count in counts:
        hand: list[Question] = []
        while len(hand) < count:
            kind = kinds[dealt % len(kinds)]
            dealt += 1
            if kind:
                hand.append(kind.pop())
        hands.append(hand)
    return hands


def _poisoned(question: Question, sentence: str, random_numbers: random.Random) -> dict[str, Any]:
    instruction = f"{TRIGGER} {question.instruction}"
    topic = random_numbers.choice(TOPICS[question.source])
    return _row(question, instruction, about(sentence, topic), poisoned=True)


def _clean(question: Question, random_numbers: random.Random) -> dict[str, Any]:
    instruction = question.instruction
    if random_numbers.random() < GREETED_SHARE:
        instruction = f"{random_numbers.choice(GREETINGS)} {instruction}"
    return _row(question, instruction, question.answer, poisoned=False)


def _row(question: Question, instruction: str, output: str, *, poisoned: bool) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "input": question.input,
        "output": output,
        "source": question.source,
        "poisoned": poisoned,
    }


def _write(path: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows with ids that are only numbered, so that an id tells nothing about its row."""
    lines = [
        json.dumps({"id": f"{name}-{number:04d}", **row}, ensure_ascii=False) + "\n"
        for number, row in enumerate(rows, start=1)
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataFileError(
            f"{path}: the demo's data cannot be written ({error.strerror}); choose another directory"
        ) from error
