"""Sketches of the real model's gradients: many in one forward pass, small ones from large ones.

The forward pass and the gradient cost far more than what follows. So the losses, the log-odds and the probes'
random quantities of some samples share one forward pass, and one large sketch of each gradient is kept. A store's
K numbers are sketched from it tensor by tensor, as the factored projection itself makes a small sketch from a
larger one (`rapidin.attribution.projections.factored`). Sketches are not normalised when they are kept, because
the factored projection divides each tensor by the norm of its sketch anyway. Pieces are kept on disk, so an
interrupted run goes on.

Shape letters: n rows · q queries · m probes · K projection dimension · L parameter tensors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.real_model import Tuned
from rapidin.attribution import FisherDraw, QueryCorrection, TargetBatch
from rapidin.attribution.gradients import Differentiated, OuterProducts, ParameterGradient, Unnormalised
from rapidin.attribution.gradients.objectives import weighted_values
from rapidin.attribution.projections import FactoredProjection, FactoredSketches
from rapidin.settings import Objective, ProjectionSettings
from rapidin.support import WorkingMemory, inner_model
from rapidin.text import EncodedSample

KEPT = 2**18
"""K of the sketches that are kept."""
_PIECE = 32
"""Number of samples of a file."""
_TOKENS = 640
"""Number of padded tokens that are computed together."""

Array = NDArray[np.float32]


class SharedForward:
    """Gradients of several quantities of the same samples by one forward pass, sketched.

    Only weights of linear layers are traced: a LoRA's, or those of a full model's layers. The model's head is not
    among them, so its logits are computed for the targets alone.

    Args:
        network: a causal language model in evaluation mode.
        size: K.

    Attributes:
        projection: projection of the gradients.
    """

    def __init__(self, network: nn.Module, size: int = KEPT) -> None:
        self._network = network
        linear = [
            (name, module)
            for name, module in network.named_modules()
            if type(module) is nn.Linear and "lm_head" not in name
        ]
        if any("lora_" in name for name, _ in linear):
            linear = [(name, module) for name, module in linear if "lora_" in name]
        self._modules = [module for _, module in linear]
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        shapes = [tuple(module.weight.shape) for module in self._modules]
        self.projection = projection_of(shapes, size)

    def sketches(self, samples: Sequence[EncodedSample], wanted: Sequence[Differentiated]) -> list[Tensor]:
        """Compute the sketches [b, K] of each quantity's gradients: of means over targets, or a draw's of sums."""
        batch = TargetBatch.of(samples)
        sinks: list[FactoredSketches] = []

        def hook(position: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not output.requires_grad:
                output.requires_grad_()
            given, shape = args[0].detach(), tuple(module.weight.shape)

            def consume(delta: Tensor) -> None:
                product = OuterProducts(delta.detach(), given)
                sinks[-1].consume(ParameterGradient(position, len(samples), shape, [product]))

            output.register_hook(consume)

        with ExitStack() as stack, torch.enable_grad():
            for position, module in enumerate(self._modules):
                handle = module.register_forward_hook(
                    lambda module, args, output, position=position: hook(position, module, args, output)
                )
                stack.callback(handle.remove)
            inner: Any = inner_model(self._network)
            states = inner.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
            logits = inner.lm_head(batch.predicting(states))
            found = []
            for what in wanted:
                sinks.append(self.projection.sketches(len(samples), Unnormalised(), WorkingMemory()))
                draw = isinstance(what, FisherDraw)
                weights = torch.ones(len(batch.rows)) if draw else batch.sample_weights()
                weighted_values(logits, batch, weights, what).backward(retain_graph=True)
                found.append(sinks[-1].result())
        return found


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
    def _forward(self) -> SharedForward:
        return SharedForward(self._tuned.loaded())

    @property
    def projection(self) -> FactoredProjection:
        """The projection of the sketches that are kept."""
        return self._forward.projection

    def of(self, name: str, samples: Sequence[EncodedSample], wanted: Mapping[str, Differentiated]) -> list[Array]:
        """Return the sketches of samples, [n, K] for each quantity; they are computed unless files have them.

        Args:
            name: name of the samples.
            samples: the n samples, always the same ones for a name.
            wanted: quantities that are differentiated, by name.
        """
        found = [np.empty((len(samples), KEPT), np.float32) for _ in wanted]
        started, computed = time.perf_counter(), 0
        for start in range(0, len(samples), _PIECE):
            chosen = samples[start : start + _PIECE]
            files = {what: self._directory / f"{name}-{what}-{start:05}.npy" for what in wanted}
            missing = [what for what, file in files.items() if not file.exists()]
            if missing:
                made = self._computed(chosen, [wanted[what] for what in missing])
                computed += len(chosen) * len(missing)
                for what, values in zip(missing, made, strict=True):
                    unfinished = files[what].with_suffix(".unfinished.npy")
                    np.save(unfinished, values)
                    unfinished.rename(files[what])
            for whole, file in zip(found, files.values(), strict=True):
                whole[start : start + len(chosen)] = np.load(file)
        if computed:
            print(f"{name}: {computed} gradients, {time.perf_counter() - started:.0f} s", flush=True)
        return found

    def _computed(self, samples: Sequence[EncodedSample], wanted: Sequence[Differentiated]) -> list[Array]:
        order = sorted(range(len(samples)), key=lambda place: len(samples[place].ids))
        found = [np.empty((len(samples), KEPT), np.float32) for _ in wanted]
        while order:
            count = max(1, min(len(order), _TOKENS // len(samples[order[-1]].ids)))
            places, order = order[len(order) - count :], order[: len(order) - count]
            results = self._forward.sketches([samples[place] for place in places], wanted)
            for whole, values in zip(found, results, strict=True):
                whole[places] = values.numpy()
        return found


def projection_of(shapes: Sequence[tuple[int, ...]], size: int) -> FactoredProjection:
    """Make a store's projection to `size` numbers."""
    return FactoredProjection(ProjectionSettings(kind="factored", dimension=size), shapes)


