"""The start of a worker's process, when it fails or is interrupted."""

import os
import signal
import subprocess
from typing import Any

import pytest

from rapidin.errors import ComputationError
from rapidin.ingest import process
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


def test_an_interruption_during_the_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)  # waits, for it is blocked
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = open_files()
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            process.WorkerProcess(1, LOAD)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert raised.traceback  # which holds on to what the function knew
    assert traps.no_children()
    assert open_files() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
