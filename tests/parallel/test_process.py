"""The start of a worker's process, when it fails or is interrupted."""

import os
import signal
import subprocess
import threading
from typing import Any

import pytest

from rapidin.errors import ComputationError
from rapidin.ingest import process
from rapidin.ingest.interruptions import interruptions_wait
from rapidin.ingest.messages import Load
from rapidin.settings import ModelSettings
from tests.parallel import traps

LOAD = Load(ModelSettings(model="m"), "cpu", False, 1, 30)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts this listing's own in both cases


def test_a_system_that_starts_no_process_is_an_error_of_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = open_files()
    with pytest.raises(ComputationError, match="worker on cpu: Resource temporarily unavailable; give fewer"):
        process.WorkerProcess(1, LOAD)
    assert open_files() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize("threads", [0, 3])
def test_an_interruption_during_the_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Other threads do not block the signal, so that it comes at once."""
    start = subprocess.Popen
    over = threading.Event()
    for _ in range(threads):
        threading.Thread(target=over.wait, daemon=True).start()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = open_files()
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            process.WorkerProcess(1, LOAD)
    finally:
        signal.signal(signal.SIGINT, handler)
        over.set()
    assert raised.traceback  # which holds on to what the function knew
    assert traps.no_children()
    assert open_files() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_interruptions_wait_for_the_end_and_then_come_once() -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []
    try:
        with pytest.raises(KeyboardInterrupt), interruptions_wait():
            os.kill(os.getpid(), signal.SIGINT)
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


def test_an_interruption_is_not_lost_where_the_block_fails() -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as raised, interruptions_wait():
            os.kill(os.getpid(), signal.SIGINT)
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
        process.WorkerProcess(1, LOAD)
    assert environments[0]["THP_MEM_ALLOC_ENABLE"] == (given or "1")
    assert environments[0]["GOMP_SPINCOUNT"] == (given or "1000")
    assert environments[0]["OMP_NUM_THREADS"] == "1"
