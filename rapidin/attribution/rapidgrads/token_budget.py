"""The numbers of samples and padded tokens that one batch may hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

_MOST_SAMPLES = 256
_SKETCH_BYTES = 256 * 2**20
"""Maximum size in bytes of the sketches of one batch (b × K float32)."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The maximum size of one batch; an immutable value.

    Attributes:
        tokens: maximum number of padded tokens (samples × longest sample).
        samples: maximum number of samples.
        dimension: projection dimension K.
    """

    tokens: int
    samples: int
    dimension: int

    @classmethod
    def for_device(cls, tokens: int | None, device: torch.device, dimension: int) -> TokenBudget:
        """Make the budget with which a device begins.

        Args:
            tokens: number of padded tokens; None means a number that suits the device.
            device: device that computes.
            dimension: projection dimension K, which bounds the number of samples.
        """
        if tokens is None:
            tokens = 16_384 if device.type == "cuda" else 2_048
        return cls(tokens, max(1, min(_MOST_SAMPLES, _SKETCH_BYTES // (4 * dimension))), dimension)

    def fitting(self, longest: int, waiting: int) -> int:
        """Count how many samples one batch may take: at most `waiting`, at least one.

        Args:
            longest: number of tokens of the longest sample.
            waiting: number of samples that could be taken.
        """
        return max(1, min(self.tokens // longest, self.samples, waiting))

    def halved(self, failed: int) -> TokenBudget:
        """Make a smaller budget, after a batch of `failed` padded tokens did not fit into memory."""
        return replace(self, tokens=max(1, min(self.tokens, failed) // 2))
