"""The correction of queries against dense algebra, and a damping that does not depend on the number of probes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rapidin.attribution.curvature import query_correction
from rapidin.attribution.curvature.query_correction import QueryCorrection, mean_eigenvalue
from rapidin.errors import ComputationError
from rapidin.settings import Objective


def probes(count: int, dimension: int = 96, seed: int = 0) -> np.ndarray:
    """Probes of a curvature whose eigenvalues fall off, each divided by the root of their number."""
    generator = np.random.default_rng(seed)
    deviations = 1 / np.sqrt(1 + np.arange(dimension))
    return (generator.standard_normal((count, dimension)) * deviations / np.sqrt(count)).astype(np.float32)


class Rows:
    """Probes that count how often they were asked for."""

    version = "of the test"

    def __init__(self, rows: np.ndarray, damping: float = 0.1, gram: np.ndarray | None = None) -> None:
        self.rows = rows
        self.dampings = {"loss": damping, "log-odds": 5 * damping}
        self.gram = rows @ rows.T if gram is None else gram
        self.asked = 0

    def __len__(self) -> int:
        return len(self.rows)

    def damping_of(self, objective: str) -> float:
        return self.dampings[objective]

    def decoded(self, first: int, last: int) -> np.ndarray:
        self.asked += 1
        return self.rows[first:last]


def correction(rows: np.ndarray, damping: float) -> QueryCorrection:
    return QueryCorrection(Rows(rows, damping))


@pytest.mark.parametrize(("count", "damping"), [(1, 0.3), (40, 0.01), (40, 1.0), (300, 0.1)])
@pytest.mark.parametrize("objective", ["loss", "log-odds"])
def test_a_corrected_query_solves_the_damped_system(
    count: int, damping: float, objective: Objective, monkeypatch
) -> None:
    monkeypatch.setattr(query_correction, "_DECODED_BYTES", 4 * 96 * 7)  # seven probes at a time
    rows = probes(count)
    queries = np.random.default_rng(1).standard_normal((5, 96)).astype(np.float32)
    made = correction(rows, damping)
    exact = rows.astype(np.float64)
    (given,) = made.dampings(objective)
    assert given == pytest.approx((5 if objective == "log-odds" else 1) * made.dampings("loss")[0])
    system = exact.T @ exact + given * np.eye(96)
    solved = np.linalg.solve(system, given * queries.T.astype(np.float64))
    np.testing.assert_allclose(made.corrected(queries, objective), solved.T, rtol=0, atol=2e-5)


def test_corrections_of_parts_add_up_to_that_of_the_whole() -> None:
    made = correction(probes(50), 0.1)
    parts = np.random.default_rng(2).standard_normal((4, 96)).astype(np.float32)
    whole = made.corrected(parts.sum(axis=0, keepdims=True), "loss")[0]
    np.testing.assert_allclose(made.corrected(parts, "loss").sum(axis=0), whole, atol=1e-5)


def test_the_damping_does_not_depend_on_the_number_of_probes() -> None:
    eigenvalues = 1 / (1 + np.arange(96))
    true = np.square(eigenvalues).sum() / eigenvalues.sum()
    for count in (100, 400, 1_600):
        found = [mean_eigenvalue(torch.from_numpy(gram(probes(count, seed=seed)))) for seed in range(8)]
        assert np.mean(found) == pytest.approx(true, rel=0.1)


def test_few_or_unrelated_probes_still_have_a_damping() -> None:
    assert mean_eigenvalue(torch.tensor([[4.0]], dtype=torch.float64)) == 4.0
    assert mean_eigenvalue(torch.diag(torch.tensor([2.0, 4.0], dtype=torch.float64))) == 3.0


def test_inner_products_of_no_vectors_are_refused() -> None:
    rows = probes(3)
    broken = np.array([[1, 2, 0], [2, 1, 0], [0, 0, 1]], np.float32)
    with pytest.raises(ComputationError, match="compute them again"):
        QueryCorrection(Rows(rows, 1e-3, broken)).corrected(rows[:1], "loss")


@pytest.mark.parametrize(("kept", "again"), [(2**30, False), (0, True)])
def test_decoded_probes_are_kept_if_there_is_room(kept: int, again: bool, monkeypatch) -> None:
    monkeypatch.setattr(query_correction, "_KEPT_BYTES", kept)
    rows = Rows(probes(50))
    made = QueryCorrection(rows)
    query = np.ones((1, 96), np.float32)
    first = made.corrected(query, "loss")
    before = rows.asked
    np.testing.assert_array_equal(made.corrected(query, "loss"), first)
    assert (rows.asked > before) is again


def gram(rows: np.ndarray) -> np.ndarray:
    exact = rows.astype(np.float64)
    return exact @ exact.T
