"""What do several checkpoints in one store gain? The linear datamodeling score on a world of `benchmarks.lds`.

    python -m benchmarks.checkpoints --work DIRECTORY
    python -m benchmarks.checkpoints --work DIRECTORY --world fine-tuning

Trains the world's model once more, with the same result, and saves it on the way. Then it makes a store of each
set of checkpoints and asks the retrained models of `benchmarks.lds` (its --work) which one predicts them
best. What is in --work already is used again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from torch import nn

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.lds_worlds import WORLDS, World
from rapidin import Store, compute_curvature, ingest_files
from rapidin.demo import demo_model
from rapidin.evaluation.experiments import Retraining, RetrainingPlace, linear_datamodeling
from rapidin.evaluation.methods import MethodOptions
from rapidin.evaluation.metrics import Bootstrap
from rapidin.evaluation.retraining import trainer
from rapidin.model import Schedule, StoreModel, save_model, training_loop
from rapidin.records import MethodLds

SHARES_OF_TRAINING = (1 / 8, 1 / 4, 1 / 2, 1)
"""Parts of the training after which a checkpoint is saved."""
SETS = ((3,), (1,), (0,), (1, 3), (0, 1), (0, 1, 2, 3))
"""Checkpoints of each store, by place in `SHARES_OF_TRAINING`."""
_METHODS = ("rapidin", "rapidin-cosine")


def main() -> None:
    """Train with checkpoints, ingest, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--world", choices=WORLDS, default="demo")
    parser.add_argument("--work", type=Path, required=True, help="--work of benchmarks.lds, or a copy of it")
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--probes", type=int, default=1600)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2**16, 2**14], help="K of equal bytes")
    arguments = parser.parse_args()
    use_threads(arguments.jobs)
    world = WORLDS[arguments.world](arguments.work)
    print(tables.machine(arguments.jobs), flush=True)
    print(world.title, flush=True)
    checkpoints = _checkpoints(arguments.world, arguments.work)
    tables.heading("LDS", "checkpoints at", "K", "influence", "− that of the end alone", "cosine")
    for dimension in arguments.dimensions:
        end: np.ndarray | None = None
        for chosen in SETS:
            for factor in sorted({1, len(chosen)}):
                places = [checkpoints[one] for one in chosen]
                lds = _lds(world, arguments, places, chosen, dimension * factor)
                influence, cosine = (np.array(lds[name].by_query) for name in _METHODS)
                end = influence if end is None else end
                mean = Bootstrap(len(influence)).mean
                when = " + ".join(f"{SHARES_OF_TRAINING[one]:.1%}" for one in chosen)
                tables.row(when, dimension * factor, mean(influence), mean(influence - end), mean(cosine))


def _lds(
    world: World, arguments: argparse.Namespace, places: Sequence[Path], chosen: Sequence[int], dimension: int
) -> dict[str, MethodLds]:
    """Make a store, and judge its two measures by the retrained models."""
    store = arguments.work / f"store-{'-'.join(map(str, chosen))}-{dimension}"
    ingest_files(
        store,
        [world.train],
        model=str(world.model),
        checkpoints=places,
        projection_dim=dimension,
        objective="loss",
        curvature=False,
        device="cpu",
    )
    compute_curvature(store, probes=arguments.probes, device="cpu")
    with Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        place = RetrainingPlace(
            opened, model, arguments.work / "evaluation", device="cpu", options=MethodOptions(more={})
        )
        retraining = Retraining(
            world.training, subsets=arguments.subsets, repeats=arguments.repeats, jobs=arguments.jobs
        )
        report = linear_datamodeling(place, world.queries, _METHODS, retraining)
    return {method.name: method for method in report.methods}


def _checkpoints(world: str, work: Path) -> list[Path]:
    """Train the world's model again and save it on the way, with the learning rates as a Trainer writes them."""
    directory = work / "checkpoints"
    if not directory.exists():
        unfinished = work / "checkpoints.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        again = unfinished / "again"
        again.mkdir(parents=True)
        if (work / "pretrained").exists():
            shutil.copytree(work / "pretrained", again / "pretrained")
        fit = training_loop.fit

        def saving(
            model: nn.Module,
            samples: Sequence[Any],
            numbers: random.Random,
            schedule: Schedule,
            loss: Callable[..., Any],
            on_step: object = None,  # noqa: ARG001
        ) -> None:
            def save(step: int, steps: int, _: float) -> None:
                if step in {round(share * steps) for share in SHARES_OF_TRAINING}:
                    rate = training_loop._learning_rate(step - 1, steps, schedule)
                    place = unfinished / f"checkpoint-{step:05d}"
                    save_model(model, place)
                    state = {"global_step": step, "log_history": [{"step": step, "learning_rate": rate}]}
                    (place / "trainer_state.json").write_text(json.dumps(state))

            fit(model, samples, numbers, schedule, loss, save)

        with mock.patch.object(demo_model, "fit", saving), mock.patch.object(trainer, "fit", saving):
            WORLDS[world](again)
        shutil.rmtree(again)
        unfinished.rename(directory)
    return sorted(directory.glob("checkpoint-*"))


if __name__ == "__main__":
    main()
