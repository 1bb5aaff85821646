"""Fresh interpreters: what they are given, how they end, and what is left of them."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rapidin.support import FreshInterpreter, exit_in_words

HERE = "tests.support.interpreters"


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_process_has_the_path_and_the_variables_and_ignores_interruptions(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = FreshInterpreter(f"{HERE}:describe", threads=3, output=log, environment={"MINE": "x"})
    path, variables = process.connection.recv()
    ignored, blocked = process.connection.recv()
    assert process.how_it_ended() == "ended with exit code 0"
    assert path == [str(place) for place in sys.path]
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["MINE"] == "x"
    assert variables["GOMP_SPINCOUNT"] == os.environ.get("GOMP_SPINCOUNT", "1000")
    assert ignored
    assert blocked == set()
    assert (tmp_path / "log").read_text() == "printed\n"
    assert not process.alive


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-signal.SIGKILL, "was killed by SIGKILL, probably for lack of memory"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
    ],
)
def test_the_end_is_told_in_words(code: int, words: str) -> None:
    process = FreshInterpreter(f"{HERE}:end_with")
    process.connection.send(int(code))
    assert process.how_it_ended() == words
    assert exit_in_words(code) == words


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert exit_in_words(-63) == "was killed by signal 63"


def test_one_that_does_not_end_is_killed_at_the_deadline() -> None:
    process = FreshInterpreter(f"{HERE}:never_end")
    assert process.connection.recv() == "here"
    process.terminate()
    process.hang_up()
    process.end(time.monotonic() + 0.2)
    assert not is_running(process.pid)
    assert process.how_it_ended().startswith("was killed by SIGKILL")


def test_with_its_own_session_what_it_has_started_ends_too() -> None:
    process = FreshInterpreter(f"{HERE}:leave_a_child", own_session=True)
    child = process.connection.recv()
    assert is_running(child)
    process.connection.send("end")
    process.end(time.monotonic() + 30)
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)
