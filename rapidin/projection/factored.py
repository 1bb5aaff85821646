"""The factored projection: a sketch of a layer's gradient made from its two factors, without the gradient.

A linear layer's gradient is G = Σ_t δ_t x_tᵀ. A TensorSketch (Pham & Pagh 2013) is a count sketch of G whose bucket
and sign come from row and column apart: entry (r, c) goes to bucket (h₁(r) + h₂(c)) mod w with sign s₁(r)·s₂(c).
Summed over the tokens, that is the circular convolution of a count sketch of δ_t with one of x_t, a product of their
spectra: two short Fourier transforms a token instead of r·c multiplications, and G is never formed. A gradient that
is there already (plain autograd) or sparse (embeddings) goes through the same map with one-hot rows as δ.

Definition, version 1, for a gradient of L tensors and a RapidGrad of K numbers:

* Shares: a tensor that has no more elements than its equal share of what the smaller ones left of K is copied,
  without any noise; the others share the rest equally, since layer-wise normalisation makes them equally heavy. A
  share is w numbers, the fast Fourier length within 3 % below it that has the most factors of two.
* One dimension of the matrix (the smaller one, unless that is 1) is *permuted*: filled up to a multiple of w with
  nothing, shuffled by the order of keyed hashes, h(i) = place of i mod w. The other is *folded*: in slabs of w
  neighbours, each moved in a circle by a hash of its number (the first by none).
* Signs are bits of a keyed hash.

Two entries in different rows and columns meet with probability 1/w over the seeds, of one row or column never or
with probability 1/w, so E⟨Ru, Rv⟩ = ⟨u, v⟩. The signs of entries are products, which costs variance where gradients
are of very low rank and alike: for rank-one u = v it is 8/w instead of a count sketch's 2/w. Measured on real
gradients the noise is that of the exact path; see benchmarks/RESULTS.md.

Shape letters: b batch · t tokens · r rows · c columns · w numbers of a sketch · f = w/2 + 1 frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from rapidin.errors import SettingError
from rapidin.projection.hashing import hash32, make_keys
from rapidin.settings import ProjectionSettings

LEAST_SHARE = 8
"""Numbers below which a layer's sketch says nothing about its direction."""

_ELEMENTS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Numbers transformed together: on a CPU as many as its caches hold, on a GPU enough to fill it."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A small tensor that is part of the RapidGrad as it is: `size` numbers from number `first` on."""

    first: int
    size: int


class FactoredProjection:
    """The map of one store, for parameter tensors of the given shapes.

    Args:
        settings: K and seed.
        shapes: of each parameter tensor seen as a matrix (rows, columns), in the order of the flattened gradient.

    Raises:
        SettingError: K is larger than the gradient, or too small for so many tensors.

    Attributes:
        dimension: K.
        tensors: the map of each parameter tensor.
    """

    def __init__(self, settings: ProjectionSettings, shapes: Sequence[tuple[int, int]]) -> None:
        self.dimension = settings.dimension
        sizes = [rows * columns for rows, columns in shapes]
        maps: dict[int, Copied | TensorSketch] = {}
        first = 0
        for place, position in enumerate(sorted(range(len(sizes)), key=lambda position: sizes[position])):
            share = (self.dimension - first) // (len(sizes) - place)
            if sizes[position] <= share:
                maps[position] = Copied(first, sizes[position])
                first += sizes[position]
                continue
            if share < LEAST_SHARE:
                needed = 1 << (LEAST_SHARE * len(sizes) - 1).bit_length()
                raise SettingError(
                    f"projection dimension {self.dimension} leaves {share} numbers for each of {len(sizes)} "
                    f"parameter tensors: give at least {needed} with --projection-dim"
                )
            length = fast_length(share)
            maps[position] = TensorSketch(settings, position, shapes[position], first, length)
            first += length
        self.tensors = [maps[position] for position in range(len(sizes))]


