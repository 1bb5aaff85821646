"""The tables of the paper's experiments: methods (Tables 2, 4), stores of many kinds, wrong words (Table 5)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rapidin
from benchmarks.paper_published import BACKDOOR, TIMES, TRACING
from benchmarks.paper_worlds import Tuned, World
from benchmarks.tracing_data import Pair
from rapidin.data import read_rows
from rapidin.evaluation.experiments.experiment_data import (
    Label,
    QueryRows,
    answered_queries,
    read_query_rows,
    relevant,
    span_reader,
    training_set,
)
from rapidin.evaluation.experiments.label_experiments import LabelExperiment, backdoor, trace
from rapidin.evaluation.methods.stored_scores import RapidinScorer
from rapidin.evaluation.methods.tracin import TracIn
from rapidin.evaluation.metrics.intervals import Bootstrap
from rapidin.evaluation.metrics.ranking_measures import (
    average_precision,
    correlation,
    ends_measures,
    ranking,
    tie_order,
)
from rapidin.model.store_model import StoreModel
from rapidin.records import Interval
from rapidin.records.evaluation_reports import MethodQuality
from rapidin.search.queries import read_queries
from rapidin.storage import Store

Lines = list[str]

SHOWN = (5, 100)
"""Sizes of the ends in the tables of stores."""
MAX_NEW_TOKENS = 128
"""Longest answer that the models write."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of making a store.

    Attributes:
        title: in the table.
        settings: of `rapidin.ingest_files`.
        tuned: which of the world's models.
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    tuned: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What is computed once for many stores.

    Attributes:
        exact: scores of whole gradients, by what they depend on: model, traced tensors, normalisation.
        answers: file of the queries with the answers of the model of that number.
    """

    exact: dict[tuple[int, str | None, bool, str], NDArray[np.float32]] = field(default_factory=dict)
    answers: dict[int, QueryRows] = field(default_factory=dict)


def methods_table(
    world: World, work: Path, baselines: Sequence[str], ks: Sequence[int], limit: int | None
) -> Lines:
    """Table 4 with everything that the paper compares with, and Table 2's times."""
    store = ingested(world, world.tuned[0], {}, work / "default")
    with Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        label = Label(world.label)
        questions = read_query_rows(world.queries, opened, label, limit=limit)
        setting = LabelExperiment(
            opened, model, label, questions, max_new_tokens=MAX_NEW_TOKENS, device="cpu", work=work / "saved"
        )
        report = backdoor(setting, baselines, ks)
    lines = table(
        f"auPRC / auROC of the k best and k worst samples ({report.queries} answers of the model, "
        f"{report.relevant} of {report.samples:,} samples to be found; ± half the 95 % interval over answers); "
        "last column: the paper's for top 5, 100 and 1000, with a 7B model and QLoRA",
        ["method", *(f"top {at.k}" for at in report.methods[0].at), "AP", "paper"],
        [
            [
                found.name,
                *(
                    f"{found_at.auprc.mean:.3f} {half(found_at.auprc)} / {found_at.auroc.mean:.3f}"
                    for found_at in found.at
                ),
                f"{found.average_precision.mean:.3f}",
                BACKDOOR.get(found.name, ""),
            ]
            for found in report.methods
        ],
    )
    lines += ["", report.verdict]
    lines += table(
        f"Time. CachingCost these samples takes {report.caching.seconds:,.0f} s. In the paper: {TIMES}",
        [
            "method",
            "once, s",
            "one query, s",
            "each of many, s",
            "pays from, one by one",
            "together",
            "memory, MiB",
        ],
        [[found.name, *_cost(found)] for found in report.methods],
    )
    return lines


def stores_table(
    world: World, work: Path, title: str, variants: Iterable[Variant], kept: Kept, limit: int | None
) -> Lines:
    """How well stores of several kinds find the samples, and how close they are to exact gradients."""
    rows = []
    for number, variant in enumerate(variants):
        place = work / f"{title.split()[0].lower()}-{number}"
        begun = time.monotonic()
        try:
            store = ingested(world, world.tuned[variant.tuned], variant.settings, place)
        except rapidin.RapidinError as error:
            rows.append([variant.title, "", "", f"cannot be made: {error}", *("" for _ in SHOWN), ""])
            continue
        seconds = time.monotonic() - begun
        found, exact, marked, ties, size = _scored(world, variant, store, kept, limit)
        rows.append([variant.title, f"{seconds:,.0f}", size, *_quality(found, exact, marked, ties)])
    columns = ["store", "ingest, s", "bytes a sample", "Spearman with exact"]
    columns += [f"auPRC / auROC, top {k}" for k in SHOWN] + ["AP"]
    return table(title, columns, rows)


