"""The factored path: each layer's sketch is made from the factors of its gradient, which is never formed.

Shape letters: b batch · t tokens · r rows · c columns · K projection dimension · f frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rapidin.attribution.gradients import (
    Contribution,
    DenseGradient,
    Normalisation,
    OuterProducts,
    ParameterGradient,
    ScatteredRows,
    scale,
    squares_for,
)
from rapidin.attribution.projections.factored import Copied, FactoredProjection, TensorSketch, TransformedColumns


class FactoredSketches:
    """Accumulator that sketches every parameter's gradients as they come and normalises the sketches.

    The norm that a layer is divided by is its sketch's: an unbiased estimate of the gradient's square norm with a
    relative error of √(2/w), for nothing. Errors of norms scale a layer's scores, which are small, by a few per
    cent; the sketch's own noise is far above that (measured in benchmarks/RESULTS.md).
    """

    def __init__(self, batch: int, projection: FactoredProjection, normalisation: Normalisation) -> None:
        self._batch = batch
        self._projection = projection
        self._normalisation = normalisation
        self._sketches: dict[torch.device, Tensor] = {}
        self._columns: TransformedColumns | None = None

    def consume(self, gradient: ParameterGradient) -> None:
        """Sketch one parameter's gradients and put them at its place."""
        place = self._projection.tensors[gradient.position]
        if isinstance(place, Copied):
            values = gradient.block(0, gradient.rows).flatten(1)
        else:
            first, *others = (self._spectrum(place, part) for part in gradient.contributions)
            values = place.finish(sum(others, start=first))
        squares = squares_for(self._normalisation, values)
        scale(self._normalisation, gradient.position, values, squares)
        sketch = self._sketches.get(gradient.device)
        if sketch is None:
            sketch = torch.zeros(self._batch, self._projection.dimension, device=gradient.device)
            self._sketches[gradient.device] = sketch
        sketch[:, place.first : place.first + place.size] = values

    def result(self) -> Tensor:
        """Return the projections, float32 [b, K], on the device of the last layers."""
        sketches = list(self._sketches.values()) or [torch.zeros(self._batch, self._projection.dimension)]
        first, *others = sketches
        for other in others:
            first += other.to(first.device)
        return first

    def _spectrum(self, sketch: TensorSketch, part: Contribution) -> Tensor:
        """Sketch one contribution: complex64 [b, f]."""
        if isinstance(part, OuterProducts):
            # The backward pass comes to layers with the same input one after another.
            self._columns = sketch.transformed_columns(part.right, self._columns)
            return sketch.of_outer_products(part.left, self._columns)
        if isinstance(part, ScatteredRows):
            return sketch.of_rows(part.index, part.values)
        if isinstance(part, DenseGradient):
            rows = torch.arange(part.values.shape[1], device=part.values.device)
            return sketch.of_rows(rows.unsqueeze(0), part.values)
        raise TypeError(f"no sketch of a {type(part).__name__}")
