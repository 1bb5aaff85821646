"""Search on GPUs, with FAISS's GPU functions stood in for by NumPy where there is no GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rapidin.settings.store_settings import CodecSettings
from rapidin.storage import Store
from rapidin.storage.scan import CpuScan, GpuScan, gpu_scan, scan_on
from tests.storage.stores import new_sample, random_vectors, store_settings

K = 256
calls: list[tuple[int, int]] = []


def nearest(resources, queries, vectors, k):
    """What `faiss.bfKnn` promises for tensors of half precision: both of one type, k at most 2,048."""
    assert queries.dtype == vectors.dtype == torch.float16 and k <= 2048 and k <= len(vectors)
    assert vectors.is_contiguous()
    calls.append((len(queries), len(vectors)))
    best = (queries.float() @ vectors.float().T).topk(k)
    return best.values, best.indices


@pytest.fixture
def stand_in(monkeypatch):
    import faiss

    calls.clear()
    monkeypatch.setattr(gpu_scan, "_nearest", nearest)
    monkeypatch.setattr(faiss, "StandardGpuResources", SimpleNamespace, raising=False)
    return GpuScan(["cpu", "cpu:0"], CpuScan())


@pytest.fixture(params=[16, 4, 1])
def store(request, tmp_path: Path):
    settings = store_settings(K).model_copy(update={"codec": CodecSettings(bits=request.param)})
    vectors = random_vectors(200, dimension=K)
    vectors[150] = vectors[20]
    with Store.create(tmp_path / "store", settings) as store:
        with store.writer() as writer:
            for start in range(0, 200, 50):
                samples = [new_sample(f"{row:03}", metadata={"i": row}) for row in range(start, start + 50)]
                norms = np.linalg.norm(vectors[start : start + 50], axis=1)
                writer.commit(samples, vectors[start : start + 50], norms)
        store.delete([f"{row:03}" for row in range(0, 200, 9)])
        yield store


@pytest.mark.parametrize("where", [(), ("i~[05]$",), ("i=21",), ("i=9999",)])
@pytest.mark.parametrize("queries", [1, 5])
def test_results_are_those_of_the_cpu(stand_in: GpuScan, store: Store, where, queries: int) -> None:
    wanted = random_vectors(queries, seed=1, dimension=K) * np.float32(1e5)
    with store.snapshot() as plain, store.snapshot(stand_in) as fast:
        for _ in range(2):  # the second time from what was kept
            for mine, truth in zip(
                fast.search_ends(wanted, 7, where).ends, plain.search_ends(wanted, 7, where).ends, strict=True
            ):
                for hits, best in zip(mine, truth, strict=True):
                    assert len(hits) == len(best)
                    np.testing.assert_allclose(
                        [hit.score for hit in hits], [hit.score for hit in best], rtol=4e-3, atol=1.2e5
                    )
    if where != ("i=9999",):
        assert calls
    if not where:
        assert len(stand_in._kept) == 4 and sum(rows for _, rows in calls) == 2 * 2 * store.count()


def test_twins_are_both_found(stand_in: GpuScan, store: Store) -> None:
    with store.snapshot(stand_in) as snapshot:
        hits = snapshot.search(random_vectors(200, dimension=K)[20:21], 2).largest[0]
    assert sorted(hit.id for hit in hits) == ["020", "150"]


def test_more_results_than_a_gpu_gives_come_from_the_cpu(stand_in: GpuScan, store: Store, monkeypatch) -> None:
    monkeypatch.setattr(gpu_scan, "MOST_RESULTS", 50)
    with store.snapshot(stand_in) as snapshot:
        assert len(snapshot.search(random_vectors(1, dimension=K), 60).largest[0]) == 60
    assert not calls


def test_what_does_not_fit_is_not_kept(stand_in: GpuScan, store: Store, monkeypatch) -> None:
    monkeypatch.setattr(gpu_scan, "_room", lambda device, size: False)
    with store.snapshot(stand_in) as snapshot:
        assert len(snapshot.search(random_vectors(1, dimension=K), 3).largest[0]) == 3
    assert not stand_in._kept and calls


def test_unasked_a_gpu_searches_exactly(stand_in: GpuScan, store: Store) -> None:
    store.build_index("ivf", nlist=4, recall=0.05)
    if store.settings.codec.bits > 1:
        store.build_index("rabitq")
    with store.snapshot() as plain, store.snapshot(stand_in) as fast:
        assert plain.chosen_index("auto") == ("rabitq" if store.settings.codec.bits > 1 else "ivf")
        assert fast.chosen_index("auto") == "exact"
        assert fast.chosen_index("ivf") == fast.chosen_index("auto", nprobe=2) == "ivf"


def test_without_memory_the_cpu_searches(stand_in: GpuScan, store: Store, monkeypatch, caplog) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_scan, "_nearest", exhausted)
    wanted = random_vectors(2, seed=1, dimension=K)
    with store.snapshot() as plain, store.snapshot(stand_in) as fast:
        assert fast.search_ends(wanted, 5).ends == plain.search_ends(wanted, 5).ends
    assert "done by the CPU" in caplog.text


def test_segments_are_compared_in_parts(stand_in: GpuScan, store: Store, monkeypatch) -> None:
    wanted = random_vectors(2, seed=1, dimension=K)
    with store.snapshot(stand_in) as snapshot:
        whole = snapshot.search(wanted, 5).largest
        monkeypatch.setattr(gpu_scan, "MOST_ROWS", 13)
        calls.clear()
        parts = snapshot.search(wanted, 5).largest
    assert max(rows for _, rows in calls) == 13
    for hits, others in zip(parts, whole, strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in others], rtol=4e-3)


def test_without_a_usable_gpu_the_cpu_searches_and_says_so(monkeypatch, caplog) -> None:
    import faiss

    assert isinstance(scan_on("cpu"), CpuScan)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(scan_on("auto"), CpuScan)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    with caplog.at_level(logging.INFO, "rapidin"):
        assert isinstance(scan_on("cuda:0"), CpuScan)
    assert "searched on the CPU" in caplog.text
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", SimpleNamespace, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with caplog.at_level(logging.INFO, "rapidin"):
        assert isinstance(scan_on("cuda:1"), CpuScan)
    assert "does not see device cuda:1" in caplog.text


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", ("cuda:0", "cuda:1")),
        ("cuda", ("cuda:0",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0,1", ("cuda:0", "cuda:1")),
    ],
)
def test_the_device_chooses_the_gpus(stand_in, monkeypatch, device: str, expected: tuple[str, ...]) -> None:
    import faiss

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2, raising=False)
    scan = scan_on(device)
    assert isinstance(scan, GpuScan) and scan._devices == expected


@pytest.mark.gpu
def test_on_a_real_gpu(store: Store) -> None:
    scan = scan_on("cuda")
    if not isinstance(scan, GpuScan):
        pytest.fail("this faiss has no GPU support")
    wanted = random_vectors(40, seed=1, dimension=K)
    with store.snapshot() as plain, store.snapshot(scan) as fast:
        for mine, truth in zip(fast.search_ends(wanted, 9).ends, plain.search_ends(wanted, 9).ends, strict=True):
            for hits, best in zip(mine, truth, strict=True):
                np.testing.assert_allclose(
                    [hit.score for hit in hits], [hit.score for hit in best], rtol=4e-3, atol=0.02
                )
