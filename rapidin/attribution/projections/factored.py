"""The factored projection: a sketch of a layer's gradient that is made from its two factors.

A linear layer's gradient is G = Σ_t δ_t x_tᵀ. A TensorSketch (Pham & Pagh 2013) is a count sketch of G in which
row and column determine bucket and sign separately: entry (r, c) goes to bucket (h₁(r) + h₂(c)) mod w with sign
s₁(r)·s₂(c). This sketch is the sum over tokens of the circular convolution of a count sketch of δ_t with a count
sketch of x_t, and the convolution is a product of their spectra. So a token costs two short Fourier transforms
instead of r·c multiplications, and G is never formed. A gradient that is formed already (plain autograd) or sparse
(embeddings) goes through the same map with one-hot rows as δ.

Definition, version 1, for a gradient of L tensors and a RapidGrad of K numbers:

* Shares: the K numbers are given to the tensors in ascending order of their sizes; tensors of equal size are in
  the gradient's order. As long as the next tensor has no more elements than an equal share (rounded down) of the
  numbers that are left, it is copied, without any noise. Each of the other tensors gets w numbers, where w is the
  `fast_length` of their equal share. They get equally many, because layer-wise normalisation makes them equally
  heavy.
* First sketch: a matrix is sketched with W ≥ w buckets. W is w, doubled until it is at least half of the larger
  dimension, or 8·w. A sketch of w buckets alone would be noisier: if two rows (or columns) share a bucket, which
  happens if there are more than W, the products of all their entries have the same sign and add up before they are
  squared.
* One dimension of the matrix is *permuted*: the smaller one, and in a square the rows, but never a dimension of
  length 1. It is filled up with nothing to a multiple of W and shuffled by the order of keyed hashes (equal hashes
  keep their order); h(i) is the place of i, mod W. The other dimension is *folded*: it is divided into slabs of W
  neighbours, and each slab is moved in a circle by ⌊hash(its number)·W / 2³²⌋; the first slab is not moved. The
  bucket of an entry is (h₁ + h₂) mod W.
* Second sketch: if W > w, the W numbers are permuted and summed to w numbers, with signs of their own.
* Signs: the highest bit of a keyed hash is 1 for the sign +1.
* Keys: they are `hashing.make_keys` of "factored tensor {position}" followed by " rows", " columns" or " sketch";
  the first key gives places, the second signs. If the columns fit into W, their keys depend on their number
  instead ("factored {c} columns of {W}"), so that layers with the same input (query, key and value; gate and up)
  share its transform. No two such columns share a bucket, and rows have keys of their own, so the errors of two
  tensors stay uncorrelated.

E⟨Ru, Rv⟩ = ⟨u, v⟩. For u and v of norm 1 the variance is that of a count sketch, (1 + ⟨u, v⟩²)/w, as long as both
dimensions fit into W. If they do not, the variance grows by up to 2‖uᵀv‖²/W for columns and by up to 2‖uvᵀ‖²/W for
rows. This is little for full rank or W = 8·w, and at worst 4/W for rank-one u = v.
tests/attribution/projections/test_factored_statistics.py has the exact formula, and benchmarks/RESULTS.md has the
values on real gradients.

Shape letters: b batch · t tokens · r rows · c columns · w numbers of a sketch ·
W buckets of the first sketch · f = W/2 + 1 frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rapidin.attribution.gradients import (
    Contribution,
    DenseGradient,
    Normalisation,
    OuterProducts,
    ParameterGradient,
    ScatteredRows,
    as_matrix,
    scale,
    squares_for,
)
from rapidin.attribution.projections.count_sketches import Folded, Permuted, Side
from rapidin.attribution.projections.hashing import make_keys
from rapidin.attribution.projections.limits import asked, too_large
from rapidin.errors import SettingError
from rapidin.settings import ProjectionSettings
from rapidin.support import WorkingMemory

LEAST_SHARE = 8
"""Minimum number of numbers for a layer; with fewer, its sketch says nothing about the gradient's direction."""

_LEAST_NUMBERS_FOR_NORM = 32
"""Minimum of numbers per parameter tensor from which its norm can be estimated (relative error √(2/w))."""

_LEAST_REDUCTION = 64
"""Minimum number of traced parameters per number of a RapidGrad for this projection in a new store.

The time of this projection grows with K, the time of the shuffled one with the number of parameters. On a CPU the
two were equally fast at about 85 parameters per number for a model of 5.5 million parameters, and at about 110 for
one of 29.5 million (benchmarks/RESULTS.md). The minimum is somewhat lower, because the noise of this projection is
a third lower.
"""

