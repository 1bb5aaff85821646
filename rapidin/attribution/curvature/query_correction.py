"""The correction of queries by the curvature of the training loss, in the space of the sketch.

An influence function asks for ⟨H⁻¹q, s⟩, where q is the query's gradient, s a sample's, and H the curvature of
the training loss (Koh and Liang 2017, arXiv 1703.04730, with the Gauss–Newton matrix in place of the Hessian).
Here H is the mean of outer products of m *probes*, Ψ = [m, K], see `FisherDraw`, and everything stays in the
space of the projection. With the damping λ the corrected query is

    z = q − Ψᵀ(ΨΨᵀ + λI)⁻¹Ψq = λ(ΨᵀΨ + λI)⁻¹q,

by the Woodbury identity. The score ⟨z, r⟩ with a stored row r is the first-order change of the query's mean loss
by a step along r, after the directions that the training data as a whole already determines have been taken out
of the query. So the unit is that of the query's loss (nats per token), for a step of length 1 along the sample's
layer-normalised gradient, and scores of different queries compare.

The damping is λ = R · tr(H²)/tr(H): R times the mean of H's eigenvalues, each weighted by itself. Unlike the mean
diagonal of ΨΨᵀ, this unit does not depend on m, because tr(H²) is estimated from pairs of different probes only.
R depends on the query's objective, because the two questions want different dampings.

If RapidGrads have a section for each of several checkpoints, each section is corrected by itself, with that
section of the probes and a damping of its own, because each checkpoint has a curvature of its own.

Shape letters: b queries · m probes · C sections · K projection dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rapidin.errors import ComputationError
from rapidin.settings import Objective

PROBE_SEED = 0
"""Seed of the draws of all probes; another one would make what is computed again differ from what is stored."""

_DECODED_BYTES = 2**26
"""Size in bytes of the probes that are decoded together."""
_KEPT_BYTES = 2**30
"""Size in bytes of decoded probes up to which they are kept in memory, which makes the next query faster."""


class CurvatureSample(Protocol):
    """Probes as a store keeps them; Ψ has a row for each."""

    @property
    def version(self) -> str:
        """Name of the sample with its damping; scores of different versions do not compare."""
        ...

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Key of each probe, by which a store knows what it was drawn from, uint64 [m]."""
        ...

    @property
    def scale(self) -> float:
        """Factor of the probes' projected gradients in Ψ."""
        ...

    def damping_of(self, objective: Objective) -> float:
        """Return R for queries of an objective, a positive number."""
        ...

    @property
    def gram(self) -> NDArray[np.float32]:
        """ΨΨᵀ, float32 [m, m], or that of each section [C, m, m]."""
        ...

    def __len__(self) -> int:
        """Return the number of probes m."""
        ...

    def decoded(self, first: int, last: int) -> NDArray[np.float32]:
        """Return the rows from `first` to before `last`, float32."""
        ...


class QueryCorrection:
    """Corrects queries by a curvature sample.

    Args:
        sample: the curvature sample.

    Attributes:
        version: version of the curvature sample.
        sample: the curvature sample.
    """

    def __init__(self, sample: CurvatureSample) -> None:
        self.version = sample.version
        self.sample = sample
        self._kept: list[torch.Tensor] = []
        products = torch.from_numpy(sample.gram.reshape(-1, len(sample), len(sample)))
        self._products = [gram.to(torch.float64) for gram in products]
        self._units = [mean_eigenvalue(gram) for gram in self._products]
        self._factors: dict[Objective, list[torch.Tensor]] = {}

    def dampings(self, objective: Objective) -> tuple[float, ...]:
        """Return λ itself for queries of an objective, of each section."""
        return tuple(self.sample.damping_of(objective) * unit for unit in self._units)

    def corrected(self, queries: NDArray[np.float32], objective: Objective) -> NDArray[np.float32]:
        """Compute z, float32 [b, K].

        Args:
            queries: queries that were not normalised, float32 [b, K].
            objective: objective of the queries, which decides how far they are damped.

        Raises:
            ComputationError: the inner products of the probes are not those of vectors.
        """
        found = torch.from_numpy(queries).clone()
        sections, weights = self._solved(queries, objective)
        first = 0
        for part in self._probes():
            for section, of_section in zip(sections, weights, strict=True):
                found[:, section] -= of_section[first : first + len(part)].T @ part[:, section]
            first += len(part)
        return found.numpy()

    def coefficients(self, queries: NDArray[np.float32], objective: Objective) -> list[NDArray[np.float32]]:
        """Compute (ΨΨᵀ + λI)⁻¹Ψq of each section, float32 [b, m]: z is q without the sum of Ψ's rows times these.

        Args:
            queries: queries that were not normalised, float32 [b, K].
            objective: objective of the queries.

        Raises:
            ComputationError: see `corrected`.
        """
        _, weights = self._solved(queries, objective)
        return [of_section.T.numpy() for of_section in weights]

    def sketched(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Return rows of Ψ by their numbers, float32 [n, K]."""
        return np.concatenate([self.sample.decoded(number, number + 1) for number in numbers])

    def _solved(
        self, queries: NDArray[np.float32], objective: Objective
    ) -> tuple[list[slice], list[torch.Tensor]]:
        """Return the numbers of each section, and its coefficients, float32 [m, b]."""
        given = torch.from_numpy(queries)
        factors = self._factors_of(objective)
        size = given.shape[1] // len(factors)
        sections = [slice(first, first + size) for first in range(0, given.shape[1], size)]
        products = [[part[:, section] @ given[:, section].T for section in sections] for part in self._probes()]
        weights = [
            torch.cholesky_solve(torch.cat(of_section).to(torch.float64), factor).to(torch.float32)
            for of_section, factor in zip(zip(*products, strict=True), factors, strict=True)
        ]
        return sections, weights

    def _factors_of(self, objective: Objective) -> list[torch.Tensor]:
        """Factorise ΨΨᵀ + λI of each section, float64 [m, m], once for each objective."""
        if objective not in self._factors:
            factors = []
            for products, damping in zip(self._products, self.dampings(objective), strict=True):
                factor, failed = torch.linalg.cholesky_ex(
                    products + damping * torch.eye(len(products), dtype=torch.float64)
                )
                if not damping > 0 or int(failed):
                    raise ComputationError("the probes of the curvature cannot be used: compute them again")
                factors.append(factor)
            self._factors[objective] = factors
        return self._factors[objective]

    def _probes(self) -> Iterator[torch.Tensor]:
        """Yield Ψ, some rows at a time, float32."""
        kept = self._kept  # of one thread's making, as a whole
        if kept:
            yield from kept
            return
        made: list[torch.Tensor] = []
        count, size = len(self.sample), 4 * self.sample.decoded(0, 1).shape[1]
        step = max(1, _DECODED_BYTES // size)
        for first in range(0, count, step):
            part = torch.from_numpy(self.sample.decoded(first, min(first + step, count)))
            if count * size <= _KEPT_BYTES:
                made.append(part)
            yield part
        self._kept = made


def mean_eigenvalue(gram: torch.Tensor) -> float:
    """Estimate tr(H²)/tr(H) from the inner products of probes ΨΨᵀ, float64 [m, m], where H is the mean ΨᵀΨ.

    A probe's product with itself is left out, because its expectation is not one of H's. With a single probe, or
    with probes that have nothing in common, tr(H)/m takes its place.
    """
    count = len(gram)
    trace = gram.trace()
    pairs = gram.square().sum() - gram.diagonal().square().sum()
    if count > 1 and pairs > 0:
        return float(pairs * count / (count - 1) / trace)
    return float(trace / count)
