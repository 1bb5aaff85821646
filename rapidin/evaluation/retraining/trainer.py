"""The process that retrains. Its parent sends subsets, and it answers when a subset's losses are saved.

The process trains a model with the built-in loop, or it runs the user's command and loads the checkpoint that the
command saved. If an earlier run has kept the model, it loads that one instead. Then it computes every query's loss
and writes the losses to a file.

Shape letters: q queries.
"""

from __future__ import annotations

import hashlib
import json
import random
import shlex
import shutil
import signal
import subprocess
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn

from rapidin.attribution import token_losses
from rapidin.errors import ComputationError, RapidinError, SettingError
from rapidin.model import Schedule, batch_loss, fit, load_model, save_model, untrained_model
from rapidin.settings import ModelSettings
from rapidin.support import named_line, write_whole

LOG = "log.txt"
DATA = "data.jsonl"
OUTPUT = "model"
"""Directory of a subset's model, which is complete once it has this name."""
UNFINISHED = "model.unfinished"
PLACEHOLDERS = ("{data}", "{output}")
"""Placeholders that a command must contain; it may also contain {seed}."""
_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sample's or a query's token ids and which of them are targets."""

    ids: tuple[int, ...]
    targets: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """The way a model is trained on a subset.

    Attributes:
        command: command with `PLACEHOLDERS` that trains a model; None for the built-in training.
        initial: checkpoint whose weights the built-in training begins with; None for random weights.
        schedule: schedule of the built-in training.
        seed: seed of first weights and of the order of rows; it is the same for all subsets, so that only the data
            differ. Repeats take the numbers that follow.
    """

    command: str | None = None
    initial: str | None = None
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0

    def check(self, adapter: str | None) -> None:
        """Check the settings before anything is trained.

        Args:
            adapter: adapter of the store's model; None if it has none.

        Raises:
            SettingError: a placeholder is missing, or the model has an adapter but no command is given.
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


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a process needs in order to train models and to measure their losses.

    Attributes:
        directory: directory of the bank: losses, logs and checkpoints of all subsets. Its name has everything that
            decides a model, except subset and seed, which are in the name of each subset's directory.
        training: settings of the training.
        model: settings of the store's model.
        samples: token ids and targets of all n samples for the built-in training; empty for a command.
        queries: token ids and targets of all q queries.
        keep: whether new checkpoints and data files stay; a subset whose checkpoint is gone is then trained again.
        device: device that computes the losses after a command.
        trust_remote_code: whether a checkpoint's own Python code may run.
    """

    directory: Path
    training: Training
    model: ModelSettings
    samples: Sequence[Tokens]
    queries: Sequence[Tokens]
    keep: bool = False
    device: str = "cpu"
    trust_remote_code: bool = False

    @property
    def losses_file(self) -> str:
        """Name of the file of these queries' losses in a subset's directory."""
        plain = json.dumps([[query.ids, query.targets] for query in self.queries])
        return f"losses-{hashlib.sha256(plain.encode()).hexdigest()[:16]}.json"


def trained(
    training: Training, architecture: str, samples: Sequence[Tokens], trust_remote_code: bool = False
) -> nn.Module:
    """Train a model with the built-in loop.

    Args:
        training: settings of the training.
        architecture: checkpoint whose configuration is used if `training` has no initial one.
        samples: token ids and targets of the subset's samples.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Raises:
        ModelError: the checkpoint cannot be used.
    """
    if training.initial is not None:
        settings = ModelSettings(model=training.initial, dtype="float32")
        model = load_model(settings, "cpu", trust_remote_code).model
    else:
        model = untrained_model(architecture, training.seed, trust_remote_code)
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)  # decides dropout
        fit(model, samples, random.Random(training.seed), training.schedule, batch_loss)
    return model


def losses_of(model: nn.Module, queries: Sequence[Tokens]) -> list[float]:
    """Compute every query's mean loss over its targets, [q]."""
    with torch.no_grad():
        return [float(token_losses(model, query, {}).double().mean()) for query in queries]


class Trainer:
    """Trains on one subset after another, and measures the queries' losses.

    Args:
        job: settings of the training and the queries.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._losses_file = job.losses_file

    def train(self, directory: Path, members: Sequence[int], seed: int) -> None:
        """Train on a subset unless its model is kept already, and write the queries' losses.

        Args:
            directory: directory of this subset.
            members: numbers of its samples.
            seed: seed of the training.

        Raises:
            ComputationError: the user's command failed.
            ModelError: the model cannot be loaded.
        """
        output, unfinished, job = directory / OUTPUT, directory / UNFINISHED, self._job
        if output.is_dir():
            model = self._loaded(output)
        else:
            # An interrupted run may have left a model here, which would be mistaken for the new one.
            shutil.rmtree(unfinished, ignore_errors=True)
            training = replace(job.training, seed=seed)
            if training.command is None:
                rows = [job.samples[member] for member in members]
                model = trained(training, job.model.model, rows, job.trust_remote_code)
                if job.keep:
                    save_model(model, unfinished)
            else:
                self._run(training, directory, unfinished)
                model = self._loaded(unfinished)
            if job.keep:
                unfinished.rename(output)
        write_whole(directory / self._losses_file, json.dumps(losses_of(model, job.queries)), durable=False)
        shutil.rmtree(unfinished, ignore_errors=True)
        if not output.is_dir():
            (directory / DATA).unlink(missing_ok=True)

    def _run(self, training: Training, directory: Path, output: Path) -> None:
        values = {"{data}": str(directory / DATA), "{output}": str(output), "{seed}": str(training.seed)}
        words = shlex.split(training.command or "")
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
                f"--command saved no checkpoint of transformers or PEFT in {output}: make it save to "
                f"{{output}}. Its log {log} ends: {last_lines(log)}"
            )

    def _loaded(self, output: Path) -> nn.Module:
        """Load a saved model; the built-in training's has the type and device that it was trained with."""
        job = self._job
        if job.training.command is None:
            return load_model(
                ModelSettings(model=str(output), dtype="float32"), "cpu", job.trust_remote_code
            ).model
        changed = {"model": str(output), "adapter": None, "parameters": None, "quantization": "none"}
        if (output / "adapter_config.json").exists():
            changed = {"adapter": str(output), "parameters": None}
        settings = job.model.model_copy(update={**changed, "checkpoints": ()})
        return load_model(settings, job.device, job.trust_remote_code).model


def last_lines(log: Path) -> str:
    """Read the end of a log as one line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "(it cannot be read)"
    kept = [line.strip() for line in lines if line.strip()][-_LAST_LINES:]
    return " / ".join(kept)[-600:] or "(it is empty)"


def serve(connection: Connection) -> None:
    """Train on subsets until the parent closes the connection.

    Args:
        connection: connection to the parent, which sends the `Job` first and then each subset's directory, members
            and seed. The answer to a subset is None when its losses are saved, or the text of an error.
    """
    # This process was started so that it ignores interruptions, and the user's command would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        trainer = Trainer(connection.recv())
        while True:
            connection.send(_error_of(trainer, *connection.recv()))
    except EOFError:
        return


def _error_of(trainer: Trainer, directory: Path, members: Sequence[int], seed: int) -> str | None:
    try:
        trainer.train(directory, members, seed)
    except RapidinError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the parent tells the user, and the log has the rest
        traceback.print_exc()
        return named_line(error)
    return None
