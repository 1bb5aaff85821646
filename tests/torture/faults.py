"""Faults at single file operations, by a library that `shim.c` becomes: kill, torn write, EIO, a full disk.

A process that has imported everything forks a child for each trial; the child arms the library and carries out the
script. Without a C compiler, children are killed at random moments instead.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rapidin.errors import RapidinError
from rapidin.storage import Store
from tests.torture.oracle import Script, check, new_store, script

COUNT, KILL_BEFORE, KILL_AFTER, TORN, EIO, ENOSPC, FULL, LOG = range(8)
KINDS = {
    "killed before": KILL_BEFORE,
    "killed after": KILL_AFTER,
    "torn write": TORN,
    "EIO": EIO,
    "ENOSPC once": ENOSPC,
    "disk stays full": FULL,
}
_SOURCE = Path(__file__).with_name("shim.c")


def library(folder: Path) -> Path | None:
    """Compile the library; None without a compiler or without LD_PRELOAD."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    target = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", target, _SOURCE, "-ldl"], check=True)
    return target


def preloaded(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this package as a program with the library loaded."""
    shim = library(folder)
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"LD_PRELOAD": str(shim)} if shim else {})
    command = [sys.executable, "-m", "tests.torture", *arguments]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


def armed() -> ctypes.CDLL | None:
    """The library in this process; None if it was not loaded."""
    shim = ctypes.CDLL(None)
    if not hasattr(shim, "torture_arm"):
        return None
    shim.torture_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
    shim.torture_done.restype = ctypes.c_long
    return shim


def in_child(action: Callable[[int], None], after: float | None = None) -> tuple[int, list[int]]:
    """Fork a child that does something and writes numbers to a pipe; return its status and the numbers.

    Args:
        action: what the child does with the pipe's descriptor.
        after: seconds after which the child is killed; None: it ends by itself.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        code = 1
        try:
            action(writes)
            code = 0
        except RapidinError:
            code = 3
        except BaseException:  # noqa: BLE001 - told to the parent by the exit code
            sys.excepthook(*sys.exc_info())
            code = 4
        finally:
            os._exit(code)
    os.close(writes)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reads, "rb") as pipe:
        numbers = [int(line) for line in pipe.read().split()]
    return os.waitpid(child, 0)[1], numbers


def told(writes: int) -> Callable[[int], object]:
    return lambda number: os.write(writes, f"{number}\n".encode())


def operations(path: Path, work: Script, shim: ctypes.CDLL) -> int:
    """Return the number of file operations of an undisturbed run."""

    def count(writes: int) -> None:
        shim.torture_arm(-1, COUNT, str(path).encode(), b"")
        new_store(path)
        with Store.open(path) as store:
            work.run(store, 0, lambda _: None)
        os.write(writes, f"{shim.torture_done()}\n".encode())

    status, (number,) = in_child(count)
    if status:
        raise RuntimeError("the undisturbed run failed")
    return number


def trial(path: Path, work: Script, shim: ctypes.CDLL, number: int, act: int) -> str | None:
    """Carry out the script with one fault; return what is wrong afterwards, if anything."""

    def run(writes: int) -> None:
        shim.torture_arm(number, act, str(path).encode(), b"")
        new_store(path)
        with Store.open(path) as store:
            told(writes)(0)
            work.run(store, 0, told(writes))

    status, reached = in_child(run)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 4:
        return "a traceback"
    return wrong(path, work, reached)


def wrong(path: Path, work: Script, reached: list[int]) -> str | None:
    """Tell what is wrong with a store after a fault, or None."""
    try:
        if not reached and not Store.exists(path):
            new_store(path)  # it was never created, and can be now
        state = check(path, work.states, max(reached, default=0))
    except Exception as error:  # noqa: BLE001 - any error is a failure
        return f"{type(error).__name__}: {error}"[:300]
    return None if state >= 0 else "no state"


def faults(folder: Path, seconds: float, seed: int = 0) -> dict[str, tuple[int, list[str]]]:
    """Try faults until time is up, every operation in turn if it suffices; return trials and failures by kind."""
    work, shim, chosen = script(), armed(), random.Random(seed)
    results: dict[str, tuple[int, list[str]]] = {}

    def note(kind: str, place: str, problem: str | None) -> None:
        trials, failures = results.get(kind, (0, []))
        results[kind] = (trials + 1, failures + ([f"{place}: {problem}"] if problem else []))

    end = time.monotonic() + seconds
    path = folder / "faults"
    if shim is None:
        while time.monotonic() < end:
            shutil.rmtree(path, ignore_errors=True)
            note("killed at random", "", killed_at_random(path, work, chosen.uniform(0, 1.0)))
        return results
    shutil.rmtree(path, ignore_errors=True)
    number = operations(path, work, shim)
    plan = [(kind, at) for kind in KINDS for at in range(number)]
    chosen.shuffle(plan)
    for kind, at in plan:
        if time.monotonic() > end:
            break
        shutil.rmtree(path, ignore_errors=True)
        note(kind, f"operation {at} of {number}", trial(path, work, shim, at, KINDS[kind]))
    return results


def killed_at_random(path: Path, work: Script, after: float) -> str | None:
    def run(writes: int) -> None:
        new_store(path)
        with Store.open(path) as store:
            told(writes)(0)
            work.run(store, 0, told(writes))

    _, reached = in_child(run, after)
    return wrong(path, work, reached)
