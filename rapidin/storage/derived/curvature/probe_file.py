"""The file of a curvature sample: its probes in half precision, and their inner products.

Shape letters: m probes · K projection dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError
from rapidin.storage.derived import derived_files
from rapidin.storage.derived.derived_kind import StoreFacts
from rapidin.storage.derived.derived_records import WrittenFile

FOLDER = "curvature"

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
        codes: the probes, each divided by its scale, float16 [m, K].
        scales: root of the mean square of each probe's numbers, float32 [m].
        tokens: number of target tokens that each probe is a sum over, int64 [m].
        gram: inner products of the probes, float32 [m, m].
    """

    keys: NDArray[np.uint64]
    codes: NDArray[np.float16]
    scales: NDArray[np.float32]
    tokens: NDArray[np.int64]
    gram: NDArray[np.float32]

    @classmethod
    def none(cls, dimension: int) -> ProbeArrays:
        """Return no probes of K numbers."""
        return cls(
            np.empty(0, np.uint64),
            np.empty((0, dimension), np.float16),
            np.empty(0, np.float32),
            np.empty(0, np.int64),
            np.empty((0, 0), np.float32),
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

        def array(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
            return derived_files.read_array(store.path, FOLDER, file, name, shape, dtype, remedy, recheck)

        found = cls(
            array("keys", (probes,), np.uint64),
            array("codes", (probes, store.dimension), np.float16),
            array("scales", (probes,), np.float32),
            array("tokens", (probes,), np.int64),
            array("gram", (probes, probes), np.float32),
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
            self.keys[kept], self.codes[kept], self.scales[kept], self.tokens[kept], self.gram[np.ix_(kept, kept)]
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
        scales = np.sqrt(np.mean(np.square(vectors, dtype=np.float64), axis=1)).astype(np.float32)
        codes = (vectors / scales[:, None]).astype(np.float16)
        before = len(self.keys)
        all_codes = np.concatenate([self.codes, codes])
        all_scales = np.concatenate([self.scales, scales])
        gram = np.zeros((len(all_codes), len(all_codes)), np.float32)
        gram[:before, :before] = self.gram
        new = inner_products(all_codes, all_scales, before)
        gram[before:], gram[:, before:] = new, new.T
        order = np.argsort(np.concatenate([self.keys, keys]))
        return ProbeArrays(
            np.concatenate([self.keys, keys])[order],
            all_codes[order],
            all_scales[order],
            np.concatenate([self.tokens, tokens])[order],
            gram[np.ix_(order, order)],
        )


@dataclass(frozen=True, slots=True)
class StoredCurvature:
    """A store's curvature sample, as searches use it.

    The Gauss–Newton matrix of the training loss's mean over target tokens is estimated by ΨᵀΨ, where row i of Ψ is
    ``codes[i] · scales[i]``.

    Attributes:
        version: name of this sample with this damping; scores of different versions do not compare.
        damping: damping in the unit of `rapidin.attribution.QueryCorrection`.
        codes: the probes, float16 [m, K].
        scales: factor of each probe, float32 [m].
        gram: ΨΨᵀ, float32 [m, m].
    """

    version: str
    damping: float
    codes: NDArray[np.float16]
    scales: NDArray[np.float32]
    gram: NDArray[np.float32]


def bytes_of_probes(probes: int, dimension: int) -> int:
    """Return the size of the arrays of a file that holds a number of probes of K numbers."""
    return probes * (2 * dimension + 20) + 4 * probes**2


def inner_products(codes: NDArray[np.float16], scales: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """Compute the inner products of the probes from place `first` on with all probes, float32 [m - first, m]."""
    found = np.zeros((len(codes) - first, len(codes)), np.float32)
    for start in range(0, codes.shape[1], _COLUMNS):
        part = codes[:, start : start + _COLUMNS].astype(np.float32)
        found += part[first:] @ part.T
    return found * scales[first:, None] * scales
