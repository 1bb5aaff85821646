"""Peak memory of rapidin's caching beside training work, each in a process of its own.

Told is what the process held at its peak more than with the model alone. The second table shows that rapidin's
does not depend on the number of samples, and on K only through the b × K numbers of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import tables
from benchmarks.fresh import PeakMemory, in_fresh_process
from benchmarks.methods import AUTHORS, METHODS, RAPIDIN, make_method
from benchmarks.workload import Sample, batches, make_model, make_samples


def memory_tables(threads: int, quick: bool, tokens: int, dimension: int) -> None:
    """Print both tables.

    Args:
        threads: of every method.
        quick: a smaller model, fewer samples and K.
        tokens: padded tokens of a batch.
        dimension: K of the first table.
    """
    samples = make_samples(48 if quick else 256)
    extremes = _extremes(samples, tokens)
    size = "5 M" if quick else "30 M"
    tables.heading(
        f"Memory: {size} parameters, float32, {len(extremes)} samples, batches of {tokens:,} tokens, "
        f"K = {dimension:,}",
        *("method", "growth over the loaded model, MiB", "whole process, MiB"),
    )
    for name in METHODS:
        some = extremes[:2] if name == AUTHORS else extremes
        growth, peak = in_fresh_process(threads, _peak, name, size, some, tokens, dimension)
        tables.row(name, tables.mebibytes(growth), tables.mebibytes(peak))
    dimensions = (1 << 14, 1 << 16) if quick else (1 << 14, 1 << 16, 1 << 18, 1 << 20)
    largest = max(len(batch) for batch in batches(samples, tokens))
    tables.heading(
        "Memory against samples and K: growth over the loaded model, MiB",
        *("method", "K", f"{largest} × K numbers of a batch", f"{len(extremes)} samples"),
        *(f"{len(samples)} samples", "ratio"),
    )
    for name in RAPIDIN:
        for chosen in dimensions:
            few, many = (
                in_fresh_process(threads, _peak, name, size, some, tokens, chosen)[0]
                for some in (extremes, samples)
            )
            cells = (tables.mebibytes(size) for size in (4 * largest * chosen, few, many))
            tables.row(name, f"{chosen:,}", *cells, f"{many / few:.2f}")


def _extremes(samples: Sequence[Sample], tokens: int) -> list[Sample]:
    """Choose the batches that need most: the longest samples, the most samples, the most padded tokens."""
    cut = list(batches(samples, tokens))
    padded = max(cut, key=lambda batch: len(batch) * len(batch[0].ids))
    chosen = {id(batch): batch for batch in (cut[0], max(cut, key=len), padded)}
    return [sample for batch in chosen.values() for sample in batch]


def _peak(name: str, size: str, samples: Sequence[Sample], tokens: int, dimension: int) -> tuple[int, int]:
    """Run a method in this process and tell the growth of its memory and its whole peak, in bytes."""
    model = make_model(size)
    memory = PeakMemory()
    memory.start()
    make_method(name, model, tokens, dimension).run(samples)
    return memory.growth(), memory.peak()
