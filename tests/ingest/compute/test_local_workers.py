"""The start of a worker's process, when it fails or is interrupted."""

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from rapidin.errors import ComputationError
from rapidin.ingest.compute.local_workers import LocalWorkers
from rapidin.ingest.compute.messages import Load
from rapidin.settings import ModelSettings
from tests.ingest.compute import traps
from tests.support.test_interruptions import interrupt_elsewhere, interrupt_here

LOAD = Load(ModelSettings(model="m"), "cpu", False, 1, 30)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts this listing's own in both cases


def test_a_system_that_starts_no_process_is_an_error_of_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = open_files()
    with pytest.raises(ComputationError, match="worker on cpu: Resource temporarily unavailable; give fewer"):
        LocalWorkers().start(1, LOAD)
    assert open_files() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize("interrupt", [interrupt_here, interrupt_elsewhere])
def test_an_interruption_during_the_start_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]
) -> None:
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> Any:
        interrupt()
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before, children = open_files(), traps.children()
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            LocalWorkers().start(1, LOAD)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert raised.traceback  # which holds on to what the function knew
    assert traps.no_children_but(children)
    assert open_files() == before
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
        LocalWorkers().start(1, LOAD)
    assert environments[0]["THP_MEM_ALLOC_ENABLE"] == (given or "1")
    assert environments[0]["GOMP_SPINCOUNT"] == (given or "1000")
    assert environments[0]["OMP_NUM_THREADS"] == "1"
