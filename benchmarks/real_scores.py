"""How well scores find the poisoned rows for the real model's own answers, and how much K and probes matter.

Shape letters: n rows · q queries · m probes · K projection dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from benchmarks import tables
from benchmarks.real_data import LABEL
from benchmarks.real_model import Tuned
from benchmarks.real_sketches import Array, Probes, Sketches, Smaller, normalised
from rapidin import Objective
from rapidin.attribution import FisherDraw
from rapidin.attribution.gradients import Differentiated
from rapidin.evaluation.methods.baselines import Bm25Scorer, SentenceScorer, normalised as unit
from rapidin.model import mean_hidden_states
from rapidin.text import EncodedSample

DAMPINGS = (0.03, 0.1, 0.3, 1.0, 3.0)
KS = (5, 10, 25)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
SIZE = 2**16
"""K of a store unless it is given."""
EMBEDDING = "embedding (the model's own hidden states)"
SIZES = (2**14, 2**16, 2**18)


@dataclass(frozen=True)
class World:
    """A fine-tuned model with its rows and the queries whose answers show the behaviour.

    Attributes:
        tuned: the model.
        rows: the n training rows.
        wanted: whether each row is poisoned, [n].
        asked: the q queries with the model's own answers.
        sketches: sketches of the model's gradients.
        draws: number of probes of each row.
    """

    tuned: Tuned
    rows: Sequence[EncodedSample]
    wanted: NDArray[np.bool_]
    asked: Sequence[EncodedSample]
    sketches: Sketches
    draws: int

    @cached_property
    def queries(self) -> dict[Objective, Array]:
        """Sketches of the queries' gradients, not normalised, [q, KEPT]."""
        made = self.sketches.of("queries", self.asked, {one: one for one in OBJECTIVES})
        return dict(zip(OBJECTIVES, made, strict=True))

    @cached_property
    def _of_rows(self) -> list[Array]:
        wanted: dict[str, Differentiated] = {one: one for one in OBJECTIVES}
        wanted |= {f"probes-{draw}": FisherDraw(0, draw) for draw in range(self.draws)}
        return self.sketches.of("rows", self.rows, wanted)

    @property
    def gradients(self) -> dict[Objective, Array]:
        """Sketches of the rows' gradients, not normalised, [n, KEPT]."""
        return dict(zip(OBJECTIVES, self._of_rows, strict=False))

    @cached_property
    def probes(self) -> Array:
        """Sketches of probes, those of the first draw from each row first, [m, KEPT]."""
        return np.concatenate(self._of_rows[len(OBJECTIVES) :])

    @cached_property
    def probe_targets(self) -> NDArray[np.int64]:
        """Number of targets that each probe is a sum over, [m]."""
        return np.tile([sum(row.targets) for row in self.rows], self.draws)


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
    scores[EMBEDDING] = states[0] @ states[1].T
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


def gradient_scores(world: World) -> Iterator[tuple[str, str, str, Array]]:
    """Score rows by gradients, sketched to K = 65,536 as in a store, in float32.

    Yields:
        Objectives of the query and of the rows; the number of probes; the damping; scores [q, n].
    """
    smaller = Smaller.of(world.sketches.projection, SIZE)
    queries = {objective: smaller.raw(world.queries[objective]) for objective in OBJECTIVES}
    rows = {objective: smaller.normalised(world.gradients[objective]) for objective in OBJECTIVES}
    sums = smaller.raw(world.probes)
    for objective in OBJECTIVES:
        yield (
            f"{objective} → {objective}",
            "",
            "cosine",
            smaller.normalised(world.queries[objective]) @ rows[objective].T,
        )
    for count in sorted({len(world.rows), len(sums)}):
        probes = Probes.of(sums[:count], world.probe_targets[:count])
        for damping in DAMPINGS:
            correction = probes.damped(damping)
            for of_query in OBJECTIVES:
                corrected = correction.corrected(queries[of_query], of_query)
                levelled = normalised(corrected, smaller.shares)
                for of_rows in OBJECTIVES:
                    name = f"{of_query} → {of_rows}"
                    yield name, str(count), f"{damping:g}", corrected @ rows[of_rows].T
                    if of_query == of_rows:
                        title = f"{damping:g}, corrected query normalised"
                        yield name, str(count), title, levelled @ rows[of_rows].T


def print_found(world: World, minilm: Path | None) -> None:
    """Print what each method finds."""
    tables.heading(
        "Poisoned rows found", "method", "query → rows", "probes", "damping", "AP", *(f"P@{k}" for k in KS)
    )
    for name, scores in texts_scores(world, minilm).items():
        tables.row(name, "", "", "", *found(scores, world.wanted))
    measured = list(gradient_scores(world))
    for objectives, probes, damping, scores in sorted(measured, key=lambda one: one[:2]):
        name = "rapidin-cosine" if damping == "cosine" else "rapidin"
        tables.row(name, objectives, probes, "" if damping == "cosine" else damping, *found(scores, world.wanted))


def print_sizes(world: World) -> None:
    """Print how K and the number of probes matter; with one block all tensors share all numbers."""
    dampings = (0.03, 0.1, 0.3, 1.0)
    tables.heading(
        "K and probes: average precision (precision at 10)",
        *("K", "numbers per tensor", "probes", "query → rows", "cosine"),
        *(f"damping {one:g}" for one in dampings),
    )
    projection = world.sketches.projection
    order = np.random.default_rng(0).permutation(len(world.probes))
    counts = sorted({len(world.rows) // 4, len(world.rows), len(world.probes)})
    for one_block, size in [*((False, size) for size in SIZES), *((True, size) for size in SIZES[:2])]:
        smaller = Smaller.of(projection, size, one_block=one_block)
        sums = smaller.raw(world.probes)
        all_probes = [Probes.of(sums[order[:count]], world.probe_targets[order[:count]]) for count in counts]
        for objective in OBJECTIVES:
            rows = smaller.normalised(world.gradients[objective])
            query = smaller.raw(world.queries[objective])
            cosine = found(smaller.normalised(world.queries[objective]) @ rows.T, world.wanted)
            for probes in all_probes:
                scores = [probes.damped(damping).corrected(query, objective) @ rows.T for damping in dampings]
                measured = [cosine, *(found(one, world.wanted) for one in scores)]
                tables.row(
                    size,
                    "one block" if one_block else size // len(projection.tensors),
                    len(probes),
                    f"{objective} → {objective}",
                    *(f"{one[0]} ({one[2]})" for one in measured),
                )


def wanted_of(rows: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
    """Tell whether each row is poisoned, [n]."""
    return np.array([bool(row[LABEL]) for row in rows])
