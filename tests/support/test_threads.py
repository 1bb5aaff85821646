"""Numbers of threads are as they were after whatever was done, in every thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rapidin.errors import StoreError
from rapidin.storage import Store
from rapidin.storage.vectors.codecs import load_faiss
from rapidin.storage.vectors.codecs.decoded_slices import SlicedQueries
from rapidin.storage.vectors.codecs.rotation import HADAMARD
from rapidin.support import openmp_threads, processors, threads, torch_threads
from tests.storage.stores import new_sample, random_vectors, store_settings


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """torch and FAISS compute with two threads in this one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with openmp_threads(load_faiss(), 2):
            yield
    finally:
        torch.set_num_threads(before)


def numbers() -> tuple[int, int]:
    return torch.get_num_threads(), load_faiss().omp_get_max_threads()


def elsewhere(function: Callable[[], object]) -> object:
    """What a function returns in a thread of its own."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(20)
    return found[0]


def test_torch_has_one_thread_here_and_as_many_as_before_elsewhere() -> None:
    """A thread that computes for the first time meanwhile keeps all its threads."""
    with torch_threads(1):
        assert torch.get_num_threads() == 1
        assert elsewhere(torch.get_num_threads) == 2
    assert torch.get_num_threads() == 2


def test_errors_and_nesting_set_back_what_was_found() -> None:
    with pytest.raises(StoreError), torch_threads(1), openmp_threads(load_faiss(), 1):
        assert numbers() == (1, 1)
        with torch_threads(2):  # FAISS may have the same OpenMP, or one of its own
            assert torch.get_num_threads() == 2
        assert numbers() == (1, 1)
        raise StoreError("an error")
    assert numbers() == (2, 2)


def test_a_torch_without_openmp_is_set_back_too(monkeypatch) -> None:
    monkeypatch.setattr(threads, "_torch_library", lambda: None)
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_a_torch_without_openmp_keeps_its_number_while_any_thread_computes(monkeypatch) -> None:
    shared = [2]  # such a torch has one number for all threads
    monkeypatch.setattr(threads, "_torch_library", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: shared[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: shared.__setitem__(0, count))
    begun, ended = threading.Event(), threading.Event()

    def compute_longer() -> None:
        with torch_threads(1):
            begun.set()
            ended.wait(20)

    other = threading.Thread(target=compute_longer)
    with torch_threads(1):
        other.start()
        assert begun.wait(20)
    assert torch.get_num_threads() == 1  # the other thread still computes
    ended.set()
    other.join(20)
    assert torch.get_num_threads() == 2


def test_processors_are_those_that_the_process_may_use(monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert processors() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert processors() == 7


@pytest.mark.parametrize("count", [1, 9, 500])
def test_rotations_change_nothing_also_if_they_fail(count: int, monkeypatch) -> None:
    HADAMARD.turned(random_vectors(count))
    assert numbers() == (2, 2)

    def fail(self, vectors):
        raise RuntimeError("no memory")

    monkeypatch.setattr(load_faiss().HadamardRotation, "apply", fail)
    with pytest.raises(RuntimeError):
        HADAMARD.turned(random_vectors(count))
    assert numbers() == (2, 2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", store_settings(4096)) as store:
        with store.writer() as writer:
            writer.commit([new_sample(f"{row:03}") for row in range(100)], random_vectors(100, dimension=4096))
        yield store


def test_scans_in_several_threads_compute_with_one_and_change_nothing(store: Store, monkeypatch) -> None:
    inside: set[int] = set()
    first = SlicedQueries.scores

    def scores(self, codes):
        inside.add(torch.get_num_threads())
        return first(self, codes)

    monkeypatch.setattr(SlicedQueries, "scores", scores)
    monkeypatch.setattr("rapidin.storage.scan.cpu_scan._BYTES_PER_THREAD", 1)
    queries = random_vectors(20, seed=1, dimension=4096)
    outside: list[tuple[int, int]] = []

    def work() -> None:
        with openmp_threads(load_faiss(), 2):
            for _ in range(3):
                with store.snapshot() as snapshot:
                    snapshot.search(queries, 3)
                outside.append(numbers())

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert inside == {1}
    assert outside == [(2, 2)] * 9
    assert numbers() == (2, 2)


def test_a_scan_that_fails_changes_nothing(store: Store, monkeypatch) -> None:
    def fail(self, codes):
        raise StoreError("no memory")

    monkeypatch.setattr(SlicedQueries, "scores", fail)
    with store.snapshot() as snapshot, pytest.raises(StoreError, match="no memory"):
        snapshot.search(np.ones((20, 4096), np.float32), 3)
    assert numbers() == (2, 2)
