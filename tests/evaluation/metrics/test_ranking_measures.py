"""Measures against slow oracles and by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from rapidin.evaluation.experiments.method_comparison import curve_ks, fitting, pays_from
from rapidin.evaluation.metrics.intervals import Bootstrap
from rapidin.evaluation.metrics.ranking_measures import (
    average_precision,
    correlation,
    ends_measures,
    overlap,
    precision,
    ranking,
    reciprocal_rank,
    tie_order,
)

RANKINGS = st.lists(st.booleans(), min_size=4, max_size=40).map(lambda row: np.array(row, dtype=bool))


def slow_average_precision(ranked: list[bool]) -> float:
    """Mean over relevant samples of the precision at their rank."""
    found = [sum(ranked[: place + 1]) / (place + 1) for place, hit in enumerate(ranked) if hit]
    return sum(found) / len(found) if found else 0.0


def slow_auroc(ranked: list[bool]) -> float:
    """Share of pairs of a relevant and another sample in which the relevant one is first."""
    pairs = [(a, b) for a, x in enumerate(ranked) for b, y in enumerate(ranked) if x and not y]
    return sum(a < b for a, b in pairs) / len(pairs)


@given(RANKINGS, st.data())
def test_the_measures_of_both_ends(ranked: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(ranked) // 2))
    chosen = [*ranked[:k].tolist(), *ranked[len(ranked) - k :].tolist()]
    found = ends_measures(ranked, k)
    if not any(chosen):
        assert (found.auprc, found.auroc) == (0, 0)
    elif all(chosen):
        assert (found.auprc, found.auroc) == (1, 0.5)
    else:
        assert found.auprc == pytest.approx(slow_average_precision(chosen))
        assert found.auroc == pytest.approx(slow_auroc(chosen))


@given(RANKINGS)
def test_the_measures_of_a_whole_ranking(ranked: np.ndarray) -> None:
    assert average_precision(ranked) == pytest.approx(slow_average_precision(ranked.tolist()))
    first = next((1 / rank for rank, hit in enumerate(ranked.tolist(), 1) if hit), 0)
    assert reciprocal_rank(ranked) == first
    for k in range(1, len(ranked) + 1):
        assert precision(ranked, k) == pytest.approx(sum(ranked[:k].tolist()) / k)


def test_ends_by_scikit_learn_where_no_scores_are_equal() -> None:
    random = np.random.default_rng(0)
    scores, relevant = random.normal(size=60), random.random(60) < 0.3
    order = ranking(scores, tie_order([str(n) for n in range(60)]))
    ends = np.concatenate([order[:20], order[-20:]])
    found = ends_measures(relevant[order], 20)
    assert found.auprc == pytest.approx(average_precision_score(relevant[ends], scores[ends]))
    assert found.auroc == pytest.approx(roc_auc_score(relevant[ends], scores[ends]))


@pytest.mark.parametrize("k", [0, 3])
def test_ends_that_would_overlap_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="of 4 samples"):
        ends_measures(np.array([True, False, True, False]), k)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=30), st.randoms(use_true_random=False))
def test_equal_scores_are_ordered_alike_however_samples_are_stored(values: list[int], random: object) -> None:
    ids = [f"sample-{number}" for number in range(len(values))]
    moved = list(range(len(values)))
    random.shuffle(moved)  # type: ignore[attr-defined]
    scores = np.array(values, dtype=np.float32)
    order = [ids[place] for place in ranking(scores, tie_order(ids))]
    other_ids = [ids[place] for place in moved]
    assert [other_ids[place] for place in ranking(scores[moved], tie_order(other_ids))] == order
    assert all(values[ids.index(a)] >= values[ids.index(b)] for a, b in pairwise(order))


def test_ties_favour_nothing() -> None:
    """With all scores equal, precision is the share of relevant samples, whichever these are."""
    ids = [f"train-{number:05}" for number in range(4000)]
    order = ranking(np.zeros(4000, dtype=np.float32), tie_order(ids))
    assert precision((np.arange(4000) < 400)[order], 1000) == pytest.approx(0.1, abs=0.03)
    assert tie_order(ids, seed=1).tolist() != tie_order(ids).tolist()


def test_correlations_and_overlaps() -> None:
    random = np.random.default_rng(1)
    first = random.integers(0, 10, 50).astype(np.float32)
    second = first + random.normal(size=50).astype(np.float32)
    assert correlation(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
    assert correlation(first, second, ranks=True) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert correlation(first, np.ones(50)) == 0
    ties = tie_order([str(n) for n in range(50)])
    assert overlap(second, second, ties, 7) == 1
    assert overlap(second, -second, ties, 25) == 0
    best = set(np.argsort(-second)[:5].tolist()) & set(ranking(first, ties)[:5].tolist())
    assert overlap(first, second, ties, 5) == len(best) / 5


def test_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(2).gamma(2, size=40)
    found = Bootstrap(40).mean(values)
    wanted = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=3).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(wanted.low, abs=0.05)
    assert found.high == pytest.approx(wanted.high, abs=0.05)
    assert Bootstrap(40).mean(values) == found


def test_intervals_of_few_queries() -> None:
    alone = Bootstrap(1).mean(np.array([0.25]))
    assert (alone.mean, alone.low, alone.high) == (0.25, None, None)
    same = Bootstrap(5).mean(np.full(5, 0.5))
    assert (same.mean, same.low, same.high) == pytest.approx((0.5, 0.5, 0.5))


@given(st.floats(0, 1e5), st.floats(1e-3, 1e3))
def test_caching_pays_from_the_first_query_that_saves_time(before: float, each: float) -> None:
    count = pays_from(before, each)
    assert count is not None
    assert count * each > before * (1 - 1e-9)
    assert count == 1 or (count - 1) * each <= before * (1 + 1e-9)


def test_numbers_that_are_looked_at() -> None:
    assert pays_from(10, 0) is None
    assert pays_from(-5, 1) == 1
    assert fitting((1000, 5, 10, 5), 10) == (5, 10)
    assert fitting((5,), 3) == (3,)
    ks = curve_ks(1000)
    assert (ks[0], ks[-1]) == (1, 1000)
    assert ks == sorted(set(ks))