_MOST_INNER = 8
"""Maximum ratio W : w; the noise that longer transforms would avoid is below a quarter of all noise."""

_ELEMENTS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Number of numbers that are transformed together: as many as a CPU's caches hold, or as keep a GPU busy."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The map of a small tensor, which is copied into the RapidGrad.

    Attributes:
        first: first of the tensor's numbers in the RapidGrad.
        size: number of the tensor's elements.
    """

    first: int
    size: int


class FactoredProjection:
    """The map of one store, for parameter tensors of the given shapes.

    Args:
        settings: settings with K and the seed.
        shapes: shape of each parameter tensor, in the order of the flattened gradient.

    Raises:
        SettingError: K is larger than the gradient, or too small for so many tensors.

    Attributes:
        dimension: projection dimension K.
        tensors: the map of each parameter tensor.
    """

    def __init__(self, settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]]) -> None:
        self.dimension = settings.dimension
        matrices = [as_matrix(shape) for shape in shapes]
        sizes = [rows * columns for rows, columns in matrices]
        if sum(sizes) < settings.dimension:
            raise too_large(settings, sum(sizes))
        ascending = sorted(range(len(sizes)), key=lambda position: sizes[position])
        maps: dict[int, Copied | TensorSketch] = {}
        first = 0
        for position in ascending:
            if sizes[position] > (self.dimension - first) // (len(sizes) - len(maps)):
                break
            maps[position] = Copied(first, sizes[position])
            first += sizes[position]
        sketched = ascending[len(maps) :]
        share = (self.dimension - first) // max(len(sketched), 1)
        if sketched and share < LEAST_SHARE:
            needed = 1 << (LEAST_SHARE * len(sizes) - 1).bit_length()
            enough = settings.sections * needed
            larger = f"give {enough} with --projection-dim, or " if needed <= sum(sizes) else "give "
            raise SettingError(
                f"projection dimension {asked(settings)} leaves {share} numbers for each of {len(sketched)} "
                f"parameter tensors: {larger}--projection shuffled"
            )
        length = fast_length(share) if sketched else 0
        columns: dict[tuple[int, int, bool], Side] = {}
        for position in sketched:
            shape = matrices[position]
            inner = inner_length(shape, length)
            maps[position] = TensorSketch(settings, position, shape, first, length, inner, columns)
            first += length
        self.tensors = [maps[position] for position in range(len(sizes))]

    @classmethod
    def suits(
        cls, settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]], normalise_layers: bool
    ) -> bool:
        """See `Projection.suits`.

        This kind suits if it is at least about as fast as the shuffled one and gives each layer enough numbers.
        Without layer-wise normalisation it would give equal shares to layers of unequal weight, so then it is used
        only on request.
        """
        fast = sum(math.prod(shape) for shape in shapes) >= _LEAST_REDUCTION * settings.dimension
        fine = settings.dimension >= _LEAST_NUMBERS_FOR_NORM * len(shapes)
        return normalise_layers and fast and fine

    def sketches(self, batch: int, normalisation: Normalisation, memory: WorkingMemory) -> FactoredSketches:  # noqa: ARG002
        """See `Projection.sketches`; no memory is needed, because no gradient is formed."""
        return FactoredSketches(batch, self, normalisation)

    def share(self, position: int) -> slice:
        """See `Projection.share`."""
        place = self.tensors[position]
        return slice(place.first, place.first + place.size)

    def restored(self, vector: Tensor, position: int, size: int) -> Tensor:
        """See `Projection.restored`."""
        place = self.tensors[position]
        mine = vector[self.share(position)]
        return mine[:size].clone() if isinstance(place, Copied) else place.restored(mine).flatten()


class FactoredSketches:
    """Accumulator that sketches every parameter's gradients as they come and normalises the sketches.

    The last transform of right factors is kept, because the backward pass reaches layers with the same input one
    after another. The order of the layers decides whether it is used again, but it does not change the sketches,
    because a transform depends on the factors and the map alone (`TransformedColumns.is_of`).

    A layer is divided by the norm of its sketch. The squared norm of the sketch is an unbiased estimate of the
    gradient's squared norm with a relative error of √(2/w), and it costs nothing. An error of the norm scales a
    layer's scores, which are small, by a few per cent; the noise of the sketch is far larger (measured in
    benchmarks/RESULTS.md).

    Args:
        batch: number of samples b.
        projection: the store's map.
        normalisation: normalisation of each layer's gradient.
    """

    def __init__(self, batch: int, projection: FactoredProjection, normalisation: Normalisation) -> None:
        self._batch = batch
        self._projection = projection
        self._normalisation = normalisation
        self._sketches: dict[torch.device, Tensor] = {}
        self._columns: TransformedColumns | None = None

    def consume(self, gradient: ParameterGradient) -> None:
        """Sketch one parameter's gradients and write the sketches to the parameter's share of the K numbers."""
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
        sketch[:, self._projection.share(gradient.position)] = values

    def result(self) -> Tensor:
        """Return the projections, float32 [b, K], on the device of the last layers."""
        sketches = list(self._sketches.values()) or [torch.zeros(self._batch, self._projection.dimension)]
        first, *others = sketches
        for other in others:
            first += other.to(first.device)
        return first

    def _spectrum(self, sketch: TensorSketch, part: Contribution) -> Tensor:
        """Sketch one contribution and return the sketch's spectrum, complex64 [b, f]."""
        if isinstance(part, OuterProducts):
            self._columns = sketch.transformed_columns(part.right, self._columns)
            return sketch.of_outer_products(part.left, self._columns)
        if isinstance(part, ScatteredRows):
            return sketch.of_rows(part.index, part.values)
        if isinstance(part, DenseGradient):
            rows = torch.arange(part.values.shape[1], device=part.values.device)
            return sketch.of_rows(rows.unsqueeze(0), part.values)
        raise TypeError(f"no sketch of a {type(part).__name__}")


