"""How well scores find the poisoned rows for the real model's own answers, and how much K and probes matter.

Shape letters: n rows · q queries · m probes · K projection dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from benchmarks import tables
from benchmarks.real_data import LABEL
from benchmarks.real_model import Tuned
from benchmarks.real_sketches import SIZES, Array, Probes, Sketches, drawn_probes, in_one_block, normalised
from rapidin import Objective
from rapidin.evaluation.methods.baselines import Bm25Scorer, SentenceScorer, normalised as unit
from rapidin.model import mean_hidden_states
from rapidin.text import EncodedSample

DAMPINGS = (0.03, 0.1, 0.3, 1.0, 3.0)
KS = (5, 10, 25)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
SIZE = 2**16
"""K of a store unless it is given."""


@dataclass(frozen=True)
class World:
    """A fine-tuned model with its rows and the queries whose answers show the behaviour.

    Attributes:
        tuned: the model.
        rows: the n training rows.
        wanted: whether each row is poisoned, [n].
        asked: the q queries with the model's own answers.
        sketches: sketches of the model's gradients.
    """

    tuned: Tuned
    rows: Sequence[EncodedSample]
    wanted: NDArray[np.bool_]
    asked: Sequence[EncodedSample]
    sketches: Sketches

    def raw(self, objective: Objective, size: int, *, of_rows: bool) -> Array:
        """Sketches of rows or of queries that are not normalised."""
        samples, name = (self.rows, "rows") if of_rows else (self.asked, "queries")
        return self.sketches.of(f"{name}-{objective}", samples, objective, size)

    def stored(self, objective: Objective, size: int) -> Array:
        """Rows as a store keeps them, before they are coded."""
        return normalised(self.raw(objective, size, of_rows=True), self.sketches.projections[size])


def found(scores: Array, wanted: NDArray[np.bool_]) -> list[str]:
    """Compute the average precision, and the precision among the best k, as means over queries."""
    precision = np.mean([average_precision_score(wanted, of_query) for of_query in scores])
    best = [np.mean([wanted[np.argsort(-of_query, kind="stable")[:k]].mean() for of_query in scores]) for k in KS]
    return [f"{value:.3f}" for value in (precision, *best)]


def texts_scores(world: World, minilm: Path | None) -> dict[str, Array]:
    """Score rows by their texts alone."""
    whole = _texts([(one.prompt, one.response) for one in world.rows])
    asked = _texts([(one.prompt, one.response) for one in world.asked])
    answers = _texts([("", one.response) for one in world.rows])
    asked_answers = _texts([("", one.response) for one in world.asked])
    scores = {
        "BM25, prompt and answer": _scored(Bm25Scorer(), asked, whole),
        "BM25, answer only": _scored(Bm25Scorer(), asked_answers, answers),
    }
    if minilm is not None:
        scores["MiniLM, prompt and answer"] = _scored(SentenceScorer(str(minilm), "cpu"), asked, whole)
        scores["MiniLM, answer only"] = _scored(SentenceScorer(str(minilm), "cpu"), asked_answers, answers)
    network = world.tuned.loaded()
    states = [unit(mean_hidden_states(network, [one.ids for one in part])) for part in (world.asked, world.rows)]
    scores["embedding (the model's own hidden states)"] = states[0] @ states[1].T
    return scores


def _texts(parts: Sequence[tuple[str, str]]) -> list[Any]:
    return [
        SimpleNamespace(text=prompt + response, query=SimpleNamespace(prompt=prompt, generation=response))
        for prompt, response in parts
    ]


def _scored(scorer: Any, asked: list[Any], rows: list[Any]) -> Array:
    scorer.prepare(_Rows(rows))
    scores: Array = scorer.scores(asked, _Rows(rows))
    return scores


class _Rows:
    """Rows in place of a `TrainingSet`, whose samples would come from a store."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)


def gradient_scores(world: World, draws: int) -> Iterator[tuple[str, str, str, Array]]:
    """Score rows by stored gradients.

    Yields:
        Objectives of the query and of the rows; the number of probes; the damping; scores [q, n].
    """
    size = SIZE
    projection = world.sketches.projections[size]
    queries = {objective: world.raw(objective, size, of_rows=False) for objective in OBJECTIVES}
    rows = {objective: world.stored(objective, size) for objective in OBJECTIVES}
    for objective in OBJECTIVES:
        scores = normalised(queries[objective], projection) @ rows[objective].T
        yield f"{objective} → {objective}", "", "cosine", scores
    for count in sorted({1, draws}):
        sums, targets = drawn_probes(world.sketches, world.rows, count, size)
        probes = Probes.of(sums, targets)
        for of_rows in OBJECTIVES:
            for of_query in OBJECTIVES:
                for damping in DAMPINGS:
                    corrected = probes.damped(damping).corrected(queries[of_query])
                    name = f"{of_query} → {of_rows}"
                    yield name, str(len(probes)), f"{damping:g}", corrected @ rows[of_rows].T
                    yield (
                        name,
                        str(len(probes)),
                        f"{damping:g}, query normalised after it",
                        normalised(corrected, projection) @ rows[of_rows].T,
                    )


def print_found(world: World, minilm: Path | None, draws: int) -> None:
    """Print what each method finds."""
    tables.heading(
        "Poisoned rows found", "method", "query → rows", "probes", "damping", "AP", *(f"P@{k}" for k in KS)
    )
    for name, scores in texts_scores(world, minilm).items():
        tables.row(name, "", "", "", *found(scores, world.wanted))
    for objectives, probes, damping, scores in gradient_scores(world, draws):
        name = "rapidin-cosine" if damping == "cosine" else "rapidin"
        tables.row(name, objectives, probes, "" if damping == "cosine" else damping, *found(scores, world.wanted))


def print_sizes(world: World, draws: int) -> None:
    """Print how K and the number of probes matter; K in one block has all tensors in one sketch."""
    dampings = (0.03, 0.1, 0.3, 1.0)
    tables.heading(
        "K and probes: average precision (precision at 10)",
        *("K", "numbers per tensor", "probes", "query → rows", "cosine"),
        *(f"damping {one:g}" for one in dampings),
    )
    tensors = len(world.sketches.projections[SIZE].tensors)
    one_block = {f"{size}, one block": size for size in SIZES[:2]}
    for label, size in {**{str(size): size for size in SIZES}, **one_block}.items():
        merged = label in one_block
        width = SIZES[-1] if merged else size

        def made(sketches: Array, size: int = size, merged: bool = merged) -> Array:
            return in_one_block(sketches, size) if merged else sketches

        sums, targets = drawn_probes(world.sketches, world.rows, draws, width)
        sums = made(sums)
        order = np.random.default_rng(0).permutation(len(sums))
        counts = sorted({len(world.rows) // 4, len(world.rows), len(sums)})
        for objective in OBJECTIVES:
            rows = made(world.stored(objective, width))
            raw = world.raw(objective, width, of_rows=False)
            query = made(raw)
            cosine = made(normalised(raw, world.sketches.projections[width])) @ rows.T
            for count in counts:
                chosen = order[:count]
                probes = Probes.of(sums[chosen], targets[chosen])
                cells = [probes.damped(damping).corrected(query) @ rows.T for damping in dampings]
                measured = [found(scores, world.wanted) for scores in (cosine, *cells)]
                tables.row(
                    label,
                    "" if merged else size // tensors,
                    count,
                    f"{objective} → {objective}",
                    *(f"{one[0]} ({one[2]})" for one in measured),
                )


def wanted_of(rows: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
    """Tell whether each row is poisoned, [n]."""
    return np.array([bool(row[LABEL]) for row in rows])
