"""How build time, size, latency and recall of every way of searching change with the number of samples."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from benchmarks import tables
from benchmarks.retrieval_world import World, make_store
from rapidin.settings.choices import Bits, IndexChoice
from rapidin.storage import Store

_COUNTS = {1: 20, 16: 5, 256: 3}
"""Queries at once, and how often they are timed."""
_FLAT_BYTES = 4 * 2**30
"""The most memory that plain float32 rows may take here."""
_FILES = 2048
"""The most samples that are also kept as one file each, as the authors' code does."""

Search = Callable[[np.ndarray, int], list[list[str]]]
"""Ids of the k best for each query."""


def growth_table(sizes: list[int], dimension: int, likeness: float, work: Path) -> None:
    """Print a row for every number of samples and way of searching.

    Args:
        sizes: numbers of samples.
        dimension: K.
        likeness: cosine within the planted clusters; 0 for none.
        work: directory for stores.
    """
    tables.heading(
        f"K = {dimension:,}, clusters with a mean cosine of {likeness}: recall against exact search with 16 bits",
        *("samples", "way", "build, s", "bytes a sample", "1 query, ms: median", "95 %"),
        *("16 queries, ms", "256 queries, ms", "recall@10", "recall@100"),
    )
    for rows in sizes:
        _of_size(World(rows, dimension, likeness), work)


def _of_size(world: World, work: Path) -> None:
    queries = world.queries(max(_COUNTS))
    truth: list[list[str]] | None = None
    every: tuple[Bits, ...] = (16, 4, 1)
    for bits in every:
        path = work / f"{world.rows}-{bits}"
        seconds = make_store(world, bits, path)
        with Store.open(path) as store:
            size = store.info().bytes_vectors
            truth = truth or _stored(store, "exact")(queries, 100)
            _row(world, f"exact, {bits} bits", seconds, size, _stored(store, "exact"), queries, truth)
            kinds: tuple[IndexChoice, ...] = ("ivf", "rabitq") if bits == 16 else ()
            for kind in kinds:
                if kind == "exact" or kind == "auto":
                    continue
                report = store.build_index(kind)
                way = f"{kind}, 16 bits"
                if "nprobe" in report.parameters:
                    way += f", {report.parameters['nprobe']} of {report.parameters['nlist']} lists"
                _row(world, way, report.seconds, size + report.bytes, _stored(store, kind), queries, truth)
        shutil.rmtree(path)
    _plain(world, queries, truth or [])
    if world.rows <= _FILES:
        _files(world, queries, truth or [], work / "files")


def _stored(store: Store, way: IndexChoice) -> Search:
    def search(queries: np.ndarray, k: int) -> list[list[str]]:
        with store.snapshot() as snapshot:
            found = snapshot.search(queries, k, index=way).largest
        return [[hit.id for hit in hits] for hits in found]

    return search


def _plain(world: World, queries: np.ndarray, truth: list[list[str]]) -> None:
    """FAISS and torch without a store, where memory allows."""
    if 4 * world.rows * world.dimension > _FLAT_BYTES:
        return
    dense = np.concatenate(list(world.pieces()))
    fp16 = faiss.ScalarQuantizer.QT_fp16
    for name, index in (
        ("FAISS IndexFlatIP", faiss.IndexFlatIP(world.dimension)),
        (
            "FAISS IndexScalarQuantizer, fp16",
            faiss.IndexScalarQuantizer(world.dimension, fp16, faiss.METRIC_INNER_PRODUCT),
        ),
    ):
        started = time.perf_counter()
        index.add(dense)
        seconds = time.perf_counter() - started

        def search(some: np.ndarray, k: int, index: object = index) -> list[list[str]]:
            return [[f"{row:08}" for row in rows] for rows in index.search(some, min(k, world.rows))[1]]  # type: ignore[attr-defined]

        _row(world, name, seconds, index.sa_code_size() * world.rows, search, queries, truth)
    tensor = torch.from_numpy(dense)

    def by_torch(some: np.ndarray, k: int) -> list[list[str]]:
        best = (torch.from_numpy(some) @ tensor.T).topk(min(k, world.rows)).indices
        return [[f"{row:08}" for row in rows] for rows in best.tolist()]

    _row(world, "torch, float32", 0.0, dense.nbytes, by_torch, queries, truth)


def _files(world: World, queries: np.ndarray, truth: list[list[str]], work: Path) -> None:
    """One file for each sample, all read for a search, as the authors' code does."""
    work.mkdir()
    started = time.perf_counter()
    for number, vector in enumerate(vector for piece in world.pieces() for vector in piece):
        torch.save(torch.from_numpy(vector).half(), work / f"{number:08}.pt")
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in work.iterdir())

    def search(some: np.ndarray, k: int) -> list[list[str]]:
        wanted = torch.from_numpy(some)
        files = sorted(work.iterdir())
        scores = torch.stack([wanted @ torch.load(file, weights_only=True).float() for file in files], dim=1)
        return [[files[row].stem for row in rows] for rows in scores.topk(min(k, len(files))).indices.tolist()]

    _row(world, "one file a sample", seconds, size, search, queries, truth)
    shutil.rmtree(work)


def _row(
    world: World, way: str, seconds: float, size: int, search: Search, queries: np.ndarray, truth: list[list[str]]
) -> None:
    times: dict[int, list[float]] = {}
    for count, repeats in _COUNTS.items():
        search(queries[:count], 10)
        times[count] = []
        for repeat in range(repeats):
            some = queries[:count] if count > 1 else queries[repeat : repeat + 1]
            started = time.perf_counter()
            search(some, 10)
            times[count].append(1000 * (time.perf_counter() - started))
    found = search(queries, 100)
    recalls = [
        np.mean([len({*mine[:k]} & {*best[:k]}) / len(best[:k]) for mine, best in zip(found, truth, strict=True)])
        for k in (10, 100)
    ]
    tables.row(
        f"{world.rows:,}",
        way,
        f"{seconds:.1f}",
        f"{size / world.rows:,.0f}",
        f"{statistics.median(times[1]):.1f}",
        f"{np.quantile(times[1], 0.95):.1f}",
        f"{statistics.median(times[16]):.0f}",
        f"{statistics.median(times[256]):.0f}",
        *(f"{recall:.3f}" for recall in recalls),
    )
