"""Every registered kind of projection, and a plain dense one, keep to what `Projection` promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor

from rapidin.attribution.gradients import Normalisation, ParameterGradient, scale, squares_for
from rapidin.attribution.projections import PROJECTIONS, Projection, make_projection, suiting_kind
from rapidin.errors import SettingError
from rapidin.settings import ProjectionKind, ProjectionSettings
from rapidin.support import WorkingMemory
from tests.attribution.projections.conformance import SHAPES, ProjectionConformance, settings


class DenseRademacher:
    """The projection of the textbook: a matrix of independent signs, held whole; for tiny gradients only."""

    def __init__(self, settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]]) -> None:
        self.dimension = settings.dimension
        sizes = [math.prod(shape) for shape in shapes]
        if self.dimension > sum(sizes):
            raise SettingError(f"projection dimension {self.dimension} is larger than {sum(sizes)} parameters")
        generator = torch.Generator().manual_seed(settings.seed)
        signs = torch.randint(2, (self.dimension, sum(sizes)), generator=generator) * 2.0 - 1
        self.matrices = (signs / math.sqrt(self.dimension)).split(sizes, dim=1)

    @classmethod
    def suits(
        cls,
        settings: ProjectionSettings,
        shapes: Sequence[tuple[int, ...]],
        normalise_layers: bool,
    ) -> bool:
        return False

    def sketches(self, batch: int, normalisation: Normalisation, memory: WorkingMemory) -> DenseSketches:
        return DenseSketches(batch, self, normalisation)

    def share(self, position: int) -> slice:
        return slice(0, self.dimension)

    def restored(self, vector: Tensor, position: int, size: int) -> Tensor:
        return self.matrices[position].T @ vector


class DenseSketches:
    """Accumulator of `DenseRademacher`."""

    def __init__(self, batch: int, projection: DenseRademacher, normalisation: Normalisation) -> None:
        self.projection = projection
        self.normalisation = normalisation
        self.sum = torch.zeros(batch, projection.dimension)

    def consume(self, gradient: ParameterGradient) -> None:
        values = gradient.block(0, gradient.rows).flatten(1)
        scale(self.normalisation, gradient.position, values, squares_for(self.normalisation, values))
        self.sum += values @ self.projection.matrices[gradient.position].T

    def result(self) -> Tensor:
        return self.sum


class TestProjections(ProjectionConformance):
    @pytest.fixture(params=[*PROJECTIONS.values(), DenseRademacher], ids=lambda kind: kind.__name__)
    def kind(self, request: pytest.FixtureRequest) -> type[Projection]:
        kind: type[Projection] = request.param
        return kind


def test_every_name_of_the_settings_has_its_kind() -> None:
    assert set(PROJECTIONS) == set(get_args(ProjectionKind))
    for name, kind in PROJECTIONS.items():
        assert type(make_projection(ProjectionSettings(kind=name, dimension=64), SHAPES)) is kind


@pytest.mark.parametrize("normalise_layers", [True, False])
def test_some_kind_suits_every_store(normalise_layers: bool) -> None:
    for shapes in ([(1,)], SHAPES, [(5000, 64)] * 20):
        assert suiting_kind(settings(), shapes, normalise_layers) in PROJECTIONS
