"""How near are stored and exact influences to those of whole gradients? Scores of a store against dense algebra.

    python -m benchmarks.directions --work DIRECTORY

Takes the model and the first rows of the demo world of `benchmarks.lds` (its --work can be given, or an empty
directory), and ingests them for each K. The truth takes the same draws of probes, and everything in it has all
coordinates: the query, the probes, their inner products and the damping, the samples. It is computed one sample at
a time by plain autograd. The scores are those of the product's own searches.

Shape letters: q queries · n samples · m probes · p parameters.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.lds_worlds import World, demo_world
from rapidin import Searcher, SearchOptions, Store, ingest_files
from rapidin.attribution import PROBE_SEED, FisherDraw, RapidGradEngine, TokenSample
from rapidin.attribution.curvature.query_correction import mean_eigenvalue
from rapidin.attribution.influence.directions import whole_gradient
from rapidin.model import StoreCorrections, StoreModel
from rapidin.search import read_queries
from rapidin.search.exact_curvature import ExactCurvature
from rapidin.settings import CURVATURE_DAMPING

_SEARCHES: dict[str, dict[str, Any]] = {
    "cosine, stored": {"measure": "cosine", "rerank": 0},
    "influence, stored": {"rerank": 0},
    "exact: the query's gradient exact, the curvature's part restored (default)": {},
    "exact: both exact (`--exact-curvature`)": {"exact_curvature": True},
}


def main() -> None:
    """Ingest, search, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.directions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, required=True, help="--work of benchmarks.lds, or an empty directory")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2**12, 2**16], help="values of K")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    world = demo_world(arguments.work)
    questions = arguments.work / f"directions-questions-{arguments.queries}.jsonl"
    lines = world.queries.read_text(encoding="utf-8").splitlines(keepends=True)
    questions.write_text("".join(lines[: arguments.queries]), encoding="utf-8")
    print(tables.machine(arguments.threads), flush=True)
    print(
        f"{world.title}; the first {arguments.rows} rows, {arguments.queries} questions, {arguments.probes} probes"
    )
    stores = [_ingested(world, arguments, dimension) for dimension in arguments.dimensions]
    truth = _truth(stores[0], questions)
    found = [[_scores(path, questions, name, arguments.rows) for name in _SEARCHES] for path in stores]
    tables.heading("Correlation with dense influences, Pearson / Spearman", "score", *_columns(arguments))
    for place, name in enumerate(_SEARCHES):
        tables.row(name, *(_correlations(of_store[place][0], truth) for of_store in found))
    tables.heading("Seconds of all questions in one call", "score", *_columns(arguments))
    for place, name in enumerate(_SEARCHES):
        tables.row(name, *(f"{of_store[place][1]:.1f}" for of_store in found))

    tables.heading("Seconds of a pass over the probes", "K", "one question", f"{arguments.queries} together")
    for path, dimension in zip(stores, arguments.dimensions, strict=True):
        tables.row(f"{dimension:,}", *(f"{seconds:.1f}" for seconds in _pass_seconds(path, questions)))


def _columns(arguments: argparse.Namespace) -> list[str]:
    return [f"K = {dimension:,}" for dimension in arguments.dimensions]


def _ingested(world: World, arguments: argparse.Namespace, dimension: int) -> Path:
    """Make a store of the loss with a curvature, unless it is there."""
    path: Path = arguments.work / f"directions-{dimension}-{arguments.rows}-{arguments.probes}"
    if not Store.exists(path):
        lines = world.train.read_text(encoding="utf-8").splitlines(keepends=True)[: arguments.rows]
        rows = path.with_suffix(".jsonl")
        rows.write_text("".join(lines), encoding="utf-8")
        ingest_files(
            path,
            [rows],
            model=str(world.model),
            device="cpu",
            objective="loss",
            projection_dim=dimension,
            probes=arguments.probes,
        )
    return path


