"""A score is the same to the last bit wherever its row lies and whatever is compared beside it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from rapidin.errors import StoreCorruptError, StoreError
from rapidin.settings.store_settings import CodecSettings
from rapidin.storage import Store
from tests.storage.stores import new_sample, random_vectors, store_settings

COUNTS = [*range(1, 18), 33, 64]


@pytest.fixture(params=[(16, 4096), (4, 4096), (1, 4096), (16, 256), (4, 256)], ids=str, scope="module")
def store(request, tmp_path_factory):
    """90 vectors in 10 segments of different sizes, the last 25 twins of one."""
    bits, dimension = request.param
    settings = store_settings(dimension).model_copy(update={"codec": CodecSettings(bits=bits)})
    vectors = random_vectors(90, dimension=dimension)
    vectors[65:] = vectors[3]
    with Store.create(tmp_path_factory.mktemp("scores") / "store", settings) as store:
        with store.writer() as writer:
            for part in np.split(np.arange(90), [1, 4, 9, 16, 30, 47, 60, 61, 77]):
                samples = [new_sample(f"{row:03}", metadata={"i": int(row)}) for row in part]
                writer.commit(samples, vectors[part])
        yield store


def queries(store: Store, count: int) -> np.ndarray:
    return random_vectors(64, seed=1, dimension=store.settings.projection.dimension)[:count]


@pytest.mark.parametrize("count", COUNTS)
def test_subsets_score_as_the_whole_does(store: Store, count: int) -> None:
    with store.snapshot() as snapshot:
        _, scores = snapshot.scores(queries(store, count))
        for where in ("i>20", "i~[05]$", "i=7", "i~^[1-4]?[13579]$"):
            ids, some = snapshot.scores(queries(store, count), (where,))
            np.testing.assert_array_equal(some, scores[:, [int(id) for id in ids]], err_msg=where)
        for query, hits in enumerate(snapshot.search(queries(store, count), 90).largest):
            assert [hit.score for hit in hits] == [scores[query, int(hit.id)] for hit in hits]


@pytest.mark.parametrize("count", COUNTS)
def test_twins_score_alike_and_are_ordered_by_id(store: Store, count: int) -> None:
    twins = ["003", *(f"{row:03}" for row in range(65, 90))]
    with store.snapshot() as snapshot:
        _, scores = snapshot.scores(queries(store, count))
        assert (scores[:, 65:] == scores[:, 3:4]).all()
        for hits in snapshot.search(queries(store, count), 90).largest:
            assert [hit.id for hit in hits if hit.id in twins] == twins


@pytest.mark.parametrize("count", [1, 5, 9, 40])
def test_compaction_changes_no_bit(store: Store, count: int, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(store.path, tmp_path / "copy")
    with Store.open(tmp_path / "copy") as copy:
        with copy.snapshot() as snapshot:
            before = snapshot.scores(queries(store, count))
        copy.compact()
        with copy.snapshot() as snapshot:
            after = snapshot.scores(queries(store, count))
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])


def test_a_damaged_index_of_sqlite_is_noticed(store: Store, tmp_path: Path) -> None:
    """The places of vectors come from a covering index; what it says must be what the samples say."""
    import shutil

    shutil.copytree(store.path, tmp_path / "copy")
    with Store.open(tmp_path / "copy") as copy, copy.snapshot() as snapshot:
        snapshot._rows.scales[:] = snapshot._rows.scales[::-1].copy() * 3
        with pytest.raises(StoreCorruptError, match="contradict"):
            snapshot.search(queries(store, 1), 3)


def test_a_closed_snapshot_answers_nothing(store: Store) -> None:
    snapshot = store.snapshot()
    rows = snapshot._rows
    snapshot.close()
    with pytest.raises(StoreError, match="closed"):
        snapshot._samples(rows, np.arange(2))
    with pytest.raises(StoreError, match="closed"):
        snapshot._segment(1)


def test_torch_does_not_warn_of_codes_that_may_not_be_written_to(store: Store) -> None:
    """Mapped files are read-only, and users can do nothing about it."""
    import torch

    several = queries(store, 40)
    several.flags.writeable = False
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # otherwise it warns once a process, perhaps in another test
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with store.snapshot() as snapshot:
                snapshot.search(several, 5)
    finally:
        torch.set_warn_always(before)
