"""What do normalisation, damping and projection cost? The linear datamodeling scores of whole gradients tell.

The probes are those of the store's curvature, and the correction of queries is the store's, but with all
coordinates of all gradients. They are all in memory at once: probes and samples times parameters, 4 bytes each.

Shape letters: n samples · p parameters · m probes or subsets · q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import tables
from rapidin.attribution import FisherDraw, RapidGradEngine, TokenSample
from rapidin.attribution.curvature.query_correction import mean_eigenvalue
from rapidin.attribution.influence.directions import whole_gradient
from rapidin.evaluation.experiments import Retraining, RetrainingPlace
from rapidin.evaluation.experiments.retrained_queries import ModelBank
from rapidin.evaluation.experiments.subset_correlations import datamodeling_scores
from rapidin.settings import Objective
from rapidin.storage.derived.curvature.probe_choice import choose_probes

_SEED = 0
"""Seed of the probes of every store."""
_ROWS: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {
    "each tensor normalised (the store's)": lambda rows, sizes: _by_tensor(rows, sizes),
    "the whole normalised": lambda rows, _: rows / rows.norm(dim=1, keepdim=True),
    "not normalised": lambda rows, _: rows,
}
"""How the gradients of the samples are normalised, [n, p] each."""


def exact_table(
    place: RetrainingPlace, queries: Path, retraining: Retraining, dampings: Sequence[float], probes: int
) -> None:
    """Print the mean linear datamodeling scores of ways to normalise, for several dampings.

    Args:
        place: store of the loss, its model, and the bank of retrained models.
        queries: data file of queries with responses.
        retraining: settings of the retraining.
        dampings: dampings of the curvature.
        probes: number of probes.
    """
    training, asked = place.training(), place.asked(queries)
    members = retraining.members(len(training))
    losses = ModelBank(place, training, asked, retraining).losses(members).mean(axis=0)
    encoded = {one.id: sample for one, sample in zip(training.samples, training.encoded(), strict=True)}
    requests = choose_probes([(one.id, one.content_hash) for one in place.store.list()], probes, _SEED)
    with place.model.exclusive() as parts:
        engine = parts.engine
        rows = torch.stack([_gradient(engine, sample, "loss") for sample in encoded.values()])
        questions = torch.stack([_gradient(engine, query.encoded, "loss") for query in asked])
        drawn = torch.empty(len(requests), rows.shape[1])
        for number, request in enumerate(requests):
            sample = encoded[request.id]
            draw = FisherDraw(_SEED, request.draw)
            drawn[number] = _gradient(engine, sample, draw) * sum(sample.targets)
        sizes = [int(np.prod(shape)) for shape in engine.shapes]
    drawn /= sum(sum(encoded[request.id].targets) for request in requests) ** 0.5
    gram, towards = (drawn @ drawn.T).double(), (drawn @ questions.T).double()
    unit = mean_eigenvalue(gram) * torch.eye(len(gram), dtype=torch.float64)
    tables.heading(
        "Mean LDS of exact gradients", "rows", "no curvature", *(f"damping {one:g}" for one in dampings)
    )
    for name, normalised in _ROWS.items():
        made = normalised(rows, sizes)
        plain, with_probes = (questions @ made.T).double(), (drawn @ made.T).double()
        scores = [plain]
        for damping in dampings:
            weights = torch.linalg.solve(gram + damping * unit, towards)
            scores.append(plain - weights.T @ with_probes)
        means = [datamodeling_scores(one.float().numpy(), members, losses).mean() for one in scores]
        tables.row(name, *(f"{mean:.3f}" for mean in means))


def _gradient(engine: RapidGradEngine, sample: TokenSample, objective: Objective | FisherDraw) -> Tensor:
    """Compute the gradient of a sample's mean objective, float32 [p]."""
    tensors, _ = whole_gradient(engine, sample, objective)
    return torch.cat([tensor.flatten() for tensor in tensors if tensor is not None])


def _by_tensor(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    parts = [part / part.norm(dim=1, keepdim=True).clamp_min(1e-30) for part in rows.split(list(sizes), 1)]
    return torch.cat(parts, dim=1)
