"""The curvature that an ingest computes at its end: when it does, when not, and what an interruption leaves."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import rapidin
from rapidin.attribution import FisherDraw
from rapidin.attribution.rapidgrads import RapidGradEngine
from rapidin.errors import SettingError, StoreLockedError, StoreSpaceError
from rapidin.ingest import run as ingest_run
from rapidin.ingest.compute import computer
from rapidin.model import loading
from rapidin.records import IngestedCurvature, IngestListener, Preflight
from rapidin.storage.derived import CURVATURE
from rapidin.storage.derived.curvature import curvature_kind
from tests import worlds


class Recorder(IngestListener):
    """Keeps what it is told, and can be interrupted at a number of probes."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        self.preflight: Preflight | None = None
        self.told: list[tuple[int, int]] = []
        self.interrupted_at = interrupted_at

    def planned(self, preflight: Preflight) -> None:
        self.preflight = preflight

    def curvature(self, done: int, total: int) -> None:
        self.told.append((done, total))
        if self.interrupted_at is not None and done >= self.interrupted_at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.write_rows(tmp_path_factory.mktemp("data") / "data.jsonl", worlds.rows(10))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path, model_directory: Path) -> Path:
    """A store of ten samples with the curvature that its ingest has computed."""
    path = tmp_path_factory.mktemp("made") / "store"
    ingest(path, data, model_directory)
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, data: Path, model_directory: Path) -> Path:
    """The same samples in a store without curvature."""
    path = tmp_path_factory.mktemp("bare") / "store"
    ingest(path, data, model_directory, curvature=False)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture
