"""Retraining on many subsets, several processes at a time; what one has finished is kept, so that a run goes on.

Each process is a fresh interpreter in a session of its own, with which everything that a user's command starts can
be ended. The queries' losses under a subset's model are a small file; the next run takes them from there.

Shape letters: m subsets · n samples · q queries.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import ComputationError, SettingError
from rapidin.evaluation.retraining.trainer import DATA, LOG, LOSSES, OUTPUT, Training, last_lines
from rapidin.support import VARIABLES

logger = logging.getLogger(__name__)

BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rapidin.evaluation.retraining.trainer import main
main(sys.argv[2])
"""
"""Program of a process; its arguments are sys.path and the file that says what it trains."""
_JOB = "job.json"
_SECONDS_TO_DIE = 5.0

WriteData = Callable[[Path, NDArray[np.int64]], None]
"""Writes the rows of some samples into a file, for a user's command."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained and measured, as plain JSON except for the path.

    Attributes:
        directory: where losses, logs and checkpoints are put; its name must tell everything that decides losses.
        training: how models are trained.
        model: settings of the store's model.
        samples: token ids and targets of all n, for the built-in training; empty for a command.
        queries: the same of all q.
        keep: whether checkpoints and data files stay; a subset whose checkpoint is gone is then trained again.
        device: for the losses after a command.
        trust_remote_code: whether a checkpoint's own Python code may run.
    """

    directory: Path
    training: Training
    model: dict[str, Any]
    samples: Sequence[dict[str, Any]]
    queries: Sequence[dict[str, Any]]
    keep: bool = False
    device: str = "cpu"
    trust_remote_code: bool = False


def retrained_losses(
    job: Job,
    members: NDArray[np.bool_],
    jobs: int,
    write_data: WriteData,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Losses of all queries under a model trained on each subset.

    Args:
        job: what is trained and measured.
        members: of the subsets, [m, n].
        jobs: processes at a time.
        write_data: for a command.
        on_progress: told how many subsets are done, and of how many.

    Returns:
        Float64 [m, q].

    Raises:
        ComputationError: a training failed; what was finished is kept.
        SettingError: the directory cannot be written to.
    """
    places = [job.directory / f"{number:04d}" for number in range(len(members))]
    found: dict[int, list[float]] = {}
    for number, place in enumerate(places):
        kept = _kept(place / LOSSES, len(job.queries))
        if kept is not None and (not job.keep or (place / OUTPUT).is_dir()):
            found[number] = kept
    missing = [number for number in range(len(members)) if number not in found]
    if on_progress is not None:
        on_progress(len(found), len(members))
    if missing:
        _written(job)
        with _Pool(job, min(jobs, len(missing))) as pool:

            def train(number: int) -> None:
                place = places[number]
                chosen = np.flatnonzero(members[number])
                with _writing(place):
                    place.mkdir(exist_ok=True)
                    if job.training.command is not None:
                        write_data(place / DATA, chosen)
                pool.train(number, place, chosen.tolist())
                kept = _kept(place / LOSSES, len(job.queries))
                if kept is None:
                    raise ComputationError(
                        f"subset {number}: {place / LOSSES} is gone; run the same command again"
                    )
                found[number] = kept
                if on_progress is not None:
                    on_progress(len(found), len(members))

            pool.map(train, missing)
    return np.array([found[number] for number in range(len(members))], dtype=np.float64)


class _Pool:
    """Processes that train; a thread waits for each."""

    def __init__(self, job: Job, size: int) -> None:
        self._job = job
        self._threads = max(1, (os.cpu_count() or 1) // size)
        self._executor = ThreadPoolExecutor(size)
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._ended = False

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def map(self, train: Callable[[int], None], numbers: Sequence[int]) -> None:
        """Train all, and raise what the first failure raises."""
        futures = [self._executor.submit(train, number) for number in numbers]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in futures if future in done and future.exception() is not None), None)
        if failed is not None:
            failed.result()

    def train(self, number: int, place: Path, members: list[int]) -> None:
        """Have this thread's process train a subset.

        Raises:
            ComputationError: that failed.
        """
        process = self._process()
        answer = None
        with suppress(OSError, ValueError):  # it has died: told below
            process.stdin.write(json.dumps({"directory": str(place), "members": members}) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            line = process.stdout.readline()  # type: ignore[union-attr]
            answer = json.loads(line) if line else None
        if answer is None:
            log = self._job.directory / LOG
            raise ComputationError(
                f"subset {number}: its process ended (exit code {process.poll()}), perhaps for lack of memory: "
                f"give fewer --jobs. {log} ends: {last_lines(log)}"
            )
        if "error" in answer:
            raise ComputationError(f"subset {number}: {answer['error']}")

    def end(self) -> None:
        """End all processes and what they have started."""
        with self._lock:
            self._ended = True
            processes = list(self._processes)
        for process in processes:
            _signal(process, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(_SECONDS_TO_DIE)
            except subprocess.TimeoutExpired:
                logger.debug("process %d does not end by itself", process.pid)
            _signal(process, signal.SIGKILL)  # what it has started may outlive it
            process.wait()
        self._executor.shutdown(wait=True, cancel_futures=True)
        for process in processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()

    def _process(self) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] | None = getattr(self._of_thread, "process", None)
        if process is not None and process.poll() is None:
            return process
        with self._lock:
            if self._ended:
                raise ComputationError("the training was ended")
            try:
                with (self._job.directory / LOG).open("ab") as log:
                    process = subprocess.Popen(
                        [sys.executable, "-P", "-c", BOOT, json.dumps(sys.path), str(self._job.directory / _JOB)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                        start_new_session=True,  # the terminal's interruption is the parent's affair
                        env={**VARIABLES, **os.environ, "OMP_NUM_THREADS": str(self._threads)},
                    )
            except OSError as error:
                raise ComputationError(
                    f"no process can be started for the training: {error.strerror or error}; give fewer --jobs"
                ) from error
            self._processes.append(process)
        self._of_thread.process = process
        return process


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _kept(file: Path, queries: int) -> list[float] | None:
    """Losses that were written by a former run."""
    try:
        losses = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged (%s): the subset is trained again", file, error)
        return None
    if isinstance(losses, list) and len(losses) == queries and all(isinstance(one, float) for one in losses):
        return losses
    logger.warning("%s does not hold the losses of %d queries: the subset is trained again", file, queries)
    return None


def _written(job: Job) -> None:
    plain = {
        "training": asdict(job.training),
        "model": job.model,
        "samples": list(job.samples),
        "queries": list(job.queries),
        "keep": job.keep,
        "device": job.device,
        "trust_remote_code": job.trust_remote_code,
    }
    with _writing(job.directory):
        job.directory.mkdir(parents=True, exist_ok=True)
        (job.directory / LOG).write_bytes(b"")
        (job.directory / _JOB).write_text(json.dumps(plain), encoding="utf-8")


class _writing:
    """Turns what the system says against writing into our error."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise SettingError(
                f"{self._place} cannot be written to: {error.strerror or error}; give another --work"
            ) from error
