"""Tokens per second of rapidin's caching beside training work and other systems.

A machine's speed drifts within minutes. So the methods take turns: in each round, of a few batches, every method
goes over the same ones, and a ratio is formed within the round; the tables have medians over the rounds.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.bergson_runs import Bergson, BergsonRun
from benchmarks.methods import AUTHORS, METHODS, PLAIN, Method, make_method
from benchmarks.workload import Sample, make_model, make_samples, slices, tokens_of

BERGSON = "bergson, projection_dim 16"
_SLOW = (AUTHORS, BERGSON)

Turn = Callable[[Sequence[Sample]], float]
"""Goes over a round's samples, or some of them, and tells its tokens per second."""


def speed_table(threads: int, quick: bool, tokens: int, dimension: int, bergson: Path | None, work: Path) -> None:
    """Print tokens per second of every method.

    Args:
        threads: of every method.
        quick: a smaller model and a tenth of the samples.
        tokens: padded tokens of a batch.
        dimension: K.
        bergson: its command line, None to leave it out.
        work: directory for bergson's files.
    """
    size = "5 M" if quick else "30 M"
    model = make_model(size)
    samples, rounds = make_samples(24 if quick else 256), 2 if quick else 6
    methods = {name: make_method(name, copy.deepcopy(model), tokens, dimension) for name in METHODS}
    bytes_per_sample = {name: method.bytes_per_sample for name, method in methods.items()}
    turns = {name: _turn(name, method) for name, method in methods.items()}
    bergson_run: BergsonRun | None = None
    if bergson is not None:
        runs = Bergson(bergson, work, model, tokens, threads)

        def bergson_turn(_: Sequence[Sample]) -> float:
            # All samples in every round: its start takes long, and the longer the run the less it matters.
            nonlocal bergson_run
            rate, bergson_run = runs.tokens_per_second(samples)
            return rate

        turns[BERGSON] = bergson_turn
    rates = rates_in_turns(turns, slices(samples, tokens, rounds))
    if bergson_run is not None:
        bytes_per_sample[BERGSON] = bergson_run.bytes_per_sample
    tables.heading(
        f"Speed: {size} parameters, {len(samples)} samples, {tokens_of(samples):,} tokens, batches of {tokens:,} "
        f"tokens, K = {dimension:,}; median (range) of {rounds} rounds, for those "
        "that take minutes of every other one",
        *("method", "tokens/s", "speed : plain", "time : plain", "bytes a sample"),
    )
    for name, values in rates.items():
        ratios = _ratios(values, rates[PLAIN])
        tables.row(
            name,
            f"{statistics.median(values.values()):,.0f}",
            tables.median_and_range(ratios, 3),
            tables.median_and_range([1 / ratio for ratio in ratios]),
            f"{bytes_per_sample[name]:,}" if bytes_per_sample[name] else "–",
        )
    if bergson_run is not None:
        print(f"\nbergson's process held {tables.mebibytes(bergson_run.peak)} MiB at most", flush=True)


def compare(methods: Mapping[str, Method], samples: Sequence[Sample], tokens: int, rounds: int) -> dict[str, str]:
    """Measure methods in turns and write each one's tokens per second and its ratio to `PLAIN`."""
    turns = {name: _turn(name, method) for name, method in methods.items()}
    rates = rates_in_turns(turns, slices(samples, tokens, rounds))
    written = {}
    for name, values in rates.items():
        ratios = _ratios(values, rates[PLAIN])
        written[name] = f"{statistics.median(values.values()):,.0f} ({statistics.median(ratios):.3f})"
    return written


def rates_in_turns(turns: Mapping[str, Turn], rounds: Sequence[Sequence[Sample]]) -> dict[str, dict[int, float]]:
    """Let every method go over every round's samples, forwards or backwards so that no method is always the first.

    Before that each goes over two short samples untimed, which are one batch under any budget: caches fill, and
    rapidin's engine checks itself once. Those that take minutes sit out every other round.

    Returns:
        Of each method, tokens per second by the number of the round.
    """
    for name, turn in turns.items():
        if name != BERGSON:
            turn(sorted(rounds[0], key=lambda sample: len(sample.ids))[:2])
    rates: dict[str, dict[int, float]] = {name: {} for name in turns}
    for number, samples in enumerate(rounds):
        for name in list(turns)[:: 1 if number % 4 in (0, 3) else -1]:
            if number % 2 == 0 or name not in _SLOW:
                rates[name][number] = turns[name](samples)
    return rates


def _ratios(rates: Mapping[int, float], plain: Mapping[int, float]) -> list[float]:
    return [rate / plain[number] for number, rate in rates.items()]


def _turn(name: str, method: Method) -> Turn:
    def turn(samples: Sequence[Sample]) -> float:
        if name == AUTHORS:  # seconds a sample: two of usual length have to do
            samples = sorted(samples, key=lambda sample: len(sample.ids))[len(samples) // 2 :][:2]
        started = time.perf_counter()
        method.run(samples)
        return tokens_of(samples) / (time.perf_counter() - started)

    return turn
