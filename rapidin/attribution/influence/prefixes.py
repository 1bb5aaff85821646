"""One target token of a sample as a sample of its own, without the tokens after it, which it cannot see."""

from __future__ import annotations

from rapidin.attribution.gradients import TokenSample


class Prefix:
    """A sample up to one of its target tokens, which alone is a target.

    Attributes:
        ids: token ids up to and with it.
        targets: whether each is a target: the last.
    """

    def __init__(self, sample: TokenSample, place: int) -> None:
        self.ids = sample.ids[: place + 1]
        self.targets = [False] * place + [True]


def target_places(sample: TokenSample) -> list[int]:
    """Where a sample's target tokens stand among its tokens."""
    return [place for place, target in enumerate(sample.targets) if target]
