"""Measurement of the seconds and the memory that a piece of work takes.

Memory is the maximum that the process held, minus what it held before. If the allocator uses memory that was left
over from earlier work, this part is not seen. Memory is read every twentieth of a second, so a shorter peak may be
missed.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rapidin.support import package

_EVERY_SECONDS = 0.05


class Meter:
    """Context manager that measures its body.

    Attributes:
        seconds: seconds that the body took.
        memory: maximum number of bytes by which the process grew.
        device_memory: maximum number of bytes that tensors took on GPUs beyond what was there; None if no GPU was
            used.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory = 0
        self.device_memory: int | None = None
        self._process = package("psutil").Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._before = self._process.memory_info().rss
        self._on_devices = _allocated(reset=True)
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        found = _allocated(reset=False)  # waits for the devices
        self.seconds = time.perf_counter() - self._started
        self._ended.set()
        self._thread.join()
        self._look()
        if found is not None:
            self.device_memory = max(0, found - (self._on_devices or 0))

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        self.memory = max(self.memory, self._process.memory_info().rss - self._before)


def _allocated(reset: bool) -> int | None:
    """Bytes that tensors take on all GPUs; None if no GPU is used.

    Args:
        reset: whether a measurement begins, and the bytes of now are wanted; if not, the maximum since it began
            is.
    """
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    total = 0
    for number in range(torch.cuda.device_count()):
        torch.cuda.synchronize(number)
        if reset:
            torch.cuda.reset_peak_memory_stats(number)
            total += torch.cuda.memory_allocated(number)
        else:
            total += torch.cuda.max_memory_allocated(number)
    return total
