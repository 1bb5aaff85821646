"""Retraining on many subsets in several processes; a later run continues where an earlier one stopped.

Each process leads its own session of the operating system, so that everything that a user's command starts can be
ended together with it.

The directory of a job is a *bank* of models: it has a directory for each subset and seed, in which the queries'
losses under that model are written to a small file, and the model itself if it is kept. Every later run and every
experiment with the same data and recipe reads the losses instead of training again. It takes a model that was kept
for other queries.

Shape letters: m subsets · n samples · q queries.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import ComputationError, SettingError
from rapidin.evaluation.retraining.trainer import DATA, LOG, OUTPUT, Job, last_lines
from rapidin.support import FreshInterpreter, processors

logger = logging.getLogger(__name__)

TRAINER = "rapidin.evaluation.retraining.trainer:serve"
"""Function that each process calls."""
_SECONDS_TO_DIE = 5.0
_SECONDS_BETWEEN_LOOKS = 0.02

WriteData = Callable[[Path, NDArray[np.int64]], None]
"""Function that writes the rows of some samples, given by their numbers, into a file for a user's command."""


def place_of(bank: Path, members: NDArray[np.bool_], seed: int) -> Path:
    """Directory of a subset's model in a bank.

    Args:
        bank: directory of the bank, whose name depends on the samples.
        members: whether each sample is in the subset, [n].
        seed: seed of the training.
    """
    return bank / f"{hashlib.sha256(np.packbits(members).tobytes()).hexdigest()[:16]}-{seed}"


def retrained_losses(
    job: Job,
    members: NDArray[np.bool_],
    seeds: Sequence[int],
    processes: int,
    write_data: WriteData,
    on_progress: Callable[[int, int], None] | None = None,
    trainer: str = TRAINER,
) -> NDArray[np.float64]:
    """Train a model on each subset and compute all queries' losses under it; equal subsets share a model.

    Args:
        job: description of the training and the measurement.
        members: whether each sample is in each subset, [m, n].
        seeds: seed of each subset's training, [m].
        processes: number of processes that train at a time.
        write_data: function that writes a subset's rows for a command.
        on_progress: function that gets the number of models done and the number of all.
        trainer: function, as ``module:name``, that each process calls.

    Returns:
        Losses, float64 [m, q].

    Raises:
        ComputationError: a training failed; the finished ones are kept.
        SettingError: `Job.directory` cannot be written to.
    """
    places = [place_of(job.directory, row, seed) for row, seed in zip(members, seeds, strict=True)]
    numbers = {place: number for number, place in reversed(list(enumerate(places)))}  # the first of equal ones
    losses_file = job.losses_file
    found: dict[Path, list[float]] = {}
    for place in numbers:
        kept = _kept(place / losses_file, len(job.queries))
        if kept is not None and (not job.keep or (place / OUTPUT).is_dir()):
            found[place] = kept
    missing = sorted(number for place, number in numbers.items() if place not in found)
    if on_progress is not None:
        on_progress(len(found), len(numbers))
    if missing:
        with _writing(job.directory):
            job.directory.mkdir(parents=True, exist_ok=True)
            (job.directory / LOG).write_bytes(b"")
        with _Pool(job, min(processes, len(missing)), trainer) as pool:

            def train(number: int) -> None:
                place = places[number]
                chosen = np.flatnonzero(members[number])
                with _writing(place):
                    place.mkdir(exist_ok=True)
                    if job.training.command is not None and not (place / OUTPUT).is_dir():
                        write_data(place / DATA, chosen)
                pool.train(number, place, chosen.tolist(), seeds[number])
                kept = _kept(place / losses_file, len(job.queries))
                if kept is None:
                    raise ComputationError(
                        f"subset {number}: {place / losses_file} is gone; run the same command again"
                    )
                found[place] = kept
                if on_progress is not None:
                    on_progress(len(found), len(numbers))

            pool.map(train, missing)
    return np.array([found[place] for place in places], dtype=np.float64)


class _Pool:
    """Pool of processes that train; a thread waits for each process."""

    def __init__(self, job: Job, size: int, trainer: str) -> None:
        self._job = job
        self._trainer = trainer
        self._threads = max(1, processors() // size)
        self._executor = ThreadPoolExecutor(size)
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._processes: list[FreshInterpreter] = []
        self._ended = False

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def map(self, train: Callable[[int], None], numbers: Sequence[int]) -> None:
        """Train on the subsets with these numbers; if one fails, raise its error at once."""
        futures = [self._executor.submit(train, number) for number in numbers]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in futures if future in done and future.exception() is not None), None)
        if failed is not None:
            failed.result()

    def train(self, number: int, place: Path, members: list[int], seed: int) -> None:
        """Have this thread's process train a subset.

        Raises:
            ComputationError: the training failed, or the process died.
        """
        process = self._process()
        try:
            process.connection.send((place, members, seed))
            error = process.connection.recv()
        except (OSError, EOFError) as lost:
            with self._lock:
                self._check_not_ended()
                how = process.how_it_ended()
            log = self._job.directory / LOG
            raise ComputationError(
                f"subset {number}: its process {how}; if memory ran out, give fewer --jobs. "
                f"{log} ends: {last_lines(log)}"
            ) from lost
        if error is not None:
            raise ComputationError(f"subset {number}: {error}")

    def end(self) -> None:
        """End all processes and everything they have started."""
        with self._lock:
            self._ended = True
            processes = list(self._processes)
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _SECONDS_TO_DIE
        while time.monotonic() < deadline and any(process.alive for process in processes):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if not any(process.alive for process in processes):
            self._executor.shutdown(wait=True)  # no thread reads from a pipe while it is closed
        for process in processes:
            process.end(time.monotonic())
        self._executor.shutdown(wait=True)

    def _check_not_ended(self) -> None:
        if self._ended:
            raise ComputationError("the training was ended")

    def _process(self) -> FreshInterpreter:
        """This thread's process, started at its first subset."""
        process: FreshInterpreter | None = getattr(self._of_thread, "process", None)
        if process is not None and process.alive:
            return process
        with self._lock:
            self._check_not_ended()
            try:
                with (self._job.directory / LOG).open("ab") as log:
                    process = FreshInterpreter(self._trainer, threads=self._threads, own_session=True, output=log)
            except OSError as error:
                raise ComputationError(
                    f"no process can be started for the training: {error.strerror or error}; give fewer --jobs"
                ) from error
            self._processes.append(process)
        with suppress(OSError):  # if the process has died, its first subset reports the error
            process.connection.send(self._job)
        self._of_thread.process = process
        return process


def _kept(file: Path, queries: int) -> list[float] | None:
    """Read the losses that an earlier run has written; None if there are none that can be used."""
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


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Turn the operating system's error while writing into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise SettingError(
            f"{place} cannot be written to: {error.strerror or error}; give another --work"
        ) from error
