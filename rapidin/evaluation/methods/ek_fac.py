"""Influence functions whose curvature is approximated by EK-FAC, by the library kronfluence.

EK-FAC (George et al. 2018, arXiv 1806.03884) takes the curvature of each linear layer by itself. It is diagonal
in the eigenvectors of the Kronecker product of two covariances: that of the layer's inputs, and that of the loss's
gradients by the layer's outputs. Grosse et al. (2023, arXiv 2308.03296) use it for language models. The score is
that of `influence_functions`, ⟨(C + λ)⁻¹ ∇L(query), ∇L(sample)⟩, with the gradients of these layers only.

Shape letters: q queries · n samples · b batch.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from rapidin.attribution import GradientProducts, TargetBatch, TokenSample
from rapidin.errors import ComputationError, ModelError
from rapidin.evaluation.methods.scorer import AskedQuery, StepProgress, TrainingSet
from rapidin.model import ModelParts, StoreModel
from rapidin.records import Sample
from rapidin.support import error_line, is_out_of_memory
from rapidin.text import EncodedSample

if TYPE_CHECKING:
    from rapidin.evaluation.methods.kronfluence_analysis import KronfluenceAnalysis

logger = logging.getLogger(__name__)

_LARGEST_GRADIENTS = 2**27
"""Maximum number of numbers in the gradients of one layer that are held at once, one gradient per sample."""


@dataclass(frozen=True, slots=True)
class EkFac:
    """Settings of the method.

    Attributes:
        damping: number that is added to every eigenvalue; None: 0.1 times the mean eigenvalue of the layer, which
            is kronfluence's choice.
        longest_side: maximum number of inputs, or of outputs, of a layer; larger layers do not count, because two
            matrices with so many rows and columns have to be decomposed. The default leaves out the output layer
            of most large models.
        seed: seed of the labels that are drawn from the model's predictions.
    """

    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    longest_side: Annotated[int, Field(ge=1)] = 16_384
    seed: int = 0


class EkFacScorer:
    """Influence by EK-FAC; the factors are fitted to all training samples, once.

    It needs kronfluence, see `require_packages`.

    Args:
        model: model of the store.
        settings: settings of the method.

    """

    name = "ek-fac"

    def __init__(self, model: StoreModel, settings: EkFac) -> None:
        self._model = model
        self._settings = settings
        self._directory = Path(tempfile.mkdtemp(prefix="rapidin-ek-fac-"))
        weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        self._fitted = False
        self._layers: Sequence[str] = ()

    def prepare(self, training: TrainingSet, on_progress: StepProgress | None = None) -> None:
        """Fit the factors to all training samples, in two passes.

        Raises:
            ModelError: the model has no layers that EK-FAC knows, or is spread over several devices.
            ComputationError: memory does not suffice.
        """
        with self._model.exclusive() as parts:
            samples = _LongestFirst(training.samples, parts)
            few = [samples[0], samples[len(samples) - 1]]
            self._layers = known_layers(parts.module, parts.engine.names, few, self._settings.longest_side)
            with self._opened(parts, 2 * len(samples), on_progress) as analysis:
                analysis.fit(samples, self._together(parts, samples.longest, len(samples)))
        self._fitted = True

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`.

        Raises:
            ModelError, ComputationError: see `prepare`.
        """
        if not self._fitted:
            self.prepare(training, on_progress)
        scores = np.empty((len(queries), len(training)), dtype=np.float32)
        with self._model.exclusive() as parts:
            samples = _LongestFirst(training.samples, parts)
            # Gradients of queries are held as `GradientProducts` holds directions.
            at_once = GradientProducts(parts.engine, parts.budget, "loss").together
            groups = [queries[first : first + at_once] for first in range(0, len(queries), at_once)]
            steps = len(queries) + len(groups) * len(samples)
            with self._opened(parts, steps, on_progress) as analysis:
                for number, group in enumerate(groups):
                    encoded = [query.encoded for query in group]
                    found = analysis.scores(
                        encoded,
                        samples,
                        self._together(parts, samples.longest, len(samples)),
                        self._together(parts, max(len(one.ids) for one in encoded), len(encoded)),
                        self._settings.damping,
                    )
                    first = number * at_once
                    scores[first : first + len(group), samples.order] = found
        return scores

    @contextmanager
    def _opened(
        self, parts: ModelParts, steps: int, on_progress: StepProgress | None
    ) -> Iterator[KronfluenceAnalysis]:
        """Wrap the model's layers; errors of kronfluence and torch become rapidin's."""
        from rapidin.evaluation.methods.kronfluence_analysis import opened

        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            if on_progress is not None:
                on_progress(self.name, done, steps)

        try:
            with opened(parts.module, self._layers, self._directory, self._settings.seed, report) as analysis:
                yield analysis
        except RuntimeError as error:
            if is_out_of_memory(error):
                reason = "memory does not suffice: lower --tokens-per-batch, or give another --device"
            else:
                reason = f"{error_line(error, 300)}; leave the method out"
            raise ComputationError(f"{self.name} cannot be computed: {reason}") from error

    def _together(self, parts: ModelParts, longest: int, count: int) -> int:
        """Number of samples whose gradients are computed together, of `count` with at most `longest` tokens."""
        largest = max(parts.module.get_parameter(f"{name}.weight").numel() for name in self._layers)
        return max(1, min(parts.budget.fitting(longest, count), _LARGEST_GRADIENTS // largest))


def known_layers(
    model: nn.Module, names: Sequence[str], samples: Sequence[TokenSample], longest_side: int
) -> list[str]:
    """List the layers whose curvature EK-FAC approximates.

    These are the layers of type `torch.nn.Linear` whose weight is traced and that the model uses once for every
    token. If the output layer shares its weight with the embeddings, only its own use counts.

    Args:
        model: a causal language model of transformers, or one wrapped by PEFT.
        names: names of the traced parameters.
        samples: some samples, by which the uses of the layers are counted.
        longest_side: maximum number of inputs, or of outputs, of a layer.

    Raises:
        ModelError: there are no such layers, or the model is on several devices.
    """
    traced = {id(model.get_parameter(name)) for name in names}
    candidates = {
        name: part
        for name, part in model.named_modules()
        if type(part) is nn.Linear and id(part.weight) in traced and max(part.weight.shape) <= longest_side
    }
    uses = _uses(model, candidates, samples)
    layers = [name for name in candidates if uses[name] == [True]]
    if not layers:
        raise ModelError(
            f"ek-fac needs traced layers of type torch.nn.Linear with at most {longest_side:,} inputs and "
            "outputs, and the store's model has none: use influence-cg, which knows all layers"
        )
    if len({parameter.device for parameter in model.parameters()}) > 1:
        raise ModelError(
            "ek-fac needs the model on one device: give a single --device, such as cuda:0, or use influence-cg"
        )
    known = sum(parameter.numel() for parameter in {candidates[name].weight for name in layers})
    share = known / sum(model.get_parameter(name).numel() for name in names)
    logger.log(
        logging.INFO if share > 0.5 else logging.WARNING,
        "ek-fac takes %d layers with %.0f %% of the traced parameters; the others do not count",
        len(layers),
        100 * share,
    )
    return layers


def _uses(model: nn.Module, layers: dict[str, nn.Linear], samples: Sequence[TokenSample]) -> dict[str, list[bool]]:
    """For each use of a layer in a forward pass: whether its input has the batch's shape [b, t, …]."""
    uses: dict[str, list[bool]] = {name: [] for name in layers}
    handles = []
    embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    batch = TargetBatch.of(samples).on(embeddings.device)
    try:
        for name, layer in layers.items():

            def noted(_: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                uses[name].append(inputs[0].shape[:-1] == batch.ids.shape)

            handles.append(layer.register_forward_pre_hook(noted))
        with torch.no_grad():
            model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return uses


class _LongestFirst(Dataset[EncodedSample]):
    """Training samples by descending length, encoded when they are needed.

    Args:
        samples: the n samples, at least one.
        parts: parts of the model; the samples may be read as long as the parts may be used.

    Attributes:
        order: position of each of these samples among `samples`.
        longest: number of tokens of the longest sample.
    """

    def __init__(self, samples: Sequence[Sample], parts: ModelParts) -> None:
        self.order = sorted(range(len(samples)), key=lambda position: samples[position].tokens, reverse=True)
        self.longest = samples[self.order[0]].tokens
        self._samples = samples
        self._parts = parts

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> EncodedSample:
        return self._parts.encoder.encode_stored(self._samples[self.order[position]])
