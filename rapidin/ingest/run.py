"""One ingest from beginning to end: plan, preflight, model, gradients, commits."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Unpack

from rapidin.errors import DataError, ModelError, SettingError, StoreLockedError, StoreSpaceError
from rapidin.ingest.counts import CachingCounts
from rapidin.ingest.planning import Plan, encoded_samples, make_plan
from rapidin.ingest.projection_choice import choose_projection
from rapidin.model import check_device, check_same, fingerprint
from rapidin.records import IngestListener, IngestReport, Preflight
from rapidin.settings import (
    Fingerprint,
    OnError,
    RequestedSettings,
    ResolvedSettings,
    StoreSettings,
    TracedParameter,
    resolve,
)
from rapidin.storage import MetadataChange, Store, StoreWriter
from rapidin.text import Encoder

logger = logging.getLogger(__name__)

_METADATA_BYTES = 4_096
"""Rough size of a sample's row in the database, for the preflight."""


def ingest_files(
    store: str | Path,
    data: Sequence[str | Path],
    *,
    device: str = "auto",
    workers: int | None = None,
    tokens_per_batch: int | None = None,
    on_error: OnError = "fail",
    dry_run: bool = False,
    trust_remote_code: bool = False,
    listener: IngestListener | None = None,
    **settings: Unpack[RequestedSettings],
) -> IngestReport:
    """Add training samples to a store, which is created where there is none.

    Rows that the store has are skipped, changed ones replaced; interrupted at any moment and called again, it
    goes on where it stopped.

    Args:
        store: directory of the store.
        data: JSON Lines, JSON, CSV or Parquet files.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``; several GPUs get a process each.
        workers: processes that compute; None for one per GPU, or one on the CPU. Fewer than GPUs: each spreads the
            model over its share of them.
        tokens_per_batch: padded tokens computed together; halves itself when memory runs out.
        on_error: ``fail`` stops at the first unusable row, ``skip`` leaves it out and reports it.
        dry_run: read and check the data, compute and change nothing; the report says what would be added.
        trust_remote_code: whether the checkpoint's own Python code may run; never remembered.
        listener: told about progress; what it raises ends the ingest, as an interruption does.
        settings: of a new store (`model` is needed) or as of the existing one; see `RequestedSettings`.

    Raises:
        RapidinError: one of its kinds, see `rapidin.errors`; what was committed before it stays.
    """
    started = time.monotonic()
    path = Path(store)
    files = [Path(file) for file in ([data] if isinstance(data, (str, Path)) else data)]
    if not files:
        raise SettingError("no data: give at least one file with --data")
    if tokens_per_batch is not None and tokens_per_batch < 1:
        raise SettingError(f"--tokens-per-batch {tokens_per_batch} cannot be used: give a positive number")
    if on_error not in ("fail", "skip"):
        raise SettingError(f"--on-error {on_error!r} is not one of fail, skip")
    check_device(device, workers)
    options = _Options(device, workers, tokens_per_batch, on_error == "skip", trust_remote_code)
    with ExitStack() as stack:
        opened = stack.enter_context(Store.open(path)) if Store.exists(path) else None
        resolved = resolve(settings, opened.settings if opened is not None else None, path)
        # From before the plan on, which holds only as long as nobody else writes.
        writer = stack.enter_context(opened.writer()) if opened is not None and not dry_run else None
        run = _Run(path, files, resolved, opened, writer, options, listener or IngestListener())
        plan = run.plan()
        if not dry_run and (plan.new or plan.updates):
            run.execute(stack)
        return run.report(started, dry_run)


@dataclass(frozen=True, slots=True)
class _Options:
    """How to run, as of `ingest_files`."""

    device: str
    workers: int | None
    tokens_per_batch: int | None
    skip_errors: bool
    trust_remote_code: bool


