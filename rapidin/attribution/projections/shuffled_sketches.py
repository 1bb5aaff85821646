"""The exact path: each layer's per-sample gradient is formed block by block, normalised, shuffled and projected.

Shape letters: b batch · r rows · c columns · n chunks · K projection dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import Normalisation, ParameterGradient, scale, squares_for
from rapidin.attribution.projections.shuffled import ShuffledProjection
from rapidin.support import WorkingMemory

_BLOCK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Gradient elements formed at a time (32 or 512 MiB in float32), unless one sample's rows need more: on a CPU a
compromise between its caches and the number of calls, on a GPU what outweighs the start of some three hundred
kernels."""


class ShuffledSketches:
    """Accumulator that normalises and projects every parameter's gradients as they come.

    Args:
        batch: b, number of samples.
        projection: the store's.
        normalisation: what each layer's gradient is divided by.
        memory: that gradients are formed in, kept from batch to batch.
    """

    def __init__(
        self, batch: int, projection: ShuffledProjection, normalisation: Normalisation, memory: WorkingMemory
    ) -> None:
        self._batch = batch
        self._projection = projection
        self._normalisation = normalisation
        self._memory = memory
        self._sketches: dict[torch.device, Tensor] = {}

    def consume(self, gradient: ParameterGradient) -> None:
        """Project one parameter's gradients and add them to the samples' sketches."""
        projection = self._projection
        sketch = self._sketches.get(gradient.device)
        if sketch is None:
            sketch = self._sketches[gradient.device] = projection.new_sketch(self._batch, gradient.device)
        part = projection.tensors[gradient.position].part
        blocks = self._blocks(gradient, part.chunk)
        if len(blocks) == 1:
            chunks, values = self._formed(gradient, blocks[0])
            scale(self._normalisation, gradient.position, values, squares_for(self._normalisation, values))
            part.add(sketch, chunks, values)
            return
        # Too large to form at once: project block by block and normalise the projection, which is linear.
        unscaled = projection.new_sketch(self._batch, gradient.device)
        squares = torch.zeros(self._batch, dtype=torch.float64, device=gradient.device)
        for block in blocks:
            chunks, values = self._formed(gradient, block)
            squares += squares_for(self._normalisation, values)
            part.add(unscaled, chunks, values)
        scale(self._normalisation, gradient.position, unscaled, squares)
        sketch += unscaled

    def result(self) -> Tensor:
        """Return the projections, float32 [b, K], on the device of the last layers."""
        sketches = list(self._sketches.values()) or [self._projection.new_sketch(self._batch, "cpu")]
        first, *others = (self._projection.finish(sketch) for sketch in sketches)
        for other in others:
            first += other.to(first.device)
        return first

    def _blocks(self, gradient: ParameterGradient, chunk: int) -> list[range | Tensor]:
        """Cut a gradient's rows into blocks of bounded size: ranges, or the occupied rows of a sparse one."""
        most = _BLOCK_ELEMENTS.get(gradient.device.type, _BLOCK_ELEMENTS["cpu"])
        fitting = most // (gradient.batch * gradient.columns)
        if gradient.columns % chunk == 0 and (occupied := gradient.occupied_rows()) is not None:
            return list(occupied.split(max(fitting, 1)))
        # A multiple that makes every block start a new chunk.
        step = chunk // math.gcd(gradient.columns, chunk)
        rows = max(fitting // step * step, step)
        return [range(first, min(first + rows, gradient.rows)) for first in range(0, gradient.rows, rows)]

    def _formed(self, gradient: ParameterGradient, block: range | Tensor) -> tuple[Tensor, Tensor]:
        """Form a block: int64 [n] chunk numbers, float32 [b, n, chunk] values."""
        placement = self._projection.tensors[gradient.position]
        length, first = placement.part.chunk, placement.first
        if isinstance(block, Tensor):
            per_row = gradient.columns // length
            within = torch.arange(per_row, device=block.device)
            chunks = (first + block[:, None] * per_row + within).flatten()
            return chunks, gradient.chosen_rows(block).view(self._batch, -1, length)
        flat = gradient.block(block.start, len(block), self._memory).flatten(1)
        missing = -flat.shape[1] % length
        if missing:  # the tensor's last chunk is filled up with zeros
            flat = nn.functional.pad(flat, (0, missing))
        values = flat.view(self._batch, -1, length)
        first += block.start * gradient.columns // length
        return torch.arange(first, first + values.shape[1], device=values.device), values
