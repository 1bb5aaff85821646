"""What experiments that retrain have in common: settings, queries, methods' scores, and a bank of models.

Shape letters: r repeats · m subsets · n samples · q queries.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.data import read_rows
from rapidin.errors import ComputationError, DataFileError, SettingError
from rapidin.evaluation.experiments.experiment_data import QueryRows, answered_queries, training_set
from rapidin.evaluation.methods import (
    AskedQuery,
    Context,
    MethodOptions,
    MethodScores,
    SavedScores,
    ScoringRun,
    StepProgress,
    TrainingSet,
    digest_of,
    progress_of_step,
)
from rapidin.evaluation.retraining import Job, Tokens, Training, inputs_digest, retrained_losses
from rapidin.model import StoreModel
from rapidin.search import read_queries
from rapidin.settings import MAX_NEW_TOKENS
from rapidin.storage import Store
from rapidin.support import processors
from rapidin.text import recognise


@dataclass(frozen=True, slots=True)
class TrainingRuns:
    """How models are trained on subsets of the samples; see `Retraining` and `Removal`.

    Attributes:
        training: settings of the training.
        seed: seed of random subsets.
        repeats: number of models for each subset; they differ in the seed of first weights and of the order of
            rows, and their losses are averaged.
        jobs: number of models that are trained at a time; None for one per core, or one with a command.
        data: files from which the samples were ingested; a command gets their rows as they are. If empty, it gets
            rows of id, prompt and completion.
        keep: whether checkpoints and data files stay, so that other queries can be asked about them.

    Raises:
        SettingError: a value is out of range, or does not fit the way of training.
    """

    training: Training = field(default_factory=Training)
    seed: int = 0
    repeats: int = 1
    jobs: int | None = None
    data: tuple[Path, ...] = ()
    keep: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise SettingError(f"--repeats {self.repeats} cannot be used: give 1 or more")
        if self.training.command is None and self.data:
            raise SettingError(
                "--data goes with --command, because the built-in training takes the samples from the store: "
                "leave out --data, or give --command"
            )
        if self.training.command is not None and self.training.initial is not None:
            raise SettingError("--initial belongs to the built-in training: leave out --initial or --command")
        if self.training.initial is not None and not Path(self.training.initial).is_dir():
            raise SettingError(
                f"--initial {self.training.initial} is not a directory: give the directory of a checkpoint"
            )

    @property
    def processes(self) -> int:
        """Number of processes that train at a time."""
        if self.jobs is not None:
            return self.jobs
        return 1 if self.training.command is not None else processors()


@dataclass(frozen=True, slots=True)
class RetrainingPlace:
    """A store with its model, and where and how an experiment on it computes.

    Attributes:
        store: an open store.
        model: model of the store, which should have been trained on all samples in the same way.
        work: directory that keeps scores, losses, checkpoints and logs for the next run.
        device: device as the user named it.
        options: settings of the methods.
        max_new_tokens: maximum length of an answer that the model writes.
        trust_remote_code: whether a checkpoint's own Python code may run.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.
    """

    store: Store
    model: StoreModel
    work: Path
    device: str = "auto"
    options: MethodOptions = field(default_factory=MethodOptions)
    max_new_tokens: int = MAX_NEW_TOKENS
    trust_remote_code: bool = False
    on_progress: StepProgress | None = None

    def training(self) -> TrainingSet:
        """Read all samples of the store.

        Raises:
            StoreEmptyError: there are none.
        """
        return training_set(self.store, self.model, ())

    def asked(self, file: Path) -> list[AskedQuery]:
        """Read the queries; the model answers those without a response.

        Raises:
            DataFileError: the file cannot be read, or has no rows.
            RowError: a row cannot be used.
        """
        samples = list(read_queries(file, self.store.settings.text))
        if not samples:
            raise DataFileError(f"{file} has no rows: add queries, or give another file")
        query_rows = QueryRows(tuple(samples), ((),) * len(samples), 0)
        report = progress_of_step(self.on_progress, "answering queries")
        return answered_queries(self.model, query_rows, self.max_new_tokens, report)

    def scores(
        self, names: Sequence[str], asked: Sequence[AskedQuery], training: TrainingSet
    ) -> list[MethodScores]:
        """Score all samples for all queries by each method.

        Raises:
            RapidinError: something cannot be scored.
        """
        context = Context(self.store, self.model, (), self.device, self.options)
        runner = ScoringRun(context, training, SavedScores(self.work), self.on_progress)
        return [runner.scores(name, asked) for name in names]


class ModelBank:
    """Models trained on subsets, of which no model is trained twice, and the queries' losses under them.

    The directory's name has everything that decides a model, except subset and seed: the samples' tokens, or with
    a command their rows; the store's model, and the recipe. So runs with other methods and queries share it, and
    stores of the same samples do, too.

    Args:
        place: store, model and directory.
        training: the n training samples.
        asked: the q queries.
        runs: settings of the training.

    Attributes:
        seconds: seconds that training and measuring have taken so far.

    Raises:
        SettingError: the data files lack a sample.
        DataFileError: a file cannot be read.
    """

    def __init__(
        self, place: RetrainingPlace, training: TrainingSet, asked: Sequence[AskedQuery], runs: TrainingRuns
    ) -> None:
        self._runs = runs
        self._report = progress_of_step(place.on_progress, "training on subsets")
        self.seconds = 0.0
        by_command = runs.training.command is not None
        samples = [] if by_command else [Tokens(one.ids, one.targets) for one in training.encoded()]
        self._lines = _lines(training, place.store, runs.data) if by_command else []
        recipe = asdict(runs.training)
        del recipe["seed"]
        settings = place.store.settings
        # Which checkpoints a store compares at has nothing to do with how models are trained.
        retrained = settings.fingerprint.model_copy(update={"checkpoints": ()})
        decides = (
            self._lines,
            [[one.ids, one.targets] for one in samples],
            retrained.model_dump(mode="json"),
            [settings.model.dtype, settings.model.quantization],
            recipe,
            inputs_digest(runs.training, runs.data),
        )
        self._job = Job(
            directory=(place.work / f"bank-{digest_of(*decides)[:16]}").absolute(),
            training=runs.training,
            model=place.model.settings,
            samples=samples,
            queries=[Tokens(query.encoded.ids, query.encoded.targets) for query in asked],
            keep=runs.keep,
            device=place.device if by_command else "cpu",
            trust_remote_code=place.trust_remote_code,
        )

    @property
    def directory(self) -> Path:
        """Directory of the bank."""
        return self._job.directory

    def losses(self, members: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Train on each subset as often as the settings say, and compute the queries' losses.

        Args:
            members: whether each sample is in each subset, [m, n].

        Returns:
            Losses, float64 [r, m, q].

        Raises:
            ComputationError: a training failed, and the finished ones are kept; or a query's loss is not finite.
            SettingError: the directory cannot be written to.
        """
        repeats = self._runs.repeats
        seeds = [self._runs.training.seed + repeat for repeat in range(repeats) for _ in members]
        started = time.perf_counter()
        found = retrained_losses(
            self._job, np.tile(members, (repeats, 1)), seeds, self._runs.processes, self._write, self._report
        )
        self.seconds += time.perf_counter() - started
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=0))
        if len(wrong):
            raise ComputationError(
                f"query {wrong[0] + 1}: its loss is not finite under a retrained model; look at one of them "
                "(--keep), and lower the training's learning rate"
            )
        return found.reshape(repeats, len(members), -1)

    def _write(self, file: Path, members: NDArray[np.int64]) -> None:
        file.write_text("".join(self._lines[number] for number in members), encoding="utf-8")


def _lines(training: TrainingSet, store: Store, files: Sequence[Path]) -> list[str]:
    """Make the line of JSON of each sample: its row in the user's files, or its text.

    Raises:
        SettingError: the files lack a sample.
    """
    lines: dict[str, str] = {}
    for row in read_rows(files) if files else ():
        lines[recognise(row, store.settings.text.template).id] = json.dumps(dict(row.fields), default=str)
    for sample in training.samples if not files else ():
        plain = {**sample.metadata, "id": sample.id, "prompt": sample.prompt, "completion": sample.response}
        lines[sample.id] = json.dumps(plain, ensure_ascii=False)
    missing = [sample.id for sample in training.samples if sample.id not in lines]
    if missing:
        raise SettingError(
            f"--data lacks {len(missing)} of the store's {len(training)} samples, for example {missing[0]!r}: "
            "give all files that were ingested"
        )
    return [lines[sample.id] + "\n" for sample in training.samples]