class _Run:
    """State of one ingest."""

    def __init__(
        self,
        path: Path,
        files: list[Path],
        resolved: ResolvedSettings,
        store: Store | None,
        writer: StoreWriter | None,
        options: _Options,
        listener: IngestListener,
    ) -> None:
        self._path = path
        self._files = files
        self._resolved = resolved
        self._store = store
        self._writer = writer
        self._options = options
        self._listener = listener
        self._plan = Plan()
        self._cached = CachingCounts()
        self._updated = 0
        self._gradient_seconds = 0.0
        self._encoder = cache(self._make_encoder)

    def plan(self) -> Plan:
        """Look at the data, the place of the store and the model's files, before anything costs time."""
        # Of a new store's model, too: it tells missing and damaged files by name.
        found = fingerprint(self._resolved.model)
        if self._store is None:
            Store.check_place(self._path)
        elif found is not None:
            self._check_fingerprint(self._store.settings.fingerprint, found)
        self._plan = make_plan(
            self._files,
            self._resolved.text.template,
            self._store,
            self._encoder,
            self._options.skip_errors,
            self._listener,
        )
        if self._store is None and not self._plan.new:
            first = f": {self._plan.failures[0].reason}" if self._plan.failures else ""
            raise DataError(f"{self._files[0]}: none of its rows can be used{first}")
        count = len(self._plan.new)
        preflight = Preflight(
            samples=count,
            tokens=self._plan.tokens,
            truncated=self._plan.truncated,
            skipped=self._plan.skipped,
            bytes=count * (self._vector_bytes() + _METADATA_BYTES),
            bytes_free=_free_bytes(self._path),
        )
        self._listener.planned(preflight)
        if preflight.bytes > preflight.bytes_free:
            raise StoreSpaceError(
                f"{self._path}: {count:,} samples need about {preflight.bytes / 1e9:.2f} GB and the disk has "
                f"{preflight.bytes_free / 1e9:.2f} GB free: make room, or give a smaller --projection-dim"
            )
        return self._plan

    def execute(self, stack: ExitStack) -> None:
        """Compute what the plan asks for and commit it; `stack` closes what is opened."""
        if self._store is not None and self._writer is not None:
            self._updated = self._writer.update_metadata(
                [
                    MetadataChange(sample.id, sample.content_hash, sample.metadata, sample.file, sample.row)
                    for sample in self._plan.updates
                ]
            )
        if not self._plan.new:
            return
        # Imported here: torch and transformers take seconds, and an ingest that adds nothing needs neither.
        from rapidin.ingest.compute import open_computer
        from rapidin.ingest.pipeline import Caching

        options = self._options
        self._listener.loading_model(self._resolved.model.model)
        computer = stack.enter_context(
            open_computer(
                self._resolved.model,
                options.device,
                options.workers,
                options.tokens_per_batch,
                options.trust_remote_code,
                self._plan,
                self._resolved.projection.dimension,
            )
        )
        settings = self._settings(computer.parameters)
        caching = Caching(computer, settings, options.tokens_per_batch)
        if self._writer is None:
            # After everything that can fail early, so that a bad model leaves no empty store behind.
            self._writer = self._create(settings, stack)
        self._listener.computing(computer.processes)
        samples = encoded_samples(self._files, settings.text.template, self._plan, self._encoder())
        begun = time.monotonic()
        self._cached = caching.run(samples, self._plan, self._writer, self._listener, options.skip_errors)
        self._gradient_seconds = time.monotonic() - begun

    def _settings(self, parameters: tuple[TracedParameter, ...]) -> StoreSettings:
        """Settings of the store, after a last look at the fingerprint: a hub's files are here only now."""
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
            text=self._resolved.text.model_copy(update={"shape": self._plan.shape}),
            codec=self._resolved.codec,
            projection=choose_projection(
                self._resolved.projection,
                parameters,
                kind_given=self._resolved.kind_given,
                dimension_given=self._resolved.dimension_given,
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

    def report(self, started: float, dry_run: bool) -> IngestReport:
        """Say what was done, or, of a dry run, what would be."""
        plan, cached, updated = self._plan, self._cached, self._updated
        if dry_run:
            cached = CachingCounts(len(plan.new) - plan.replaced, plan.replaced, plan.tokens, plan.truncated)
            updated = len(plan.updates)
        failures = (*plan.failures, *cached.failures)
        return IngestReport(
            added=cached.added,
            replaced=cached.replaced,
            updated=updated,
            skipped=plan.skipped,
            failed=len(failures),
            truncated=cached.truncated,
            samples_total=self._store.count() if self._store is not None else 0,
            tokens=cached.tokens,
            seconds=round(time.monotonic() - started, 3),
            tokens_per_second=round(cached.tokens / self._gradient_seconds, 1) if self._gradient_seconds else 0.0,
            store=str(self._path),
            failures=failures,
        )

    def _vector_bytes(self) -> int:
        """Of a sample, as the store will keep it, at most."""
        return self._resolved.projection.dimension * self._resolved.codec.bits // 8

    def _make_encoder(self) -> Encoder:
        from rapidin.model import load_tokenizer

        tokenizer, context_length = load_tokenizer(self._resolved.model, self._options.trust_remote_code)
        return Encoder(tokenizer, self._resolved.text, context_length)

    def _check_fingerprint(self, expected: Fingerprint, found: Fingerprint) -> None:
        remedy = "Give the store's own model, or ingest into a new store"
        check_same(self._resolved.model, expected, found, self._path, remedy)


def _free_bytes(path: Path) -> int:
    """Free space of the disk that the store is, or will be, on."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
