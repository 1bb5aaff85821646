"""Mean and variance of the factored projection over the seeds, against theory."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidin.attribution.projections import FactoredProjection, TensorSketch, factored
from rapidin.settings.store_settings import ProjectionSettings
from tests.attribution.projections.test_factored_projection import dense

PAIRS = 8


def structured(kind: str, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pairs of gradients [pairs, r, c], float64, of norm one, that share their heavy part."""
    generator = torch.Generator().manual_seed(4)
    rows, columns = shape
    u, v = torch.randn(2, PAIRS, rows, columns, generator=generator)
    heavy = torch.ones(PAIRS, rows, columns)
    if kind == "one heavy row":
        heavy[:, rows // 3] = 100
    elif kind == "one heavy column":
        heavy[:, :, columns // 5] = 100
    elif kind == "few huge channels":
        heavy[:, :, [3, columns // 8, columns // 8 + 1, columns // 2, columns - 1]] = 50
    elif kind == "two heavy rows by two heavy columns":
        # As far apart as each other: laid out in order, opposite corners would always share a bucket.
        for pair in range(PAIRS):
            for row in (pair, 2 * pair + 1):
                for column in (2 * pair, 3 * pair + 1):
                    heavy[pair, row, column] = 100
    elif kind == "low rank":
        left, right = (
            torch.randn(PAIRS, rows, 1, generator=generator),
            torch.randn(PAIRS, 1, columns, generator=generator),
        )
        u, v = left * right, left * right + 0.1 * v
    u, v = (u * heavy).double(), (v * heavy).double()
    return u / u.norm(dim=(1, 2), keepdim=True), v / v.norm(dim=(1, 2), keepdim=True)


def chances(shape: tuple[int, int], length: int) -> tuple[NDArray[np.bool_], float, float]:
    """How places of a wide matrix differ over the seeds, whose rows are permuted and columns folded.

    Returns:
        [c, c], which columns lie in one slab (and so at a fixed distance; others at any alike); the probabilities
        that two rows have one bucket, and that they have any two given different ones.
    """
    rows, columns = shape
    slab = np.arange(columns) // length
    places = -(-rows // length)  # of each bucket
    others = places * length - 1
    return slab[:, None] == slab, (places - 1) / others, places / others


def theory(u: NDArray[np.float64], v: NDArray[np.float64], length: int) -> float:
    """The variance of ⟨Ru, Rv⟩ of one pair of r × c matrices, if hashes were ideal.

    The error is Σ u_ij v_kl s₁(i)s₁(k)s₂(j)s₂(l) over the pairs of different entries that share a bucket. The mean
    of its square is that of the products of two such terms whose signs cancel:

    * i ≠ k and j ≠ l: with itself, with the swapped (kl, ij), and, because signs are products, with (il, kj) and
      (kj, il); the latter two share a bucket at the same time only where twice the distance is a multiple of w;
    * i = k, j ≠ l: the sign and the meeting are those of the columns alone, so all rows' terms add up first;
    * i ≠ k, j = l: likewise.
    """
    if not (1 < u.shape[0] <= u.shape[1] or u.shape[1] == 1):
        u, v = u.T, v.T
    rows, columns = u.shape
    one_slab, rows_meet, rows_differ = chances((rows, columns), length)
    distance = np.abs(np.arange(columns)[:, None] - np.arange(columns))
    different = distance > 0
    even = length % 2 == 0
    meet = np.where(one_slab, rows_differ, 1 / length) * different
    both = np.where(one_slab, (2 * distance == length) * rows_differ, (rows_meet + even * rows_differ) / length)
    columns_meet = np.where(one_slab, 0, 1 / length)
    u2, v2, uv = u**2, v**2, u * v
    cross = u.T @ v
    entries = np.outer(u2.sum(axis=0), v2.sum(axis=0)) - u2.T @ v2
    entries += np.outer(uv.sum(axis=0), uv.sum(axis=0)) - uv.T @ uv
    exchanged = (u.T @ u) * (v.T @ v) - uv.T @ uv + cross**2 - u2.T @ v2
    total = (meet * entries).sum() + (both * different * exchanged).sum()
    total += (columns_meet * (cross**2 + cross * cross.T)).sum()
    across = u @ v.T
    np.fill_diagonal(across, 0)
    return float(total + rows_meet * (across**2 + across * across.T).sum())


def second_theory(u: NDArray[np.float64], v: NDArray[np.float64], inner: int, length: int) -> float:
    """The variance where the W numbers of a first sketch are sketched once more, bins of fixed size (OPORP)."""
    fixed_bins = (inner - length) / (inner - 1)
    return theory(u, v, inner) + fixed_bins * (1 + float((u * v).sum()) ** 2) / length


def errors(
    kind: str, shape: tuple[int, int], length: int, seeds: int, inner: int | None = None
) -> tuple[NDArray[np.float64], ...]:
    """Errors of ⟨Ru, Rv⟩ over the seeds [seeds, pairs], and their variance by theory, [pairs]."""
    u, v = structured(kind, shape)
    both = torch.cat([u, v]).float()
    found = torch.empty(seeds, PAIRS, dtype=torch.float64)
    for seed in range(seeds):
        settings = ProjectionSettings(kind="factored", dimension=1024, seed=seed)
        sketch = TensorSketch(settings, 0, shape, first=0, size=length, inner=inner or length, columns={})
        one, other = dense(sketch, both).double().split(PAIRS)
        found[seed] = (one * other).sum(dim=1)
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(u, v, strict=True)]
    if inner is None:
        expected = np.array([theory(*pair, length) for pair in pairs])
    else:
        expected = np.array([second_theory(*pair, inner, length) for pair in pairs])
    return (found - (u * v).sum(dim=(1, 2))).numpy(), expected


FULL_RANK = ["gaussian", "one heavy row", "one heavy column", "few huge channels"]
EACH_DIMENSION_FITS, SMALLER_ONE_FITS, NEITHER_FITS = (64, 512, 1024), (32, 200, 54), (100, 130, 45)


def transposed(case: tuple[int, int, int]) -> tuple[int, int, int]:
    return case[1], case[0], case[2]


CASES = [(kind, case) for kind in FULL_RANK for case in (EACH_DIMENSION_FITS, transposed(SMALLER_ONE_FITS))]
CASES += [("gaussian", case) for case in (NEITHER_FITS, (1, 300, 64), (300, 1, 64), (60, 60, 64))]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_unbiased_and_as_noisy_as_theory_says(kind: str, case: tuple[int, int, int]) -> None:
    seeds = 800
    found, expected = errors(kind, case[:2], case[2], seeds)
    assert (np.abs(found.mean(axis=0)) < 4 * np.sqrt(expected / seeds)).all()
    # The pairs' ratios have a standard error of 5 % each, their mean one of about 2 %.
    ratio = float((found.var(axis=0) / expected).mean())
    assert 0.9 < ratio < 1.1, ratio


@pytest.mark.slow
@pytest.mark.parametrize("case", [EACH_DIMENSION_FITS, (200, 40, 256), SMALLER_ONE_FITS, NEITHER_FITS], ids=str)
def test_low_rank_is_unbiased_and_within_the_bound(case: tuple[int, int, int]) -> None:
    seeds = 1600
    found, expected = errors("low rank", case[:2], case[2], seeds)
    assert (np.abs(found.mean(axis=0)) < 4 * np.sqrt(expected / seeds)).all()
    ratio = float((found.var(axis=0) / expected).mean())
    assert 0.9 < ratio < 1.1, ratio
    assert found.var(axis=0).mean() < 8 / case[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FULL_RANK, "low rank"])
def test_a_second_sketch_makes_little_more_noise_than_a_count_sketch(kind: str) -> None:
    """Where both dimensions are wider than w, but W = 4·w is not far from them."""
    seeds, shape, length = 1600, (90, 300), 64
    found, expected = errors(kind, shape, length, seeds, inner=4 * length)
    assert (np.abs(found.mean(axis=0)) < 4 * np.sqrt(expected / seeds)).all()
    ratio = float((found.var(axis=0) / expected).mean())
    assert 0.9 < ratio < 1.1, ratio
    u, v = structured(kind, shape)
    exact = (u * v).sum(dim=(1, 2)).numpy()
    assert (found.var(axis=0) * length / (1 + exact**2)).mean() < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("length", [64, 45])
def test_heavy_entries_at_equal_distances_meet_no_more_often_than_others(length: int) -> None:
    seeds = 4000
    found, expected = errors("two heavy rows by two heavy columns", (16, 40), length, seeds)
    assert (np.abs(found.mean(axis=0)) < 4 * np.sqrt(expected / seeds)).all()
    ratio = float((found.var(axis=0) / expected).mean())
    assert 0.85 < ratio < 1.15, ratio


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("gaussian", (64, 120)), ("gaussian", (64, 400)), ("low rank", (64, 120)), ("low rank", (64, 400))],
    ids=str,
)
def test_errors_of_tensors_with_the_same_columns(kind: str, shape: tuple[int, int]) -> None:
    """The same two gradients as those of two tensors: uncorrelated, whether their columns have one map or not."""
    seeds = 1600
    u, v = structured(kind, shape)
    both = torch.cat([u, v]).float()
    found = torch.empty(seeds, 2, PAIRS, dtype=torch.float64)
    for seed in range(seeds):
        settings = ProjectionSettings(kind="factored", dimension=256, seed=seed)
        for number, sketch in enumerate(FactoredProjection(settings, [shape, shape]).tensors):
            assert isinstance(sketch, TensorSketch)
            assert sketch.size == 128
            one, other = dense(sketch, both).double().split(PAIRS)
            found[seed, number] = (one * other).sum(dim=1)
    exact = (u * v).sum(dim=(1, 2))
    first, second = (found - exact).numpy().transpose(1, 0, 2)
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(u, v, strict=True)]
    inner = factored.inner_length(shape, 128)
    variance = np.array(
        [theory(*pair, 128) if inner == 128 else second_theory(*pair, inner, 128) for pair in pairs]
    )
    correlation = (first * second).mean(axis=0) / variance
    # Of one pair's correlation the standard error is 1/√seeds; pairs have errors of their own.
    assert abs(correlation).mean() < 4 / np.sqrt(seeds)
    assert abs(correlation.mean()) < 4 / np.sqrt(seeds * PAIRS)
