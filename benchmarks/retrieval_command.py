"""How the time of one `rapidin search` splits, from the command to its answer, in a fresh process each time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks import tables

_ROUNDS = 5
_STEPS = """
import sys, time
begun = time.perf_counter()
marks = []
def mark(name):
    global begun
    now = time.perf_counter()
    marks.append((name, now - begun))
    begun = now
store, prompt, generation = sys.argv[1:]
import rapidin.cli
from rapidin.commands.heavy_imports import importing
with importing():
    import torch, faiss, rich.console
    from rapidin.storage import Store
    from rapidin.commands.views.search_view import search_view
    mark("imports")
    import transformers
    mark("model")  # which alone needs transformers
    from rapidin.search import Searcher, searcher
    from rapidin.search.explaining import SearchExplainer
    mark("imports")
def timed(name, function):
    def run(*arguments, **named):
        mark("other")
        result = function(*arguments, **named)
        mark(name)
        return result
    return run
searcher.load_tokenizer = timed("model", searcher.load_tokenizer)
searcher.load_model = timed("model", searcher.load_model)
Searcher._check_fingerprint = timed("fingerprint", Searcher._check_fingerprint)
Searcher._vectors = timed("gradient", Searcher._vectors)
SearchExplainer.explained = timed("gradients of 30 samples, influences of tokens", SearchExplainer.explained)
Store.snapshot = timed("search", Store.snapshot)
from rapidin.storage.snapshot import Snapshot
Snapshot.search = timed("search", Snapshot.search)
with Store.open(store) as opened, Searcher(opened) as asked:
    mark("other")
    result = asked.search(prompt, generation, rerank=30)  # as the command does by itself
mark("other")
rich.console.Console().print(search_view(result))
mark("other")
print("MARKS", *(f"{name}={seconds}" for name, seconds in marks), sep="\\n", file=sys.stderr)
"""


def command_table(store: Path, prompt: str, generation: str) -> None:
    """Print the table.

    Args:
        store: a store whose model is where it was.
        prompt, generation: of the query.
    """
    walls: list[float] = []
    steps: dict[str, list[float]] = {}
    for _ in range(_ROUNDS + 1):  # the first brings the files into memory
        started = time.perf_counter()
        command = ("search", str(store), "--prompt", prompt, "--generation", generation)
        subprocess.run([sys.executable, "-m", "rapidin", *command], check=True, capture_output=True)
        walls.append(time.perf_counter() - started)
        told = subprocess.run(
            [sys.executable, "-c", _STEPS, str(store), prompt, generation],
            check=True,
            capture_output=True,
            text=True,
        ).stderr
        sums: dict[str, float] = {}
        for line in told[told.index("MARKS") :].strip().splitlines()[1:]:
            name, seconds = line.split("=")
            sums[name] = sums.get(name, 0.0) + float(seconds)
        for name, total in sums.items():
            steps.setdefault(name, []).append(total)
    tables.heading(
        f"One `rapidin search` without generation, {store}; importing transformers counts to the model",
        *("step", "seconds"),
    )
    for name, values in steps.items():
        tables.row(name, tables.median_and_range(values[1:]))
    without = [
        sum(values[turn] for name, values in steps.items() if "model" not in name and "gradient" not in name)
        for turn in range(1, _ROUNDS + 1)
    ]
    tables.row("all but model and gradient", tables.median_and_range(without))
    tables.row("the whole command", tables.median_and_range(walls[1:]))
