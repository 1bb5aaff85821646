"""Count sketches of one dimension of a matrix, and their Fourier transforms; see `factored`.

Shape letters: b batch · t tokens · n coordinates · P places · w buckets · f = w/2 + 1 frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from rapidin.attribution.integer_hashes import hash32


class Permuted:
    """A dimension whose coordinates are shuffled over the buckets, each of which gets equally many.

    Args:
        size: size n of the dimension.
        length: number w of buckets.
        keys: two keys from `make_keys`.
    """

    def __init__(self, size: int, length: int, keys: Sequence[int]) -> None:
        self._length = length
        padded = math.ceil(size / length) * length
        order = torch.argsort(hash32(torch.arange(padded), keys[0]), stable=True)
        self._tables = _Tables(
            order=order.clamp_max(size - 1),
            # A place that only fills up takes some coordinate and multiplies it by zero.
            signs=torch.where(order < size, _signs(order, keys[1]), 0.0),
            place=torch.argsort(order)[:size] % length,
            sign_of=_signs(torch.arange(size), keys[1]),
            roots=_roots(length),
        )

    def sketch(self, values: Tensor) -> Tensor:
        """Make the count sketches of [..., n]: float32 [..., w]."""
        tables = self._tables.on(values.device)
        order = tables.order.expand(*values.shape[:-1], -1)
        placed = values.float().gather(-1, order).mul_(tables.signs)
        if placed.shape[-1] > self._length:
            placed = placed.unflatten(-1, (-1, self._length)).sum(dim=-2)
        return placed

    def spectrum(self, values: Tensor) -> Tensor:
        """Transform the count sketches of [b, t, n]: complex64 [b, t, f]."""
        spectrum: Tensor = torch.fft.rfft(self.sketch(values))
        return spectrum

    def spectrum_of_one(self, index: Tensor) -> Tensor:
        """Transform the count sketches of unit vectors, index int64 [b, t]: complex64 [b, t, f]."""
        return _spectrum_of_one(self._tables.on(index.device), index, self._length)

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the bucket, int64 [n], and the sign, float32 [n], of every coordinate."""
        tables = self._tables.on(device)
        return tables.place, tables.sign_of


class Folded:
    """A dimension whose coordinates are laid over the buckets slab by slab; each slab is moved in a circle.

    Args:
        size: size n of the dimension.
        length: number w of buckets.
        keys: two keys from `make_keys`.
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

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the bucket, int64 [n], and the sign, float32 [n], of every coordinate."""
        tables = self._tables.on(device)
        return tables.place, tables.sign_of


Side: TypeAlias = Permuted | Folded


@dataclass
class _Tables:
    """Tables of a side's n coordinates, and of its P ≥ n places before they are folded.

    Attributes:
        order: coordinate at each place, int64 [P]; empty for a folded side.
        signs: sign of the coordinate at each place, float32 [P]; 0 if there is none.
        place: bucket of each coordinate, int64 [n].
        sign_of: sign of each coordinate, float32 [n].
        roots: roots of unity exp(−2πi j/w), complex64 [w].
        copies: copies of the tables on other devices.
    """

    order: Tensor
    signs: Tensor
    place: Tensor
    sign_of: Tensor
    roots: Tensor
    copies: dict[torch.device, _Tables] = field(default_factory=dict)

    def on(self, device: torch.device) -> _Tables:
        """Return the tables on a device; they are copied to each device once."""
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
    """Compute the signs of coordinates, float32 of −1 and 1, from the highest bit of a hash."""
    return (hash32(index, key) >> 31).float().mul_(2).sub_(1)


def _roots(length: int) -> Tensor:
    """Compute the roots of unity exp(−2πi j/w) for w = `length`, complex64 [w]."""
    angles = torch.arange(length, dtype=torch.float64) * (-2 * math.pi / length)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def _spectrum_of_one(tables: _Tables, index: Tensor, length: int) -> Tensor:
    """Compute the spectrum of s(i) at bucket h(i): s(i)·exp(−2πi·h(i)·frequency/w); zero for a negative index."""
    wanted = index.clamp_min(0)
    frequency = torch.arange(length // 2 + 1, device=index.device)
    spectrum = tables.roots[(tables.place[wanted].unsqueeze(-1) * frequency) % length]
    signs = torch.where(index < 0, 0.0, tables.sign_of[wanted])
    return spectrum * signs.unsqueeze(-1)