def fast_length(most: int) -> int:
    """Choose the length of a Fourier transform.

    Returns:
        The largest number up to `most` without prime factors above 5, except that one with more factors of two is
        preferred if it is above 97 % of `most` (rounded down); several with equally many: the largest.
    """
    smooth = [number for number in range(most, most * 97 // 100, -1) if _is_smooth(number)]
    if smooth:
        return max(smooth, key=lambda number: (number & -number, number))
    return next(number for number in range(most, 0, -1) if _is_smooth(number))


def inner_length(shape: tuple[int, int], size: int) -> int:
    """Choose W, the buckets of a matrix's first sketch, for a sketch of `size` numbers."""
    inner = size
    while inner < min(max(shape) / 2, _MOST_INNER * size):
        inner *= 2
    return inner


def _is_smooth(number: int) -> bool:
    """Tell whether a number has no prime factor above 5."""
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


class TensorSketch:
    """The map of one parameter tensor.

    Args:
        settings: settings with the seed and K.
        position: position of the tensor in the flattened gradient.
        shape: rows and columns of the tensor.
        first: first of the tensor's numbers in the RapidGrad.
        size: number w of the tensor's numbers.
        inner: number W of buckets of the first sketch; w or a multiple of it.
        columns: maps of columns that tensors share; this tensor's map is added if it is missing.

    Attributes:
        first: first of the tensor's numbers in the RapidGrad.
        size: number w of the tensor's numbers.
    """

    def __init__(
        self,
        settings: ProjectionSettings,
        position: int,
        shape: tuple[int, int],
        first: int,
        size: int,
        inner: int,
        columns: dict[tuple[int, int, bool], Side],
    ) -> None:
        self.first = first
        self.size = size
        self._inner = inner
        self._widest = max(inner, *shape)
        name = f"factored tensor {position}"
        # One permuted dimension suffices to make the sums of places irregular. It costs a gather, so it is the
        # smaller dimension.
        permute_rows = 1 < shape[0] <= shape[1] or shape[1] == 1
        row_side, column_side = (Permuted, Folded) if permute_rows else (Folded, Permuted)
        self._rows: Side = row_side(shape[0], inner, make_keys(settings, f"{name} rows", 2))
        if shape[1] > inner:
            self._columns: Side = column_side(shape[1], inner, make_keys(settings, f"{name} columns", 2))
        else:
            kind = (shape[1], inner, permute_rows)
            if kind not in columns:
                keys = make_keys(settings, f"factored {shape[1]} columns of {inner}", 2)
                columns[kind] = column_side(shape[1], inner, keys)
            self._columns = columns[kind]
        self._second = Permuted(inner, size, make_keys(settings, f"{name} sketch", 2)) if inner > size else None

    def transformed_columns(self, right: Tensor, known: TransformedColumns | None) -> TransformedColumns:
        """Transform the right factors of outer products, or return `known` if it is their transform."""
        if known is not None and known.side is self._columns and known.is_of(right):
            return known
        pieces = list(self._pieces(right.shape[0], right.shape[1], right.device))
        spectra = [self._columns.spectrum(right[batch, tokens]) for batch, tokens in pieces]
        return TransformedColumns(right, self._columns, pieces, spectra)

    def of_outer_products(self, left: Tensor, right: TransformedColumns) -> Tensor:
        """Sketch Σ_t left_t right_tᵀ.

        Args:
            left: left factors [b, t, r].
            right: transformed right factors [b, t, c], from `transformed_columns`.

        Returns:
            The sketch's spectrum, complex64 [b, f]; spectra of several contributions may be added.
        """
        result = self._empty(left.shape[0], left.device)
        for (batch, tokens), columns in zip(right.pieces, right.spectra, strict=True):
            spectrum = self._rows.spectrum(left[batch, tokens])
            spectrum *= columns
            result[batch] += spectrum.sum(dim=1)
        return result

    def of_rows(self, index: Tensor, values: Tensor) -> Tensor:
        """Sketch the gradient whose row index[b, t] receives values[b, t].

        Args:
            index: row of each value, int64 [b, t], or [1, t] for all samples alike; −1 means none.
            values: the values [b, t, c].

        Returns:
            The sketch's spectrum, complex64 [b, f]; spectra of several contributions may be added.
        """
        result = self._empty(values.shape[0], values.device)
        for batch, tokens in self._pieces(values.shape[0], values.shape[1], values.device):
            rows = index[:, tokens] if index.shape[0] == 1 else index[batch, tokens]
            spectrum = self._columns.spectrum(values[batch, tokens])
            spectrum *= self._rows.spectrum_of_one(rows)
            result[batch] += spectrum.sum(dim=1)
        return result

    def finish(self, spectrum: Tensor) -> Tensor:
        """Turn a spectrum [b, f] into the sketch, float32 [b, w]."""
        sketch: Tensor = torch.fft.irfft(spectrum, n=self._inner)
        return sketch if self._second is None else self._second.sketch(sketch)

    def restored(self, sketch: Tensor) -> Tensor:
        """Apply the transposed map to a sketch [w], which gives a matrix [r, c]."""
        if self._second is not None:
            place, sign = self._second.places(sketch.device)
            sketch = sketch[place] * sign
        (row, row_sign), (column, column_sign) = (
            side.places(sketch.device) for side in (self._rows, self._columns)
        )
        matrix = sketch[(row.unsqueeze(1) + column) % self._inner]
        return matrix.mul_(row_sign.unsqueeze(1)).mul_(column_sign)

    def _empty(self, batch: int, device: torch.device) -> Tensor:
        return torch.zeros(batch, self._inner // 2 + 1, dtype=torch.complex64, device=device)

    def _pieces(self, batch: int, tokens: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
        """Divide a batch into pieces that fit into the caches: some samples, or some tokens of one sample."""
        most = max(1, _ELEMENTS_AT_ONCE.get(device.type, 1 << 18) // self._widest)
        samples = max(1, most // max(tokens, 1))
        for first in range(0, batch, samples):
            for token in range(0, tokens, most):
                yield slice(first, first + samples), slice(token, token + most)


@dataclass(frozen=True, slots=True)
class TransformedColumns:
    """Right factors of outer products, and their transforms.

    Attributes:
        right: right factors [b, t, c]; they are kept so that no other tensor can be put at their address.
        side: map of the columns.
        pieces: samples and tokens of each piece, whose members were transformed together.
        spectra: transform of each piece, complex64 [·, ·, f].
    """

    right: Tensor
    side: Side
    pieces: list[tuple[slice, slice]]
    spectra: list[Tensor]

    def is_of(self, right: Tensor) -> bool:
        """Tell whether `right` is the memory whose transforms these are, as for query, key and value.

        Two existing tensors with the same address, shape, strides and type hold the same numbers. `right` exists
        as long as this object, so its memory cannot be used again for another tensor; and in a backward pass
        nothing writes to an activation between its uses. An equal tensor at another address costs one more
        transform, which has the same result.
        """
        known, found = (
            (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            for tensor in (self.right, right)
        )
        return known == found
