"""Two things that the influence of single tokens is for: where influence falls, and where an error comes from.

    python -m benchmarks.tracing words --store STORE --queries test.jsonl --label poisoned
    python -m benchmarks.tracing errors
    python -m benchmarks.tracing errors --quick
    python -m benchmarks.tracing errors --rows loss log-odds --objective loss log-odds --damping 0.3 1 3

`words` asks on which words of the proponents influence falls (`benchmarks.tracing_words`). `errors` repeats the
paper's Table 5 in small: what a wrong word goes back to, found by the whole sentence and by the word alone, by
likeness and by influence (`benchmarks.tracing_errors`).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import get_args

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.tracing_errors import PAIRS, PARTS, Choices, errors_table
from benchmarks.tracing_words import words_table
from rapidin.settings import MeasureChoice, Objective


def main() -> None:
    """Run one of the two and print its tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tracing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="table", required=True)
    words = commands.add_parser("words", help="where influence falls")
    words.add_argument("--store", type=Path, required=True, help="of the training rows")
    words.add_argument("--model", help="directory of its model, where that has moved")
    words.add_argument("--queries", type=Path, required=True, help="file of held-out rows")
    words.add_argument("--label", required=True, help="boolean field that marks the rows with a trigger")
    words.add_argument("--count", type=int, default=20, help="queries of each kind (default: %(default)s)")
    errors = commands.add_parser("errors", help="what a wrong word goes back to")
    _add_choices(errors)
    for command in (words, errors):
        command.add_argument("--threads", type=int, default=2, help="of everything (default: %(default)s)")
        command.add_argument("--work", type=Path, help="directory for files; what is there is used again")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    print(tables.machine(arguments.threads), flush=True)
    with tempfile.TemporaryDirectory(prefix="rapidin-tracing-") as directory:
        work = arguments.work or Path(directory)
        work.mkdir(parents=True, exist_ok=True)
        if arguments.table == "words":
            words_table(
                *(arguments.store, arguments.model, arguments.queries, arguments.label, arguments.count, work)
            )
        else:
            errors_table(work, _choices(arguments), arguments.examples)


def _add_choices(errors: argparse.ArgumentParser) -> None:
    objectives, measures = get_args(Objective), get_args(MeasureChoice)
    errors.add_argument("--quick", action="store_true", help="one pair of countries, one sentence: does it run?")
    errors.add_argument("--pairs", type=int, default=len(PAIRS), help="pairs of countries (default: all)")
    errors.add_argument("--sentences", type=int, nargs="+", choices=(1, 2), default=(1, 2), help="of a response")
    errors.add_argument("--rows", nargs="+", choices=objectives, default=("loss",), help="objectives of stores")
    errors.add_argument("--objective", nargs="+", choices=objectives, default=("loss",), help="of queries")
    errors.add_argument("--measure", nargs="+", choices=measures, default=measures, help="(default: all)")
    errors.add_argument("--damping", type=float, nargs="+", default=(0.3,), help="of the measure 'influence'")
    errors.add_argument("--by", nargs="+", choices=PARTS, default=PARTS, help="what is asked about (default: all)")
    errors.add_argument("--exact", action="store_true", help="order the best by exact influence, too")
    errors.add_argument("--probes", type=int, help="number of probes of the curvature")
    errors.add_argument("--examples", type=int, default=0, help="wrong answers to show with their proponents")


def _choices(arguments: argparse.Namespace) -> Choices:
    return Choices(
        pairs=1 if arguments.quick else arguments.pairs,
        sentences=(1,) if arguments.quick else arguments.sentences,
        rows=arguments.rows,
        asked=arguments.objective,
        measures=arguments.measure,
        dampings=arguments.damping,
        parts=arguments.by,
        exact=arguments.exact,
        probes=arguments.probes,
    )


if __name__ == "__main__":
    main()