def fast_length(most: int) -> int:
    """Choose the length of a Fourier transform.

    Returns:
        A number without prime factors above 5, not above `most`; within 3 % of `most` the one with the most
        factors of two, otherwise the largest.
    """
    smooth = [number for number in range(most, most * 97 // 100, -1) if _is_smooth(number)]
    if smooth:
        return max(smooth, key=lambda number: (number & -number, number))
    return next(number for number in range(most, 0, -1) if _is_smooth(number))


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


class TensorSketch:
    """The map of one parameter tensor.

    Attributes:
        first: of its numbers in the RapidGrad.
        size: w, how many these are.
    """

    def __init__(
        self, settings: ProjectionSettings, position: int, shape: tuple[int, int], first: int, size: int
    ) -> None:
        self.first = first
        self.size = size
        self._rows: _Side
        self._columns: _Side
        rows, columns = shape
        row_keys = make_keys(settings, f"factored tensor {position} rows", 2)
        column_keys = make_keys(settings, f"factored tensor {position} columns", 2)
        # The permutation breaks every regularity of the sums of places; it costs a gather, so the smaller one.
        if 1 < rows <= columns or columns == 1:
            self._rows = _Permuted(rows, size, row_keys)
            self._columns = _Folded(columns, size, column_keys)
        else:
            self._rows = _Folded(rows, size, row_keys)
            self._columns = _Permuted(columns, size, column_keys)

    def of_outer_products(self, left: Tensor, right: Tensor) -> Tensor:
        """Sketch Σ_t left_t right_tᵀ.

        Args:
            left: [b, t, r].
            right: [b, t, c].

        Returns:
            The sketch's spectrum, complex64 [b, f]; spectra of several contributions may be added.
        """
        result = self._empty(left.shape[0], left.device)
        for batch, tokens in self._pieces(left.shape[0], left.shape[1], left.device):
            spectrum = self._rows.spectrum(left[batch, tokens])
            spectrum *= self._columns.spectrum(right[batch, tokens])
            result[batch] += spectrum.sum(dim=1)
        return result

    def of_rows(self, index: Tensor, values: Tensor) -> Tensor:
        """Sketch the gradient whose row index[b, t] receives values[b, t].

        Args:
            index: int64 [b, t], or [1, t] for all samples alike; −1 for none.
            values: [b, t, c].

        Returns:
            As of `of_outer_products`.
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
        sketch: Tensor = torch.fft.irfft(spectrum, n=self.size)
        return sketch

    def _empty(self, batch: int, device: torch.device) -> Tensor:
        return torch.zeros(batch, self.size // 2 + 1, dtype=torch.complex64, device=device)

    def _pieces(self, batch: int, tokens: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
        """Cut a batch into pieces of some samples, or of some tokens of one, that fit into the caches."""
        most = max(1, _ELEMENTS_AT_ONCE.get(device.type, 1 << 18) // self.size)
        samples = max(1, most // max(tokens, 1))
        for first in range(0, batch, samples):
            for token in range(0, tokens, most):
                yield slice(first, first + samples), slice(token, token + most)


class _Permuted:
    """A dimension whose coordinates are shuffled over the buckets, each of which gets equally many.

    Args:
        size: n, of the dimension.
        length: w, number of buckets.
        keys: two of `make_keys`.
    """

    def __init__(self, size: int, length: int, keys: Sequence[int]) -> None:
        self._length = length
        padded = math.ceil(size / length) * length
        order = torch.argsort(hash32(torch.arange(padded), keys[0]), stable=True)
        self._tables = _Tables(
            order=order.clamp_max(size - 1),
            # What was filled up is taken from anywhere and multiplied by nothing.
            signs=torch.where(order < size, _signs(order, keys[1]), 0.0),
            place=torch.argsort(order)[:size] % length,
            sign_of=_signs(torch.arange(size), keys[1]),
            roots=_roots(length),
        )

    def spectrum(self, values: Tensor) -> Tensor:
        """Transform the count sketches of [b, t, n]: complex64 [b, t, f]."""
        tables = self._tables.on(values.device)
        order = tables.order.expand(*values.shape[:-1], -1)
        placed = values.float().gather(-1, order).mul_(tables.signs)
        if placed.shape[-1] > self._length:
            placed = placed.unflatten(-1, (-1, self._length)).sum(dim=-2)
        spectrum: Tensor = torch.fft.rfft(placed)
        return spectrum

    def spectrum_of_one(self, index: Tensor) -> Tensor:
        """Transform the count sketches of unit vectors, index int64 [b, t]: complex64 [b, t, f]."""
        return _spectrum_of_one(self._tables.on(index.device), index, self._length)


class _Folded:
    """A dimension whose coordinates are laid over the buckets slab by slab, each moved in a circle.

    Args:
        size: n, of the dimension.
        length: w, number of buckets.
        keys: two of `make_keys`.
    """

    def __init__(self, size: int, length: int, keys: Sequence[int]) -> None:
        self._length = length
        slabs = math.ceil(size / length)
        moved = (hash32(torch.arange(slabs), keys[0]) * length) >> 32
        moved[0] = 0
        self._shifts: list[int] = moved.tolist()
        index = torch.arange(size)
        signs = _signs(index, keys[1])
        place = (index + moved[index // length]) % length
        self._tables = _Tables(order=index[:0], signs=signs, place=place, sign_of=signs, roots=_roots(length))

    def spectrum(self, values: Tensor) -> Tensor:
        """Transform the count sketches of [b, t, n]: complex64 [b, t, f]."""
        signs = self._tables.on(values.device).signs
        values = values.float()
        length = self._length
        folded = values[..., :length] * signs[:length]
        for slab, shift in enumerate(self._shifts[1:], start=1):
            first = slab * length
            last = min(first + length, len(signs))
            turn = min(last, first + length - shift)
            folded[..., shift : shift + turn - first].addcmul_(values[..., first:turn], signs[first:turn])
            folded[..., : last - turn].addcmul_(values[..., turn:last], signs[turn:last])
        spectrum: Tensor = torch.fft.rfft(folded, n=length)
        return spectrum

    def spectrum_of_one(self, index: Tensor) -> Tensor:
        """Transform the count sketches of unit vectors, index int64 [b, t]: complex64 [b, t, f]."""
        return _spectrum_of_one(self._tables.on(index.device), index, self._length)


_Side: TypeAlias = _Permuted | _Folded


@dataclass
class _Tables:
    """What a side knows of each of its n coordinates, and of each of its P ≥ n places before they are folded.

    Attributes:
        order: int64 [P], which coordinate comes where; empty for a folded side.
        signs: float32 [P], sign of what comes there, 0 for nothing.
        place: int64 [n], bucket of a coordinate.
        sign_of: float32 [n], its sign.
        roots: complex64 [w], exp(−2πi j/w).
        copies: the same on other devices.
    """

    order: Tensor
    signs: Tensor
    place: Tensor
    sign_of: Tensor
    roots: Tensor
    copies: dict[torch.device, _Tables] = field(default_factory=dict)

    def on(self, device: torch.device) -> _Tables:
        """Give the tables on a device; made there once."""
        if self.order.device == device:
            return self
        if device not in self.copies:
            self.copies[device] = _Tables(
                self.order.to(device),
                self.signs.to(device),
                self.place.to(device),
                self.sign_of.to(device),
                self.roots.to(device),
            )
        return self.copies[device]


def _signs(index: Tensor, key: int) -> Tensor:
    """Signs of coordinates, float32 of −1 and 1: the highest bit of a hash."""
    return (hash32(index, key) >> 31).float().mul_(2).sub_(1)


def _roots(length: int) -> Tensor:
    angles = torch.arange(length, dtype=torch.float64) * (-2 * math.pi / length)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def _spectrum_of_one(tables: _Tables, index: Tensor, length: int) -> Tensor:
    """Spectrum of s(i) at bucket h(i): s(i)·exp(−2πi·h(i)·frequency/w); of nothing where the index is negative."""
    wanted = index.clamp_min(0)
    frequency = torch.arange(length // 2 + 1, device=index.device)
    spectrum = tables.roots[(tables.place[wanted].unsqueeze(-1) * frequency) % length]
    signs = torch.where(index < 0, 0.0, tables.sign_of[wanted])
    return spectrum * signs.unsqueeze(-1)