def bare_copy(bare: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bare, tmp_path / "bare"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load_model", "load_tokenizer"):
        monkeypatch.setattr(loading, name, lambda *_: pytest.fail("was loaded"))
    monkeypatch.setattr(computer, "load_model", lambda *_: pytest.fail("was loaded"))


def ingest(store: Path, data: Path, model: Path, **more: object) -> rapidin.IngestReport:
    options = {"projection_dim": worlds.DIMENSION, "device": "cpu"} | more
    return rapidin.ingest_files(store, [data], model=str(model), **options)


def again(store: Path, data: Path, **more: object) -> rapidin.IngestReport:
    return rapidin.ingest_files(store, [data], device="cpu", **more)


def version(path: Path) -> str | None:
    with rapidin.Store.open(path) as opened, opened.snapshot() as snapshot:
        return snapshot.curvature_version()


def assert_same_probes(one: Path, other: Path) -> None:
    kept = []
    for path in (one, other):
        with rapidin.Store.open(path) as opened, opened.snapshot() as snapshot:
            kept.append(CURVATURE._arrays(*snapshot.derived("curvature")))
    for name in ("keys", "tokens"):
        np.testing.assert_array_equal(getattr(kept[0], name), getattr(kept[1], name))
    # Batches differ between the runs, and with them the last bits of vectors, which few codes are rounded by.
    differences = kept[0].codes.astype(int) - kept[1].codes
    assert np.abs(differences).max() <= 1
    assert (differences != 0).mean() < 1e-3
    np.testing.assert_allclose(kept[0].scales, kept[1].scales, rtol=1e-5)


def test_it_is_that_of_the_command_and_the_model_is_loaded_once(
    bare_copy: Path, data: Path, tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    real = computer.load_model
    monkeypatch.setattr(computer, "load_model", lambda *given: loaded.append(given) or real(*given))
    monkeypatch.setattr(curvature_kind, "_FIRST_STEP", 8)
    recorder = Recorder()
    report = ingest(tmp_path / "store", data, model_directory, listener=recorder)
    assert len(loaded) == 1
    assert report.curvature == IngestedCurvature(40, 40, version(tmp_path / "store"))
    assert recorder.told[0] == (0, 40)
    assert recorder.told[-1] == (40, 40)
    rapidin.compute_curvature(bare_copy, device="cpu")
    assert len(loaded) == 2
    assert_same_probes(tmp_path / "store", bare_copy)
    with rapidin.Searcher(tmp_path / "store") as searcher:
        assert searcher.search("Name the colour.", "red").measure == "influence"


def test_without_it_there_is_none(bare: Path) -> None:
    assert version(bare) is None
    with rapidin.Searcher(bare) as searcher:
        assert searcher.search("Name the colour.", "red").measure == "cosine"


def test_a_second_ingest_finds_it_complete_and_loads_no_model(store: Path, data: Path, no_model: None) -> None:
    before = version(store)
    recorder = Recorder()
    report = again(store, data, listener=recorder)
    assert report.curvature == IngestedCurvature(40, 0, before)
    assert recorder.told == []
    assert recorder.preflight is not None
    assert (recorder.preflight.probes, recorder.preflight.bytes) == (0, 0)


def test_a_store_without_one_gets_it_at_the_next_ingest(bare_copy: Path, made: Path, data: Path) -> None:
    report = again(bare_copy, data)
    assert (report.added, report.skipped) == (0, 10)
    assert report.curvature == IngestedCurvature(40, 40, version(bare_copy))
    assert_same_probes(bare_copy, made)


def test_a_store_that_has_grown_says_so_and_keeps_its_probes(store: Path, tmp_path: Path) -> None:
    before = version(store)
    some = worlds.write_rows(tmp_path / "more.jsonl", worlds.rows(4, first=10))
    assert again(store, some).curvature == IngestedCurvature(40, 0, before)
    one = worlds.write_rows(tmp_path / "one.jsonl", worlds.rows(1, first=14))
    grown = again(store, one).curvature
    assert grown is not None
    assert (grown.probes, grown.computed, grown.version) == (40, 0, before)
    assert grown.advice is not None
    assert "10 samples, and it holds 15" in grown.advice
    assert f"'rapidin curvature {store}'" in grown.advice


def test_more_probes_are_added_and_none_is_taken_away(store: Path, tmp_path: Path, model_directory: Path) -> None:
    whole = worlds.write_rows(tmp_path / "whole.jsonl", worlds.rows(14))
    assert again(store, whole, probes=20).curvature == IngestedCurvature(40, 0, version(store))
    report = again(store, whole, probes=50)
    assert report.curvature is not None
    assert report.curvature.probes == 50
    assert 10 <= report.curvature.computed < 50
    ingest(tmp_path / "at-once", whole, model_directory, probes=50)
    assert_same_probes(store, tmp_path / "at-once")
    assert again(store, whole).curvature == IngestedCurvature(50, 0, version(store))


def test_an_interruption_keeps_the_samples_and_the_next_ingest_goes_on(
    tmp_path: Path, data: Path, made: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature_kind, "_FIRST_STEP", 16)
    path = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        ingest(path, data, model_directory, listener=Recorder(interrupted_at=17))
    with rapidin.Store.open(path) as opened:
        assert opened.count() == 10
        assert "16 of 40 probes" in opened.info().derived[0].advice
    recorder = Recorder()
    report = again(path, data, listener=recorder)
    assert report.curvature == IngestedCurvature(40, 24, version(path))
    assert recorder.preflight is not None
    assert recorder.preflight.probes == 24
    assert_same_probes(path, made)


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    import rapidin

    class Killer(rapidin.IngestListener):
        def curvature(self, done, total):
            if done >= int(sys.argv[4]):
                os.kill(os.getpid(), signal.SIGKILL)

    rapidin.ingest_files(
        sys.argv[1], [sys.argv[2]], model=sys.argv[3], projection_dim=1024, device="cpu", listener=Killer()
    )
    """
)


@pytest.mark.slow
@pytest.mark.parametrize(("killed_at", "left"), [(0, 0), (1, 0), (256, 0), (257, 256)])
def test_killed_and_resumed_is_the_same_as_undisturbed(
    tmp_path: Path, model_directory: Path, killed_at: int, left: int
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(80))
    path = tmp_path / "store"
    command = [sys.executable, "-c", KILLED, str(path), str(data), str(model_directory), str(killed_at)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with rapidin.Store.open(path) as opened:
        assert opened.count() == 80
        assert opened.curvature_state().probes == left
    report = again(path, data)
    assert report.curvature == IngestedCurvature(320, 320 - left, version(path))
    with rapidin.Store.open(path) as opened:
        assert opened.verify().ok
    ingest(tmp_path / "undisturbed", data, model_directory)
    assert version(path) == version(tmp_path / "undisturbed")


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_file(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature_kind, "_FIRST_STEP", 64)  # so that workers compute probes twice
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(40))
    ingest(tmp_path / "one", data, model_directory, tokens_per_batch=300)
    ingest(tmp_path / "two", data, model_directory, tokens_per_batch=300, workers=2)
    assert version(tmp_path / "one") == version(tmp_path / "two") is not None


def spoil(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Let every so many probes of an engine be unusable."""
    real, count = RapidGradEngine.compute, 0

    def compute(self: RapidGradEngine, samples: list, raw: object = None) -> object:
        nonlocal count
        batch = real(self, samples, raw)
        for row in range(len(samples)):
            count += isinstance(raw, FisherDraw)
            if isinstance(raw, FisherDraw) and count % every == 0:
                batch.problems[row] = "its gradient is zero"
        return batch

    monkeypatch.setattr(RapidGradEngine, "compute", compute)


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_an_unusable_probe_fails_nothing(
    bare_copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, every=5)
        report = again(bare_copy, data, on_error=on_error)
    assert report.failures == ()
    assert report.curvature == IngestedCurvature(32, 32, version(bare_copy))
    monkeypatch.setattr(computer, "load_model", lambda *_: pytest.fail("was loaded"))
    assert again(bare_copy, data).curvature == IngestedCurvature(32, 0, version(bare_copy))


def test_samples_that_give_no_probe_are_stored_all_the_same(
    tmp_path: Path,
    data: Path,
    model_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(monkeypatch, every=1)
    with caplog.at_level(logging.WARNING, "rapidin"):
        report = ingest(tmp_path / "store", data, model_directory)
    assert (report.added, report.samples_total, report.curvature) == (10, 10, None)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("rapidin")]
    assert "no sample gives a probe" in warning
    assert "the samples are stored" in warning


def test_samples_that_are_skipped_give_no_probes(tmp_path: Path, model_directory: Path) -> None:
    rows = worlds.rows(6)
    rows[1]["output"] = ""
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    report = ingest(tmp_path / "store", data, model_directory, on_error="skip")
    assert (report.added, report.failed) == (5, 1)
    assert report.curvature == IngestedCurvature(20, 20, version(tmp_path / "store"))


def test_a_dry_run_counts_the_probes_and_computes_none(
    tmp_path: Path, store: Path, bare_copy: Path, data: Path, model_directory: Path, no_model: None
) -> None:
    recorder = Recorder()
    report = again(bare_copy, data, dry_run=True, listener=recorder)
    assert report.curvature == IngestedCurvature(0, 40, None)
    assert recorder.preflight is not None
    assert (recorder.preflight.samples, recorder.preflight.probes) == (0, 40)
    assert again(bare_copy, data, dry_run=True, curvature=False).curvature is None
    assert version(bare_copy) is None
    before = version(store)
    assert again(store, data, dry_run=True).curvature == IngestedCurvature(40, 0, before)
    # The estimate is the file's size but for its heading.
    (file,) = (store / "curvature").iterdir()
    assert 0 <= file.stat().st_size - recorder.preflight.bytes < 1000


def test_a_dry_run_of_a_new_store_counts_the_probes(tmp_path: Path, data: Path, model_directory: Path) -> None:
    recorder = Recorder()
    report = ingest(tmp_path / "new", data, model_directory, dry_run=True, listener=recorder, probes=30)
    assert report.curvature == IngestedCurvature(0, 30, None)
    assert recorder.preflight is not None
    assert (recorder.preflight.samples, recorder.preflight.probes) == (10, 30)
    assert not (tmp_path / "new").exists()


def test_probes_that_have_no_room_are_named(
    bare_copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch, no_model: None
) -> None:
    monkeypatch.setattr(ingest_run, "_free_bytes", lambda _: 1000)
    with pytest.raises(StoreSpaceError, match=r"0 samples and 40 probes need .*, fewer --probes or --no-curv"):
        again(bare_copy, data)


def test_a_curvature_that_lost_its_file_is_computed_again(store: Path, made: Path, data: Path) -> None:
    (file,) = (store / "curvature").iterdir()
    file.unlink()
    assert again(store, data).curvature == IngestedCurvature(40, 40, version(store))
    assert_same_probes(store, made)


def test_nobody_else_writes_meanwhile(bare_copy: Path, data: Path) -> None:
    class Meddler(IngestListener):
        refused = 0

        def curvature(self, done: int, total: int) -> None:
            with rapidin.Store.open(bare_copy) as opened, pytest.raises(StoreLockedError, match="is writing"):
                opened.delete(["row-1"])
            self.refused += 1

    meddler = Meddler()
    again(bare_copy, data, listener=meddler)
    assert meddler.refused > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 0}, "--probes 0 cannot be used: give a positive number"),
        ({"probes": 5, "curvature": False}, "leave out --no-curvature or --probes"),
    ],
)
def test_what_cannot_be_used_is_refused(store: Path, data: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        again(store, data, **options)
