"""The linear datamodeling score of methods on a store: do their scores predict what retraining does?

Models are trained on random subsets of the training samples. A method's scores, added up over a subset, should
rank the models as their losses on each query do (Park et al. 2023, arXiv 2303.14186, definition 2.3). This is the
causal check, because only retraining shows what a sample really did.
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
from rapidin.errors import DataFileError, SettingError
from rapidin.evaluation.experiments.experiment_data import QueryRows, answered_queries, training_set
from rapidin.evaluation.experiments.subset_correlations import datamodeling_scores, subset
from rapidin.evaluation.methods import (
    METHODS,
    AskedQuery,
    Context,
    MethodOptions,
    SavedScores,
    ScoringRun,
    StepProgress,
    TrainingSet,
    data_digest,
    digest_of,
    progress_of_step,
)
from rapidin.evaluation.metrics import Bootstrap
from rapidin.evaluation.retraining import Job, Tokens, Training, WriteData, inputs_digest, retrained_losses
from rapidin.model import StoreModel
from rapidin.records import LdsReport, MethodLds
from rapidin.search import read_queries
from rapidin.settings import MAX_NEW_TOKENS
from rapidin.storage import Store
from rapidin.support import processors
from rapidin.text import recognise

MINIMUM_SUBSETS = 5
"""Smallest number of models whose ranking means anything."""


@dataclass(frozen=True, slots=True)
class Retraining:
    """Settings of a retraining on random subsets.

    Attributes:
        training: settings of the training.
        subsets: number of subsets, and so of models.
        fraction: share of the samples in each subset, in (0, 1).
        seed: seed of the subsets.
        jobs: number of models that are trained at a time; None for one per core, or one with a command.
        data: files from which the samples were ingested; a command gets their rows as they are. If empty, it gets
            rows of id, prompt and completion.
        keep: whether checkpoints and data files stay.
    """

    training: Training = field(default_factory=Training)
    subsets: int = 50
    fraction: float = 0.5
    seed: int = 0
    jobs: int | None = None
    data: tuple[Path, ...] = ()
    keep: bool = False

    @property
    def processes(self) -> int:
        """Number of processes that train at a time."""
        if self.jobs is not None:
            return self.jobs
        return 1 if self.training.command is not None else processors()

    def check(self) -> None:
        """Check the settings before anything is computed.

        Raises:
            SettingError: a value is out of range, or does not fit the way of training.
        """
        if self.subsets < MINIMUM_SUBSETS:
            raise SettingError(
                f"--subsets {self.subsets} is too few to rank models: give at least {MINIMUM_SUBSETS}"
            )
        if not 0 < self.fraction < 1:
            raise SettingError(f"--fraction {self.fraction:g} cannot be used: give one between 0 and 1")
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


def linear_datamodeling(
    store: Store,
    model: StoreModel,
    queries: Path,
    methods: Sequence[str],
    retraining: Retraining,
    *,
    work: Path,
    device: str = "auto",
    options: MethodOptions | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    trust_remote_code: bool = False,
    on_progress: StepProgress | None = None,
) -> LdsReport:
    """Retrain on subsets and compare the queries' losses with what methods predict.

    Args:
        store: an open store.
        model: model of the store, which should have been trained on all samples in the same way.
        queries: data file of queries; the model answers those without a response.
        methods: names of methods, see `METHODS`.
        retraining: settings of the retraining.
        work: directory that keeps scores, losses and logs for the next run.
        device: device as the user named it.
        options: settings of the methods.
        max_new_tokens: maximum length of an answer that the model writes.
        trust_remote_code: whether a checkpoint's own Python code may run.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: a setting cannot be used.
        ComputationError: a training failed; finished ones are kept.
        RapidinError: something else cannot be used or computed.
    """
    names = list(dict.fromkeys(methods))
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise SettingError(f"--method {unknown[0]!r} is unknown: give one of {', '.join(METHODS)}")
    retraining.check()
    retraining.training.check(model.settings.adapter)
    training = training_set(store, model, ())
    rows = round(retraining.fraction * len(training))
    if not 0 < rows < len(training):
        raise SettingError(
            f"--fraction {retraining.fraction:g} of {len(training)} samples is {rows}: give a fraction that takes "
            "some samples and leaves out some"
        )
    asked = _asked(store, model, queries, max_new_tokens, on_progress)
    write_data = _writer(training, store, retraining.data) if retraining.training.command else _nothing
    runner = ScoringRun(
        Context(store, model, (), device, options or MethodOptions()), training, SavedScores(work), on_progress
    )
    scored = [runner.scores(name, asked) for name in names]
    members = np.stack(
        [
            subset(len(training), retraining.fraction, retraining.seed, number)
            for number in range(retraining.subsets)
        ]
    )
    job = _job(store, model, training, asked, retraining, work, device, trust_remote_code)
    started = time.perf_counter()
    losses = retrained_losses(
        job, members, retraining.processes, write_data, progress_of_step(on_progress, "training on subsets")
    )
    seconds = time.perf_counter() - started
    mean = Bootstrap(len(asked), retraining.seed).mean
    found = []
    for method in scored:
        by_query = datamodeling_scores(method.scores, members, losses)
        alone = method.seconds_together if method.seconds_alone is None else method.seconds_alone
        took = alone + method.seconds_together * (len(asked) - 1) + method.preparation
        found.append(
            MethodLds(method.name, METHODS[method.name].summary, mean(by_query), tuple(by_query.tolist()), took)
        )
    return LdsReport(
        store=str(store.path),
        samples=len(training),
        queries=tuple(query.query.id for query in asked),
        subsets=retraining.subsets,
        fraction=retraining.fraction,
        loss_mean=float(losses.mean()),
        loss_spread=float(losses.std(axis=0).mean()),
        training_seconds=seconds,
        work=str(job.directory),
        methods=tuple(found),
    )


def _asked(
    store: Store, model: StoreModel, file: Path, max_new_tokens: int, on_progress: StepProgress | None
) -> list[AskedQuery]:
    samples = list(read_queries(file, store.settings.text))
    if not samples:
        raise DataFileError(f"{file} has no rows: add queries, or give another file")
    query_rows = QueryRows(tuple(samples), ((),) * len(samples), 0)
    return answered_queries(model, query_rows, max_new_tokens, progress_of_step(on_progress, "answering queries"))


def _job(
    store: Store,
    model: StoreModel,
    training: TrainingSet,
    asked: Sequence[AskedQuery],
    retraining: Retraining,
    work: Path,
    device: str,
    trust_remote_code: bool,
) -> Job:
    """Make the job of training; the name of its directory depends on everything that decides the losses."""
    queries = [{"ids": list(one.encoded.ids), "targets": list(one.encoded.targets)} for one in asked]
    decides = (
        data_digest(store.settings, training),
        queries,
        asdict(retraining.training),
        inputs_digest(retraining.training, retraining.data),
        [retraining.fraction, retraining.seed],
    )
    by_command = retraining.training.command is not None
    return Job(
        directory=(work / f"lds-{digest_of(*decides)[:16]}").absolute(),
        training=retraining.training,
        model=model.settings,
        samples=[] if by_command else [Tokens(one.ids, one.targets) for one in training.encoded()],
        queries=[Tokens(query.encoded.ids, query.encoded.targets) for query in asked],
        keep=retraining.keep,
        device=device if by_command else "cpu",
        trust_remote_code=trust_remote_code,
    )


def _nothing(file: Path, members: NDArray[np.int64]) -> None:
    """The built-in training reads no data file."""


def _writer(training: TrainingSet, store: Store, files: Sequence[Path]) -> WriteData:
    """Make the function that writes a subset as JSON Lines: rows of the user's files, or the samples' texts.

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

    def write(file: Path, members: NDArray[np.int64]) -> None:
        rows = [lines[training.samples[number].id] + "\n" for number in members]
        file.write_text("".join(rows), encoding="utf-8")

    return write
