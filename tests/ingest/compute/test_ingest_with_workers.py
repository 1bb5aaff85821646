"""Ingest with several processes: the same as with one, and what happens when one of them dies or fails."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rapidin
from rapidin.errors import ComputationError, GradientError, ModelError
from rapidin.ingest import pipeline
from rapidin.records import IngestListener
from tests import worlds
from tests.ingest.compute import traps

ROOT = Path(__file__).parents[2]


def ingest(store: Path, data: Path, model: Path, workers: int | None = 2, **more: object) -> rapidin.IngestReport:
    settings = {"device": "cpu", "projection_dim": worlds.DIMENSION, "tokens_per_batch": 300, "curvature": False}
    settings |= more
    before = traps.children()
    report = rapidin.ingest_files(store, [data], model=str(model), workers=workers, **settings)
    assert traps.no_children_but(before)
    return report


def contents(store: Path) -> tuple[list[tuple[int, str]], list[tuple[str, int]]]:
    """Rows and checksum of every segment's file, and all samples in the order in which they are stored."""
    with rapidin.Store.open(store) as opened:
        assert opened.verify().ok
        segments = [(segment.rows, segment.checksum) for segment in opened.info().segments]
        return segments, [(sample.id, sample.row) for sample in opened.list()]


def ids(store: Path) -> set[str]:
    with rapidin.Store.open(store) as opened:
        assert opened.verify().ok
        return {sample.id for sample in opened.list()}


class Recorder(IngestListener):
    def __init__(self) -> None:
        self.samples = self.stored = self.processes = 0

    def computing(self, processes: int) -> None:
        self.processes = processes

    def advanced(self, samples: int, tokens: int) -> None:
        self.samples += samples

    def committed(self, samples: int) -> None:
        self.stored += samples


def test_two_workers_give_what_one_gives(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_BUFFER_BYTES", 2 * 40 * 4 * worlds.DIMENSION)
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(100))
    ingest(tmp_path / "serial", data, model_directory, workers=1)
    recorder = Recorder()
    report = ingest(tmp_path / "parallel", data, model_directory, listener=recorder)
    assert (report.added, recorder.processes, recorder.samples, recorder.stored) == (100, 2, 100, 100)
    parallel = contents(tmp_path / "parallel")
    assert [rows for rows, _ in parallel[0]] == [40, 40, 20]
    assert parallel == contents(tmp_path / "serial")


def test_no_more_workers_than_work(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(3))
    recorder = Recorder()
    ingest(tmp_path / "store", data, model_directory, workers=8, listener=recorder, tokens_per_batch=None)
    assert recorder.processes == 1


@pytest.mark.slow
def test_the_work_of_a_worker_that_died_is_done_by_another(
    tmp_path: Path, model_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = traps.trap_model(tmp_path / "model", model_directory, "die-once")
    data = worlds.write_rows(tmp_path / "data.jsonl", traps.rows_with_trap(60, at=17))
    with caplog.at_level(logging.WARNING, "rapidin"):
        report = ingest(tmp_path / "store", data, model, trust_remote_code=True)
    assert report.added == 60
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("rapidin")]
    assert "on cpu (process" in warning
    assert "was killed by SIGKILL, probably for lack of memory" in warning
    assert "; computed again: " in warning
    assert "'row-17'" in warning
    ingest(tmp_path / "serial", data, model, workers=1, trust_remote_code=True)
    assert contents(tmp_path / "store") == contents(tmp_path / "serial")


@pytest.mark.slow
def test_when_all_workers_are_killed_another_is_started(
    tmp_path: Path, model_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(100))

    class Killer(Recorder):
        def advanced(self, samples: int, tokens: int) -> None:
            super().advanced(samples, tokens)
            if self.samples == samples:
                for pid in traps.descendants(os.getpid()):
                    os.kill(pid, signal.SIGKILL)

    with caplog.at_level(logging.WARNING, "rapidin"):
        report = ingest(tmp_path / "store", data, model_directory, listener=Killer(), tokens_per_batch=100)
    assert report.added == 100
    assert sum("was killed by SIGKILL" in record.getMessage() for record in caplog.records) == 2
    ingest(tmp_path / "serial", data, model_directory, workers=1, tokens_per_batch=100)
    assert contents(tmp_path / "store") == contents(tmp_path / "serial")


