"""What rapidin's caching stage costs and how exact it is, beside training work, the authors' code and bergson.

    python -m benchmarks.caching speed memory --bergson bergson-env/bin/bergson
    python -m benchmarks.caching fidelity --fidelity-model M --train train.jsonl --queries test.jsonl \\
        --label poisoned
    python -m benchmarks.caching sweep
    python -m benchmarks.caching speed memory sweep --quick

prints tables for each name: `speed` (tokens per second on a random model of 29.5 M parameters), `memory` (peaks
in fresh processes), `fidelity` (scores against exact gradients, on a trained model), `sweep` (how the speed
changes with K, batch, model, LoRA and workers). Several names are run one after another, in one go.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from transformers.utils import logging

from benchmarks import tables
from benchmarks.caching_fidelity import fidelity_table, read_material
from benchmarks.fresh import use_threads
from benchmarks.memory import memory_tables
from benchmarks.speed import speed_table
from benchmarks.sweep import sweep_tables


def main() -> None:
    """Run the chosen benchmarks and print their tables."""
    arguments = _arguments()
    use_threads(arguments.threads)
    logging.disable_progress_bar()
    quick, tokens, dimension = arguments.quick, arguments.tokens_per_batch, arguments.projection_dim
    print(tables.machine(arguments.threads), flush=True)
    with tempfile.TemporaryDirectory(prefix="rapidin-caching-") as directory:
        for name in arguments.tables:
            work = Path(directory) / name
            work.mkdir()
            if name == "speed":
                speed_table(arguments.threads, quick, tokens, dimension, arguments.bergson, work)
            elif name == "memory":
                memory_tables(arguments.threads, quick, tokens, dimension)
            elif name == "sweep":
                sweep_tables(arguments.threads, quick, tokens, dimension, work)
            else:
                material = read_material(
                    str(arguments.fidelity_model),
                    arguments.train,
                    arguments.queries,
                    arguments.label,
                    (16, 4) if quick else (arguments.limit, None),
                )
                fidelity_table(material, (1 << 14,) if quick else (1 << 14, 1 << 16, 1 << 18), tokens)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.caching",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tables",
        nargs="+",
        choices=("speed", "memory", "fidelity", "sweep"),
        metavar="table",
        help="speed, memory, fidelity, sweep",
    )
    parser.add_argument("--quick", action="store_true", help="few samples: does it run? Its figures mean nothing")
    parser.add_argument("--threads", type=int, default=2, help="of every method (default: %(default)s)")
    parser.add_argument("--tokens-per-batch", type=int, default=2048, help="padded (default: %(default)s)")
    parser.add_argument("--projection-dim", type=int, default=65536, help="K of speed, memory and sweep")
    parser.add_argument("--bergson", type=Path, help="its command line, in an environment of its own (speed)")
    fidelity = parser.add_argument_group("fidelity")
    fidelity.add_argument("--fidelity-model", type=Path, help="directory of a trained model")
    fidelity.add_argument("--train", type=Path, help="file of training rows")
    fidelity.add_argument("--queries", type=Path, help="file of held-out rows with responses")
    fidelity.add_argument("--label", help="boolean field that both files' rows have")
    fidelity.add_argument("--limit", type=int, help="training rows to use")
    arguments = parser.parse_args()
    wanted = (arguments.fidelity_model, arguments.train, arguments.queries, arguments.label)
    if "fidelity" in arguments.tables and None in wanted:
        parser.error("fidelity needs --fidelity-model, --train, --queries and --label")
    return arguments


if __name__ == "__main__":
    main()
