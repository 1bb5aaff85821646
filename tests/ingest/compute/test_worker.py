"""What a worker says last, with a stand-in for its process, whose end can be seen."""

import os
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any

import pytest

from rapidin.errors import ModelError
from rapidin.ingest.compute import worker
from rapidin.ingest.compute.messages import Channel, Failed


class Ended(BaseException):
    pass


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of the process that would have ended."""
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    return codes


class Unreadable:
    """Its arrival raises."""

    def __reduce__(self) -> Any:
        return _arrive, ()


def _arrive() -> None:
    raise MemoryError("no room for a message")


def test_a_message_that_cannot_be_received_is_told_to_the_parent(ends: list[int]) -> None:
    ours, theirs = Pipe()
    ours.send(Unreadable())
    with pytest.raises(Ended):
        worker._receive(Channel(theirs), SimpleQueue())
    assert ours.recv() == Failed(None, "MemoryError: no room for a message")
    assert ends == [1]


def test_a_worker_without_a_parent_ends_silently(ends: list[int]) -> None:
    ours, theirs = Pipe()
    ours.close()
    with pytest.raises(Ended):
        worker._receive(Channel(theirs), SimpleQueue())
    assert ends == [0]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BrokenPipeError("of the model's own pipe"), Failed(None, "BrokenPipeError: of the model's own pipe")),
        (KeyError("no such layer"), Failed(None, "KeyError: 'no such layer'")),
        (ModelError("no such model"), Failed("ModelError", "no such model")),
    ],
)
def test_errors_of_the_model_are_told(
    monkeypatch: pytest.MonkeyPatch, ends: list[int], error: Exception, told: Failed
) -> None:
    def serve(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "_serve", serve)
    monkeypatch.setattr(worker, "_receive", lambda *_: None)
    ours, theirs = Pipe()
    with pytest.raises(Ended):
        worker.main(theirs)
    assert ours.recv() == told
    assert ends == [1]
