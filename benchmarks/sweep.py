"""How the speed of rapidin's caching changes with K, batch, model, adapter and workers.

Every figure is tokens per second with its ratio to plain training work in brackets, measured in turns with it.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

import rapidin
from benchmarks import tables
from benchmarks.fresh import in_fresh_process
from benchmarks.methods import PLAIN, RAPIDIN, make_method
from benchmarks.speed import compare
from benchmarks.workload import SIZES, Sample, as_row, make_model, make_samples, save, with_lora

_SMALL_ADAPTER = 1 << 14
"""K of the comparison with LoRA, whose adapter has few parameters."""


def sweep_tables(threads: int, quick: bool, tokens: int, dimension: int, work: Path) -> None:
    """Print the tables.

    Args:
        threads: of every measurement.
        quick: the smallest model, few samples and values.
        tokens: padded tokens of a batch, where it does not vary.
        dimension: K, where it does not vary.
        work: directory for the ingests' files.
    """
    rounds = 1 if quick else 2
    samples = make_samples(16 if quick else 48)
    size = "5 M" if quick else "30 M"
    model = make_model(size)
    names = (PLAIN, *RAPIDIN)

    def begin(title: str, first: str) -> None:
        tables.heading(f"{title}: tokens/s (speed : plain)", first, *names)

    def measure(label: str, model: nn.Module, samples: Sequence[Sample], tokens: int, dimension: int) -> None:
        methods = {name: make_method(name, copy.deepcopy(model), tokens, dimension) for name in names}
        figures = compare(methods, samples, tokens, rounds)
        tables.row(label, *(figures[name] for name in names))

    begin(f"K, {size} parameters, batches of {tokens:,} tokens, {len(samples)} samples", "K")
    for exponent in (12, 16) if quick else (12, 14, 16, 18, 20):
        measure(f"2^{exponent}", model, samples, tokens, 1 << exponent)

    begin(f"Tokens of a batch, {size} parameters, K = {dimension:,}", "tokens")
    for budget in (512, 2048) if quick else (512, 1024, 2048, 4096, 8192):
        measure(f"{budget:,}", model, samples, budget, dimension)

    begin(f"Model, batches of {tokens:,} tokens, K = {dimension:,}", "parameters")
    for chosen in (size,) if quick else SIZES:
        some = samples[:12] if chosen == "120 M" else samples
        measure(chosen, make_model(chosen), some, tokens, dimension)

    begin(f"LoRA against all weights, {size} parameters, K = {_SMALL_ADAPTER:,}", "traced")
    measure("all weights", model, samples, tokens, _SMALL_ADAPTER)
    measure("LoRA, rank 16 on q and v", with_lora(make_model(size)), samples, tokens, _SMALL_ADAPTER)

    _workers_table(model, make_samples(16 if quick else 256), threads, tokens, dimension, work)


def _workers_table(
    model: nn.Module, samples: Sequence[Sample], threads: int, tokens: int, dimension: int, work: Path
) -> None:
    """Ingest with one worker that has all threads, and with as many workers as threads."""
    save(model, work / "model")
    data = work / "train.jsonl"
    data.write_text("".join(json.dumps(as_row(sample)) + "\n" for sample in samples))
    tables.heading(
        f"Workers: a whole ingest of {len(samples)} samples, batches of {tokens:,} tokens, K = {dimension:,}",
        *("method", "workers × threads", "tokens/s", "tokens/s with start and end"),
    )
    known = inspect.signature(rapidin.ingest_files).parameters
    settable = "workers" in known
    for name, kind in RAPIDIN.items():
        for workers in (1, threads) if settable and threads > 1 else (1,):
            options: dict[str, Any] = {"tokens_per_batch": tokens, "projection_dim": dimension}
            if settable:
                options["workers"] = workers
            if "curvature" in known:
                options["curvature"] = False
            if len(RAPIDIN) > 1:
                options["projection"] = kind
            store = work / f"store-{kind}-{workers}"
            report = in_fresh_process(threads // workers, _ingest, store, data, work / "model", options)
            rates = (f"{rate:,.0f}" for rate in (report.tokens_per_second, report.tokens / report.seconds))
            tables.row(name, f"{workers} × {threads // workers}", *rates)


def _ingest(store: Path, data: Path, model: Path, options: dict[str, Any]) -> rapidin.IngestReport:
    return rapidin.ingest_files(store, [data], model=str(model), device="cpu", **options)
