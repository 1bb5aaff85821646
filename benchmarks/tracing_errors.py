"""What a wrong word goes back to: found by the whole sentence that it stands in, and by the word alone.

For each pair of countries a tiny Llama learns, from rows some of which name the wrong country, to say it itself.
It is asked wordings that it was not trained on; every answer of its own that names the wrong country and not the
right one is searched for in several ways. Perturbed rows are what should be found.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path

import numpy as np

import rapidin
from benchmarks import tables
from benchmarks.bootstrap import ratio_with_interval
from benchmarks.tracing_data import Pair, TracingData, write_tracing_data
from rapidin.demo import DemoData, train_demo_model
from rapidin.settings import MeasureChoice, Objective

PAIRS = (Pair("China", "Canada"), Pair("Italy", "Poland"), Pair("Peru", "Kenya"))
PARTS = ("answer", "word")
"""What of a wrong answer is asked about: all of it, or the wrong word only."""
_TOPS = (5, 10, 25, 50)
_COMPOSED = 10
_LONGEST_ANSWER = 60
_RERANKED = 50
_KINDS = ("perturbed", "rightly about the wrong country", "about the right country", "others")


@dataclass(frozen=True, slots=True)
class Way:
    """A way of searching.

    Attributes:
        rows: objective that the store was made with.
        asked: objective of the query.
        damping: damping of the curvature; None for the cosine.
        part: what of the answer is asked about, one of `PARTS`.
        exact: whether the best are ordered by exact influence.
    """

    rows: Objective
    asked: Objective
    damping: float | None
    part: str
    exact: bool

    @property
    def cells(self) -> tuple[str, str, str]:
        """First cells of a row of a table."""
        measure = "cosine" if self.damping is None else f"influence, damping {self.damping:g}"
        return f"{self.asked} → {self.rows}", self.part, measure + (", exact" if self.exact else "")


@dataclass(frozen=True, slots=True)
class Choices:
    """What is compared.

    Attributes:
        pairs: number of `PAIRS` that are used, from the first.
        sentences: numbers of sentences of a response, 1 or 2.
        rows: objectives of stores.
        asked: objectives of queries.
        measures: measures.
        dampings: dampings of the measure ``influence``.
        parts: what of an answer is asked about.
        exact: whether the best are also ordered by exact influence.
        probes: number of probes of the curvature; None for the default.
    """

    pairs: int
    sentences: Sequence[int]
    rows: Sequence[Objective]
    asked: Sequence[Objective]
    measures: Sequence[MeasureChoice]
    dampings: Sequence[float]
    parts: Sequence[str]
    exact: bool
    probes: int | None

    def ways(self, rows: Objective, damping: float | None) -> Iterator[Way]:
        """List the ways of searching a store; the cosine is only known of queries with the store's objective."""
        asked = [objective for objective in self.asked if damping is not None or objective == rows]
        for objective, part, exact in product(asked, self.parts, (False, True) if self.exact else (False,)):
            yield Way(rows, objective, damping, part, exact)

    @property
    def all_dampings(self) -> list[float | None]:
        """All dampings, with None for the cosine."""
        cosine: list[float | None] = [None] if "cosine" in self.measures else []
        return cosine + (list(self.dampings) if "influence" in self.measures else [])


@dataclass(frozen=True, slots=True)
class Found:
    """What one wrong answer goes back to, in one way of searching.

    Attributes:
        result: result of the search.
        pair: pair of countries of its data set.
    """

    result: rapidin.SearchResult
    pair: Pair

    def precision(self, top: int) -> float:
        """Share of perturbed rows among a number of the best."""
        return sum(bool(hit.metadata["perturbed"]) for hit in self.result.proponents[:top]) / top

    @property
    def subject(self) -> tuple[Pair, str]:
        """What the answer is about."""
        return self.pair, self.result.query.metadata["thing"]

    def share(self, kind: str) -> float:
        """Share of one of the kinds of rows among the best ten."""
        kinds = [self._kind(hit) for hit in self.result.proponents[:_COMPOSED]]
        return kinds.count(kind) / len(kinds)

    def _kind(self, sample: rapidin.Sample) -> str:
        if sample.metadata["perturbed"]:
            return _KINDS[0]
        if self.pair.wrong in sample.text:
            return _KINDS[1]
        return _KINDS[2] if self.pair.right in sample.text else _KINDS[3]


def errors_table(work: Path, choices: Choices, examples: int) -> None:
    """Print the tables, for each length of responses.

    Args:
        work: directory for data, models and stores; what is there is used again.
        choices: what is compared.
        examples: number of wrong answers of each pair to show with their proponents.
    """
    for sentences in choices.sentences:
        of_pairs = []
        for pair in PAIRS[: choices.pairs]:
            directory = work / f"{pair.right}-{pair.wrong}{'-longer' if sentences == 2 else ''}"
            found = _found(directory, pair, sentences == 2, choices)
            of_pairs.append(found)
            for way, some in found.items():
                _show(way, some[:examples])
        ways = {way: [one for found in of_pairs for one in found[way]] for way in of_pairs[0]}
        _print("Responses of two sentences" if sentences == 2 else "Responses of one sentence", ways)


