"""The kinds of projection: the protocol of all kinds, and the list of them.

A new kind is one file, one line in `PROJECTIONS` and one name in `rapidin.settings.ProjectionKind`. It must pass
tests/attribution/projections/conformance.py.

Shape letters: K projection dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from rapidin.attribution.gradients import Accumulator, Normalisation
from rapidin.attribution.projections.factored import FactoredProjection
from rapidin.attribution.projections.shuffled import ShuffledProjection
from rapidin.settings import ProjectionKind, ProjectionSettings
from rapidin.support import WorkingMemory


class Projection(Protocol):
    """The linear map R from a gradient to its RapidGrad, for parameter tensors of given shapes.

    It is fixed by the settings and shapes alone, and E⟨Ru, Rv⟩ = ⟨u, v⟩ over the seeds.

    Args:
        settings: settings with K, the seed and the kind's own parameters.
        shapes: shape of each parameter tensor, in the order of the flattened gradient.

    Raises:
        SettingError: K does not fit the parameter tensors.

    Attributes:
        dimension: projection dimension K.
    """

    dimension: int

    def __init__(self, settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]]) -> None: ...

    @classmethod
    def suits(
        cls, settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]], normalise_layers: bool
    ) -> bool:
        """Tell whether a new store should take this kind if the user leaves the choice open.

        Args:
            settings: settings with K, the seed and the kind's own parameters.
            shapes: shape of each parameter tensor, in the order of the flattened gradient.
            normalise_layers: whether each parameter tensor's gradient is divided by its norm.
        """

    def sketches(self, batch: int, normalisation: Normalisation, memory: WorkingMemory) -> Accumulator:
        """Make an empty accumulator of the RapidGrads of a batch, whose result is float32 [batch, K].

        Args:
            batch: number of samples.
            normalisation: normalisation of each layer's gradient.
            memory: memory that gradients may be formed in, kept from batch to batch.
        """

    def share(self, position: int) -> slice:
        """Tell which of the K numbers the tensor at `position` of the gradient can change."""

    def restored(self, vector: Tensor, position: int, size: int) -> Tensor:
        """Compute one tensor's part of Rᵀz, float32 [size]. For every gradient v, ⟨Rᵀz, v⟩ = ⟨z, Rv⟩.

        Args:
            vector: the vector z [K].
            position: position of the tensor in the flattened gradient.
            size: number of the tensor's elements.
        """


PROJECTIONS: dict[ProjectionKind, type[Projection]] = {
    "factored": FactoredProjection,
    "shuffled": ShuffledProjection,
}
"""The kinds by name; the first that suits a new store is taken."""


def make_projection(settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]]) -> Projection:
    """Make a store's map.

    Args:
        settings: settings with the kind, K and the seed.
        shapes: shape of each parameter tensor, in the order of the flattened gradient.

    Raises:
        SettingError: K does not fit the parameter tensors.
    """
    return PROJECTIONS[settings.kind](settings, shapes)


def suiting_kind(
    settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]], normalise_layers: bool
) -> ProjectionKind:
    """Choose the first kind that suits a new store with these settings and parameter tensors."""
    return next(
        kind for kind, projection in PROJECTIONS.items() if projection.suits(settings, shapes, normalise_layers)
    )
