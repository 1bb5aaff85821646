"""What a worker's process says last, and how it ends; `os._exit` is replaced, so that its end can be seen."""

import os
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any

import pytest

from rapidin.errors import ModelError
from rapidin.ingest.compute.local_workers import Channel, receive_all, run_worker
from rapidin.ingest.compute.messages import Failed
from rapidin.ingest.compute.worker import Tell, serve


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
    told: list[object] = []
    with pytest.raises(Ended):
        receive_all(Channel(theirs), SimpleQueue(), told.append)
    assert told == [Failed(None, "MemoryError: no room for a message")]
    assert ends == [1]


def test_a_worker_without_a_parent_ends_silently(ends: list[int]) -> None:
    ours, theirs = Pipe()
    ours.close()
    told: list[object] = []
    with pytest.raises(Ended):
        receive_all(Channel(theirs), SimpleQueue(), told.append)
    assert told == []
    assert ends == [0]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BrokenPipeError("of the model's own pipe"), Failed(None, "BrokenPipeError: of the model's own pipe")),
        (KeyError("no such layer"), Failed(None, "KeyError: 'no such layer'")),
        (ModelError("no such model"), Failed("ModelError", "no such model")),
    ],
)
def test_errors_of_the_model_are_told(ends: list[int], error: Exception, told: Failed) -> None:
    def fail(inbox: SimpleQueue[object], tell: Tell) -> None:
        raise error

    ours, theirs = Pipe()
    with pytest.raises(Ended):
        run_worker(theirs, fail)
    assert ours.recv() == told
    assert ends == [1]


def test_a_worker_refuses_messages_out_of_order() -> None:
    inbox: SimpleQueue[object] = SimpleQueue()
    inbox.put("hello")
    with pytest.raises(TypeError, match="the first message is str, not Load"):
        serve(inbox, pytest.fail)
