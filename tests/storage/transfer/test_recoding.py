"""Copies of a store in other bits."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from rapidin import recode
from rapidin.errors import SettingError, StoreCorruptError, StoreError, StoreNotFoundError
from rapidin.storage import Store
from rapidin.storage.transfer import recoding
from tests.storage.stores import flip_byte, new_sample, numbered, random_vectors, segment_files, store_settings

DIMENSION = 1024
ERRORS = {16: 1e-3, 4: 0.13, 1: 0.82}
"""Of the reconstructed vectors, relative to their norms; one bit's are too long by design."""


def vectors_of(store: Store) -> np.ndarray:
    with store.snapshot() as snapshot:
        return np.concatenate([block.vectors for block in snapshot.blocks()])


@pytest.mark.parametrize("target", [16, 4, 1])
@pytest.mark.parametrize("source", [16, 4, 1])
def test_every_codec_from_every_other(path: Path, tmp_path: Path, monkeypatch, caplog, source, target) -> None:
    """Samples in their order, deleted ones left out, vectors within the error of both codecs."""
    monkeypatch.setattr(recoding, "BLOCK_BYTES", 8 * 4 * DIMENSION)
    caplog.set_level(logging.WARNING)
    truth = random_vectors(21, dimension=DIMENSION) * np.geomspace(1e-6, 1e6, 21, dtype=np.float32)[:, None]
    told: list[tuple[int, int]] = []
    with Store.create(path, store_settings(DIMENSION, source)) as store:
        with store.writer() as writer:
            writer.commit(numbered(0, 20), truth[:20], np.linalg.norm(truth[:20], axis=1))
            writer.commit([new_sample("s003", content_hash="n")], truth[20:], np.linalg.norm(truth[20:], axis=1))
        store.delete(["s007"])
        report = recode(path, tmp_path / "new", target, on_progress=lambda *pair: told.append(pair))
        with Store.open(tmp_path / "new") as new:
            assert new.list() == store.list() and new.verify().ok
            assert new.settings.codec.bits == target and new.settings.projection == store.settings.projection
            assert [segment.rows for segment in new.info().segments] == [8, 8, 3]
            assert new.count(["rank>15"]) == 4
            found, kept = vectors_of(new), truth[[i for i in range(21) if i not in (3, 7)]]
            assert (report.samples, report.bits) == (19, target)
            assert report.bytes_before == store.info().bytes_vectors
            assert report.bytes_after == new.info().bytes_vectors
    errors = np.linalg.norm(found - kept, axis=1) / np.linalg.norm(kept, axis=1)
    assert errors.max() < ERRORS[source] + ERRORS[target]
    assert told == [(8, 19), (16, 19), (19, 19)]
    assert ("larger, not better" in caplog.text) == (target > source)
    assert {file.name for file in (tmp_path / "new").iterdir()} <= {
        *("store.db", "store.commits", "segments", "readers.lock")
    }
    assert not (tmp_path / "new.partial").exists()


def test_the_copy_of_a_copy(filled: Store, tmp_path: Path) -> None:
    recode(filled.path, tmp_path / "same", 16)
    with Store.open(tmp_path / "same") as same:
        np.testing.assert_array_equal(vectors_of(same), vectors_of(filled))


def test_what_is_refused(filled: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds"):
        recode(filled.path, filled.path, 4)
    with pytest.raises(SettingError, match="--bits 2 cannot be used"):
        recode(filled.path, tmp_path / "new", 2)  # type: ignore[arg-type]
    with pytest.raises(StoreNotFoundError):
        recode(tmp_path / "nothing", tmp_path / "new", 4)
    flip_byte(segment_files(filled)[1], 900)
    with pytest.raises(StoreCorruptError, match=segment_files(filled)[1].name):
        recode(filled.path, tmp_path / "new", 4)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["store"]


def test_a_kill_leaves_nothing_at_the_new_place(filled: Store, tmp_path: Path, monkeypatch) -> None:
    """What it leaves beside it is taken for a beginning, and the next call starts over."""
    import subprocess
    import sys

    from tests.storage.stores import ROOT

    script = (
        "import os, sys; from rapidin import recode; from rapidin.storage.transfer import recoding\n"
        "recoding.BLOCK_BYTES = 2048\n"
        "recode(sys.argv[1], sys.argv[2], 4, on_progress=lambda done, total: done > 8 and os._exit(77))"
    )
    child = subprocess.run([sys.executable, "-c", script, filled.path, tmp_path / "new"], cwd=ROOT, check=False)
    assert child.returncode == 77
    assert not (tmp_path / "new").exists()
    with Store.open(tmp_path / "new.partial") as partial:
        assert 0 < partial.count() < 20
    assert recode(filled.path, tmp_path / "new", 4).samples == 20
    assert not (tmp_path / "new.partial").exists()
