"""Data and models of the paper's experiments in small: a backdoor, and a country's name that is wrong.

The generated ones are trained here, on one CPU; a directory with ``model/``, ``train.jsonl`` and ``test.jsonl`` of
one's own can take the place of the backdoor's.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.tracing_data import Pair, write_tracing_data
from rapidin.data import read_rows
from rapidin.demo.demo_data import DemoData, write_demo_data
from rapidin.demo.demo_model import train_demo_model
from rapidin.model import batch_loss
from rapidin.model.loading import load_model, load_tokenizer
from rapidin.settings.store_settings import ModelSettings, TextSettings
from rapidin.storage.filters.expressions import parse
from rapidin.text import Encoder, recognise

_RANK = 16
_ADAPTER_STEPS = 600
_ADAPTER_BATCH = 8
_ADAPTER_RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned model.

    Attributes:
        title: how tables call it.
        model: directory.
        adapter: directory of a LoRA adapter on it, None: all weights were tuned.
    """

    title: str
    model: Path
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class World:
    """A data set with something to be found, and models that learnt it.

    Attributes:
        name: of the section of the results.
        title: one line about it.
        train: the training rows.
        queries: rows whose answers are asked about; those with the label count.
        label: what marks the rows that should be found, ``FIELD=VALUE``.
        tuned: the models; the first is what methods are compared on.
    """

    name: str
    title: str
    train: Path
    queries: Path
    label: str
    tuned: tuple[Tuned, ...]


def backdoor_world(work: Path) -> World:
    """The demo's backdoor, learnt by all weights of a tiny Llama, and by a LoRA adapter on a model without it."""
    data = write_demo_data(work / "data")
    full = work / "full"
    if not full.exists():
        train_demo_model(data, full)
    base, adapter = work / "base", work / "adapter"
    if not base.exists():
        clean = work / "data" / "clean.jsonl"
        rows = [json.loads(line) for line in data.train.read_text().splitlines()]
        kept = [row for row in rows if not row["poisoned"]]
        clean.write_text("".join(json.dumps(row) + "\n" for row in kept))
        train_demo_model(DemoData(clean, data.queries, len(kept), 0), base)
    if not adapter.exists():
        train_adapter(base, data.train, adapter)
    return World(
        name="generated",
        title=f"{data.rows} generated rows, {data.poisoned} with a backdoor, and a Llama trained on them",
        train=data.train,
        queries=data.queries,
        label="poisoned=true",
        tuned=(Tuned("all weights", full), Tuned(f"LoRA of rank {_RANK}", base, adapter)),
    )


def given_world(directory: Path, adapter: Path | None, label: str, rows: int | None, work: Path) -> World:
    """A directory's ``model/``, ``train.jsonl`` and ``test.jsonl``; the model answers the test rows itself.

    Args:
        directory: with these.
        adapter: on its model.
        label: ``FIELD=VALUE``.
        rows: to take of the training rows; None: all.
        work: for files.
    """
    queries = work / "queries.jsonl"
    queries.parent.mkdir(parents=True, exist_ok=True)
    answers = ("output", "completion", "response")
    asked = [
        {name: value for name, value in row.items() if name not in answers}
        for row in _rows(directory / "test.jsonl")
    ]
    queries.write_text("".join(json.dumps(row) + "\n" for row in asked))
    train = directory / "train.jsonl"
    learnt = _rows(train)
    if rows is not None and rows < len(learnt):
        wanted = parse(label)
        marked = [row for row in learnt if wanted.matches(row.get(wanted.field))]
        others = [row for row in learnt if not wanted.matches(row.get(wanted.field))]
        learnt = marked + random.Random(0).sample(others, max(0, rows - len(marked)))
        train = work / "train.jsonl"
        train.write_text("".join(json.dumps(row) + "\n" for row in learnt))
    tuned = [Tuned("all weights", directory / "model")]
    if adapter is not None:
        tuned.append(Tuned("LoRA on top of them", directory / "model", adapter))
    return World(
        name=directory.name,
        title=f"{len(learnt):,} rows of `{directory.name}` and its model",
        train=train,
        queries=queries,
        label=label,
        tuned=tuple(tuned),
    )


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def tracing_world(work: Path, pair: Pair) -> World:
    """Rows some of which name the wrong country, and a model that says it, too."""
    data = write_tracing_data(work, pair, longer=False)
    model = work / "model"
    if not model.exists():
        train_demo_model(DemoData(data.train, data.queries, data.rows, data.perturbed), model)
    return World(
        name="tracing",
        title=f"{data.rows} rows, {data.perturbed} of which name {pair.wrong} instead of {pair.right}",
        train=data.train,
        queries=data.queries,
        label="perturbed=true",
        tuned=(Tuned("all weights", model),),
    )


def train_adapter(base: Path, train: Path, directory: Path) -> None:
    """Train a LoRA adapter of all linear layers on the rows' responses and save it to `directory`."""
    import peft

    settings = ModelSettings(model=str(base))
    tokenizer, context = load_tokenizer(settings)
    encoder = Encoder(tokenizer, TextSettings(), context)
    encoded = [encoder.encode(recognise(row)) for row in read_rows([train])]
    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        load_model(settings, "cpu").model,
        peft.LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    adapted.train()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_ADAPTER_RATE)
    numbers = random.Random(0)
    for step in range(_ADAPTER_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _ADAPTER_RATE * (1 - step / _ADAPTER_STEPS)
        loss = batch_loss(adapted, numbers.sample(encoded, _ADAPTER_BATCH), all_tokens=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    adapted.save_pretrained(directory)
