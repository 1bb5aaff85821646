"""What decides whether the samples that should be found come first: layers, normalisation, length, memorisation.

All of the loss, as in the paper, which a store differentiates with ``--objective loss`` only; `choices` of
`benchmarks.paper` sets log-odds beside it. One pass over the training samples gives the inner products of whole
gradients tensor by tensor. Every choice of tensors and every way of normalising is a sum of them.

Shape letters: q queries · n samples · L parameter tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.paper_tables import MAX_NEW_TOKENS, SHOWN, Lines, half, ingested, table
from benchmarks.paper_worlds import World
from rapidin.attribution.influence.gradient_products import GradientProducts, query_gradient
from rapidin.attribution.rapidgrads import RapidGradEngine, TokenBudget
from rapidin.evaluation.experiments.experiment_data import (
    Label,
    answered_queries,
    read_query_rows,
    relevant,
    training_set,
)
from rapidin.evaluation.metrics.intervals import Bootstrap
from rapidin.evaluation.metrics.ranking_measures import average_precision, ends_measures, ranking, tie_order
from rapidin.model.loading import load_model
from rapidin.model.store_model import StoreModel
from rapidin.storage import Store

_TOKENS_PER_BATCH = 4096

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Parts:
    """Exact gradients' products, tensor by tensor.

    Attributes:
        names: of the tensors, [L].
        matrix: whether each is one rather than a vector, [L].
        products: ⟨q_l, s_l⟩, [q, n, L].
        norms: ‖s_l‖, [n, L].
        query_norms: ‖q_l‖, [q, L].
        marked: whether each sample should be found, [n].
        ties: of `tie_order`, [n].
        targets: tokens that each sample was trained on, [n].
    """

    names: Sequence[str]
    matrix: NDArray[np.bool_]
    products: Floats
    norms: Floats
    query_norms: Floats
    marked: NDArray[np.bool_]
    ties: NDArray[np.uint64]
    targets: NDArray[np.int64]

    def chosen(self, finds: Callable[[str], bool], matrices: bool = True) -> NDArray[np.int64]:
        """Positions of tensors whose name `finds` accepts; vectors only if not `matrices`."""
        usable = self.matrix if matrices else np.ones_like(self.matrix)
        return np.array([number for number, name in enumerate(self.names) if usable[number] and finds(name)])

    def scores(self, tensors: NDArray[np.int64], power: float = 1.0) -> Floats:
        """Σ_l ⟨q_l, s_l⟩ / (‖q_l‖·‖s_l‖^power), [q, n]: 1 is layer-wise normalisation."""
        sizes = np.maximum(self.norms[:, tensors], 1e-30) ** power
        of_queries = np.maximum(self.query_norms[:, None, tensors], 1e-30)
        return np.asarray((self.products[:, :, tensors] / sizes / of_queries).sum(axis=2))

    def whole(self, tensors: NDArray[np.int64], cosine: bool) -> Floats:
        """Inner products of the gradients as a whole, or their cosines up to each query's norm, [q, n]."""
        products = self.products[:, :, tensors].sum(axis=2)
        if not cosine:
            return np.asarray(products)
        return np.asarray(products / np.linalg.norm(self.norms[:, tensors], axis=1))


def causes_table(world: World, work: Path, limit: int | None, last_layer: str) -> Lines:
    """What exact gradients find, by tensors and normalisation, and where the samples that are missed stand."""
    parts = _parts(world, ingested(world, world.tuned[0], {}, work / "default"), limit)
    every, matrices = parts.chosen(lambda _: True, matrices=False), parts.chosen(lambda _: True)
    vectors = np.array([place for place in every if not parts.matrix[place]])
    ways = {
        "every tensor, each normalised (the paper's)": parts.scores(every),
        "matrices, each normalised": parts.scores(matrices),
        "vectors of norms alone, each normalised": parts.scores(vectors),
        "attention": parts.scores(parts.chosen(lambda name: "attn" in name)),
        "feed-forward": parts.scores(parts.chosen(lambda name: "mlp" in name)),
        "embedding": parts.scores(parts.chosen(lambda name: "embed" in name)),
        "last layer": parts.scores(parts.chosen(lambda name: re.search(last_layer, name) is not None)),
        "first layer": parts.scores(parts.chosen(lambda name: "layers.0." in name)),
        "matrices, divided by the root of the norm": parts.scores(matrices, 0.5),
        "matrices, as one vector, normalised": parts.whole(matrices, cosine=True),
        "matrices, not normalised (TracIn)": parts.whole(matrices, cosine=False),
    }
    columns = ["exact gradients of", *(f"auPRC / auROC, top {k}" for k in SHOWN), "AP", "AP of absolute scores"]
    columns.append("share to be found among the 100 strongest opponents")
    rows = [[title, *_quality(scores, parts)] for title, scores in ways.items()]
    counts = f"{len(parts.products)} answers, {parts.marked.sum()} of {len(parts.marked):,} to be found"
    title = f"What decides, by exact gradients of the loss: {counts}"
    return table(title, columns, rows) + _where_missed(parts.scores(matrices), parts, matrices)


