"""The projection alone: what it costs against plain memory traffic, and how its noise compares with theory.

    python -m benchmarks.projection

First table: time for each coordinate of each sample, as a ratio to reading and writing it once (a copy) in the
same run, for several K and batch sizes. Second table: variance of the estimated inner product over seeds, as a
ratio to theory (fixed-size-bin count sketch), for gradients of several structures.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from rapidin.attribution.projections import ShuffledProjection as Projection
from rapidin.settings.store_settings import ProjectionSettings

COORDINATES = 1 << 20
ROWS, COLUMNS = 64, 512


def main() -> None:
    """Print both tables."""
    print(f"{torch.get_num_threads()} threads, {COORDINATES:,} coordinates a sample\n")
    print("| K | batch | copy, ns | places, ns (once a batch) | add, ns | add : copy |")
    print("|---|---|---|---|---|---|")
    for dimension in (1 << 12, 1 << 16, 1 << 20):
        for batch in (1, 8, 32):
            print(_cost(dimension, batch))
    print("\n| gradient | variance : theory, K = 1,024, 400 seeds × 8 pairs |\n|---|---|")
    for name, heavy in _structures().items():
        print(f"| {name} | {_variance_ratio(heavy):.3f} |")


def _cost(dimension: int, batch: int) -> str:
    projection = Projection(ProjectionSettings(dimension=dimension), [(1, max(COORDINATES, dimension))])
    part = projection.tensors[0].part
    chunks = torch.arange(COORDINATES // part.chunk)
    values = torch.randn(batch, len(chunks), part.chunk)
    target = torch.empty_like(values)
    sketch = projection.new_sketch(batch, "cpu")
    copy = _median(lambda: target.copy_(values)) / values.numel()
    places = _median(lambda: part.places(chunks)) / COORDINATES
    add = _median(lambda: part.add(sketch, chunks, values)) / values.numel()
    return f"| {dimension} | {batch} | {copy:.2f} | {places:.2f} | {add:.2f} | {add / copy:.1f} |"


def _median(function: Callable[[], object], runs: int = 5) -> float:
    """Nanoseconds of one call, the median of several after a first."""
    function()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[runs // 2] * 1e9


def _structures() -> dict[str, torch.Tensor]:
    """How heavy each entry of a 64 × 512 gradient is."""
    row, column, channels = (torch.ones(ROWS, COLUMNS) for _ in range(3))
    row[17] = 100
    column[:, 41] = 100
    channels[:, [3, 64, 65, 300, 511]] = 50
    return {
        "Gaussian": torch.ones(ROWS, COLUMNS),
        "one heavy row": row,
        "one heavy column": column,
        "few huge channels": channels,
    }


def _variance_ratio(heavy: torch.Tensor, dimension: int = 1024, seeds: int = 400, pairs: int = 8) -> float:
    generator = torch.Generator().manual_seed(4)
    u, v = (torch.randn(2, pairs, ROWS, COLUMNS, generator=generator) * heavy).flatten(2).double()
    u, v = u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)
    both = torch.cat([u, v]).float()
    estimates = torch.empty(seeds, pairs, dtype=torch.float64)
    for seed in range(seeds):
        projection = Projection(ProjectionSettings(dimension=dimension, seed=seed), [(ROWS, COLUMNS)])
        part = projection.tensors[0].part
        sketch = projection.new_sketch(len(both), "cpu")
        chunked = both.clone().view(len(both), -1, part.chunk)
        part.add(sketch, torch.arange(chunked.shape[1]), chunked)
        one, other = projection.finish(sketch).double().split(pairs)
        estimates[seed] = (one * other).sum(dim=1)
    fixed_bins = (u.shape[1] - dimension) / (u.shape[1] - 1)
    exact = (u * v).sum(dim=1)
    theory = fixed_bins * (1 + exact**2 - 2 * (u**2 * v**2).sum(dim=1)) / dimension
    return float((estimates.var(dim=0) / theory).mean())


if __name__ == "__main__":
    main()
