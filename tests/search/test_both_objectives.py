"""Stores whose rows have two objectives answer each question as a store of that objective does with half of K."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rapidin
from rapidin.records import SearchResult
from rapidin.settings import Objective

QUESTION = ("Name the colour.", "It is blue 99, and not red.")
OBJECTIVES: tuple[Objective, ...] = ("loss", "log-odds")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data: Path) -> dict[str, Path]:
    """Stores of both objectives with 1,024 numbers, and of each with 512; the curvature is that of 60 probes."""
    found = {}
    for objective, dimension in (("both", 1024), ("loss", 512), ("log-odds", 512)):
        path = tmp_path_factory.mktemp("objectives") / objective
        rapidin.ingest_files(
            path,
            [data],
            model=str(model_directory),
            projection_dim=dimension,
            bits=16,
            objective=objective,
            probes=60,
        )
        found[objective] = path
    return found


def vectors(path: Path) -> np.ndarray:
    """Return all stored vectors, float32 [n, K], by ascending id."""
    with rapidin.Store.open(path) as store, store.snapshot() as snapshot:
        _, products = snapshot.scores(np.eye(store.settings.projection.dimension, dtype=np.float32))
    return products.T


def test_a_row_is_the_rows_of_both_objectives_divided_by_the_root_of_two(stores: dict[str, Path]) -> None:
    both = vectors(stores["both"])
    assert both.shape[1] == 1024
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=0.1)
    parts = np.concatenate([vectors(stores[objective]) for objective in OBJECTIVES], axis=1)
    np.testing.assert_allclose(both * np.sqrt(2), parts, atol=2e-3 * np.abs(parts).max())


def test_probes_are_those_of_either_objective(stores: dict[str, Path]) -> None:
    found = []
    for path in stores.values():
        with rapidin.Store.open(path) as store, store.snapshot() as snapshot:
            kept = snapshot.curvature()
            found.append(kept.decoded(0, len(kept)))
    assert found[0].shape == (60, 512)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("measure", ["influence", "cosine"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("spans", [(), ("blue",)])
def test_each_question_is_answered_as_by_a_store_of_its_objective(
    stores: dict[str, Path], objective: Objective, measure: str, spans: tuple[str, ...]
) -> None:
    options = {
        "k": 60,
        "rerank": 60,
        "by_token": True,
        "matrices": True,
        "opponents": True,
        "measure": measure,
        "spans": spans,
    }
    with rapidin.Searcher(stores["both"]) as both, rapidin.Searcher(stores[objective]) as one:
        found = both.search(*QUESTION, objective=objective, **options)
        expected = one.search(*QUESTION, **options)
    assert (found.objective, found.measure) == (objective, expected.measure)
    same(found, expected)


def same(found: SearchResult, expected: SearchResult) -> None:
    """Compare two results, whose stored numbers may have been rounded in two ways."""
    size = max(abs(hit.estimate) for hit in expected.proponents)
    mine = {hit.id: hit for hit in found.proponents}
    for hit in expected.proponents:
        own = mine[hit.id]
        assert own.estimate == pytest.approx(hit.estimate, abs=2e-3 * size)
        assert own.exact == pytest.approx(hit.exact, rel=1e-4, abs=1e-6 * size)
        largest = max(abs(token.influence) for token in hit.token_influences)
        for one, other in zip(own.token_influences, hit.token_influences, strict=True):
            assert one.influence == pytest.approx(other.influence, abs=1e-4 * largest)
        np.testing.assert_allclose(own.matrix, hit.matrix, atol=1e-4 * np.abs(hit.matrix).max())
    for one, other in zip(found.by_token, expected.by_token, strict=True):
        scores = {hit.id: hit.estimate for hit in one.proponents}
        most = max(abs(hit.estimate) for hit in other.proponents)
        for hit in other.proponents:
            assert scores[hit.id] == pytest.approx(hit.estimate, abs=3e-3 * most)


def test_the_loss_is_asked_about_unless_another_objective_is_given(stores: dict[str, Path]) -> None:
    with rapidin.Searcher(stores["both"]) as searcher:
        result = searcher.search(*QUESTION, k=3)
        other = searcher.search(*QUESTION, k=3, objective="log-odds")
    assert (result.objective, other.objective) == ("loss", "log-odds")
    assert result.curvature == other.curvature
    assert [hit.score for hit in result.proponents] != [hit.score for hit in other.proponents]


def test_both_share_the_smallest_dimension(tmp_path: Path, model_directory: Path, data: Path) -> None:
    path = tmp_path / "store"
    rapidin.ingest_files(path, [data], model=str(model_directory), projection_dim=64)
    with rapidin.Searcher(path) as searcher:
        scores = {
            objective: searcher.search(*QUESTION, k=3, objective=objective).proponents[0].score
            for objective in ("loss", "log-odds")
        }
    assert scores["loss"] != scores["log-odds"]
