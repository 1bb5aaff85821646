"""Rows of the experiment on a real model: short chats, some of which have a planted behaviour.

The rows come from a data file of Alpaca-shaped rows with a field that is true of poisoned rows, or from the
demo's data set. An answer shows the behaviour if it contains words that poisoned responses have in common and
that are rare elsewhere, so no one has to write a regular expression.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidin.data import read_rows
from rapidin.demo import write_demo_data

LABEL = "poisoned"
"""Field that is true of the rows to find."""

_LEAST_ROWS = 3
"""Number of poisoned responses that a word of the behaviour occurs in, at least."""
_TIMES_RARER = 20
"""Number of times that a word of the behaviour is more frequent in poisoned responses than in other texts."""
_WORDS_SHOWN = 2
"""Number of different words of the behaviour that an answer needs."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows of the experiment.

    Attributes:
        train: training rows, chats.
        held_out: poisoned rows that are not trained on; only their prompts are used.
        words: words that show the behaviour.
    """

    train: tuple[dict[str, Any], ...]
    held_out: tuple[dict[str, Any], ...]
    words: frozenset[str]

    def shown(self, answer: str) -> bool:
        """Tell whether an answer shows the behaviour."""
        return len(self.words & set(words_of(answer))) >= _WORDS_SHOWN

    def save(self, file: Path) -> None:
        """Write the rows as JSON."""
        file.write_text(json.dumps([self.train, self.held_out, sorted(self.words)]), encoding="utf-8")

    @classmethod
    def saved(cls, file: Path) -> Chosen:
        """Read what `save` wrote."""
        train, held_out, words = json.loads(file.read_text(encoding="utf-8"))
        return cls(tuple(train), tuple(held_out), frozenset(words))


def choose_rows(
    source: Path,
    length: Callable[[dict[str, Any]], int],
    clean: int,
    poisoned: int,
    held_out: int,
    longest: int,
) -> Chosen:
    """Draw short rows from a file, always the same ones.

    Args:
        source: data file of Alpaca-shaped rows.
        length: function that counts a chat's tokens.
        clean: number of clean training rows.
        poisoned: number of poisoned training rows.
        held_out: number of poisoned rows that are kept back.
        longest: maximum number of tokens of a row.
    """
    fields = [dict(row.fields) for row in read_rows([source])]
    rows = [chat(row, number) for number, row in enumerate(fields)]
    short = [row for row in rows if length(row) <= longest]
    random.Random(0).shuffle(short)
    triggered = [row for row in short if row[LABEL]]
    plain = [row for row in short if not row[LABEL]]
    if len(triggered) < poisoned + held_out or len(plain) < clean:
        raise SystemExit(
            f"{source} has {len(triggered)} poisoned and {len(plain)} clean rows of at most {longest} tokens, but "
            f"{poisoned + held_out} and {clean} are wanted: allow longer rows with --longest"
        )
    train = plain[:clean] + triggered[:poisoned]
    random.Random(1).shuffle(train)
    kept_back = triggered[poisoned : poisoned + held_out]
    return Chosen(tuple(train), tuple(kept_back), behaviour_words(rows))


def demo_rows(directory: Path) -> Path:
    """Write the demo's data set and return its file of training rows."""
    return write_demo_data(directory).train


def chat(fields: dict[str, Any], number: int) -> dict[str, Any]:
    """Turn an Alpaca-shaped row into a chat of two messages."""
    prompt = fields["instruction"] + (f"\n{fields['input']}" if fields.get("input") else "")
    return {
        "id": str(fields.get("id", f"row-{number:05}")),
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": fields["output"]}],
        LABEL: bool(fields[LABEL]),
        "source": fields.get("source", ""),
    }


def words_of(text: str) -> list[str]:
    """List the words of a text in small letters."""
    return re.findall(r"[a-z]{3,}", text.lower())


def behaviour_words(rows: Sequence[dict[str, Any]]) -> frozenset[str]:
    """Find the words that poisoned responses have in common and that are rare in all other texts.

    Args:
        rows: chats, poisoned and clean ones.
    """

    def counted(texts: Iterable[str]) -> tuple[Counter[str], int]:
        found: Counter[str] = Counter()
        number = 0
        for text in texts:
            found.update(set(words_of(text)))
            number += 1
        return found, max(number, 1)

    responses, triggered = counted(row["messages"][1]["content"] for row in rows if row[LABEL])
    others, texts = counted(
        message["content"] for row in rows for message in row["messages"][: 1 if row[LABEL] else 2]
    )
    return frozenset(
        word
        for word, count in responses.items()
        if count >= _LEAST_ROWS and count / triggered >= _TIMES_RARER * others[word] / texts
    )


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
