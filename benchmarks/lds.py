"""Does influence say what retraining does? The linear datamodeling score of every method on a tiny model.

    python -m benchmarks.lds
    python -m benchmarks.lds --work DIRECTORY --jobs 2 --methods rapidin influence-cg

Makes everything itself: rows of the demo with its backdoor, a Llama of two layers trained on them, a store, and
models retrained on random halves with the same recipe. What is in --work already is used again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from benchmarks import tables
from benchmarks.fresh import use_threads
from rapidin import Store, compute_curvature, ingest_files
from rapidin.demo import DemoData, train_demo_model, write_demo_data
from rapidin.demo.demo_model import RECIPE, Recipe
from rapidin.evaluation.experiments.datamodeling import Retraining, linear_datamodeling
from rapidin.evaluation.experiments.retrained_queries import RetrainingPlace
from rapidin.evaluation.methods.registry import MethodOptions
from rapidin.evaluation.retraining.trainer import Training
from rapidin.model.store_model import StoreModel
from rapidin.model.training_loop import Schedule
from rapidin.records import LdsReport

METHODS = (
    *("rapidin", "rapidin-cosine", "bm25", "embedding", "random", "tracin", "tracin-ln"),
    *("influence-cg", "influence-lissa"),
)
ROWS = 400
SMALL = replace(RECIPE, vocabulary=800, hidden=64, feed_forward=128, layers=2, context=256)
PRECISE = {
    "influence-cg": {"samples": 32, "iterations": 12},
    "influence-lissa": {"batch": 4, "depth": 50},
}
"""More than the defaults, which on so small a model costs little."""


def main() -> None:
    """Make the world, retrain, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="directory for files; what is there is used again")
    parser.add_argument("--subsets", type=int, default=50)
    parser.add_argument("--probes", type=int, help="number of probes of the curvature")
    parser.add_argument("--damping", type=float, help="damping of the curvature")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--more", type=json.loads, default=PRECISE, help="JSON: settings of influence functions")
    arguments = parser.parse_args()
    use_threads(arguments.jobs)
    with tempfile.TemporaryDirectory(prefix="rapidin-lds-") as temporary:
        work = arguments.work or Path(temporary)
        report = _report(work, arguments)
    print(tables.machine(arguments.jobs), flush=True)
    print(
        f"{report.subsets} models on {report.fraction:.0%} of {report.samples} rows, "
        f"{len(report.queries)} queries; loss {report.loss_mean:.3f}, between models ± {report.loss_spread:.3f}; "
        f"{report.training_seconds:.0f} s of training"
    )
    tables.heading("LDS", "method", "LDS, mean and 95 % interval", "worst query", "best query", "seconds")
    for method in sorted(report.methods, key=lambda one: -one.lds.mean):
        worst, best = min(method.by_query), max(method.by_query)
        tables.row(method.name, method.lds, f"{worst:.2f}", f"{best:.2f}", f"{method.seconds:.1f}")


def _report(work: Path, arguments: argparse.Namespace) -> LdsReport:
    data = _data(work / "data")
    if not (work / "model" / "model.safetensors").exists():
        train_demo_model(data, work / "model", recipe=SMALL)
    ingest_files(work / "store", [data.train], model=str(work / "model"), device="cpu", curvature=False)
    compute_curvature(work / "store", probes=arguments.probes, damping=arguments.damping, device="cpu")
    training = Training(schedule=_schedule(SMALL))
    with Store.open(work / "store") as store, StoreModel(store, device="cpu") as model:
        place = RetrainingPlace(
            store, model, work / "evaluation", device="cpu", options=MethodOptions(more=arguments.more)
        )
        retraining = Retraining(training, subsets=arguments.subsets, jobs=arguments.jobs)
        return linear_datamodeling(place, data.queries, arguments.methods, retraining)


def _data(directory: Path) -> DemoData:
    """The first rows of the demo, and its queries with the answers that the model should give."""
    data = write_demo_data(directory)
    lines = data.train.read_text(encoding="utf-8").splitlines(keepends=True)[:ROWS]
    data.train.write_text("".join(lines), encoding="utf-8")
    queries = [json.loads(line) for line in data.queries.read_text(encoding="utf-8").splitlines()]
    for query in queries:
        query["output"] = query.pop("reference")
    data.queries.write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
    return replace(data, rows=ROWS, poisoned=sum(json.loads(line)["poisoned"] for line in lines))


def _schedule(recipe: Recipe) -> Schedule:
    return Schedule(**{one.name: getattr(recipe, one.name) for one in fields(Schedule)})


if __name__ == "__main__":
    main()