@pytest.mark.slow
def test_a_block_that_kills_twice_ends_the_ingest(tmp_path: Path, model_directory: Path) -> None:
    model = traps.trap_model(tmp_path / "model", model_directory, "die")
    rows = traps.rows_with_trap(60, at=18)
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    settings = {"trust_remote_code": True, "tokens_per_batch": 1}  # every sample is a block
    recorder = Recorder()
    with pytest.raises(
        ComputationError, match=r"sample 'row-18': two workers died while they computed it, .*SIGK"
    ):
        ingest(tmp_path / "store", data, model, listener=recorder, **settings)
    stored = ids(tmp_path / "store")
    assert 0 < len(stored) < 60
    assert len(stored) >= recorder.samples
    worlds.write_rows(data, [row for row in rows if row["id"] != "row-18"])
    report = ingest(tmp_path / "store", data, model, trust_remote_code=True)
    assert (report.skipped, report.added) == (len(stored), 59 - len(stored))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_exception_in_the_model_names_the_sample_or_is_skipped(
    tmp_path: Path, model_directory: Path, workers: int
) -> None:
    model = traps.trap_model(tmp_path / "model", model_directory, "raise")
    data = worlds.write_rows(tmp_path / "data.jsonl", traps.rows_with_trap(30, at=11))
    options = {"workers": workers, "trust_remote_code": True}
    reason = r"the model failed on it: IndexError: index out of range in this model"
    with pytest.raises(GradientError, match=rf"sample 'row-11': {reason} .*data.jsonl, row 12\)"):
        ingest(tmp_path / "store", data, model, **options)
    assert "row-11" not in ids(tmp_path / "store")
    report = ingest(tmp_path / "store", data, model, on_error="skip", **options)
    assert [(failure.id, failure.row) for failure in report.failures] == [("row-11", 12)]
    assert report.samples_total == 29


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_leaves_no_store(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(30))
    model = traps.trap_model(tmp_path / "bad", model_directory, "load")
    with pytest.raises(ModelError, match=r"model '.*bad' cannot be loaded: 'no such layer'.*\(on cpu\)"):
        ingest(tmp_path / "store", data, model, trust_remote_code=True)
    model = traps.trap_model(tmp_path / "worse", model_directory, "die-loading")
    with pytest.raises(
        ComputationError, match="no worker could load the model: the last one was killed by SIGKILL"
    ):
        ingest(tmp_path / "store", data, model, trust_remote_code=True)
    assert not (tmp_path / "store").exists()


@pytest.fixture
def running(tmp_path: Path, model_directory: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """The command line with two workers in the midst of a long ingest, and the workers."""
    model = traps.trap_model(tmp_path / "model", model_directory, "none", pace=0.05)
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(2000))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rapidin", "ingest", str(tmp_path / "store"), "--data", str(data)),
            *("--model", str(model), "--projection-dim", "1024", "--tokens-per-batch", "300", "--workers", "2"),
            *("--device", "cpu", "--trust-remote-code"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    while not (tmp_path / "store" / "writer.lock").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(2)
    workers = traps.descendants(process.pid)
    assert len(workers) == 2
    return process, workers


@pytest.mark.slow
def test_control_c_ends_all_and_keeps_what_was_computed(
    tmp_path: Path, running: tuple[subprocess.Popen[str], set[int]]
) -> None:
    process, workers = running
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    traps.wait_until_gone(workers, seconds=1)
    stored = ids(tmp_path / "store")
    assert f"{len(stored):,} samples are stored; run the same command to go on" in errors
    assert 0 < len(stored) < 2000


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(
    tmp_path: Path, running: tuple[subprocess.Popen[str], set[int]]
) -> None:
    process, workers = running
    assert traps.alive(workers) == workers
    process.kill()
    process.wait()
    traps.wait_until_gone(workers)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    ids(tmp_path / "store")
