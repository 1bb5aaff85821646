"""The number of threads that libraries start: only this module changes it, for a while and for one thread.

torch and FAISS compute with teams of OpenMP threads. A team suits one large computation, but not the inside of
threads that share the work already: then all teams wait for each other, which takes many times as long. OpenMP
keeps the number of threads for each calling thread, so that it can be changed there and nowhere else.
`torch.set_num_threads` instead changes it for the whole process: a thread that computes for the first time
meanwhile keeps the changed number for ever. So `torch_threads` calls what torch calls, but only for the calling
thread.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol


class OpenMP(Protocol):
    """A library that uses OpenMP, such as the module faiss; both functions concern the calling thread."""

    def omp_get_max_threads(self) -> int:
        """Return the number of threads of a team that this thread starts."""
        ...

    def omp_set_num_threads(self, num_threads: int, /) -> object:
        """Set the number of threads of a team that this thread starts."""
        ...


def processors() -> int:
    """Return the number of processors that this process may use; a container or batch system may restrict it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def openmp_threads(library: OpenMP, count: int | None) -> Iterator[None]:
    """Set the number of threads of teams that the calling thread starts in a library; None changes nothing.

    What was set before is set again at the end, also after an error.
    """
    if count is None:
        yield
        return
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(count)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)


class _SharedNumber:
    """The number of threads of a torch that was built without OpenMP: one number for all threads.

    The first thread that wants another number sets it, and the last one that still computes with it sets back what
    was before. Threads that come between use the number that they find.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._before = 0

    @contextmanager
    def held(self, count: int) -> Iterator[None]:
        """Have torch compute with `count` threads, unless another thread has set its number already."""
        import torch

        with self._lock:
            if self._holders == 0:
                self._before = torch.get_num_threads()
                torch.set_num_threads(count)
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    torch.set_num_threads(self._before)


_SHARED_NUMBER = _SharedNumber()
"""The number of this process's torch."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Make torch compute with `count` threads in the calling thread; other threads do not notice.

    What was set before is set again at the end, also after an error.
    """
    import torch

    before = torch.get_num_threads()  # makes torch set this thread's number, which it does once in a thread's life
    library = _torch_library()
    if library is None:
        with _SHARED_NUMBER.held(count):
            yield
        return
    if before == count:
        yield
        return
    set_mkl_threads = getattr(library, "MKL_Set_Num_Threads_Local", None)
    mkl_before = set_mkl_threads(count) if set_mkl_threads is not None else 0  # zero means OpenMP's number
    try:
        with openmp_threads(library, count):
            yield
    finally:
        if set_mkl_threads is not None:
            set_mkl_threads(mkl_before)


@cache
def _torch_library() -> ctypes.CDLL | None:
    """Return the library of torch's kernels, with the OpenMP and the MKL that it uses; None without OpenMP."""
    import torch

    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        if (folder / name).exists():
            library = ctypes.CDLL(str(folder / name))
            return library if hasattr(library, "omp_set_num_threads") else None
    return None
