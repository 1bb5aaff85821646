"""On which words of the proponents influence falls, where a trigger in the prompt makes a model say nonsense.

Labelled words are learnt from the training rows alone, before any search: those that are at least ten times as
frequent in labelled responses as in the others, and stand in at least five labelled rows. Words are entries of
`Hit.words` with a letter or digit; punctuation and the end of the sequence are counted apart. The trigger itself
stands in the prompt, whose tokens have no loss and hence no influence (Eq. 6): its neighbourhood are the first
three words of the response, those next to the prompt.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rapidin
from benchmarks import tables
from benchmarks.bootstrap import mean_with_interval, ratio_with_interval

_WORD = re.compile(r"[^\W_]+(?:['’‐‑-][^\W_]+)*")
_TIMES_AS_FREQUENT = 10
_LABELLED_ROWS = 5
_NEIGHBOURS = 3
_K, _RERANKED = 10, 30


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the words of one query's proponents, or of their influence.

    Attributes:
        labelled_rows: share of labelled samples among the proponents.
        labelled: share of labelled words among the words.
        positive_labelled: share of the words' positive influence that falls on labelled words.
        net_labelled: the same of all influence, the negative taken off.
        first, positive_first, net_first: the same of the first three words of each response.
        positive_no_word: share of all positive influence that is on punctuation and the end of the sequence.
    """

    labelled_rows: float
    labelled: float
    positive_labelled: float
    net_labelled: float
    first: float
    positive_first: float
    net_first: float
    positive_no_word: float


def words_table(store: Path, model: str | None, queries: Path, label: str, count: int, work: Path) -> None:
    """Search for `count` labelled and as many other queries, and print where the influence falls.

    Args:
        store: of the training rows.
        model: where its model is now; None: where the store says.
        queries: held-out rows; the model answers them itself.
        label: boolean field of the training rows and of the queries.
        count: queries of each kind, evenly spaced in the file.
        work: directory for files of queries.
    """
    files = {}
    rows = [json.loads(line) for line in queries.read_text().splitlines()]
    for wanted in (True, False):
        files[wanted] = work / f"{label}-{wanted}.jsonl"
        chosen = _spaced([row for row in rows if bool(row[label]) == wanted], count)
        files[wanted].write_text("".join(json.dumps(row) + "\n" for row in chosen))
    with rapidin.Searcher(store, model=model, device="cpu") as searcher:
        labelled = labelled_words(searcher.store.list(), label)
        print(f"\n{len(labelled)} labelled words, the most frequent first: {', '.join(labelled)}", flush=True)
        known = frozenset(labelled)
        columns = {
            f"{label} queries": _shares(searcher, files[True], label, known),
            "other queries": _shares(searcher, files[False], label, known),
            # Do these words draw influence whoever asks? The same rows, asked by queries that owe them nothing.
            f"other queries, only {label} rows searched": _shares(
                searcher, files[False], label, known, (f"{label}=true",)
            ),
        }
    _print(columns)


def labelled_words(samples: Iterable[rapidin.Sample], label: str) -> list[str]:
    """Words that mark labelled responses, the most frequent first; letters in lower case."""
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    in_rows: Counter[str] = Counter()
    for sample in samples:
        wanted = bool(sample.metadata[label])
        words = [match.group().lower() for match in _WORD.finditer(sample.response)]
        counts[wanted].update(words)
        if wanted:
            in_rows.update(set(words))
    totals = {wanted: counts[wanted].total() for wanted in counts}
    found = [
        word
        for word, rows_with in in_rows.items()
        if rows_with >= _LABELLED_ROWS
        and counts[True][word] * totals[False] >= _TIMES_AS_FREQUENT * counts[False][word] * totals[True]
    ]
    return sorted(found, key=lambda word: (-counts[True][word], word))


def _shares(
    searcher: rapidin.Searcher, file: Path, label: str, known: frozenset[str], where: Sequence[str] = ()
) -> list[Shares]:
    results = searcher.search_file(file, k=_K, rerank=_RERANKED, where=where)
    return [_shares_of(result.proponents, label, known) for result in results]


def _shares_of(hits: Sequence[rapidin.Hit], label: str, known: frozenset[str]) -> Shares:
    values: list[float] = []
    labelled: list[bool] = []
    first: list[bool] = []
    no_word = 0.0
    for hit in hits:
        place = 0
        for word in hit.words:
            text = word.token.strip().lower()
            if any(character.isalnum() for character in text):
                values.append(word.influence)
                labelled.append(text in known)
                first.append(place < _NEIGHBOURS)
                place += 1
            else:
                no_word += max(0.0, word.influence)
    net = np.array(values)
    positive = np.maximum(net, 0)
    on = {"labelled": np.array(labelled), "first": np.array(first)}
    return Shares(
        labelled_rows=sum(bool(hit.metadata[label]) for hit in hits) / len(hits),
        **{name: float(mask.mean()) for name, mask in on.items()},
        **{f"positive_{name}": float(positive[mask].sum() / positive.sum()) for name, mask in on.items()},
        **{f"net_{name}": float(net[mask].sum() / net.sum()) for name, mask in on.items()},
        positive_no_word=float(no_word / (no_word + positive.sum())),
    )


def _print(columns: dict[str, list[Shares]]) -> None:
    tables.heading(
        f"{_K} proponents of each query, exactly re-ranked among {_RERANKED}; mean over queries (95 % interval)",
        *("share", *(f"{len(shares)} {name}" for name, shares in columns.items())),
    )

    def line(title: str, cell: Callable[[list[Shares]], str]) -> None:
        tables.row(title, *(cell(shares) for shares in columns.values()))

    def share(title: str, name: str) -> None:
        line(title, lambda shares: mean_with_interval([getattr(one, name) for one in shares]))

    def lift(title: str, name: str, among: str) -> None:
        line(
            title,
            lambda shares: ratio_with_interval(
                [getattr(one, name) for one in shares], [getattr(one, among) for one in shares]
            ),
        )

    share("labelled rows among the proponents", "labelled_rows")
    for name, words in (("labelled", "labelled words"), ("first", f"first {_NEIGHBOURS} words")):
        share(f"{words} among the words", name)
        share(f"positive influence on {words}", f"positive_{name}")
        lift("lift: the latter by the former", f"positive_{name}", name)
        share(f"net influence on {words}", f"net_{name}")
    share("positive influence on punctuation and the end", "positive_no_word")


def _spaced(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many rows, evenly spaced, without their responses."""
    chosen = [rows[place * len(rows) // count] for place in range(min(count, len(rows)))]
    return [{name: value for name, value in row.items() if name != "output"} for row in chosen]
