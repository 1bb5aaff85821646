"""One ingest from beginning to end: plan, preflight, model, gradients, commits, curvature."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rapidin.errors import DataError, ModelError, SettingError, StoreLockedError, StoreSpaceError
from rapidin.ingest.committing import IngestCounts
from rapidin.ingest.planning import IngestPlan, make_plan
from rapidin.ingest.projection_choice import choose_projection
from rapidin.ingest.resolving import resolve
from rapidin.ingest.spool import SampleSpool
from rapidin.model import check_device, check_same, fingerprint
from rapidin.records import IngestedCurvature, IngestListener, IngestReport, Preflight
from rapidin.settings import (
    Fingerprint,
    OnError,
    RequestedSettings,
    ResolvedSettings,
    StoreSettings,
    TracedParameter,
)
from rapidin.storage import ComputedProbes, CurvatureOptions, CurvatureState, ProbeRequest, Store, StoreWriter
from rapidin.text import Encoder

if TYPE_CHECKING:
    from rapidin.attribution import TokenBudget
    from rapidin.ingest.compute import Computer

logger = logging.getLogger(__name__)

_METADATA_BYTES = 4_096
"""Rough size in bytes of a sample's row in the database, for the preflight."""


def ingest_files(
    store: str | Path,
    data: Sequence[str | Path],
    *,
    device: str = "auto",
    workers: int | None = None,
    tokens_per_batch: int | None = None,
    on_error: OnError = "fail",
    dry_run: bool = False,
    curvature: bool = True,
    probes: int | None = None,
    trust_remote_code: bool = False,
    listener: IngestListener | None = None,
    **settings: Unpack[RequestedSettings],
) -> IngestReport:
    """Add training samples to a store, which is created if it does not exist.

    Rows that the store already has are skipped, and changed rows replace the stored ones. If an ingest was
    interrupted, at any moment, an equal call goes on where it stopped.

    Args:
        store: directory of the store.
        data: JSON Lines, JSON, CSV or Parquet files.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``; each of several GPUs gets a process.
        workers: number of processes that compute; None for one per GPU, or one on the CPU. If there are fewer
            processes than GPUs, each spreads the model over its share of them.
        tokens_per_batch: number of padded tokens computed together; it is halved when memory runs out.
        on_error: ``fail`` stops at the first unusable row, ``skip`` leaves it out and reports it.
        dry_run: whether the data is only read and checked; the report then says what would be added.
        curvature: whether the store's curvature is computed at the end, if it has none or an interrupted run left
            it incomplete, see `compute_curvature`. If the store has grown much since the probes were drawn, the
            report says so and nothing is drawn, because other probes change all scores.
        probes: number of probes of the curvature; those that are missing are computed. None: as many as before,
            or 2,000. There are at most 4 for each sample.
        trust_remote_code: whether the checkpoint's own Python code may run; this is never remembered.
        listener: listener that is told about progress; an exception that it raises ends the ingest like an
            interruption.
        settings: settings of a new store, where `model` is required, or of the existing one; see
            `RequestedSettings`.

    Raises:
        RapidinError: an error of one of the kinds in `rapidin.errors`; samples that were committed before it stay.
    """
    started = time.monotonic()
    path = Path(store)
    files = [Path(file) for file in ([data] if isinstance(data, (str, Path)) else data)]
    if not files:
        raise SettingError("no data: give at least one file with --data")
    if on_error not in ("fail", "skip"):
        raise SettingError(f"--on-error {on_error!r} is not one of fail, skip")
    _check_probes(curvature, probes)
    check_device(device, workers, tokens_per_batch)
    options = _RunOptions(
        device, workers, tokens_per_batch, on_error == "skip", dry_run, curvature, probes, trust_remote_code
    )
    with ExitStack() as stack:
        opened = stack.enter_context(Store.open(path)) if Store.exists(path) else None
        resolved = resolve(settings, opened.settings if opened is not None else None, path)
        # The writer is opened before the plan is made, because the plan is valid only while nobody else writes.
        writer = stack.enter_context(opened.writer()) if opened is not None and not dry_run else None
        run = _Run(path, files, resolved, opened, writer, options, listener or IngestListener())
        plan = run.plan(stack)
        if dry_run:
            counts = IngestCounts(len(plan.new) - plan.replaced, plan.replaced, plan.tokens, plan.truncated)
            return run.report(plan, counts, len(plan.updates), started)
        updated = run.update_metadata(plan)
        counts = run.compute(plan, stack)
        run.compute_probes(plan, stack)
        return run.report(plan, counts, updated, started)