def _print(title: str, ways: dict[Way, list[Found]]) -> None:
    """Print the precision of all ways, their paired differences from the first one, and what else was found."""
    pairings = list(dict.fromkeys((way.rows, way.asked) for way in ways))
    ordered = sorted(ways, key=lambda way: (PARTS.index(way.part), pairings.index((way.rows, way.asked))))
    asked = ways[ordered[0]]
    columns = ("query → rows", "asked by", "measure")
    tables.heading(
        f"{title}: perturbed rows among the proponents of {len(asked)} wrong answers about "
        f"{len({one.subject for one in asked})} things, mean (95 % interval over things)",
        *(*columns, *(f"top {top}" for top in _TOPS)),
    )
    for way in ordered:
        tables.row(*way.cells, *(_mean(ways[way], _precisions(ways[way], top)) for top in _TOPS))
    tables.heading(
        f"{title}: paired differences from the first way in which the same part is asked about",
        *(*columns, *(f"top {top}" for top in _TOPS)),
    )
    for _, group in groupby(ordered, lambda way: way.part):
        first, *others = group
        for way in others:
            differences = [
                np.subtract(_precisions(ways[way], top), _precisions(ways[first], top)).tolist() for top in _TOPS
            ]
            tables.row(*way.cells, *(_mean(ways[way], one) for one in differences))
    tables.heading(f"{title}: what the {_COMPOSED} best are, mean share", *columns, *_KINDS)
    for way in ordered:
        shares = [np.mean([one.share(kind) for one in ways[way]]) for kind in _KINDS]
        tables.row(*way.cells, *(f"{share:.2f}" for share in shares))


def _precisions(some: Sequence[Found], top: int) -> list[float]:
    return [one.precision(top) for one in some]


def _mean(some: Sequence[Found], values: Sequence[float]) -> str:
    """Write the mean over wrong answers; its interval is over things, because answers about one are much alike."""
    sums: dict[tuple[Pair, str], float] = defaultdict(float)
    counts: dict[tuple[Pair, str], float] = defaultdict(float)
    for one, value in zip(some, values, strict=True):
        sums[one.subject] += value
        counts[one.subject] += 1
    return ratio_with_interval(list(sums.values()), list(counts.values()))


def _found(work: Path, pair: Pair, longer: bool, choices: Choices) -> dict[Way, list[Found]]:
    """Make data, model and stores of one pair, and find what its wrong answers go back to, in every way."""
    data = write_tracing_data(work, pair, longer=longer)
    model = work / "model"
    if not (model / "tokenizer.json").exists():
        train_demo_model(DemoData(data.train, data.queries, data.rows, data.perturbed), model)
    wrong = work / "wrong.jsonl"
    ways: dict[Way, list[Found]] = {}
    for number, rows in enumerate(choices.rows):
        store = work / f"store-{rows}"
        rapidin.ingest_files(store, [data.train], model=str(model), device="cpu", curvature=False, objective=rows)
        if number == 0:
            _answer(store, data, pair, wrong)
        for damping in choices.all_dampings:
            if damping is not None:
                rapidin.compute_curvature(store, probes=choices.probes, damping=damping, device="cpu")
            with rapidin.Searcher(store, device="cpu") as searcher:
                for way in choices.ways(rows, damping):
                    ways[way] = [Found(result, pair) for result in _searched(searcher, wrong, way, pair)]
    return ways


def _searched(searcher: rapidin.Searcher, wrong: Path, way: Way, pair: Pair) -> Iterator[rapidin.SearchResult]:
    return searcher.search_file(
        wrong,
        k=_TOPS[-1],
        index="exact",
        rerank=_RERANKED if way.exact else 0,
        spans=(pair.wrong,) if way.part == "word" else (),
        measure="cosine" if way.damping is None else "influence",
        objective=way.asked,
    )


def _answer(store: Path, data: TracingData, pair: Pair, file: Path) -> None:
    """Let the model answer the questions, and write the wrong answers to a file."""
    rows = [json.loads(line) for line in data.queries.read_text().splitlines()]
    with rapidin.Searcher(store, device="cpu") as searcher:
        results = searcher.search_file(data.queries, k=1, max_new_tokens=_LONGEST_ANSWER)
        answers = [result.query.generation for result in results]
    wrong = [
        {**row, "output": answer}
        for row, answer in zip(rows, answers, strict=True)
        if pair.wrong in answer and pair.right not in answer
    ]
    if not wrong:
        raise SystemExit(f"no answer names {pair.wrong}: the model has not learnt the error")
    file.write_text("".join(json.dumps(row) + "\n" for row in wrong))
    print(
        f"\n{pair.right} → {pair.wrong}: {data.perturbed} of {data.rows} rows perturbed, {data.naming_wrong} "
        f"responses name {pair.wrong}; {len(wrong)} of {len(rows)} answers are wrong",
        flush=True,
    )


def _show(way: Way, some: Sequence[Found]) -> None:
    for one in some:
        print(f"\n{', '.join(way.cells)}: {one.result.query.generation!r}")
        for hit in one.result.proponents[:_COMPOSED]:
            mark = "perturbed" if hit.metadata["perturbed"] else ""
            print(f"  {hit.score:7.4f} {mark:9} {hit.response!r}", flush=True)
