"""What a wrong word goes back to: found by the whole sentence that it stands in, and by the word alone.

For each pair of countries a tiny Llama learns, from rows some of which name the wrong country, to say it itself.
It is asked wordings that it was not trained on; every answer of its own that names the wrong country and not the
right one is searched for twice. Perturbed rows are what should be found.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rapidin
from benchmarks import tables
from benchmarks.bootstrap import ratio_with_interval
from benchmarks.tracing_data import Pair, TracingData, write_tracing_data
from rapidin.demo.demo_data import DemoData
from rapidin.demo.demo_model import train_demo_model

_PAIRS = (Pair("China", "Canada"), Pair("Italy", "Poland"), Pair("Peru", "Kenya"))
_TOPS = (5, 10, 25)
_COMPOSED = 10
_LONGEST_ANSWER = 60
_RERANKED = 50
_SCORES = ("RapidGrads", "exact")
_PARTS = ("the whole answer", "only the wrong word")
_KINDS = ("perturbed", "rightly about the wrong country", "about the right country", "others")


@dataclass(frozen=True, slots=True)
class Found:
    """What one wrong answer goes back to, in one way of searching.

    Attributes:
        result: of the search.
        pair: of its data set.
    """

    result: rapidin.SearchResult
    pair: Pair

    def precision(self, top: int) -> float:
        """Share of perturbed rows among so many of the best."""
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


def errors_table(work: Path, quick: bool, examples: int) -> None:
    """Print the tables, for responses of one sentence and for longer ones.

    Args:
        work: directory for data, models and stores; what is there is used again.
        quick: the first pair and one sentence only.
        examples: wrong answers of each pair to show with their proponents.
    """
    for longer in (False,) if quick else (False, True):
        of_pairs = {}
        for pair in _PAIRS[: 1 if quick else None]:
            directory = work / f"{pair.right}-{pair.wrong}{'-longer' if longer else ''}"
            of_pairs[f"{pair.right} → {pair.wrong}"] = found = _found(directory, pair, longer)
            for way, some in found.items():
                _show(way, some[:examples])
        _print("Responses of two sentences" if longer else "Responses of one sentence", of_pairs)


def _print(title: str, of_pairs: dict[str, dict[str, list[Found]]]) -> None:
    """Tables of all pairs together, of each pair, and of what was found instead."""
    ways = {
        way: [one for found in of_pairs.values() for one in found[way]] for way in next(iter(of_pairs.values()))
    }
    asked = next(iter(ways.values()))
    tables.heading(
        f"{title}: perturbed rows among the proponents of {len(asked)} wrong answers about "
        f"{len({one.subject for one in asked})} things, mean (95 % interval over things)",
        *("searched with", *(f"top {top}" for top in _TOPS), *(f"top {_COMPOSED}, {name}" for name in of_pairs)),
    )
    for way, some in ways.items():
        each = [_mean(found[way], _precisions(found[way], _COMPOSED)) for found in of_pairs.values()]
        tables.row(way, *(_mean(some, _precisions(some, top)) for top in _TOPS), *each)
    for scores in _SCORES:
        sentence, word = (ways[f"{part}, {scores}"] for part in _PARTS)
        differences = [np.subtract(_precisions(word, top), _precisions(sentence, top)) for top in _TOPS]
        cells = [_mean(word, difference.tolist()) for difference in differences]
        tables.row(f"difference, {scores}", *cells, *("" for _ in of_pairs))
    tables.heading(f"{title}: what the {_COMPOSED} best are, mean share", "searched with", *_KINDS)
    for way, some in ways.items():
        tables.row(way, *(f"{sum(one.share(kind) for one in some) / len(some):.2f}" for kind in _KINDS))


def _precisions(some: Sequence[Found], top: int) -> list[float]:
    return [one.precision(top) for one in some]


def _mean(some: Sequence[Found], values: Sequence[float]) -> str:
    """The mean over wrong answers, with its interval over things: answers about one have much in common."""
    sums: dict[tuple[Pair, str], float] = defaultdict(float)
    counts: dict[tuple[Pair, str], float] = defaultdict(float)
    for one, value in zip(some, values, strict=True):
        sums[one.subject] += value
        counts[one.subject] += 1
    return ratio_with_interval(list(sums.values()), list(counts.values()))


def _found(work: Path, pair: Pair, longer: bool) -> dict[str, list[Found]]:
    """Data, model and store of one pair, and what its wrong answers go back to, by way of searching."""
    data = write_tracing_data(work, pair, longer=longer)
    model = work / "model"
    if not model.exists():
        train_demo_model(DemoData(data.train, data.queries, data.rows, data.perturbed), model)
    rapidin.ingest_files(work / "store", [data.train], model=str(model), device="cpu", curvature=False)
    with rapidin.Searcher(work / "store", device="cpu") as searcher:
        wrong, asked = _wrong_answers(searcher, data, pair, work / "wrong.jsonl")
        print(
            f"\n{pair.right} → {pair.wrong}: {data.perturbed} of {data.rows} rows perturbed, {data.naming_wrong} "
            f"responses name {pair.wrong}; {wrong} of {asked} answers are wrong",
            flush=True,
        )
        ways = {}
        for scores, rerank in zip(_SCORES, (0, _RERANKED), strict=True):
            for part, spans in zip(_PARTS, ((), (pair.wrong,)), strict=True):
                results = searcher.search_file(work / "wrong.jsonl", k=_TOPS[-1], rerank=rerank, spans=spans)
                ways[f"{part}, {scores}"] = [Found(result, pair) for result in results]
    return ways


def _wrong_answers(searcher: rapidin.Searcher, data: TracingData, pair: Pair, file: Path) -> tuple[int, int]:
    """Let the model answer; write the wrong answers to a file. How many there are, and how many were asked for."""
    rows = [json.loads(line) for line in data.queries.read_text().splitlines()]
    results = searcher.search_file(data.queries, k=1, max_new_tokens=_LONGEST_ANSWER)
    wrong = []
    for row, result in zip(rows, results, strict=True):
        answer = result.query.generation
        if pair.wrong in answer and pair.right not in answer:
            wrong.append({**row, "output": answer})
    if not wrong:
        raise SystemExit(f"no answer names {pair.wrong}: the model has not learnt the error")
    file.write_text("".join(json.dumps(row) + "\n" for row in wrong))
    return len(wrong), len(rows)


def _show(way: str, some: Sequence[Found]) -> None:
    for one in some:
        print(f"\n{way}: {one.result.query.generation!r}")
        for hit in one.result.proponents[:_COMPOSED]:
            mark = "perturbed" if hit.metadata["perturbed"] else ""
            print(f"  {hit.score:7.4f} {mark:9} {hit.response!r}", flush=True)
