"""Why scores rank as they do on the real model: which probes matter, where poisoned rows are, what damping does.

Shape letters: n rows · q queries · m probes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import tables
from benchmarks.real_scores import KS, OBJECTIVES, SIZE, World, found
from benchmarks.real_sketches import Array, Probes, Smaller
from rapidin.attribution.curvature.query_correction import mean_eigenvalue

_DAMPING = 0.3
_LARGER = (3.0, 30.0, 300.0)
_LAST = 25


def print_causes(world: World) -> None:
    """Print the tables."""
    smaller = Smaller.of(world.sketches.projection, SIZE)
    sums = smaller.raw(world.probes)
    tables.heading("Causes", "query → rows", "probes", "damping", "AP", *(f"P@{k}" for k in KS), *_MORE)
    for objective in OBJECTIVES:
        query = smaller.raw(world.queries[objective])
        rows = smaller.normalised(world.gradients[objective])
        for name, damping, scores in _variants(world, sums, query, rows):
            tables.row(
                f"{objective} → {objective}", name, damping, *found(scores, world.wanted), *_more(scores, world)
            )
    _print_spectrum(world, sums)


_MORE = (f"poisoned among the last {_LAST}", "AP by size of score")


def _more(scores: Array, world: World) -> list[str]:
    last = np.mean([world.wanted[np.argsort(of_query, kind="stable")[:_LAST]].mean() for of_query in scores])
    return [f"{last:.3f}", found(np.abs(scores), world.wanted)[0]]


def _variants(world: World, sums: Array, query: Array, rows: Array) -> Iterator[tuple[str, str, Array]]:
    """Score rows with parts of the probes and with larger dampings: name, damping, and scores [q, n]."""
    yield "none", "", query @ rows.T
    drawn_from = np.tile(world.wanted, world.draws)
    for name, chosen in {
        "all": np.ones(len(sums), bool),
        "clean rows'": ~drawn_from,
        "poisoned rows'": drawn_from,
    }.items():
        probes = Probes.of(sums[chosen], world.probe_targets[chosen])
        for damping in (_DAMPING, *_LARGER) if name == "all" else (_DAMPING,):
            yield name, f"{damping:g}", probes.damped(damping).corrected(query) @ rows.T
    probes = Probes.of(sums, world.probe_targets)
    yield "all but the row's own", f"{_DAMPING:g}", without_own(probes, query, rows)


def without_own(probes: Probes, query: Array, rows: Array) -> Array:
    """Score each row with the probes that were not drawn from it, by the inverse of a matrix without some rows.

    With the inverse A = (ΨΨᵀ + λI)⁻¹ and its part A_oo of the row's own probes o, the inverse without them is
    A − A_{·o} A_oo⁻¹ A_{o·}.
    """
    gram = probes.gram.astype(np.float64)
    scale = _DAMPING * mean_eigenvalue(torch.from_numpy(gram))
    inverse = np.linalg.inv(gram + scale * np.eye(len(gram)))
    of_rows = (probes.vectors @ rows.T).astype(np.float64)
    of_query = (probes.vectors @ query.T).astype(np.float64)
    scores = (query @ rows.T).astype(np.float64)
    for row in range(len(rows)):
        own = np.arange(row, len(gram), len(rows))
        part = inverse - inverse[:, own] @ np.linalg.solve(inverse[np.ix_(own, own)], inverse[own])
        scores[:, row] -= of_query.T @ (part @ of_rows[:, row])
    return scores.astype(np.float32)


def _print_spectrum(world: World, sums: Array) -> None:
    """Print what damping is compared with, and how evenly the tensors share the probes' squares."""
    gram = Probes.of(sums, world.probe_targets).gram.astype(np.float64)
    values = np.linalg.eigvalsh(gram)
    unit = mean_eigenvalue(torch.from_numpy(gram))
    projection = world.sketches.projection
    squares: NDArray[np.float64] = np.stack(
        [
            np.square(world.probes[:, projection.share(position)].astype(np.float64)).sum(axis=1)
            for position in range(len(projection.tensors))
        ],
        axis=1,
    )
    effective = float((squares.sum(axis=1) ** 2 / np.square(squares).sum(axis=1)).mean())
    print(
        f"\nA damping of 1 is {unit:.3g}; the eigenvalues of ΨΨᵀ are {values[0]:.3g}, {np.median(values):.3g} and "
        f"{values[-1]:.3g} (smallest, median, largest). The squares of a probe are spread over {effective:.0f} of "
        f"{squares.shape[1]} tensors.",
        flush=True,
    )
