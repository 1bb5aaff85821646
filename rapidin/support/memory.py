"""Memory: the amount that is left, a way to notice that it ran out, and room that is used repeatedly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that a device has left, with those that the system would give up; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError):  # only Linux has this file
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out; torch has a class for such errors with CUDA only."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error)


def release_cached_memory() -> None:
    """Give back the memory of a GPU that torch keeps after its tensors are gone.

    This must not be called while an error is handled, because its traceback keeps the failed call's tensors alive.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def unless_memory_runs_out(compute: Callable[[], Result]) -> Result | None:
    """Compute something and return it; None if memory ran out, after the memory that was used is free again.

    Args:
        compute: function that returns anything but None.
    """
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release_cached_memory()
    return None


class WorkingMemory:
    """Room for a tensor that is not needed any more when the next one is made; only one thread may use it at a
    time.

    The system empties every page of fresh memory first, which takes as long as writing a gradient to it. On a GPU
    torch keeps memory by itself.
    """

    def __init__(self) -> None:
        self._kept = torch.empty(0, dtype=torch.float32, device="cpu")

    def room(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Return an uninitialised float32 tensor, whose memory the next call returns again."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=torch.float32, device=device)
        size = math.prod(shape)
        if self._kept.numel() < size:
            self._kept = torch.empty(0, dtype=torch.float32, device="cpu")  # release the old memory first
            self._kept = torch.empty(size, dtype=torch.float32, device="cpu")
        return self._kept[:size].view(shape)