def _scores(path: Path, questions: Path, name: str, count: int) -> tuple[NDArray[np.float64], float]:
    """Ask a store all questions: scores by ascending id, [q, n], and the seconds that it took."""
    options = SearchOptions(**{"k": count, "rerank": count, **_SEARCHES[name]})
    with Searcher(path, device="cpu") as searcher:
        next(searcher.search_file(questions, k=1, rerank=0))  # reads what is read once
        started = time.monotonic()
        results = list(searcher.search_file(questions, options=options))
        seconds = time.monotonic() - started
    rows = [[hit.score for hit in sorted(result.proponents, key=lambda hit: hit.id)] for result in results]
    return np.array(rows), seconds


def _pass_seconds(path: Path, questions: Path) -> tuple[float, float]:
    """Time what `--exact-curvature` adds to one question, and to all questions of one call."""
    with Store.open(path) as store, StoreModel(store, device="cpu") as model:
        corrections = StoreCorrections(store)
        correction = corrections.of("influence")
        if correction is None:
            raise SystemExit(f"{path}: there is no curvature")
        exact = ExactCurvature(corrections, correction, None)
        asked = [model.prepared(one, 1)[1] for one in read_queries(questions, store.settings.text)]
        raw = model.vectors(asked, "loss", raw=True)
        with model.exclusive("loss") as parts:
            exact.taken_away(parts, raw[:1], "loss")  # encodes the samples, which is done once
            started = time.monotonic()
            exact.taken_away(parts, raw[:1], "loss")
            one = time.monotonic() - started
            exact.taken_away(parts, raw, "loss")
            return one, time.monotonic() - started - one


def _truth(path: Path, questions: Path) -> NDArray[np.float64]:
    """Compute dense influences by ascending id, [q, n]."""
    with Store.open(path) as store, StoreModel(store, device="cpu") as model:
        with store.snapshot() as snapshot:
            drawn = snapshot.probed(snapshot.curvature().keys)
        asked = [model.prepared(one, 1)[1] for one in read_queries(questions, store.settings.text)]
        samples = [model.encode_stored(one) for one in sorted(store.list(), key=lambda one: one.id)]
        probed = [(model.encode_stored(one[0]), one[1]) for one in drawn if one is not None]
        with model.exclusive("loss") as parts:
            engine = parts.engine
            sizes = [int(np.prod(shape)) for shape in engine.shapes]
            queries = torch.stack([_gradient(engine, one, "loss") for one in asked])
            rows = torch.stack([_gradient(engine, one, "loss") for one in samples])
            probes = torch.stack(
                [_gradient(engine, one, FisherDraw(PROBE_SEED, draw)) * sum(one.targets) for one, draw in probed]
            )
    probes /= sum(sum(one.targets) for one, _ in probed) ** 0.5
    parts_of_rows = [part / part.norm(dim=1, keepdim=True).clamp_min(1e-30) for part in rows.split(sizes, 1)]
    rows = torch.cat(parts_of_rows, dim=1) / len(sizes) ** 0.5
    gram = (probes @ probes.T).double()
    damping = CURVATURE_DAMPING["loss"] * mean_eigenvalue(gram)
    weights = torch.linalg.solve(gram + damping * torch.eye(len(gram)).double(), (probes @ queries.T).double())
    scores = (queries @ rows.T).double() - weights.T @ (probes @ rows.T).double()
    return scores.numpy()


def _gradient(engine: RapidGradEngine, sample: TokenSample, of: Any) -> Tensor:
    """Compute the gradient of a sample's mean objective or draw, float32 [p]."""
    tensors, _ = whole_gradient(engine, sample, of)
    return torch.cat([tensor.flatten() for tensor in tensors if tensor is not None])


def _correlations(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> str:
    """Write the means over questions of both correlations."""
    pearson = np.mean([pearsonr(*pair)[0] for pair in zip(scores, truth, strict=True)])
    spearman = np.mean([spearmanr(*pair)[0] for pair in zip(scores, truth, strict=True)])
    return f"{pearson:.3f} / {spearman:.3f}"


if __name__ == "__main__":
    main()
