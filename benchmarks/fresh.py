"""Calls in a fresh process, for what a process can do only once: threads, and the memory it has ever held."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_fresh_process(
    threads: int,
    function: Callable[_Arguments, _Result],
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> _Result:
    """Call a function of a module in a new process whose libraries take so many threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *args, **kwargs).result()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


class PeakMemory:
    """The most memory that this process held since `start`. Linux only.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """

    def __init__(self) -> None:
        self._baseline = 0

    def start(self) -> None:
        """Take what is held now as the baseline and forget earlier peaks."""
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        self._baseline = _status("VmRSS")

    def growth(self) -> int:
        """Bytes of the peak above the baseline."""
        return self.peak() - self._baseline

    def peak(self) -> int:
        """Bytes of the peak, with everything that was loaded before."""
        return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, value = line.split(":", 1)
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def use_threads(threads: int) -> None:
    """Let torch take so many threads."""
    torch.set_num_threads(threads)
