"""A target token of a sample as a sample of its own, without the tokens after it, which it cannot see."""

from __future__ import annotations

from rapidin.attribution.gradients import NamedSample, TokenSample
from rapidin.attribution.rapidgrads import RapidGradEngine


class Prefix:
    """A sample up to one of its target tokens, which alone is a target.

    If the model would give other positions to the tokens of the shorter input, the tokens after the target stay.

    Args:
        sample: the whole sample.
        place: place of the target token.
        engine: engine that will compute the prefix.

    Attributes:
        id: id of the sample.
        ids: token ids.
        targets: whether each token is a target.
    """

    def __init__(self, sample: NamedSample, place: int, engine: RapidGradEngine) -> None:
        same = engine.same_positions(place + 1, len(sample.ids))
        self.id = sample.id
        self.ids = sample.ids[: place + 1] if same else sample.ids
        self.targets = [position == place for position in range(len(self.ids))]


def target_places(sample: TokenSample) -> list[int]:
    """List the places of a sample's target tokens among its tokens."""
    return [place for place, target in enumerate(sample.targets) if target]