@dataclass(frozen=True)
class Smaller:
    """A map from the sketches that are kept to smaller ones, tensor by tensor or all tensors together.

    Attributes:
        size: K of the result.
        buckets: place of each number in the result, [KEPT].
        signs: sign of each number, [KEPT].
        shares: numbers of each tensor in the result; a single one if all tensors are in one block.
        whole: numbers of each tensor in the sketches that are kept.
    """

    size: int
    buckets: Tensor
    signs: Tensor
    shares: Sequence[slice]
    whole: Sequence[slice]

    @classmethod
    def of(cls, projection: FactoredProjection, size: int, *, one_block: bool = False, seed: int = 0) -> Smaller:
        """Draw a map.

        Args:
            projection: projection of the sketches that are kept.
            size: K of the result; if it is that of the sketches, they stay as they are.
            one_block: whether all tensors share all numbers.
            seed: seed of places and signs.
        """
        kept = projection.dimension
        whole = [projection.share(position) for position in range(len(projection.tensors))]
        if size == kept:
            return cls(size, torch.arange(kept), torch.ones(kept), whole, whole)
        random = np.random.default_rng(seed)
        width = size // len(whole)
        buckets = random.integers(0, size if one_block else width, kept)
        if not one_block:
            for position, share in enumerate(whole):
                buckets[share] += position * width
        shares = [slice(position * width, (position + 1) * width) for position in range(len(whole))]
        signs = torch.from_numpy(random.choice(np.array([-1, 1], np.float32), kept))
        return cls(size, torch.from_numpy(buckets), signs, [slice(0, size)] if one_block else shares, whole)

    def raw(self, sketches: Array) -> Array:
        """Make smaller sketches [n, K]."""
        found = torch.zeros(len(sketches), self.size)
        return found.index_add_(1, self.buckets, torch.from_numpy(sketches) * self.signs).numpy()

    def normalised(self, sketches: Array) -> Array:
        """Make smaller sketches of normalised gradients [n, K], as a store's rows are before they are coded."""
        if len(self.shares) == len(self.whole):
            return normalised(self.raw(sketches), self.shares)
        return self.raw(normalised(sketches, self.whole))


def normalised(sketches: Array, shares: Sequence[slice]) -> Array:
    """Divide each tensor's sketch by its norm and by √L."""
    found = np.zeros_like(sketches)
    for share in shares:
        norms = np.linalg.norm(sketches[:, share], axis=1, keepdims=True)
        np.divide(sketches[:, share], norms * math.sqrt(len(shares)), out=found[:, share], where=norms > 0)
    return found


@dataclass(frozen=True)
class Probes:
    """Probes as `QueryCorrection` takes them.

    Attributes:
        vectors: the probes, divided by the root of the number of all their targets, [m, K].
        damping: damping in units of the mean eigenvalue.
        gram: inner products of the probes, [m, m].
        version: unused.
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

    def damping_of(self, objective: Objective) -> float:  # noqa: ARG002 - one damping for every question here
        """Return the damping."""
        return self.damping

    def decoded(self, first: int, last: int) -> Array:
        """Return the probes from `first` to before `last`."""
        return self.vectors[first:last]
