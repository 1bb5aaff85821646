"""The start of a worker's process, when it fails or is interrupted."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rapidin.errors import ComputationError
from rapidin.ingest.compute import local_workers
from rapidin.ingest.compute.messages import Load
from rapidin.settings.store_settings import ModelSettings
from rapidin.support.interruptions import interruptions_wait
from tests.ingest.compute import traps

LOAD = Load(ModelSettings(model="m"), "cpu", False, 1, 30)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts this listing's own in both cases


def test_a_system_that_starts_no_process_is_an_error_of_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = open_files()
    with pytest.raises(ComputationError, match="worker on cpu: Resource temporarily unavailable; give fewer"):
        local_workers.WorkerProcess(1, LOAD)
    assert open_files() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def interrupt_here() -> None:
    """To this very thread: where it blocks the signal, the signal waits until it no longer does."""
    signal.raise_signal(signal.SIGINT)


def interrupt_elsewhere() -> None:
    """To a thread that does not block the signal, as the kernel may choose for one sent to the process.

    `os.kill` would leave open when the signal arrives: perhaps only when the test has ended.
    """

    def receive() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # threads inherit what is blocked
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=receive)
    thread.start()
    thread.join()


INTERRUPT = pytest.mark.parametrize("interrupt", [interrupt_here, interrupt_elsewhere])


@INTERRUPT
def test_an_interruption_during_the_start_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]
) -> None:
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> Any:
        interrupt()
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = open_files()
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            local_workers.WorkerProcess(1, LOAD)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert raised.traceback  # which holds on to what the function knew
    assert traps.no_children()
    assert open_files() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@INTERRUPT
def test_interruptions_wait_for_the_end_and_then_come_once(interrupt: Callable[[], None]) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []
    try:
        with pytest.raises(KeyboardInterrupt), interruptions_wait():
            interrupt()
            steps.append("after the signal")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert steps == ["after the signal"]


def test_no_interruption_changes_nothing_and_errors_pass() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="mine"), interruptions_wait():
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_threads_may_start_workers() -> None:
    done = []

    def wait_in_a_thread() -> None:
        with interruptions_wait():
            done.append(True)

    thread = threading.Thread(target=wait_in_a_thread)
    thread.start()
    thread.join()
    assert done == [True]


@INTERRUPT
def test_an_interruption_is_not_lost_where_the_block_fails(interrupt: Callable[[], None]) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as raised, interruptions_wait():
            interrupt()
            raise ValueError("mine")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert isinstance(raised.value.__context__, ValueError)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize("given", [None, "0"])
def test_workers_get_the_variables_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    environments = []

    def refuse(*_: object, env: dict[str, str], **__: object) -> Any:
        environments.append(env)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    for name in ("THP_MEM_ALLOC_ENABLE", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
        if given is not None:
            monkeypatch.setenv(name, given)
    with pytest.raises(ComputationError):
        local_workers.WorkerProcess(1, LOAD)
    assert environments[0]["THP_MEM_ALLOC_ENABLE"] == (given or "1")
    assert environments[0]["GOMP_SPINCOUNT"] == (given or "1000")
    assert environments[0]["OMP_NUM_THREADS"] == "1"
