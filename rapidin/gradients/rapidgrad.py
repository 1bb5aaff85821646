"""RapidGrads: per-sample gradients, normalised layer by layer and projected to K numbers.

Shape letters: b batch · r rows · c columns · n chunks · K projection dimension · L layers (parameter tensors).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.gradients.contributions import ParameterGradient
from rapidin.gradients.engine import GradientEngine, TokenSample
from rapidin.projection import Projection
from rapidin.settings import ProjectionSettings, TracedParameter

_BLOCK_ELEMENTS = 1 << 23
"""Gradient elements formed at a time (32 MiB in float32), unless one sample's rows need more."""


@dataclass(frozen=True, slots=True)
class RapidGradBatch:
    """RapidGrads of some samples.

    Attributes:
        vectors: float32 [b, K]; rows named in `problems` are meaningless.
        problems: position of a sample → what is wrong with its gradient.
    """

    vectors: NDArray[np.float32]
    problems: dict[int, str]


class RapidGradEngine:
    """Computes RapidGrads of token samples for one model and one projection.

    Args:
        model: a causal language model in evaluation mode; held until `close`.
        parameters: the traced parameter tensors, in the order of the flattened gradient.
        settings: of normalisation and projection.

    Raises:
        ModelError: a traced parameter does not exist in the model.
        SettingError: K is larger than the number of traced parameters.

    Attributes:
        device: where the model's first layer is.
    """

    def __init__(
        self, model: nn.Module, parameters: Sequence[TracedParameter], settings: ProjectionSettings
    ) -> None:
        sizes = [math.prod(parameter.shape) for parameter in parameters]
        self._projection = Projection(settings, sizes)
        self._layer_norm = settings.layer_norm
        self._layers = len(parameters)
        self._engine = GradientEngine(model, [parameter.name for parameter in parameters])
        self.device = self._engine.device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()

    def compute(self, samples: Sequence[TokenSample]) -> RapidGradBatch:
        """Compute the RapidGrad of every sample.

        With layer-wise normalisation each is scaled by 1/√L, so that the inner product of two of them estimates
        the mean over layers of the cosine between the two gradients.
        """
        vectors = self._engine.accumulate(
            samples, lambda batch: _Sketches(batch, self._projection, self._layer_norm)
        )
        if self._layer_norm:
            vectors = vectors / math.sqrt(self._layers)
        finite = torch.isfinite(vectors).all(dim=1)
        nonzero = (vectors != 0).any(dim=1)
        problems: dict[int, str] = {}
        for position in torch.nonzero(~(finite & nonzero)).flatten().tolist():
            what = "zero" if finite[position] else "not finite"
            problems[position] = f"its gradient is {what}: leave the row out, or look at its text and the model"
        return RapidGradBatch(vectors.numpy(), problems)


class _Sketches:
    """Accumulator that normalises and projects every parameter's gradients as they come."""

    def __init__(self, batch: int, projection: Projection, layer_norm: bool) -> None:
        self._batch = batch
        self._projection = projection
        self._layer_norm = layer_norm
        self._sketches: dict[torch.device, Tensor] = {}

    def consume(self, gradient: ParameterGradient) -> None:
        """Project one parameter's gradients and add them to the samples' sketches."""
        projection = self._projection
        sketch = self._sketches.get(gradient.device)
        if sketch is None:
            sketch = self._sketches[gradient.device] = projection.new_sketch(self._batch, gradient.device)
        first = projection.first_chunks[gradient.position]
        if gradient.columns % projection.chunk == 0 and (occupied := gradient.occupied_rows()) is not None:
            rows, values = occupied
            self._scale(values, _squared_norms(values))
            per_row = gradient.columns // projection.chunk
            chunks = first + rows[:, None] * per_row + torch.arange(per_row, device=rows.device)
            projection.add(sketch, chunks.flatten(), self._chunked(values))
            return
        rows_at_once = self._rows_at_once(gradient)
        if rows_at_once >= gradient.rows:
            values = gradient.block(0, gradient.rows)
            self._scale(values, _squared_norms(values))
            self._project(sketch, first, values)
            return
        # Too large to form at once: project block by block and normalise the projection, which is linear.
        unscaled = projection.new_sketch(self._batch, gradient.device)
        squares = torch.zeros(self._batch, dtype=torch.float64, device=gradient.device)
        for first_row in range(0, gradient.rows, rows_at_once):
            values = gradient.block(first_row, min(rows_at_once, gradient.rows - first_row))
            squares += _squared_norms(values)
            self._project(unscaled, first + first_row * gradient.columns // projection.chunk, values)
        self._scale(unscaled, squares)
        sketch += unscaled

    def result(self) -> Tensor:
        """Return the projections, float32 [b, K] in main memory."""
        total = torch.zeros(self._batch, self._projection.dimension)
        for sketch in self._sketches.values():
            total += self._projection.finish(sketch).cpu()
        return total

    def _rows_at_once(self, gradient: ParameterGradient) -> int:
        """Rows whose elements fit the block size; a multiple that makes every block start a new chunk."""
        chunk = self._projection.chunk
        step = chunk // math.gcd(gradient.columns, chunk)
        fitting = _BLOCK_ELEMENTS // (gradient.batch * gradient.columns)
        return max(fitting // step * step, step)

    def _scale(self, values: Tensor, squares: Tensor) -> None:
        """Divide each sample's values by its norm, in place; a layer without gradient stays zero."""
        if self._layer_norm:
            scale = torch.where(squares > 0, squares.rsqrt(), 0.0).float()
            values *= scale.view(-1, *[1] * (values.dim() - 1))

    def _project(self, sketch: Tensor, first_chunk: int, values: Tensor) -> None:
        chunked = self._chunked(values)
        chunks = torch.arange(first_chunk, first_chunk + chunked.shape[1], device=values.device)
        self._projection.add(sketch, chunks, chunked)

    def _chunked(self, values: Tensor) -> Tensor:
        """View [b, r, c] as chunks [b, n, chunk], filled up with zeros at the end."""
        flat = values.flatten(1)
        missing = -flat.shape[1] % self._projection.chunk
        if missing:
            flat = nn.functional.pad(flat, (0, missing))
        return flat.view(self._batch, -1, self._projection.chunk)


def _squared_norms(values: Tensor) -> Tensor:
    """Squared L2 norm of each sample's values, float64 [b].

    Summed in float32, which is three times as fast, unless the squares would leave its range.
    """
    flat = values.flatten(1)
    norms = torch.linalg.vector_norm(flat, dim=1)
    if not ((norms > 1e-15) & torch.isfinite(norms)).all():
        norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    squares: Tensor = norms.double().square()
    return squares
