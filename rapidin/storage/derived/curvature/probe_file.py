"""The file of a curvature sample: its probes, 8 bits a number, and their inner products.

A probe is divided into blocks of 1,024 numbers, because the tensors of a model have gradients of very different
size. Each block is rounded to multiples of its largest number divided by 127. In measurements the scores of
searches had a correlation of .998 and more with those of exact probes, but .992 at 4 bits. The inner products are
those of the rounded probes, because other ones would not fit them.

If RapidGrads have several sections, one for each checkpoint of the model, there are inner products of each one.

Shape letters: m probes · K projection dimension · C sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError
from rapidin.settings import CURVATURE_DAMPING, Objective, ProbeShape
from rapidin.storage.derived import derived_files
from rapidin.storage.derived.derived_kind import StoreFacts
from rapidin.storage.derived.derived_records import WrittenFile

FOLDER = "curvature"

BITS = 8
_BLOCK = 1_024
"""Number of a probe's numbers that share a scale."""
_LARGEST = 127

_COLUMNS = 4_096
"""Number of columns of the probes that are decoded together while inner products are computed."""


@dataclass(frozen=True, slots=True)
class ComputedProbes:
    """Some probes, as they were computed.

    Attributes:
        rows: place of each probe among those that were asked for; a probe that cannot be used is left out.
        vectors: the probes, float32 [b, K].
        tokens: number of target tokens of each probe's sample.
    """

    rows: Sequence[int]
    vectors: NDArray[np.float32]
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class ProbeArrays:
    """Probes in ascending order of their keys, as a file holds them.

    Attributes:
        keys: key of each probe, see `probe_choice`, uint64 [m].
        codes: the probes, each block of numbers divided by its scale, int8 [m, K].
        scales: scale of each block of each probe, float32 [m, ⌈K/1024⌉].
        tokens: number of target tokens that each probe is a sum over, int64 [m].
        gram: inner products of the probes, float32 [m, m], or those of each section [C, m, m].
    """

    keys: NDArray[np.uint64]
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    tokens: NDArray[np.int64]
    gram: NDArray[np.float32]

    @classmethod
    def none(cls, shape: ProbeShape) -> ProbeArrays:
        """Return no probes of a shape."""
        return cls(
            np.empty(0, np.uint64),
            np.empty((0, shape.dimension), np.int8),
            np.empty((0, _blocks(shape.dimension)), np.float32),
            np.empty(0, np.int64),
            np.empty(_gram_shape(0, shape.sections), np.float32),
        )

    @classmethod
    def read(cls, store: StoreFacts, file: WrittenFile, probes: int, remedy: str, recheck: bool) -> ProbeArrays:
        """Read a file, and check it.

        Args:
            store: the store.
            file: what the database says about the file.
            probes: number of probes m.
            remedy: what to do if the file is damaged; ends the message.
            recheck: whether to compute the checksum even if this process has done so before.

        Raises:
            StoreCorruptError: the file is missing or is not as it was written.
        """

        shape = store.probe_shape

        def array(name: str, sizes: tuple[int, ...], dtype: type[np.generic], again: bool = False) -> NDArray[Any]:
            return derived_files.read_array(store.path, FOLDER, file, name, sizes, dtype, remedy, again)

        found = cls(
            array("keys", (probes,), np.uint64, recheck),  # one checksum is that of the whole file
            array("codes", (probes, shape.dimension), np.int8),
            array("scales", (probes, _blocks(shape.dimension)), np.float32),
            array("tokens", (probes,), np.int64),
            array("gram", _gram_shape(probes, shape.sections), np.float32),
        )
        if not (np.isfinite(found.gram).all() and np.isfinite(found.scales).all() and (found.tokens > 0).all()):
            raise StoreCorruptError(f"{store.path / FOLDER / file.name}: its numbers are no probes; {remedy}")
        return found

    def written(self, store: StoreFacts, name: str) -> WrittenFile:
        """Write the probes as the file `name`.

        Raises:
            StoreSpaceError: the disk is full.
            StoreError: the file cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {
            "keys": self.keys,
            "codes": self.codes,
            "scales": self.scales,
            "tokens": self.tokens,
            "gram": self.gram,
        }
        return derived_files.write_arrays(store.path, FOLDER, name, arrays)

    def having(self, keys: NDArray[np.uint64]) -> ProbeArrays:
        """Keep the probes with some keys."""
        kept = np.flatnonzero(np.isin(self.keys, keys))
        return ProbeArrays(
            self.keys[kept], self.codes[kept], self.scales[kept], self.tokens[kept], _chosen(self.gram, kept)
        )

    def joined(
        self, keys: NDArray[np.uint64], vectors: NDArray[np.float32], tokens: NDArray[np.int64]
    ) -> ProbeArrays:
        """Add probes, and their inner products with all probes.

        Args:
            keys: keys of the new probes, uint64 [b]; none of them is here yet.
            vectors: the new probes, float32 [b, K].
            tokens: number of target tokens of each, int64 [b].
        """
        codes, scales = _rounded(vectors)
        before = len(self.keys)
        all_codes = np.concatenate([self.codes, codes])
        all_scales = np.concatenate([self.scales, scales])
        sections = 1 if self.gram.ndim == 2 else len(self.gram)
        size = codes.shape[1] // sections
        gram = np.zeros(_gram_shape(len(all_codes), sections), np.float32)
        gram[..., :before, :before] = self.gram
        for number, one in enumerate([gram] if sections == 1 else gram):
            new = inner_products(all_codes, all_scales, before, range(number * size, (number + 1) * size))
            one[before:], one[:, before:] = new, new.T
        order = np.argsort(np.concatenate([self.keys, keys]))
        return ProbeArrays(
            np.concatenate([self.keys, keys])[order],
            all_codes[order],
            all_scales[order],
            np.concatenate([self.tokens, tokens])[order],
            _chosen(gram, order),
        )


@dataclass(frozen=True, slots=True)
class StoredCurvature:
    """A store's curvature sample, as searches use it.

    The Gauss–Newton matrix of the training loss's mean over target tokens is estimated by ΨᵀΨ; `decoded` gives
    rows of Ψ, float32 [m, K].

    Attributes:
        version: name of this sample with this damping; scores of different versions do not compare.
        damping: damping of all questions, in the unit of `rapidin.attribution.QueryCorrection`; None: that of
            `rapidin.settings.CURVATURE_DAMPING` for the question's objective.
        keys: key of each probe, see `probe_choice`, uint64 [m].
        scale: factor of the probes in Ψ: 1/√T, where T is the number of target tokens of all.
        codes: codes of the probes, int8 [m, K].
        scales: scale of each block of the codes, float32 [m, ⌈K/1024⌉].
        gram: ΨΨᵀ, float32 [m, m], or that of each section [C, m, m].
    """

    version: str
    damping: float | None
    keys: NDArray[np.uint64]
    scale: float
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    gram: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of probes m."""
        return len(self.codes)

    def damping_of(self, objective: Objective) -> float:
        """Return the damping of questions of an objective."""
        return CURVATURE_DAMPING[objective] if self.damping is None else self.damping

    def decoded(self, first: int, last: int) -> NDArray[np.float32]:
        """Return the rows of Ψ from `first` to before `last`, float32."""
        return _decoded(self.codes[first:last], self.scales[first:last])


