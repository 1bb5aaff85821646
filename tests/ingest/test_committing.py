"""Commits in the background: computing goes on, errors arrive, rows are neither lost nor doubled."""

import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import pytest

from rapidin.errors import StoreSpaceError
from rapidin.ingest.committing import Committer
from rapidin.storage import NewSample

DIMENSION = 4


def sample(number: int) -> NewSample:
    return NewSample(
        id=str(number),
        prompt="p",
        response="r",
        metadata={},
        file="f",
        row=number + 1,
        tokens=3,
        targets=1,
        truncated=False,
        content_hash="h",
    )


class Writer:
    """Stands for a `StoreWriter`; waits, fails or interrupts where told to."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, float]] = []
        self.sizes: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.release = threading.Event()
        self.release.set()
        self.errors: list[BaseException | None] = []

    def commit(self, samples: list[NewSample], vectors: np.ndarray, scales: Any) -> None:
        self.threads.add(threading.current_thread())
        self.release.wait()
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        self.stored += [(sample.id, float(vector[0])) for sample, vector in zip(samples, vectors, strict=True)]
        self.sizes.append(len(samples))


def committer(writer: Writer, told: list[str], capacity: int = 4) -> Committer:
    def committed(samples: list[NewSample]) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.extend(sample.id for sample in samples)

    return Committer(writer, DIMENSION, capacity, unit_norm=True, committed=committed)  # type: ignore[arg-type]


def add(to: Committer, numbers: range) -> None:
    for number in numbers:
        to.add(sample(number), np.full(DIMENSION, number, np.float32))


def everything(count: int) -> list[tuple[str, float]]:
    return [(str(number), float(number)) for number in range(count)]


def test_everything_is_committed_once_in_order() -> None:
    writer, told = Writer(), []
    with committer(writer, told) as one:
        add(one, range(19))
        one.finish()
    assert writer.stored == everything(19)
    assert writer.sizes == [4, 4, 4, 4, 3]
    assert told == [str(number) for number in range(19)]
    assert threading.main_thread() not in writer.threads
    assert not any(thread.is_alive() for thread in writer.threads)


def test_a_slow_writer_does_not_stop_the_work() -> None:
    writer, told = Writer(), []
    writer.release.clear()
    with committer(writer, told) as one:
        add(one, range(8))  # the first four are being written all the while
        one.look()
        assert (writer.stored, told) == ([], [])
        writer.release.set()
        one.finish()
    assert writer.stored == everything(8)


def test_only_one_commit_is_under_way() -> None:
    writer, told = Writer(), []
    writer.release.clear()
    with committer(writer, told) as one:
        add(one, range(8))
        threading.Timer(0.2, writer.release.set).start()
        add(one, range(8, 9))  # waits for the first commit
        assert writer.stored[:4] == everything(4)
        one.finish()
    assert writer.stored == everything(9)


@pytest.mark.parametrize("seen_by", ["add", "begin", "look", "finish"])
def test_an_error_arrives_and_nothing_is_lost_or_doubled(seen_by: str) -> None:
    writer, told = Writer(), []
    writer.errors = [None, StoreSpaceError("the disk is full")]
    with committer(writer, told) as one:
        add(one, range(9))  # two commits
        with pytest.raises(StoreSpaceError, match="full"):
            if seen_by == "add":
                add(one, range(9, 14))
            elif seen_by == "look":
                while True:
                    one.look()
            else:
                getattr(one, seen_by)()
        gathered = 12 if seen_by == "add" else 9
        one.retry()
        add(one, range(gathered, 17))  # what was computed meanwhile
        one.finish()
    assert writer.stored == everything(17)
    assert told == [str(number) for number in range(17)]


def test_an_error_that_stays_is_raised_again() -> None:
    writer, told = Writer(), []
    writer.errors = [StoreSpaceError("full"), StoreSpaceError("still full")]
    with committer(writer, told) as one:
        add(one, range(5))
        with pytest.raises(StoreSpaceError, match="full"):
            one.finish()
        with pytest.raises(StoreSpaceError, match="still full"):
            one.retry()
            one.finish()
    assert (writer.stored, told) == ([], [])


def test_a_commit_under_way_is_waited_for_at_the_end() -> None:
    """The writer's lock is released after the ``with``; nobody may write then."""
    writer, told = Writer(), []
    writer.release.clear()
    with pytest.raises(KeyboardInterrupt), committer(writer, told) as one:
        add(one, range(5))
        threading.Timer(0.2, writer.release.set).start()
        raise KeyboardInterrupt
    assert writer.stored == everything(4)


class InterruptedAt:
    """Raises a KeyboardInterrupt in this thread before the given instruction of the committer's own methods."""

    def __init__(self, instruction: int) -> None:
        self.left = instruction
        self.place = ""

    def __enter__(self) -> "InterruptedAt":
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_globals.get("__name__") != Committer.__module__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if self.left == 0:
                self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
            self.left -= 1
        return self._trace


def test_an_interruption_anywhere_loses_and_doubles_nothing() -> None:
    places = set()
    for instruction in range(10_000):
        writer, told = Writer(), []
        at = InterruptedAt(instruction)
        with committer(writer, told) as one:
            added = 4
            add(one, range(4))
            try:
                with at:
                    one.begin()  # begins the first commit
                add(one, range(4, 7))
                added = 7
                with at:
                    one.begin()  # settles it and begins the second one
                    one.finish()
            except KeyboardInterrupt:
                one.retry()
                add(one, range(added, 9))
                one.finish()
        if not at.place:
            break
        places.add(at.place)
        assert writer.stored == everything(9), at.place
        assert told == sorted(set(told)), at.place
        if not at.place.startswith("_settle"):  # where an interruption may come while it is told
            assert len(told) == 9, at.place
    assert {place.partition(",")[0] for place in places} >= {"begin", "_settle", "_submit", "finish"}
    assert writer.stored == everything(7)
