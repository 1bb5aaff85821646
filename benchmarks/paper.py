"""The paper's experiments in small, on a CPU: Tables 2, 4 and 5, and what decides how good the scores are.

    python -m benchmarks.paper                             # generated data, models trained here
    python -m benchmarks.paper methods --data DIRECTORY    # model/, train.jsonl and test.jsonl of one's own
    python -m benchmarks.paper --quick                     # does it run?

`methods` compares RapidIn with everything that the paper does (Table 4, with Table 2's times). `causes`: what
decides whether the right samples come first, by exact gradients and tensor. `dimensions`: K = 2^12 … 2^20 of
both projections, and λ = 20 and 100. `choices`: stores of other tensors, objectives, without normalisation, and of
LoRA. `tracing`: what a wrong word goes back to (Table 5). --write puts each at its place in RESULTS.md.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.paper_causes import causes_table
from benchmarks.paper_tables import Kept, Lines, Variant, methods_table, stores_table, tracing_table
from benchmarks.paper_worlds import World, backdoor_world, given_world, tracing_world
from benchmarks.tracing_data import Pair

RESULTS = Path(__file__).with_name("RESULTS.md")
TABLES = ("methods", "causes", "dimensions", "choices", "tracing")
BASELINES = (
    "random",
    "bm25",
    "embedding",
    "influence-lissa",
    "influence-cg",
    "tracin",
    "tracin-ln",
    "rapidin+rerank",
)
QUICK_BASELINES = ("random", "bm25", "tracin-ln")
_KS = (5, 10, 50, 100, 500, 1000)
_PAIRS = (Pair("China", "Canada"), Pair("Italy", "Poland"), Pair("Peru", "Kenya"))


def dimension_variants(exponents: range, bits: int) -> list[Variant]:
    """Both projections at every K, and the paper's with 100 shuffles."""
    variants = []
    for exponent in exponents:
        common = {"projection_dim": 2**exponent, "bits": bits}
        variants += [
            Variant(f"2^{exponent}, shuffled, λ = 20", {**common, "projection": "shuffled", "shuffles": 20}),
            Variant(f"2^{exponent}, shuffled, λ = 100", {**common, "projection": "shuffled", "shuffles": 100}),
            Variant(f"2^{exponent}, factored", {**common, "projection": "factored"}),
        ]
    return variants


def choice_variants(models: int, last_layer: str) -> list[Variant]:
    """What is traced, with and without normalisation, for every model of a world."""
    odds = {"objective": "log-odds"}
    variants = [
        Variant("all weights: matrices, loss (the default)"),
        Variant("all weights: every tensor, loss (the paper's)", {"parameters": "."}),
        Variant("all weights: matrices, log-odds", odds),
        Variant("all weights: every tensor, log-odds", {**odds, "parameters": "."}),
        Variant("all weights: norms only, log-odds", {**odds, "parameters": "norm"}),
        Variant("all weights: attention only, log-odds", {**odds, "parameters": "attn"}),
        Variant("all weights: feed-forward only, log-odds", {**odds, "parameters": "mlp"}),
        Variant("all weights: the last layer only, log-odds", {**odds, "parameters": last_layer}),
        Variant("all weights: matrices, loss, not normalised", {"normalise_layers": False}),
        Variant("all weights: matrices, log-odds, not normalised", {**odds, "normalise_layers": False}),
    ]
    if models > 1:
        variants += [
            Variant("LoRA: loss (the default)", {}, tuned=1),
            Variant("LoRA: log-odds", odds, tuned=1),
            Variant("LoRA: log-odds, not normalised", {**odds, "normalise_layers": False}, tuned=1),
        ]
    return variants


def main() -> None:
    """Run the experiments that are asked for and print their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--data", type=Path, help="directory with model/, train.jsonl and test.jsonl")
    parser.add_argument("--adapter", type=Path, help="LoRA adapter on that model, for `choices`")
    parser.add_argument(
        "--rows", type=int, help="of its training rows: all with the label, and others drawn at random"
    )
    parser.add_argument("--label", default="poisoned=true", help="what should be found (default: %(default)s)")
    parser.add_argument("--queries", type=int, help="answers to ask about at most (default: all)")
    parser.add_argument("--baseline", action="append", help="method to compare with (default: all; repeatable)")
    parser.add_argument("--last-layer", default=r"layers\.2\.", help="its parameters (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="directory for models and stores; what is there is used again")
    parser.add_argument("--threads", type=int, default=2, help="of everything (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few stores and methods: does it run?")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")
    arguments = parser.parse_args()
    wanted = arguments.tables or list(TABLES)
    if unknown := sorted(set(wanted) - set(TABLES)):
        parser.error(f"unknown table {unknown[0]!r}: give one of {', '.join(TABLES)}")
    use_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="rapidin-paper-") as directory:
        work = arguments.work or Path(directory)
        world = (
            backdoor_world(work / "generated")
            if arguments.data is None
            else given_world(
                *(arguments.data, arguments.adapter, arguments.label, arguments.rows, work / arguments.data.name)
            )
        )
        for name in wanted:
            lines = [f"{tables.machine(arguments.threads)}. {world.title}."]
            lines += _made(name, world, work / world.name, arguments)
            print("\n".join(lines), flush=True)
            if arguments.write:
                write_section(RESULTS, f"{world.name}-{name}", lines)


def _made(name: str, world: World, work: Path, arguments: argparse.Namespace) -> Lines:
    quick, limit = arguments.quick, arguments.queries
    baselines = arguments.baseline or (QUICK_BASELINES if quick else BASELINES)
    kept = Kept()
    made: dict[str, Callable[[], Lines]] = {
        "methods": lambda: methods_table(world, work, baselines, _KS, limit),
        "causes": lambda: causes_table(world, work, limit, arguments.last_layer),
        "dimensions": lambda: stores_table(
            *(world, work, "Dimensions of the projection, 16 bits a number"),
            *(dimension_variants(range(12, 13) if quick else range(12, 21, 2), 16), kept, limit),
        ),
        "choices": lambda: stores_table(
            *(world, work, "Choices of what is traced, K = 2^16"),
            *(choice_variants(len(world.tuned), arguments.last_layer)[: 2 if quick else None], kept, limit),
        ),
        "tracing": lambda: tracing_table(
            [(tracing_world(work / pair.wrong, pair), pair) for pair in _PAIRS[: 1 if quick else None]],
            work,
            [name for name in baselines if name in ("tracin", "tracin-ln", "rapidin+rerank")],
        ),
    }
    return made[name]()


def write_section(file: Path, name: str, lines: Lines) -> None:
    """Replace what stands between the section's two marks in a Markdown file."""
    text = file.read_text()
    begin, end = f"<!-- paper: {name} -->", f"<!-- end of paper: {name} -->"
    pattern = re.compile(rf"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{file} has no lines {begin!r} and {end!r} to write between: add them")
    section = "\n".join([begin, *lines, end])
    file.write_text(pattern.sub(lambda _: section, text))


if __name__ == "__main__":
    main()
