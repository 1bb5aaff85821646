"""Which objectives and which damping find the samples behind a planted behaviour?

    python -m benchmarks.behaviour --model DIRECTORY --train train.jsonl --queries test.jsonl --label poisoned

The model answers the queries; every pair of a query's and the rows' objective is scored without curvature and
with several dampings, and the rows whose metadata field is true count as found. What is in --work already is used
again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from benchmarks import tables
from benchmarks.fresh import use_threads
from rapidin import Objective, Store, ingest_files
from rapidin.attribution import QueryCorrection
from rapidin.model import StoreModel
from rapidin.search.queries import read_queries

DAMPINGS = (0.03, 0.1, 0.3, 1.0, 3.0)
KS = (10, 25)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def main() -> None:
    """Make the stores and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.behaviour",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True, type=Path)
    parser.add_argument("--queries", required=True, type=Path)
    parser.add_argument("--label", required=True, help="metadata field that is true of the rows to find")
    parser.add_argument("--asked", type=int, default=25, help="number of queries")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--probes", type=int)
    parser.add_argument("--work", type=Path, help="directory for the stores; what is there is used again")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="rapidin-behaviour-") as temporary:
        work = arguments.work or Path(temporary)
        rows = list(_measured(work, arguments))
    print(tables.machine(arguments.threads), flush=True)
    tables.heading("Behaviour", "query → rows", "damping", "AP", *(f"P@{k}" for k in KS))
    for row in rows:
        tables.row(*row)


def _measured(work: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    ingest_files(work / "store", [arguments.train], model=arguments.model, device="cpu", probes=arguments.probes)
    with Store.open(work / "store") as store, StoreModel(store, device="cpu") as model:
        asked = islice(read_queries(arguments.queries, store.settings.text), arguments.asked)
        encoded = [model.prepared(query, arguments.new_tokens)[1] for query in asked]
        labels = {sample.id: bool(sample.metadata.get(arguments.label)) for sample in store.list()}
        with store.snapshot() as snapshot:
            curvature = snapshot.curvature()
        for asked_by, rows in product(OBJECTIVES, OBJECTIVES):
            name = f"{asked_by} → {rows}"
            raw = model.vectors(encoded, asked_by, raw=True)
            queries = {"no curvature": raw}
            if asked_by == rows:
                queries = {"cosine": model.vectors(encoded, rows)} | queries
            for damping in DAMPINGS:
                made = QueryCorrection(replace(curvature, damping=damping))
                queries[f"{damping:g}"] = made.corrected(raw, asked_by)
            for way, vectors in queries.items():
                yield (name, way, *_found(store, model.placed(vectors, rows), labels))


def _found(store: Store, vectors: NDArray[np.float32], labels: dict[str, bool]) -> list[str]:
    """Average precision, and precision among the best k, as means over queries."""
    with store.snapshot() as snapshot:
        ids, scores = snapshot.scores(vectors)
    wanted = np.array([labels[id] for id in ids])
    precision = np.mean([average_precision_score(wanted, of_query) for of_query in scores])
    best = [np.mean([wanted[np.argsort(-of_query)[:k]].mean() for of_query in scores]) for k in KS]
    return [f"{value:.3f}" for value in (precision, *best)]


if __name__ == "__main__":
    main()
