"""What the curvature costs: of an ingest, and of a search in a large store.

    python -m benchmarks.curvature_cost
    python -m benchmarks.curvature_cost --quick

*Ingest.* Two commands run in turns on the same rows: an ingest without curvature, and the curvature of its store.
Probes of two numbers are computed, so that what a probe costs is told apart from what the command costs. The time
of an ingest of many rows follows from these figures. *Search.* A store of many random rows gets a curvature of
the default number of probes. Queries are then answered by the cosine and by influence in turns, so that a ratio is
formed within a pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.workload import Sample, as_row, make_model, make_samples, save
from rapidin import Searcher, Store, compute_curvature, ingest_files
from rapidin.settings import MeasureChoice
from rapidin.storage import NewSample

_ROUNDS = 3
_PIECE = 512
"""Random rows that are made and committed at once."""
_QUERIES = 12
_MEASURES: tuple[MeasureChoice, ...] = ("cosine", "influence")
_DEFAULT_PROBES = 2000
"""Number of probes of a store of 500 rows or more."""


def main() -> None:
    """Measure both and print their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curvature_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the large store (default: %(default)s)")
    parser.add_argument(
        "--ingested", type=int, default=256, help="rows that are ingested in each round (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of everything (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="directory for the stores; 2 GB at the default number of rows")
    parser.add_argument("--quick", action="store_true", help="small stores: does it run? Its figures mean nothing")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    print(tables.machine(arguments.threads), flush=True)
    rows, ingested = (1000, 48) if arguments.quick else (arguments.rows, arguments.ingested)
    with tempfile.TemporaryDirectory(prefix="rapidin-curvature-", dir=arguments.work) as temporary:
        work = Path(temporary)
        model = work / "model"
        save(make_model("5 M"), model)
        samples = make_samples(ingested)
        data = work / "data.jsonl"
        data.write_text("".join(json.dumps(as_row(sample)) + "\n" for sample in samples))
        _ingest_table(work, model, data, ingested, rows)
        _search_table(work, model, data, samples, rows)


def _ingest_table(work: Path, model: Path, data: Path, ingested: int, rows: int) -> None:
    ratios: list[float] = []
    per_row: list[float] = []
    per_probe: list[float] = []
    for number in range(_ROUNDS):
        store = work / f"ingested-{number}"
        begun = time.perf_counter()
        ingest_files(store, [data], model=str(model), device="cpu", curvature=False)
        per_row.append((time.perf_counter() - begun) / ingested)
        seconds = []
        for probes in (ingested // 2, ingested + ingested // 2):  # the second command computes the missing probes
            begun = time.perf_counter()
            compute_curvature(store, probes=probes, device="cpu")
            seconds.append(time.perf_counter() - begun)
        # The first command computes half as many probes as the second, and their difference is that half.
        per_probe.append((seconds[1] - seconds[0]) / (ingested // 2))
        ratios.append(1 + _DEFAULT_PROBES * per_probe[-1] / (rows * per_row[-1]))
    tables.heading(
        f"Ingest of both objectives, a model of 5 M parameters, {ingested} rows, {_ROUNDS} rounds",
        *("", "median (range)"),
    )
    tables.row("milliseconds a row, without curvature", tables.median_and_range([1e3 * one for one in per_row], 1))
    tables.row("milliseconds a probe", tables.median_and_range([1e3 * one for one in per_probe], 1))
    tables.row("a probe : a row", tables.median_and_range(np.divide(per_probe, per_row).tolist()))
    tables.row(
        f"computed: {rows:,} rows with {_DEFAULT_PROBES:,} probes : without", tables.median_and_range(ratios, 3)
    )


def _search_table(work: Path, model: Path, data: Path, samples: Sequence[Sample], rows: int) -> None:
    path = work / "large"
    first = work / "first.jsonl"
    first.write_text("".join(data.read_text().splitlines(keepends=True)[:8]))
    ingest_files(path, [first], model=str(model), device="cpu", curvature=False)
    with Store.open(path) as store, store.writer() as writer:
        for start in range(0, rows, _PIECE):
            numbers = range(start, min(start + _PIECE, rows))
            vectors = np.random.default_rng(start).standard_normal(
                (len(numbers), store.settings.projection.dimension), dtype=np.float32
            )
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            writer.commit([_stored(number, samples[number % len(samples)]) for number in numbers], vectors)
    begun = time.perf_counter()
    compute_curvature(path, device="cpu")
    taken = time.perf_counter() - begun
    with Store.open(path) as store, store.snapshot() as snapshot:
        probes = len(snapshot.curvature())
    seconds: dict[tuple[str, int], list[float]] = {}
    with Searcher(path, device="cpu") as searcher:
        for rerank in (0, 10):
            for number, sample in enumerate(samples[: _QUERIES + 1]):
                row = as_row(sample)
                for measure in _MEASURES if number % 2 else reversed(_MEASURES):
                    begun = time.perf_counter()
                    searcher.search(row["prompt"], row["completion"], k=10, rerank=rerank, measure=measure)
                    if number:  # the first brings the files into memory
                        seconds.setdefault((measure, rerank), []).append(time.perf_counter() - begun)
    tables.heading(
        f"Search of {rows:,} rows, both objectives; {probes:,} probes, computed in {taken:.0f} s; "
        f"medians (ranges) of {_QUERIES} queries",
        *("exactly reordered", "cosine, s", "influence, s", "influence : cosine"),
    )
    for rerank in (0, 10):
        cosine, influence = (seconds[measure, rerank] for measure in _MEASURES)
        tables.row(
            rerank,
            tables.median_and_range(cosine),
            tables.median_and_range(influence),
            f"{statistics.median(np.divide(influence, cosine)):.2f}",
        )


def _stored(number: int, sample: Sample) -> NewSample:
    row = as_row(sample)
    return NewSample(
        id=f"random-{number:08}",
        prompt=row["prompt"],
        response=row["completion"],
        metadata={},
        file="random.jsonl",
        row=number + 1,
        tokens=len(sample.ids),
        targets=sum(sample.targets),
        truncated=False,
        content_hash=f"{number:032}",
    )


if __name__ == "__main__":
    main()
