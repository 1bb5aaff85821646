"""Does rapidin find what exact gradients find? Scores of a store against uncompressed gradients.

The exact scores (`benchmarks.exact`) are computed without any of rapidin's gradient, projection or storage code:
one sample at a time, plain autograd, every parameter tensor's gradient divided by its norm, dense inner products.
Only text and tokens come from rapidin, since both must look at the same tokens. Queries are the model's own
greedy answers.

    python -m benchmarks.fidelity --model M --train train.jsonl --queries test.jsonl --label poisoned \
        --projection-dim 65536 --projection-dim 262144 --limit 1000 --work DIRECTORY

prints, for every projection dimension, the share of labelled samples among the top proponents of labelled queries
by exact and by stored scores, the correlation of all scores, and the variance of their difference times K
(theory: (1 + s²)·(|v| − K)/(|v| − 1), about 1).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

import rapidin
from benchmarks.exact import ExactGradients, exact_scores
from rapidin.data import read_rows
from rapidin.model.loading import load_model, load_tokenizer
from rapidin.settings.store_settings import ModelSettings, TextSettings
from rapidin.text import Encoder, recognise


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--label", required=True, help="boolean field that marks what should be found")
    parser.add_argument("--projection-dim", type=int, action="append")
    parser.add_argument("--limit", type=int, help="training rows to use")
    parser.add_argument("--work", type=Path, required=True, help="directory for stores and exact scores")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)

    train = _rows(arguments.train, arguments.work / "train.jsonl", drop=(), limit=arguments.limit)
    # Without a response of their own, the queries get the model's.
    _rows(
        arguments.queries, arguments.work / "queries.jsonl", drop=("output", "completion", "response"), limit=None
    )
    label = {row["id"]: bool(row[arguments.label]) for row in train}

    exact: np.ndarray | None = None
    ids = [row["id"] for row in train]
    for dimension in arguments.projection_dim or [65536]:
        stored, results = _stored_scores(arguments, dimension, ids)
        if exact is None:
            exact = _exact_scores(arguments)
        _report(dimension, stored, exact, results, ids, label, arguments.label)


def _rows(source: Path, target: Path, drop: tuple[str, ...], limit: int | None) -> list[dict]:
    rows = [json.loads(line) for line in source.read_text().splitlines()][:limit]
    rows = [{name: value for name, value in row.items() if name not in drop} for row in rows]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _stored_scores(arguments: argparse.Namespace, dimension: int, ids: list[str]) -> tuple:
    """Ingest and ask for every sample's score, through the public interface."""
    store = arguments.work / f"store-{dimension}"
    report = rapidin.ingest_files(
        store,
        [arguments.work / "train.jsonl"],
        model=arguments.model,
        adapter=arguments.adapter,
        projection_dim=dimension,
        objective="loss",  # as `benchmarks.exact`, which knows nothing else
        device="cpu",
        curvature=False,
    )
    with rapidin.Searcher(store, device="cpu") as searcher:
        answered = arguments.work / "answered.jsonl"
        if not answered.exists():  # once, so that every K and the exact gradients look at the same answers
            _answer(searcher, arguments.work / "queries.jsonl", answered)
        started = time.monotonic()
        results = list(searcher.search_file(answered, k=len(ids)))
        seconds = (time.monotonic() - started) / len(results)
    place = {id: column for column, id in enumerate(ids)}
    scores = np.empty((len(results), len(ids)))
    for row, result in enumerate(results):
        for hit in result.proponents:
            scores[row, place[hit.id]] = hit.score
    print(f"K = {dimension}: {report.tokens_per_second:.0f} tokens/s at ingest, {seconds:.2f} s a query\n")
    return scores, results


def _answer(searcher: rapidin.Searcher, queries: Path, answered: Path) -> None:
    """Write the queries with the model's own greedy answers as their responses."""
    rows = [json.loads(line) for line in queries.read_text().splitlines()]
    results = searcher.search_file(queries, k=1)
    for row, result in zip(rows, results, strict=True):
        row["output" if "instruction" in row else "completion"] = result.query.generation
    answered.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _exact_scores(arguments: argparse.Namespace) -> np.ndarray:
    """Mean over parameter tensors of the cosines between exact gradients, [queries, samples]."""
    saved = arguments.work / "exact.npy"
    if saved.exists():
        print("exact scores: of a former run\n")
        return np.load(saved)
    settings = ModelSettings(model=arguments.model, adapter=arguments.adapter)
    tokenizer, context_length = load_tokenizer(settings)
    encoder = Encoder(tokenizer, TextSettings(), context_length)
    loaded = load_model(settings, "cpu")
    gradients = ExactGradients(loaded)
    started = time.monotonic()
    queries, samples = (
        (encoder.encode(recognise(row)) for row in read_rows([arguments.work / name]))
        for name in ("answered.jsonl", "train.jsonl")
    )
    scores = exact_scores(gradients, queries, samples)
    print(f"exact scores: {time.monotonic() - started:.0f} s\n")
    np.save(saved, scores)
    return scores


def _report(
    dimension: int,
    stored: np.ndarray,
    exact: np.ndarray,
    results: list[rapidin.SearchResult],
    ids: list[str],
    label: dict[str, bool],
    field: str,
) -> None:
    labelled = np.array([label[id] for id in ids])
    for wanted in (True, False):
        rows = [row for row, result in enumerate(results) if bool(result.query.metadata[field]) == wanted]
        if not rows:
            continue
        print(f"| share of {field} samples, {len(rows)} queries with {field}={wanted} | exact | K = {dimension} |")
        print("|---|---|---|")
        for top in (10, 100):
            shares = [labelled[np.argsort(-scores[rows], axis=1)[:, :top]].mean() for scores in (exact, stored)]
            print(f"| top {top} | {shares[0]:.3f} | {shares[1]:.3f} |")
        print()
    print(f"| all pairs with | {field} queries | other queries | all queries |\n|---|---|---|---|")
    wanted = np.array([bool(result.query.metadata[field]) for result in results])
    groups = [(stored[rows], exact[rows]) for rows in (wanted, ~wanted, wanted | True) if rows.any()]
    measures = {
        "Pearson": lambda a, b: pearsonr(a.ravel(), b.ravel()).statistic,
        "Spearman": lambda a, b: spearmanr(a.ravel(), b.ravel()).statistic,
        "standard deviation of the exact scores": lambda _, b: b.std(),
        "mean of (score − exact)": lambda a, b: (a - b).mean(),
        "variance of (score − exact) × K": lambda a, b: (a - b).var() * dimension,
    }
    for name, measure in measures.items():
        print(f"| {name} | {' | '.join(f'{measure(a, b):.4g}' for a, b in groups)} |")
    print(flush=True)


if __name__ == "__main__":
    main()
