"""Working memory that is kept, how much is left, and what follows when it runs out."""

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
    """Memory that a device has left, with what the system would give up for it; None where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError):  # only Linux has it
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out; torch has a class of its own for CUDA only."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error)


def release_cached_memory() -> None:
    """Give back what torch keeps of a GPU's memory after its tensors are gone.

    Not to be called while an error is handled: its traceback keeps the tensors of what failed alive.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def unless_memory_runs_out(compute: Callable[[], Result]) -> Result | None:
    """Compute something; None where memory runs out, after what was held is free again.

    Args:
        compute: gives anything but None.
    """
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release_cached_memory()
    return None


class WorkingMemory:
    """Room for a tensor that is used up before the next is made; for one thread at a time.

    Of fresh memory the system makes every page empty first, which takes as long as writing a gradient to it. On a
    GPU torch keeps memory by itself.
    """

    def __init__(self) -> None:
        self._kept = torch.empty(0, dtype=torch.float32, device="cpu")

    def room(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Give an uninitialised float32 tensor, whose memory the next call gives again."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=torch.float32, device=device)
        size = math.prod(shape)
        if self._kept.numel() < size:
            self._kept = torch.empty(0, dtype=torch.float32, device="cpu")  # let go of it first
            self._kept = torch.empty(size, dtype=torch.float32, device="cpu")
        return self._kept[:size].view(shape)
