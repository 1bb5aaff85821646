"""Sketches of the real model's gradients in several sizes at once, and scores made from them.

A gradient costs far more than a sketch of it, so one pass gives the sketches of several K. They are those of a
store (`FactoredProjection`), in float32 and not normalised. Normalisation comes afterwards, because the factored
projection divides each tensor by the norm of its sketch. Pieces are kept on disk, so an interrupted run goes on.

Shape letters: n rows · q queries · m probes · K projection dimension · L parameter tensors.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.real_model import Tuned
from rapidin.attribution import FisherDraw, QueryCorrection
from rapidin.attribution.gradients import Differentiated, GradientEngine, ParameterGradient, Unnormalised
from rapidin.attribution.projections import FactoredProjection
from rapidin.model import load_model
from rapidin.settings import ModelSettings, ProjectionSettings, TracedParameter
from rapidin.support import WorkingMemory
from rapidin.text import EncodedSample

SIZES = (2**14, 2**16, 2**18)
_PIECE = 32
"""Number of samples of a file."""
_TOKENS = 640
"""Number of padded tokens that are computed together."""

Array = NDArray[np.float32]


class _AllSizes:
    """Accumulator that hands each gradient to the sketches of every K; the results stand one after another."""

    def __init__(self, batch: int, projections: Sequence[FactoredProjection]) -> None:
        self._parts = [one.sketches(batch, Unnormalised(), WorkingMemory()) for one in projections]

    def consume(self, gradient: ParameterGradient) -> None:
        for part in self._parts:
            part.consume(gradient)

    def result(self) -> Tensor:
        return torch.cat([part.result() for part in self._parts], dim=1)


class Sketches:
    """Sketches of samples by one model, made where they are missing.

    Args:
        tuned: the model.
        directory: directory of the pieces.
    """

    def __init__(self, tuned: Tuned, directory: Path) -> None:
        self._tuned = tuned
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @cached_property
    def _parts(self) -> tuple[GradientEngine, list[FactoredProjection]]:
        loaded = load_model(ModelSettings(**self._tuned.settings), "cpu")
        names = [parameter.name for parameter in loaded.parameters]
        shapes = [list(parameter.shape) for parameter in loaded.parameters]
        (self._directory / "shapes.json").write_text(json.dumps(shapes))
        return GradientEngine(loaded.model, names), projections_of(loaded.parameters)

    @cached_property
    def projections(self) -> dict[int, FactoredProjection]:
        """The projection of each K."""
        file = self._directory / "shapes.json"
        if not file.exists():
            _ = self._parts
        shapes = json.loads(file.read_text())
        parameters = [TracedParameter(name=str(number), shape=tuple(one)) for number, one in enumerate(shapes)]
        return dict(zip(SIZES, projections_of(parameters), strict=True))

    def of(self, name: str, samples: Sequence[EncodedSample], what: Differentiated, size: int) -> Array:
        """Return the sketches of samples, float32 [n, K]; they are computed unless files have them.

        Args:
            name: name of the files.
            samples: the n samples, always the same ones for a name.
            what: quantity that is differentiated: the mean over a sample's targets, or the sum for a draw.
            size: K.
        """
        first = sum(one for one in SIZES if one < size)
        found = np.empty((len(samples), size), np.float32)
        started, computed = time.perf_counter(), 0
        for start in range(0, len(samples), _PIECE):
            file = self._directory / f"{name}-{start:05}.npy"
            chosen = samples[start : start + _PIECE]
            if not file.exists():
                made = self._computed(chosen, what)
                computed += len(chosen)
                unfinished = file.with_suffix(".unfinished.npy")
                np.save(unfinished, made)
                unfinished.rename(file)
            found[start : start + len(chosen)] = np.load(file, mmap_mode="r")[:, first : first + size]
        if computed:
            print(f"{name}: {computed} gradients, {time.perf_counter() - started:.0f} s", flush=True)
        return found

    def _computed(self, samples: Sequence[EncodedSample], what: Differentiated) -> Array:
        engine, projections = self._parts
        order = sorted(range(len(samples)), key=lambda place: len(samples[place].ids))
        found = np.empty((len(samples), sum(SIZES)), np.float32)
        while order:
            count = max(1, min(len(order), _TOKENS // len(samples[order[-1]].ids)))
            places, order = order[len(order) - count :], order[: len(order) - count]
            batch = [samples[place] for place in places]
            results = engine.accumulate(batch, lambda size: _AllSizes(size, projections), what)
            if isinstance(what, FisherDraw):
                results = results * torch.tensor([[float(sum(one.targets))] for one in batch])
            found[places] = results.numpy()
        return found


def projections_of(parameters: Sequence[TracedParameter]) -> list[FactoredProjection]:
    """Make the store's projection for every K."""
    shapes = [parameter.shape for parameter in parameters]
    return [FactoredProjection(ProjectionSettings(kind="factored", dimension=size), shapes) for size in SIZES]


def normalised(sketches: Array, projection: FactoredProjection) -> Array:
    """Divide each tensor's sketch by its norm and by √L, as a store's rows are."""
    found = np.zeros_like(sketches)
    tensors = len(projection.tensors)
    for position in range(tensors):
        share = projection.share(position)
        norms = np.linalg.norm(sketches[:, share], axis=1, keepdims=True)
        np.divide(sketches[:, share], norms * math.sqrt(tensors), out=found[:, share], where=norms > 0)
    return found


@dataclass(frozen=True)
class Probes:
    """Probes as `QueryCorrection` takes them.

    Attributes:
        vectors: the probes, divided by the root of the number of all their targets, [m, K].
        damping: damping in units of the mean eigenvalue.
        gram: inner products of the probes, [m, m].
    """

    vectors: Array
    damping: float
    gram: Array
    version: str = ""

    @classmethod
    def of(cls, sums: Array, targets: NDArray[np.int64], damping: float = 1.0) -> Probes:
        """Make probes from gradients of sums over targets."""
        vectors = sums / np.float32(math.sqrt(targets.sum()))
        return cls(vectors, damping, vectors @ vectors.T)

    def damped(self, damping: float) -> QueryCorrection:
        """Make the correction with another damping."""
        return QueryCorrection(Probes(self.vectors, damping, self.gram))

    def __len__(self) -> int:
        return len(self.vectors)

    def decoded(self, first: int, last: int) -> Array:
        """Return the probes from `first` to before `last`."""
        return self.vectors[first:last]


def drawn_probes(
    sketches: Sketches, rows: Sequence[EncodedSample], draws: int, size: int
) -> tuple[Array, NDArray[np.int64]]:
    """Return probes of all rows, draw after draw: gradients [m, K] and their numbers of targets [m]."""
    targets = np.array([sum(row.targets) for row in rows])
    parts = [sketches.of(f"probes-{draw}", rows, FisherDraw(0, draw), size) for draw in range(draws)]
    return np.concatenate(parts), np.tile(targets, draws)


def in_one_block(sketches: Array, size: int, seed: int = 0) -> Array:
    """Sketch sketches again, all tensors together, to fewer numbers: random buckets and signs."""
    random = np.random.default_rng(seed)
    buckets = torch.from_numpy(random.integers(0, size, sketches.shape[1]))
    signs = torch.from_numpy(random.choice(np.array([-1, 1], np.float32), sketches.shape[1]))
    found = torch.zeros(len(sketches), size)
    return found.index_add_(1, buckets, torch.from_numpy(sketches) * signs).numpy()
