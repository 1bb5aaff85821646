"""Does the model's loss on its own answers rise most without the rows that a method ranks first?

The LoRA is trained again without the rows whose scores, added up over all queries, are highest. One model for
each method serves all queries, because they show the same behaviour. `fine_tune` keeps everything else as it was,
so the others are compared with the model that was trained on all rows, after equally many epochs.

Shape letters: n rows · q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import tables
from benchmarks.real_model import LORA, Tuned, fine_tune, mean_losses
from benchmarks.real_scores import World
from rapidin.evaluation.metrics import Bootstrap


def highest(scores: NDArray[np.floating], count: int) -> list[int]:
    """List the rows with the highest sums of scores [q, n] over queries."""
    return sorted(np.argsort(-scores.sum(axis=0), kind="stable")[:count].tolist())


def print_rises(
    world: World,
    base: Path,
    work: Path,
    rows: Sequence[dict[str, Any]],
    with_all: Sequence[Tuned],
    scores: Mapping[str, NDArray[np.floating]],
    removed: int,
    random_sets: int,
) -> None:
    """Retrain without each method's first rows, and print how the queries' losses rise.

    Args:
        world: the fine-tuned model, its rows and queries.
        base: directory of the checkpoint that training begins with.
        work: directory of the retrained models.
        rows: the n training rows.
        with_all: the model that was trained on all rows, after each of the epochs to compare at.
        scores: scores [q, n] of each method.
        removed: number of rows that are left out.
        random_sets: number of sets of random rows, and of sets of random poisoned rows.
    """
    sets = {name: highest(of_method, removed) for name, of_method in scores.items()}
    for number in range(random_sets):
        drawn = np.random.default_rng(number).choice(len(rows), removed, replace=False)
        sets[f"random, set {number + 1}"] = sorted(drawn.tolist())
        drawn = np.random.default_rng(number).choice(np.flatnonzero(world.wanted), removed, replace=False)
        sets[f"random poisoned ones, set {number + 1}"] = sorted(drawn.tolist())
    before = [mean_losses(tuned, world.asked) for tuned in with_all]
    bootstrap = Bootstrap(len(world.asked))
    tables.heading(
        f"Without {removed} rows of {len(rows)}: rise of the mean loss on {len(world.asked)} answers, in nats per "
        "token, mean and 95 % interval over answers",
        *("left out", "poisoned among them"),
        *(f"epoch {epoch} (from {losses.mean():.3f})" for epoch, losses in enumerate(before, start=1)),
    )
    for name, chosen in sets.items():
        left_out = [rows[place]["id"] for place in chosen]
        directory = work / "-".join(["without", *(str(place) for place in chosen)])
        without = fine_tune(base, directory, rows, LORA, len(with_all), left_out)
        rises = [
            bootstrap.mean(mean_losses(tuned, world.asked) - losses)
            for tuned, losses in zip(without, before, strict=False)
        ]
        tables.row(name, f"{int(world.wanted[chosen].sum())} of {removed}", *rises)