def _quality(scores: Floats, parts: Parts) -> list[str]:
    mean = Bootstrap(len(scores)).mean
    count = len(parts.marked)

    def ranked(values: Floats) -> list[NDArray[np.bool_]]:
        return [parts.marked[ranking(row, parts.ties)] for row in values.astype(np.float32)]

    ends = [[ends_measures(row, min(k, count // 2)) for row in ranked(scores)] for k in SHOWN]
    cells = [
        f"{np.mean([one.auprc for one in some]):.3f} / {np.mean([one.auroc for one in some]):.3f}" for some in ends
    ]
    precisions = mean(np.array([average_precision(row) for row in ranked(scores)]))
    both = mean(np.array([average_precision(row) for row in ranked(np.abs(scores))]))
    opposed = np.mean([row[-100:].mean() for row in ranked(scores)])
    return [*cells, f"{precisions.mean:.3f} {half(precisions)}", f"{both.mean:.3f}", f"{opposed:.3f}"]


def _where_missed(scores: Floats, parts: Parts, tensors: NDArray[np.int64]) -> Lines:
    """Where the samples that should be found stand, by how long they are and how large their gradient is."""
    count, wanted = len(parts.marked), int(parts.marked.sum())
    ranks = (-scores).argsort(axis=1).argsort(axis=1)[:, parts.marked]
    sizes = np.linalg.norm(parts.norms[:, tensors], axis=1)[parts.marked]
    rows = []
    for title, values in (
        ("tokens of the response", parts.targets[parts.marked]),
        ("norm of the gradient", sizes),
    ):
        bounds = np.quantile(values, [0.25, 0.75])
        for name, some in (
            (f"smallest quarter (up to {bounds[0]:.3g})", values <= bounds[0]),
            ("the half between", (values > bounds[0]) & (values < bounds[1])),
            (f"largest quarter (from {bounds[1]:.3g})", values >= bounds[1]),
        ):
            first, last = (ranks[:, some] < wanted).mean(), (ranks[:, some] >= count - wanted).mean()
            rows.append([f"{title}: {name}", f"{first:.2f}", f"{last:.2f}"])
    title = f"Of the samples to be found, share among the {wanted} strongest proponents and opponents (matrices)"
    return table(title, ["samples", "proponents", "opponents"], rows)


def _parts(world: World, store: Path, limit: int | None) -> Parts:
    with Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        label = Label(world.label)
        questions = read_query_rows(world.queries, opened, label, limit=limit)
        queries = answered_queries(model, questions, MAX_NEW_TOKENS)
        training = training_set(opened, model, ())
        loaded = load_model(model.settings.model_copy(update={"parameters": "."}), "cpu")
        gradient = model.gradient.model_copy(update={"objective": "loss"})
        with RapidGradEngine(loaded.model, loaded.parameters, model.projection, gradient) as engine:
            gradients = [query_gradient(engine, query.encoded, "loss") for query in queries]
            found = GradientProducts(
                engine, TokenBudget.for_device(_TOKENS_PER_BATCH, engine.device, engine.dimension), "loss"
            ).against([tensors for tensors, _ in gradients], training.encoded(), _with_norms)
        return Parts(
            names=engine.names,
            matrix=np.array([len(shape) > 1 for shape in engine.shapes]),
            products=found[:, :, :-1].transpose(2, 0, 1).astype(np.float64),
            norms=found[:, :, -1].astype(np.float64),
            query_norms=np.stack([norms.numpy() for _, norms in gradients]),
            marked=relevant(opened, training, label, ()),
            ties=tie_order([sample.id for sample in training.samples]),
            targets=np.array([sample.targets for sample in training.samples]),
        )


def _with_norms(products: Tensor, norms: Tensor) -> Tensor:
    """Keep everything: [b, L, q + 1]."""
    return torch.cat([products, norms[:, :, None]], dim=2)
