"""The process that retrains: a line on stdin names a subset, a line on stdout says that its losses are saved.

It trains with the built-in loop or runs the user's command, loads what that has saved, computes every query's loss
and writes them. It ends when stdin does.

Shape letters: q queries.
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rapidin.attribution import token_losses
from rapidin.errors import ComputationError, RapidinError, SettingError
from rapidin.model import Schedule, batch_loss, fit, fresh_model, load_model, save_model
from rapidin.settings import ModelSettings

LOG = "log.txt"
LOSSES = "losses.json"
DATA = "data.jsonl"
OUTPUT = "model"
PLACEHOLDERS = ("{data}", "{output}")
"""What a command must have; {seed} may be there, too."""
_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sample's or a query's token ids and which of them are targets."""

    ids: tuple[int, ...]
    targets: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """How a model is trained on a subset; all of it plain JSON.

    Attributes:
        command: the user's, with `PLACEHOLDERS`; None: the built-in training.
        initial: checkpoint whose weights the built-in training begins with; None: random ones.
        schedule: of the built-in training.
        seed: of first weights and order of the rows, the same for all subsets, so that only the data differ.
    """

    command: str | None = None
    initial: str | None = None
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0

    def check(self, adapter: str | None) -> None:
        """Refuse what cannot work before anything is trained.

        Args:
            adapter: of the store's model.

        Raises:
            SettingError: a placeholder is missing, or an adapter is to be trained without a command.
        """
        if self.command is None:
            if adapter is not None:
                raise SettingError(
                    "the store's model has an adapter, which the built-in training cannot train: give --command"
                )
            return
        missing = [name for name in PLACEHOLDERS if name not in self.command]
        if missing:
            raise SettingError(
                f"--command lacks {' and '.join(missing)}: write it like 'python train.py --data {{data}} "
                "--output {output} --seed {seed}'"
            )
        try:
            shlex.split(self.command)
        except ValueError as error:
            raise SettingError(f"--command cannot be read: {error}") from error


def trained(
    training: Training, architecture: str, samples: list[Tokens], trust_remote_code: bool = False
) -> nn.Module:
    """Train a model with the built-in loop.

    Args:
        training: how.
        architecture: checkpoint whose configuration is taken where no initial one is given.
        samples: rows.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Raises:
        ModelError: the checkpoint cannot be used.
    """
    if training.initial is not None:
        settings = ModelSettings(model=training.initial, dtype="float32")
        model = load_model(settings, "cpu", trust_remote_code).model
    else:
        model = fresh_model(architecture, training.seed, trust_remote_code)
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)  # of dropout, where there is any
        fit(model, samples, random.Random(training.seed), training.schedule, batch_loss)
    return model


def losses_of(model: nn.Module, queries: list[Tokens]) -> list[float]:
    """Every query's mean loss over its targets, [q]."""
    with torch.no_grad():
        return [float(token_losses(model, query, {}).double().mean()) for query in queries]


class _Worker:
    def __init__(self, job: dict[str, Any]) -> None:
        plan = job["training"]
        self._training = Training(**{**plan, "schedule": Schedule(**plan["schedule"])})
        self._settings = ModelSettings(**job["model"])
        self._samples = [_tokens(one) for one in job["samples"]]
        self._queries = [_tokens(one) for one in job["queries"]]
        self._keep = bool(job["keep"])
        self._device = str(job["device"])
        self._trust = bool(job["trust_remote_code"])

    def subset(self, directory: Path, members: list[int]) -> None:
        """Train on a subset and write the queries' losses."""
        output = directory / OUTPUT
        shutil.rmtree(
            output, ignore_errors=True
        )  # of a run that was cut off, or the model would be taken for ours
        if self._training.command is None:
            rows = [self._samples[member] for member in members]
            model = trained(self._training, self._settings.model, rows, self._trust)
            if self._keep:
                save_model(model, output)
        else:
            self._run(directory, output)
            model = load_model(self._saved_at(output), self._device, self._trust).model
        unfinished = directory / (LOSSES + ".tmp")
        unfinished.write_text(json.dumps(losses_of(model, self._queries)), encoding="utf-8")
        unfinished.replace(directory / LOSSES)
        if not self._keep:
            shutil.rmtree(output, ignore_errors=True)
            (directory / DATA).unlink(missing_ok=True)

    def _run(self, directory: Path, output: Path) -> None:
        values = {"{data}": str(directory / DATA), "{output}": str(output), "{seed}": str(self._training.seed)}
        words = shlex.split(self._training.command or "")
        for placeholder, value in values.items():
            words = [word.replace(placeholder, value) for word in words]
        log = directory / LOG
        try:
            with log.open("wb") as file:
                code = subprocess.run(
                    words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
                ).returncode
        except OSError as error:
            raise ComputationError(f"--command: {words[0]!r} cannot be run: {error.strerror or error}") from error
        if code != 0:
            raise ComputationError(f"--command failed with exit code {code}, see {log}: {last_lines(log)}")
        if not any((output / name).exists() for name in ("config.json", "adapter_config.json")):
            raise ComputationError(
                f"--command has left no checkpoint of transformers or PEFT in {output}; let it save to "
                f"{{output}}. Its log {log} ends: {last_lines(log)}"
            )

    def _saved_at(self, output: Path) -> ModelSettings:
        if (output / "adapter_config.json").exists():
            return self._settings.model_copy(update={"adapter": str(output), "parameters": None})
        changed = {"model": str(output), "adapter": None, "parameters": None, "quantization": "none"}
        return self._settings.model_copy(update=changed)


def last_lines(log: Path) -> str:
    """The end of a log, in one line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "(it cannot be read)"
    kept = [line.strip() for line in lines if line.strip()][-_LAST_LINES:]
    return " / ".join(kept)[-600:] or "(it is empty)"


def main(job: str) -> None:
    """Answer subsets until stdin ends.

    Args:
        job: path of the JSON that `rapidin.evaluation.retraining.retraining_pool` has written.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a model's code prints is no answer
    worker: _Worker | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if worker is None:
                worker = _Worker(json.loads(Path(job).read_text(encoding="utf-8")))
            worker.subset(Path(asked["directory"]), asked["members"])
        except RapidinError as error:
            answer["error"] = str(error)
        except Exception as error:  # noqa: BLE001 - told by the parent, with the log
            traceback.print_exc()
            answer["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _tokens(plain: dict[str, Any]) -> Tokens:
    return Tokens(tuple(plain["ids"]), tuple(plain["targets"]))
