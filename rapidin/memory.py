"""Working memory that is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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