def _check_probes(curvature: bool, probes: int | None) -> None:
    """Check the options of the curvature.

    Raises:
        SettingError: the number of probes cannot be used.
    """
    CurvatureOptions(probes)  # checks the number
    if probes is not None and not curvature:
        raise SettingError("--probes belongs to the curvature: leave out --no-curvature or --probes")


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """Options of one ingest that do not become settings of the store, see `ingest_files`."""

    device: str
    workers: int | None
    tokens_per_batch: int | None
    skip_errors: bool
    dry_run: bool
    curvature: bool
    probes: int | None
    trust_remote_code: bool


class _Run:
    """One ingest: its arguments and its state."""

    def __init__(
        self,
        path: Path,
        files: list[Path],
        resolved: ResolvedSettings,
        store: Store | None,
        writer: StoreWriter | None,
        options: _RunOptions,
        listener: IngestListener,
    ) -> None:
        self._path = path
        self._files = files
        self._resolved = resolved
        self._store = store
        self._writer = writer
        self._options = options
        self._listener = listener
        self._gradient_seconds = 0.0
        self._started: tuple[Computer, TokenBudget, StoreSettings] | None = None
        self._probes = 0
        self._probes_computed = 0
        self._encoder = cache(self._make_encoder)

    def plan(self, stack: ExitStack) -> IngestPlan:
        """Make the plan, and check the store's place and the model's files before anything that takes long.

        Args:
            stack: stack that closes the plan's spool.
        """
        # The fingerprint is computed for a new store, too, because that reports missing and damaged files.
        found = fingerprint(self._resolved.model)
        if self._store is None:
            Store.check_place(self._path)
        elif found is not None:
            self._check_fingerprint(self._store.settings.fingerprint, found)
        # The spool is on the store's disk, because the system may keep its temporary files in memory.
        spool = SampleSpool(None if self._options.dry_run else _existing_directory(self._path))
        plan = make_plan(
            self._files,
            self._resolved.text.template,
            self._store,
            self._encoder,
            stack.enter_context(spool),
            self._options.skip_errors,
            self._listener,
        )
        nothing = not plan.new and not plan.updates and not plan.skipped
        if nothing and (self._store is None or plan.failures):
            first = f": {plan.failures[0].reason}" if plan.failures else ""
            raise DataError(f"{self._files[0]}: none of its rows can be used{first}")
        self._check_space(plan)
        return plan

    def _check_space(self, plan: IngestPlan) -> None:
        """Tell the listener what will be done, and make sure that the disk has room for it.

        The spool needs room beside that of the new segments. Unless this is a dry run, it is written already.
        """
        count, curvature = len(plan.new), self._lacking_curvature(plan)
        self._probes = curvature.missing
        spool_bytes = plan.new.bytes if self._options.dry_run else 0
        preflight = Preflight(
            samples=count,
            tokens=plan.tokens,
            truncated=plan.truncated,
            skipped=plan.skipped,
            bytes=count * (self._vector_bytes() + _METADATA_BYTES) + curvature.missing_bytes,
            bytes_free=max(0, _free_bytes(self._path) - spool_bytes),
            probes=curvature.missing,
        )
        self._listener.planned(preflight)
        if preflight.bytes > preflight.bytes_free:
            probes, fewer = "", ""
            if preflight.probes:
                probes, fewer = f" and {preflight.probes:,} probes", ", fewer --probes or --no-curvature"
            raise StoreSpaceError(
                f"{self._path}: {count:,} samples{probes} need about {preflight.bytes / 1e9:.2f} GB and the disk "
                f"has {preflight.bytes_free / 1e9:.2f} GB free beside {plan.new.bytes / 1e9:.2f} GB of "
                f"temporary data: make room, or give a smaller --projection-dim{fewer}"
            )

    def _lacking_curvature(self, plan: IngestPlan) -> CurvatureState:
        """Tell what curvature there is, and what of it is to be computed once the plan is carried out."""
        options, added = self._options, len(plan.new) - plan.replaced
        if self._store is None:
            state = CurvatureState.of_none(options.probes, added, self._resolved.probe_shape)
        else:
            state = self._store.curvature_state(options.probes, added)
        return state if options.curvature else replace(state, missing=0, missing_bytes=0)

    def update_metadata(self, plan: IngestPlan) -> int:
        """Replace the metadata of samples whose text did not change, and return the number of these samples."""
        if self._writer is None or not plan.updates:
            return 0
        return self._writer.update_metadata(plan.updates)

    def compute(self, plan: IngestPlan, stack: ExitStack) -> IngestCounts:
        """Compute and commit the plan's new samples.

        Args:
            plan: the plan.
            stack: stack that closes what is opened.
        """
        if not plan.new:
            return IngestCounts()
        # These import torch, which takes seconds.
        from rapidin.support import own_torch_modes

        with own_torch_modes():
            return self._computed(plan, stack)

    def _computed(self, plan: IngestPlan, stack: ExitStack) -> IngestCounts:
        computer, budget, settings = self._start(plan, stack)
        from rapidin.ingest.pipeline import IngestPipeline

        pipeline = IngestPipeline(computer, budget, settings)
        if self._writer is None:
            # The store is created after all steps that may fail early, so that a bad model leaves no store behind.
            self._writer = self._create(settings, stack)
        self._listener.computing(computer.processes)
        begun = time.monotonic()
        stored_before = plan.skipped + len(plan.updates)
        counts = pipeline.run(plan.new, self._writer, self._listener, self._options.skip_errors, stored_before)
        self._gradient_seconds = time.monotonic() - begun
        used = counts.added + counts.replaced + stored_before
        if counts.failures and not used:
            last = counts.failures[-1]
            raise DataError(
                f"none of the {len(plan.new):,} samples can be used, the last one ({last.file}, row {last.row}) "
                f"because {last.reason}"
            )
        return counts

    def compute_probes(self, plan: IngestPlan, stack: ExitStack) -> None:
        """Compute the probes that the store's curvature lacks; the plan's samples are committed.

        Args:
            plan: the plan.
            stack: stack that closes what is opened.
        """
        store, writer, wanted = self._store, self._writer, self._options.probes
        if not self._options.curvature or store is None or writer is None:
            return
        missing = store.curvature_state(wanted).missing
        if not missing:
            return
        from rapidin.support import own_torch_modes

        with own_torch_modes():
            self._compute_missing_probes(missing, store, writer, plan, stack)

    def _compute_missing_probes(
        self, missing: int, store: Store, writer: StoreWriter, plan: IngestPlan, stack: ExitStack
    ) -> None:
        wanted = self._options.probes
        computer, budget, _ = self._start(plan, stack)
        from rapidin.ingest.probes import KIND, computed_probes

        def compute(requests: Sequence[ProbeRequest]) -> Iterator[ComputedProbes]:
            return computed_probes(requests, store, computer, budget, self._encoder())

        def progress(step: str, done: int, total: int) -> None:
            if step == "probes":
                self._probes_computed = done
                self._listener.curvature(done, total)

        self._listener.curvature(0, missing)
        try:
            writer.build_derived(KIND, CurvatureOptions(wanted, None, compute), on_progress=progress)
        except SettingError as error:
            # The options were checked, so no sample gives a probe. Searches can do without a curvature.
            logger.warning("%s; the samples are stored, but no curvature", error)

    def _start(self, plan: IngestPlan, stack: ExitStack) -> tuple[Computer, TokenBudget, StoreSettings]:
        """Load the model, unless it is loaded, and return what computes, limits of one batch, and the settings.

        Args:
            plan: the plan.
            stack: stack that closes what is opened.
        """
        if self._started is None:
            # Importing torch and transformers takes seconds, and an ingest that adds nothing needs neither.
            from rapidin.ingest.compute import open_computer
            from rapidin.ingest.probes import TOKENS_OF_A_PROBE

            options = self._options
            self._listener.loading_model(self._resolved.model.model)
            computer = stack.enter_context(
                open_computer(
                    self._resolved.model,
                    options.device,
                    options.workers,
                    options.tokens_per_batch,
                    options.trust_remote_code,
                    len(plan.new) + self._probes,
                    plan.tokens + self._probes * TOKENS_OF_A_PROBE,
                    self._resolved.projection.dimension,
                )
            )
            settings = self._settings(plan, computer.parameters)
            self._started = computer, computer.start(settings, options.tokens_per_batch), settings
        return self._started

    def _settings(self, plan: IngestPlan, parameters: tuple[TracedParameter, ...]) -> StoreSettings:
        """Return the store's settings; the fingerprint is checked, because hub files are downloaded only now."""
        found = fingerprint(self._resolved.model)
        if found is None:
            raise ModelError(
                f"model {self._resolved.model.model!r}: its weights are not in the cache; load it again"
            )
        if self._store is not None:
            self._check_fingerprint(self._store.settings.fingerprint, found)
            return self._store.settings
        return StoreSettings(
            model=self._resolved.model,
            gradient=self._resolved.gradient,
            text=self._resolved.text.model_copy(update={"shape": plan.shape}),
            codec=self._resolved.codec,
            projection=choose_projection(
                self._resolved.projection,
                parameters,
                kind_given=self._resolved.kind_given,
                dimension_given=self._resolved.dimension_given,
                model=self._resolved.model,
                gradient=self._resolved.gradient,
            ),
            traced=parameters,
            fingerprint=found,
        )

    def _create(self, settings: StoreSettings, stack: ExitStack) -> StoreWriter:
        if Store.exists(self._path):
            raise StoreLockedError(
                f"{self._path}: another process created this store meanwhile; run the same command again"
            )
        self._store = stack.enter_context(Store.create(self._path, settings))
        logger.info(
            "new store: %s projection to %d numbers", settings.projection.kind, settings.projection.dimension
        )
        return stack.enter_context(self._store.writer())

    def report(self, plan: IngestPlan, counts: IngestCounts, updated: int, started: float) -> IngestReport:
        """Report what was done, or what would be done in the case of a dry run.

        Args:
            plan: the plan.
            counts: counts of committed samples.
            updated: number of samples whose metadata was replaced.
            started: time of `time.monotonic` at which the ingest began.
        """
        failures = (*plan.failures, *counts.failures)
        seconds = self._gradient_seconds
        return IngestReport(
            added=counts.added,
            replaced=counts.replaced,
            updated=updated,
            skipped=plan.skipped,
            failed=len(failures),
            truncated=counts.truncated,
            samples_total=self._store.count() if self._store is not None else 0,
            tokens=counts.tokens,
            seconds=round(time.monotonic() - started, 3),
            tokens_per_second=round(counts.tokens / seconds, 1) if seconds else 0.0,
            store=str(self._path),
            failures=failures,
            curvature=self._reported_curvature(),
        )

    def _reported_curvature(self) -> IngestedCurvature | None:
        """Report the curvature that the store has now; None if it has none."""
        computed = self._probes if self._options.dry_run else self._probes_computed
        state = CurvatureState(0, None, 0, 0, None) if self._store is None else self._store.curvature_state()
        if not (state.probes or state.advice or computed):
            return None
        return IngestedCurvature(state.probes, computed, state.version, state.advice)

    def _vector_bytes(self) -> int:
        """Return the largest size in bytes of a sample's vector in the store."""
        return self._resolved.projection.dimension * self._resolved.codec.bits // 8

    def _make_encoder(self) -> Encoder:
        from rapidin.model import make_encoder

        return make_encoder(self._resolved.model, self._resolved.text, self._options.trust_remote_code)[1]

    def _check_fingerprint(self, expected: Fingerprint, found: Fingerprint) -> None:
        remedy = "Give the store's own model, or ingest into a new store"
        check_same(self._resolved.model, expected, found, self._path, remedy)


def _existing_directory(path: Path) -> Path:
    """Return the directory itself, or the nearest directory above it, that exists."""
    place = path.absolute()
    while not place.is_dir():
        place = place.parent
    return place


def _free_bytes(path: Path) -> int:
    """Return the free space in bytes of the disk that the store is on, or will be on."""
    return shutil.disk_usage(_existing_directory(path)).free