def tracing_table(worlds: Iterable[tuple[World, Pair]], work: Path, baselines: Sequence[str]) -> Lines:
    """Table 5: perturbed rows among the best, asked by the whole answer and by its wrong word alone."""
    lines: Lines = []
    for world, pair in worlds:
        place = work / pair.wrong
        with (
            Store.open(ingested(world, world.tuned[0], {}, place / "store")) as opened,
            StoreModel(opened) as model,
        ):
            answers = _wrong_answers(world, model, opened, pair, place / "wrong.jsonl")
            label = Label(world.label)
            questions = read_query_rows(answers, opened, label, span_of=span_reader("span", [pair.wrong]))
            setting = LabelExperiment(opened, model, label, questions, device="cpu", work=place / "saved")
            report = trace(setting, baselines)
        rows = []
        for found in report.methods:
            for asked_by, part in (("the whole answer", "whole"), ("the wrong word", "span")):
                cells = [f"{getattr(at, part).mean:.2f}" for at in found.at]
                published = TRACING["whole" if part == "whole" else "words"] if found.name == "rapidin" else ""
                rows.append([found.name, asked_by, *cells, published])
        ks = [f"top {at.k}" for at in report.methods[0].at]
        heading = f"{world.title}; {report.queries} wrong answers: share of them among the best"
        lines += table(heading, ["method", "asked by", *ks, "paper: top 5, 10, 25, 50"], rows)
    return lines


def _wrong_answers(world: World, model: StoreModel, store: Store, pair: Pair, file: Path) -> Path:
    """Let the model answer; write its answers that name the wrong country and not the right one to a file."""
    field = world.label.partition("=")[0]  # of the question, which is not what the answer is about
    wrong = []
    questions = read_queries(world.queries, store.settings.text)
    for row, question in zip(read_rows([world.queries]), questions, strict=True):
        query, _ = model.prepared(question, MAX_NEW_TOKENS)
        if pair.wrong in query.generation and pair.right not in query.generation:
            kept = {name: value for name, value in row.fields.items() if name != field}
            wrong.append({**kept, "output": query.generation})
    file.write_text("".join(json.dumps(row) + "\n" for row in wrong))
    return file


def ingested(world: World, tuned: Tuned, settings: dict[str, Any], place: Path) -> Path:
    """The store of a world's rows, made unless it is there."""
    rapidin.ingest_files(
        place,
        [world.train],
        model=str(tuned.model),
        adapter=None if tuned.adapter is None else str(tuned.adapter),
        device="cpu",
        curvature=False,
        **settings,
    )
    return place


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Lines:
    """A Markdown table below its title."""
    lines = ["", f"{title}:", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]


def half(estimate: Interval) -> str:
    """Half of an interval's width."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"± {(estimate.high - estimate.low) / 2:.3f}"


def _cost(found: MethodQuality) -> list[str]:
    cost = found.cost
    alone = "" if cost.seconds_alone is None else f"{cost.seconds_alone:,.2f}"
    each = [f"{cost.preparation:,.1f}", alone, f"{cost.seconds_together:,.2f}"]
    pays = ["" if number is None else f"{number:,}" for number in (cost.pays_from, cost.pays_from_together)]
    return [*each, *pays, "" if cost.memory is None else f"{cost.memory / 2**20:,.0f}"]


def _scored(
    world: World, variant: Variant, store: Path, kept: Kept, limit: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint64], str]:
    """Scores of a store and of exact gradients, what should be found, and bytes of a sample."""
    with Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        label = Label(world.label)
        if variant.tuned not in kept.answers:
            kept.answers[variant.tuned] = read_query_rows(world.queries, opened, label, limit=limit)
        queries = answered_queries(model, kept.answers[variant.tuned], MAX_NEW_TOKENS)
        training = training_set(opened, model, ())
        found = RapidinScorer(opened, model).scores(queries, training)
        normalise_layers = model.gradient.normalise_layers
        key = (variant.tuned, model.settings.parameters, normalise_layers, model.gradient.objectives[0])
        if key not in kept.exact:
            kept.exact[key] = TracIn(
                model, normalise_layers=normalise_layers, objective=model.gradient.objectives[0]
            ).scores(queries, training)
        marked = relevant(opened, training, label, ())
        info = opened.info()
        size = f"{info.bytes_vectors // info.samples:,}"
    return found, kept.exact[key], marked, tie_order([sample.id for sample in training.samples]), size


def _quality(
    found: NDArray[np.float32], exact: NDArray[np.float32], marked: NDArray[np.bool_], ties: NDArray[np.uint64]
) -> list[str]:
    mean = Bootstrap(len(found)).mean
    ranked = [marked[ranking(row, ties)] for row in found]
    likeness = mean(np.array([correlation(own, its, ranks=True) for own, its in zip(exact, found, strict=True)]))
    ends = [[ends_measures(row, min(k, len(marked) // 2)) for row in ranked] for k in SHOWN]
    cells = [
        f"{np.mean([one.auprc for one in some]):.3f} / {np.mean([one.auroc for one in some]):.3f}" for some in ends
    ]
    precisions = mean(np.array([average_precision(row) for row in ranked]))
    return [f"{likeness.mean:.3f}", *cells, f"{precisions.mean:.3f} {half(precisions)}"]
