"""What finding the best vectors costs, beside bare FAISS, torch and one file for each sample.

    python -m benchmarks.retrieval scan growth
    python -m benchmarks.retrieval growth --rows 1000 --rows 4000 --projection-dim 4096
    python -m benchmarks.retrieval codecs --model M --train train.jsonl --queries test.jsonl --label poisoned
    python -m benchmarks.retrieval command --store STORE
    python -m benchmarks.retrieval scan growth --quick

`scan`: exact search against the bandwidth of memory and bare matrix products. `growth`: build time, size,
latency and recall of every way of searching as a store grows, with planted neighbours and without. `codecs`: what
16, 4 and 1 bit for each number do to scores, against exact gradients of a trained model. `command`: how the time
of one search splits. Filters and metadata have a benchmark of their own, `benchmarks.metadata`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import tables
from benchmarks.codec_fidelity import codec_table
from benchmarks.fresh import use_threads
from benchmarks.retrieval_command import command_table
from benchmarks.retrieval_growth import growth_table
from benchmarks.retrieval_scan import scan_table


def main() -> None:
    """Run the chosen benchmarks and print their tables."""
    arguments = _arguments()
    use_threads(arguments.threads)
    print(tables.machine(arguments.threads), flush=True)
    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="rapidin-retrieval-", dir=arguments.work) as directory:
        work = Path(directory)
        for name in arguments.tables:
            if name == "scan":  # 1 GiB in half precision
                scan_table(256 if quick else 8192, 4096 if quick else 65536, arguments.threads, work)
            elif name == "growth":
                for dimension in arguments.projection_dim or ((4096,) if quick else (4096, 65536)):
                    sizes = arguments.rows or _sizes(dimension, quick)
                    for likeness in (0.3, 0.0):
                        growth_table(sizes, dimension, likeness, work)
            elif name == "command":
                command_table(arguments.store, "How does a rainbow form?", "Light bends in drops of rain.")
            else:
                codec_table(
                    *(str(arguments.model), arguments.adapter, arguments.train, arguments.queries),
                    *(arguments.label, arguments.limit, arguments.projection_dim or (1 << 16, 1 << 18)),
                )


def _sizes(dimension: int, quick: bool) -> list[int]:
    """Numbers of samples whose vectors, in half precision, take at most 4 GiB."""
    if quick:
        return [1000]
    return [rows for rows in (1000, 4000, 16_000, 64_000, 256_000) if rows * dimension * 2 <= 2**32]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tables", nargs="+", choices=("scan", "growth", "codecs", "command"), metavar="table", help="see above"
    )
    parser.add_argument("--quick", action="store_true", help="small stores: does it run? Its figures mean nothing")
    parser.add_argument("--threads", type=int, default=2, help="of everything (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="directory for the stores; needs some 15 GB for all of growth")
    parser.add_argument("--rows", type=int, action="append", help="of growth; repeat")
    parser.add_argument("--projection-dim", type=int, action="append", help="of growth and codecs; repeat")
    parser.add_argument("--store", type=Path, help="of command")
    codecs = parser.add_argument_group("codecs")
    codecs.add_argument("--model", type=Path)
    codecs.add_argument("--adapter", type=Path)
    codecs.add_argument("--train", type=Path)
    codecs.add_argument("--queries", type=Path)
    codecs.add_argument("--label", help="boolean field that marks what should be found")
    codecs.add_argument("--limit", type=int, default=400, help="training rows to use (default: %(default)s)")
    arguments = parser.parse_args()
    if "codecs" in arguments.tables and not all(
        (arguments.model, arguments.train, arguments.queries, arguments.label)
    ):
        parser.error("codecs needs --model, --train, --queries and --label")
    if "command" in arguments.tables and not arguments.store:
        parser.error("command needs --store")
    return arguments


if __name__ == "__main__":
    main()
