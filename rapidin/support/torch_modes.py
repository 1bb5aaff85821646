"""Torch's modes of the calling thread, which must not decide what rapidin computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def own_torch_modes() -> Iterator[None]:
    """Compute with gradients and in the types of the weights, whatever mode the caller's code is in.

    An application may call within ``torch.inference_mode``, ``torch.no_grad`` or ``torch.autocast``. The first two
    would take the gradients away, and the third would compute other ones.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
