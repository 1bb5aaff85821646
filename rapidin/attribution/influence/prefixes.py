"""A target token of a sample as a sample of its own, without the tokens after it, which it cannot see."""

from __future__ import annotations

from rapidin.attribution.gradients import NamedSample, TokenSample


class Prefix:
    """A sample up to one of its target tokens, which alone is a target.

    Attributes:
        id: id of the sample.
        ids: token ids up to and including the target token.
        targets: whether each token is a target; only the last one is.
    """

    def __init__(self, sample: NamedSample, place: int) -> None:
        self.id = sample.id
        self.ids = sample.ids[: place + 1]
        self.targets = [False] * place + [True]


def target_places(sample: TokenSample) -> list[int]:
    """List the places of a sample's target tokens among its tokens."""
    return [place for place, target in enumerate(sample.targets) if target]
