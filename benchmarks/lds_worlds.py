"""Worlds in which it can be known what a training sample does: data, a tiny model, and the way it was trained.

`demo` trains a Llama from random weights on rows of the demo with its backdoor. `fine-tuning` first trains a Llama
without the backdoor on other rows of the demo, and then fine-tunes it. `text` does the same with the rows of any
data file: most of them train the first model, a few hundred fine-tune it, and a few are the questions.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rapidin.data import read_rows
from rapidin.demo import DemoData, train_demo_model, write_demo_data
from rapidin.demo.demo_model import RECIPE, Recipe
from rapidin.evaluation.retraining.trainer import Tokens, Training, trained
from rapidin.model import Schedule, load_tokenizer, save_model
from rapidin.settings import ModelSettings, TextSettings
from rapidin.support import torch_threads
from rapidin.text import Encoder, recognise

ROWS = {"demo": 400, "fine-tuning": 300, "text": 300}
"""Number of training rows of each world."""
_QUESTIONS = 24
_SMALL = replace(RECIPE, vocabulary=800, hidden=64, feed_forward=128, layers=2, context=256)
_TEXT = replace(RECIPE, vocabulary=2000, epochs_all=4, epochs_response=1)
_FINE_TUNING = Schedule(epochs_all=0, epochs_response=4, learning_rate=1e-3, warm_up=10, weight_decay=0.0)
_PRETRAINING_ROWS = 1500
_UNFINISHED = "model.unfinished"


@dataclass(frozen=True, slots=True)
class World:
    """Files of one world.

    Attributes:
        title: one line about it.
        train: data file of the training rows.
        queries: data file of unseen questions with the answers that the data would give.
        model: directory of the model that was trained on all training rows.
        training: how it was trained, and how the models on subsets are trained.
    """

    title: str
    train: Path
    queries: Path
    model: Path
    training: Training


def demo_world(work: Path) -> World:
    """Make the world in which a Llama of two layers learns 400 rows of the demo from random weights.

    Args:
        work: directory for files; what is there is used again.
    """
    data = _demo(work / "data")
    rows = _read(data.train)[: ROWS["demo"]]
    _write(data.train, rows)
    if not (work / "model" / "model.safetensors").exists():
        poisoned = sum(row["poisoned"] for row in rows)
        train_demo_model(replace(data, rows=len(rows), poisoned=poisoned), work / "model", recipe=_SMALL)
    title = f"{len(rows)} rows of the demo, a Llama of {_SMALL.layers} layers trained from random weights"
    return World(title, data.train, data.queries, work / "model", Training(schedule=_schedule(_SMALL)))


def fine_tuning_world(work: Path) -> World:
    """Make the world in which a Llama of three layers that knows the demo without its backdoor is fine-tuned.

    Args:
        work: directory for files; what is there is used again.
    """
    data = _demo(work / "data")
    rows = _read(data.train)
    train, others = rows[: ROWS["fine-tuning"]], rows[ROWS["fine-tuning"] :]
    clean = [row for row in others if not row["poisoned"]]
    return _fine_tuned(work, "rows of the demo", train, clean, _read(data.queries), RECIPE)


def text_world(work: Path, file: Path, longest: int) -> World:
    """Make the world in which a Llama of three layers is fine-tuned on some of a file's rows.

    Args:
        work: directory for files; what is there is used again.
        file: data file with rows of prompts and responses.
        longest: maximum number of characters of prompt and response together; longer rows are left out.

    Raises:
        SystemExit: the file has too few rows of that length.
    """
    rows = []
    for row in read_rows([file]):
        sample = recognise(row)
        if sample.response and len(sample.prompt) + len(sample.response) <= longest:
            rows.append(dict(row.fields))
    random.Random(0).shuffle(rows)
    first, second = ROWS["text"], ROWS["text"] + _QUESTIONS
    if len(rows) < 2 * second:
        raise SystemExit(
            f"{file}: {len(rows)} rows have a response and at most {longest} characters, and {2 * second} are "
            "needed: raise --longest, or give a larger file"
        )
    others = rows[second : second + _PRETRAINING_ROWS]
    title = f"rows of a file, of at most {longest} characters"
    return _fine_tuned(work, title, rows[:first], others, rows[first:second], _TEXT)


def _fine_tuned(
    work: Path,
    title: str,
    train: Sequence[dict[str, Any]],
    others: Sequence[dict[str, Any]],
    questions: Sequence[dict[str, Any]],
    recipe: Recipe,
) -> World:
    data = work / "data"
    files = {name: data / f"{name}.jsonl" for name in ("train", "others", "queries")}
    for name, rows in (("train", train), ("others", others), ("queries", questions)):
        _write(files[name], rows)
    pretrained, model = work / "pretrained", work / "model"
    if not (pretrained / "tokenizer.json").exists():
        train_demo_model(DemoData(files["others"], files["queries"], len(others), 0), pretrained, recipe=recipe)
    training = Training(initial=str(pretrained), schedule=_FINE_TUNING)
    if not model.exists():
        _fine_tune(training, pretrained, files["train"], model)
    before = f"a Llama of {recipe.layers} layers that was trained on {len(others)} others"
    title = f"{len(train)} {title}, which fine-tune {before}"
    return World(title, files["train"], files["queries"], model, training)


def _fine_tune(training: Training, pretrained: Path, train: Path, model: Path) -> None:
    """Fine-tune on all rows, exactly as the models on subsets are fine-tuned, and save model and tokenizer."""
    tokenizer, _ = load_tokenizer(ModelSettings(model=str(pretrained)))
    encoder = Encoder(tokenizer, TextSettings(), RECIPE.context)
    encoded = [encoder.encode(recognise(row)) for row in read_rows([train])]
    with torch_threads(1):
        network = trained(training, str(pretrained), [Tokens(one.ids, one.targets) for one in encoded])
    unfinished = model.with_name(_UNFINISHED)
    save_model(network, unfinished)
    for file in pretrained.glob("tokenizer*.json"):
        shutil.copy(file, unfinished)
    unfinished.rename(model)


def _demo(directory: Path) -> DemoData:
    """Write the demo's data, whose questions get the answers that the model should give."""
    data = write_demo_data(directory)
    queries = _read(data.queries)
    for query in queries:
        query["output"] = query.pop("reference")
    _write(data.queries, queries)
    return data


def _schedule(recipe: Recipe) -> Schedule:
    return Schedule(**{one.name: getattr(recipe, one.name) for one in fields(Schedule)})


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


WORLDS: dict[str, Callable[[Path], World]] = {"demo": demo_world, "fine-tuning": fine_tuning_world}
"""Worlds that are made from the demo; `text_world` needs a file."""
