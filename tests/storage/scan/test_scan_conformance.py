"""What every scan has to keep to, against NumPy: its order is score, then id, whatever is compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rapidin.errors import StoreCorruptError
from rapidin.storage.scan import Best, CpuScan, GpuScan, Scan, gpu_scan
from rapidin.storage.vectors import CODECS, Codec, Rows, Segment, SegmentSource, open_segment, segment_writing
from tests.storage.scan.test_gpu_scan import nearest
from tests.storage.stores import random_vectors

K = 128
SIZES = (17, 1, 40)
"""Rows of three segments, whose codecs differ."""


@pytest.fixture(params=["CPU", "GPU"])
def scan(request, monkeypatch) -> Scan:
    if request.param == "CPU":
        return CpuScan()
    import faiss

    monkeypatch.setattr(gpu_scan, "_nearest", nearest)
    monkeypatch.setattr(faiss, "StandardGpuResources", SimpleNamespace, raising=False)
    return GpuScan(["cpu", "cpu:0"], CpuScan())


@pytest.fixture(params=[("fp16",) * 3, tuple(CODECS)], ids=["one codec", "several codecs"])
def stored(request, tmp_path: Path) -> tuple[Rows, SegmentSource, np.ndarray]:
    """Rows in a mixed order, their segments, and the vectors [n, K] that these hold, in the order of the rows."""
    segments: dict[int, Segment] = {}
    parts = []
    order = np.random.default_rng(0)
    for number, (name, size) in enumerate(zip(request.param, SIZES, strict=True), start=1):
        codec: Codec = CODECS[name]
        vectors = order.integers(-3, 4, (size, K)).astype(np.float32)
        vectors[size // 2 :] = vectors[0]  # twins, so that ids decide
        vectors[:, 0] = 1  # none is zero
        (tmp_path / "segments").mkdir(exist_ok=True)
        index, scales = segment_writing.coded(codec, vectors, np.ones(size, np.float32))
        record = segment_writing.write_segment(tmp_path, index, codec)
        segments[number] = open_segment(tmp_path, record, K)
        decoded = codec.turned_back(index.sa_decode(segments[number].codes)) * scales[:, None]
        parts.append((np.full(size, number), np.arange(size), scales, decoded))
    numbers, positions, scales, vectors = (np.concatenate(part) for part in zip(*parts, strict=True))
    mixed = order.permutation(len(numbers))
    rows = Rows(np.arange(len(mixed)), numbers[mixed], positions[mixed], scales[mixed])

    def source(segment_id: int) -> Segment:
        if segment_id not in segments:
            raise StoreCorruptError(f"no segment {segment_id}")
        return segments[segment_id]

    return rows, source, vectors[mixed]


def check(best: Best, truth: np.ndarray, k: int, tolerance: float) -> None:
    """The scores are the k best of the true ones; where scores are equal, indexes ascend."""
    width = min(k, truth.shape[1])
    assert best.scores.shape == best.indexes.shape == (len(truth), width)
    for scores, indexes, of_query in zip(best.scores, best.indexes, truth, strict=True):
        assert len(set(indexes.tolist())) == width
        np.testing.assert_allclose(scores, of_query[indexes], atol=tolerance)
        np.testing.assert_allclose(scores, np.sort(of_query)[::-1][:width], atol=tolerance)
        assert list(zip(-scores, indexes, strict=True)) == sorted(zip(-scores, indexes, strict=True))


@pytest.mark.parametrize("queries", [1, 3, 20])
@pytest.mark.parametrize("k", [1, 5, 58, 100])
@pytest.mark.parametrize("chosen", [lambda n: np.arange(n), lambda n: np.arange(1, n, 3), lambda _: np.arange(0)])
def test_the_best_at_both_ends_are_those_of_numpy(
    scan: Scan, stored, queries: int, k: int, chosen: Callable[[int], np.ndarray]
) -> None:
    rows, segments, vectors = stored
    picked = chosen(len(rows))
    wanted = random_vectors(queries, seed=1, dimension=K)
    truth = wanted @ vectors[picked].T
    tolerance = 0.01 * np.linalg.norm(wanted, axis=1).max() * np.linalg.norm(vectors, axis=1).max() / np.sqrt(K)
    tolerance *= 12 if any(segments(number).codec.bits == 1 for number in (1, 2, 3)) else 1
    ends = scan.best(wanted, k, rows.chosen(picked), segments, both=True)
    check(ends.largest, truth, k, tolerance)
    assert ends.smallest is not None
    check(ends.smallest, -truth, k, tolerance)
    assert scan.best(wanted, k, rows.chosen(picked), segments).smallest is None


def test_rows_of_equal_scores_come_by_ascending_id(scan: Scan, stored) -> None:
    rows, segments, vectors = stored
    twins = np.flatnonzero((vectors == vectors[np.flatnonzero(rows.segments == 3)[0]]).all(axis=1))
    ends = scan.best(vectors[twins[:1]], 100, rows.chosen(twins), segments, both=True)
    expected = np.arange(len(twins))
    assert len(twins) > 5 and len(set(ends.largest.scores[0].tolist())) == 1
    np.testing.assert_array_equal(ends.largest.indexes[0], expected)
    assert ends.smallest is not None
    np.testing.assert_array_equal(ends.smallest.indexes[0], expected)


@pytest.mark.parametrize("queries", [0, 1, 20])
def test_all_scores_are_those_of_numpy_and_of_the_search(scan: Scan, stored, queries: int) -> None:
    rows, segments, vectors = stored
    wanted = random_vectors(queries, seed=1, dimension=K)
    scores = scan.scores(wanted, rows, segments)
    assert scores.shape == (queries, len(rows)) and scores.dtype == np.float32
    spread = np.linalg.norm(vectors, axis=1) * np.sqrt(K) / np.sqrt(K)
    assert (np.abs(scores - wanted @ vectors.T) / spread).max(initial=0) < 0.1
    few = np.arange(2, len(rows), 5)
    np.testing.assert_array_equal(scan.scores(wanted, rows.chosen(few), segments), scores[:, few])


def test_an_unknown_segment_is_an_error(scan: Scan, stored) -> None:
    rows, segments, _ = stored
    lost = Rows(rows.keys, rows.segments + 9, rows.positions, rows.scales)
    with pytest.raises(StoreCorruptError, match="no segment"):
        scan.best(random_vectors(1, dimension=K), 3, lost, segments)
