"""Does influence say what retraining does? The linear datamodeling score of every method on a tiny model.

    python -m benchmarks.lds
    python -m benchmarks.lds --world fine-tuning --repeats 2
    python -m benchmarks.lds --world text --rows FILE
    python -m benchmarks.lds --work DIRECTORY --jobs 2 --methods rapidin influence-cg

Makes everything itself: a world (`benchmarks.lds_worlds`), a store, and models retrained on random halves with the
recipe of the store's own model. What is in --work already is used again, so an interrupted run goes on, and other
methods are judged by the same models.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.lds_exact import exact_table
from benchmarks.lds_worlds import WORLDS, World, text_world
from rapidin import Store, compute_curvature, ingest_files
from rapidin.evaluation.experiments import Retraining, RetrainingPlace, linear_datamodeling
from rapidin.evaluation.methods import MethodOptions
from rapidin.evaluation.metrics import Bootstrap
from rapidin.model import StoreModel
from rapidin.records import Interval, LdsReport, MethodLds
from rapidin.settings import RowObjective

METHODS = (
    *("rapidin", "rapidin-cosine", "bm25", "embedding", "random", "tracin", "tracin-ln"),
    *("influence-cg", "influence-lissa"),
)
PRECISE = {
    "influence-cg": {"samples": 32, "iterations": 12},
    "influence-lissa": {"batch": 4, "depth": 50},
}
"""More than the defaults, which on so small a model costs little."""
_EXACT_DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_JUDGED = "rapidin"
"""Method whose scores are compared with those of all others, and with other dampings."""


def main() -> None:
    """Make the world, retrain, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=(*WORLDS, "text"), default="demo")
    parser.add_argument("--rows", type=Path, help="data file of the world 'text'")
    parser.add_argument(
        "--longest", type=int, default=500, help="maximum number of characters of a row of the world 'text'"
    )
    parser.add_argument("--work", type=Path, help="directory for files; what is there is used again")
    parser.add_argument("--subsets", type=int, default=50, help="number of random halves (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=1, help="models of each half; 2 or more tell the noise of retraining"
    )
    parser.add_argument(
        "--objective", choices=get_args(RowObjective), default="both", help="objective of the store's rows"
    )
    parser.add_argument("--no-normalisation", action="store_true", help="do not normalise the store's gradients")
    parser.add_argument("--probes", type=int, help="number of probes of the curvature")
    parser.add_argument(
        "--damping",
        type=float,
        nargs="+",
        default=[None],
        help="dampings of the curvature; the first is the main one",
    )
    parser.add_argument("--exact", action="store_true", help="judge gradients that are not projected, too")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--more", type=json.loads, default=PRECISE, help="JSON: settings of influence functions")
    arguments = parser.parse_args()
    if (arguments.world == "text") != (arguments.rows is not None):
        parser.error("--rows FILE goes with --world text, and is needed there")
    use_threads(arguments.jobs)
    with tempfile.TemporaryDirectory(prefix="rapidin-lds-") as temporary:
        _run(arguments.work or Path(temporary), arguments)


def _run(work: Path, arguments: argparse.Namespace) -> None:
    if arguments.world == "text":
        world = text_world(work, arguments.rows, arguments.longest)
    else:
        world = WORLDS[arguments.world](work)
    print(tables.machine(arguments.jobs), flush=True)
    print(world.title, flush=True)
    first, *others = arguments.damping
    report = _report(work, world, arguments, first, arguments.methods)
    _print(report)
    _print_differences(report)
    if others:
        compared = [name for name in ("bm25", "influence-cg") if name in _by_name(report)]
        tables.heading(
            "LDS of rapidin", "damping", "LDS, mean and 95 % interval", *(f"− {one}" for one in compared)
        )
        for damping in others:
            judged = _by_name(_report(work, world, arguments, damping, [_JUDGED]))[_JUDGED]
            differences = [_difference(judged, _by_name(report)[name]) for name in compared]
            tables.row(damping, judged.lds, *differences)
    if arguments.exact:
        with _place(work, world, arguments, first) as place, place.store.snapshot() as snapshot:
            curvature = snapshot.curvature()
            exact_table(place, world.queries, _retraining(world, arguments), _EXACT_DAMPINGS, len(curvature))


def _report(
    work: Path, world: World, arguments: argparse.Namespace, damping: float | None, methods: list[str]
) -> LdsReport:
    with _place(work, world, arguments, damping) as place:
        return linear_datamodeling(place, world.queries, methods, _retraining(world, arguments))


@contextmanager
def _place(
    work: Path, world: World, arguments: argparse.Namespace, damping: float | None
) -> Iterator[RetrainingPlace]:
    """Make the store and its curvature, and open both with the model."""
    normalised = not arguments.no_normalisation
    changes = [arguments.objective] + ["unnormalised"] * (not normalised)
    file = work / "-".join(["store", *changes])
    ingest_files(
        file,
        [world.train],
        model=str(world.model),
        device="cpu",
        curvature=False,
        objective=arguments.objective,
        normalise_layers=normalised,
    )
    compute_curvature(file, probes=arguments.probes, damping=damping, device="cpu")
    with Store.open(file) as store, StoreModel(store, device="cpu") as model:
        options = MethodOptions(more=arguments.more, objective="loss")
        yield RetrainingPlace(store, model, work / "evaluation", device="cpu", options=options)


def _retraining(world: World, arguments: argparse.Namespace) -> Retraining:
    return Retraining(world.training, repeats=arguments.repeats, subsets=arguments.subsets, jobs=arguments.jobs)


def _print(report: LdsReport) -> None:
    print(
        f"{report.subsets} random subsets of {report.fraction:.0%} of {report.samples} rows, "
        f"{report.repeats} models of each, {len(report.queries)} queries; loss {report.loss_mean:.3f}, "
        f"between subsets ± {report.loss_spread:.3f}; {report.training_seconds:.0f} s of training in this run"
    )
    if report.noise_ceiling is not None:
        print(f"noise ceiling {report.noise_ceiling}; agreement of two models of one subset {report.agreement}")
    tables.heading("LDS", "method", "LDS, mean and 95 % interval", "worst query", "best query", "seconds")
    for method in sorted(report.methods, key=lambda one: -one.lds.mean):
        worst, best = min(method.by_query), max(method.by_query)
        tables.row(method.name, method.lds, f"{worst:.2f}", f"{best:.2f}", f"{method.seconds:.1f}")


def _print_differences(report: LdsReport) -> None:
    by_name = _by_name(report)
    if _JUDGED not in by_name:
        return
    judged = by_name.pop(_JUDGED)
    tables.heading(
        "Paired differences of LDS",
        *(f"{_JUDGED} −", "mean over queries, 95 % interval", f"queries where {_JUDGED} is better"),
    )
    for name, other in by_name.items():
        better = sum(one > two for one, two in zip(judged.by_query, other.by_query, strict=True))
        tables.row(name, _difference(judged, other), f"{better} of {len(other.by_query)}")


def _difference(one: MethodLds, other: MethodLds) -> Interval:
    """Compute the paired difference: both are asked about the drawn queries, so hard queries cancel out."""
    differences = np.subtract(one.by_query, other.by_query)
    return Bootstrap(len(differences)).mean(differences)


def _by_name(report: LdsReport) -> dict[str, MethodLds]:
    return {method.name: method for method in report.methods}


if __name__ == "__main__":
    main()