def bytes_of_probes(probes: int, shape: ProbeShape) -> int:
    """Return the size of the arrays of a file that holds a number of probes of a shape."""
    return probes * (shape.dimension + 4 * _blocks(shape.dimension) + 16) + 4 * shape.sections * probes**2


def inner_products(
    codes: NDArray[np.int8], scales: NDArray[np.float32], first: int, numbers: range
) -> NDArray[np.float32]:
    """Compute the inner products of the probes from place `first` on with all probes, float32 [m - first, m].

    Args:
        codes: codes of the probes, int8 [m, K].
        scales: scales of their blocks, float32 [m, ⌈K/1024⌉].
        first: place of the first probe that is wanted.
        numbers: which of the K numbers count: those of one section.
    """
    found = np.zeros((len(codes) - first, len(codes)), np.float32)
    for start in range(numbers.start, numbers.stop, _COLUMNS):
        stop = min(start + _COLUMNS, numbers.stop)
        block = start // _BLOCK
        # A section of less than 1,024 numbers may begin within a block.
        columns = slice(block * _BLOCK, stop)
        part = _decoded(codes[:, columns], scales[:, block : _blocks(stop)])[:, start - block * _BLOCK :]
        found += part[first:] @ part.T
    return found


def _gram_shape(probes: int, sections: int) -> tuple[int, ...]:
    return (probes, probes) if sections == 1 else (sections, probes, probes)


def _chosen(gram: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Take the rows and columns of some probes from inner products."""
    return gram[..., places[:, None], places]


def _rounded(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round vectors [b, K]: codes [b, K] and scales [b, ⌈K/1024⌉]."""
    edges = np.arange(0, vectors.shape[1], _BLOCK)
    scales = (np.maximum.reduceat(np.abs(vectors), edges, axis=1) / _LARGEST).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(1))
    codes = np.empty(vectors.shape, np.int8)
    for number, edge in enumerate(edges):
        columns = slice(edge, edge + _BLOCK)
        codes[:, columns] = np.rint(vectors[:, columns] / divisors[:, number, None])
    return codes, scales


def _decoded(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decode codes [b, K] with their scales [b, ⌈K/1024⌉]."""
    decoded = codes.astype(np.float32)
    for number in range(scales.shape[1]):
        decoded[:, number * _BLOCK : (number + 1) * _BLOCK] *= scales[:, number, None]
    return decoded


def _blocks(dimension: int) -> int:
    return -(-dimension // _BLOCK)
