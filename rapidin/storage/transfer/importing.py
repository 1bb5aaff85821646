"""Import of an export into a new or existing store; `export_reading` reads it, `export_format` describes it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rapidin.errors import StoreError, StoreMismatchError
from rapidin.records import ImportReport, Progress
from rapidin.settings import Frozen, StoreSettings
from rapidin.storage.catalog import MetadataChange, NewSample
from rapidin.storage.store import Store
from rapidin.storage.store_writer import StoreWriter, check_batch
from rapidin.storage.vectors import Codec, codec_named, codec_of_bits, fitting_scales
from rapidin.support import shortened

if TYPE_CHECKING:
    from rapidin.storage.transfer.export_reading import Exported

_logger = logging.getLogger(__name__)

BATCH_BYTES = 2**27
"""Number of bytes of a commit's vectors, before they are coded."""
_COMPARED = ("gradient", "projection", "traced", "fingerprint", "text")
"""Parts of the settings that vectors depend on."""


def import_vectors(
    store_path: str | Path,
    directory: str | Path,
    *,
    bits: int | None = None,
    on_progress: Progress | None = None,
) -> ImportReport:
    """Import an export into the store at `store_path`, which is created if there is none.

    The vectors may have been computed elsewhere, but with the settings of the store. The whole export is checked
    before anything is written. If the store has a sample with the same id and content, only changed metadata is
    taken; a sample with the same id and other content is replaced. If an import was killed, the same call
    continues it. A curvature is taken if the store then has the samples of the export only, and has none yet.

    Args:
        store_path: directory of the store.
        directory: directory of the export, see `export_format`.
        bits: number of bits of each number in a new store; None takes that of the export. An existing store keeps
            its own.
        on_progress: function that takes the number of samples done and the number of all samples.

    Returns:
        A report of what was done.

    Raises:
        SettingError: no codec has this number of bits.
        StoreFormatError: `directory` is not an export, or a newer rapidin wrote it.
        StoreError: something in the export is missing, damaged or impossible; the message names file, row or id.
        StoreMismatchError: the store was created with other settings; the message names them.
        StoreLockedError: another process is writing to the store.
        StoreSpaceError: the disk is full; samples stored before stay.
    """
    path = Path(store_path)
    chosen = None if bits is None else codec_of_bits(bits)
    # imported here with pyarrow, which nothing else in this module needs
    from rapidin.storage.transfer.export_reading import Exported

    exported = Exported(Path(directory))
    settings = exported.manifest.settings
    if chosen is not None:
        settings = settings.model_copy(update={"codec": chosen.settings})
    existing = Store.open(path) if Store.exists(path) else None
    try:
        if existing is not None:
            check_same_settings(existing, settings, bits)
        else:
            Store.check_place(path)
        codec = codec_named((existing.settings if existing is not None else settings).codec.name)
        _check_all(exported, codec)
        store = existing = existing or Store.create(path, settings)
        with store.writer() as writer:
            added, replaced, skipped = _write(exported, store, writer, on_progress)
            _take_curvature(exported, store, writer)
        return ImportReport(added, replaced, skipped, store.count())
    finally:
        if existing is not None:
            existing.close()


def check_same_settings(store: Store, settings: StoreSettings, bits: int | None = None) -> None:
    """Check that vectors made by `settings` may lie beside those of the store.

    Raises:
        StoreMismatchError: they may not, or the store has another number of bits than `bits`; the message says
            which.
    """
    different = list(_differences(store.settings, settings))
    if different:
        raise StoreMismatchError(
            f"{store.path}: the store and the export differ in {', '.join(different)}; import into a new store"
        )
    if bits is not None and bits != store.settings.codec.bits:
        raise StoreMismatchError(
            f"{store.path}: the store has {store.settings.codec.bits} bits, not {bits}; leave --bits out, or "
            "import into a new store"
        )


def _take_curvature(exported: Exported, store: Store, writer: StoreWriter) -> None:
    """Take the curvature of an export into a store that has the same samples, and none yet."""
    data = exported.curvature
    if data is None:
        return
    with store.snapshot() as snapshot:
        there, samples = snapshot.derived(data.kind), snapshot.samples
    if there is None and samples == exported.manifest.samples > 0:
        writer.take_derived(data)
    elif there is None or there[1].file != data.file:
        _logger.warning(
            "%s: the curvature of the export was not taken, because the store has %s: 'rapidin curvature %s' "
            "draws the probes that are missing",
            *(store.path, "other samples" if there is None else "one of its own", store.path),
        )


def _differences(store: StoreSettings, export: StoreSettings) -> Iterator[str]:
    for name in _COMPARED:
        mine, other = getattr(store, name), getattr(export, name)
        if mine == other:
            continue
        if name == "traced":
            pairs = zip_longest(mine, other)
            parameter = next(here or there for here, there in pairs if here != there)
            yield f"traced parameters (first {parameter.name!r})"
        elif name == "fingerprint":
            yield "the model's fingerprint"
        elif isinstance(mine, Frozen):
            for field in type(mine).model_fields:
                here, there = getattr(mine, field), getattr(other, field)
                if here != there:
                    yield f"{name} {field} ({_shown(here)} and {_shown(there)})"


def _shown(value: object) -> str:
    return shortened(repr(value), 60)


def _batches(exported: Exported) -> Iterator[tuple[int, list[NewSample]]]:
    """Yield the number of the first sample and the samples of each batch."""
    start = 0
    for samples in exported.batches(max(1, BATCH_BYTES // (4 * exported.manifest.settings.projection.dimension))):
        yield start, samples
        start += len(samples)


def _check_all(exported: Exported, codec: Codec) -> None:
    """Check every sample and every vector as a commit does, and that no id occurs twice."""
    seen: set[str] = set()
    for start, samples in _batches(exported):
        vectors = exported.vectors(start, start + len(samples))
        check_batch(samples, vectors, fitting_scales(vectors), vectors.shape[1], codec)
        for sample in samples:
            if sample.id in seen:
                raise StoreError(
                    f"{exported.samples_path}: the id {sample.id!r} occurs twice; make the ids differ"
                )
            seen.add(sample.id)
    if len(seen) != exported.manifest.samples:
        raise StoreError(
            f"{exported.samples_path}: it has {len(seen)} rows, not {exported.manifest.samples}; export it again"
        )


def _write(
    exported: Exported, store: Store, writer: StoreWriter, on_progress: Progress | None
) -> tuple[int, int, int]:
    """Write the samples, and return the numbers of those that were added, replaced and skipped."""
    added = replaced = skipped = 0
    for start, samples in _batches(exported):
        known = store.content_hashes(sample.id for sample in samples)
        contents = {id: content for id, (content, _) in known.items()}
        new = [number for number, sample in enumerate(samples) if contents.get(sample.id) != sample.content_hash]
        if new:
            vectors = exported.vectors(start, start + len(samples))[np.array(new)]
            writer.commit([samples[number] for number in new], vectors, fitting_scales(vectors))
        same = {sample.id: sample for sample in samples if contents.get(sample.id) == sample.content_hash}
        changed = [
            MetadataChange.of(sample) for sample in same.values() if known[sample.id][1] != sample.metadata_hash
        ]
        if changed:
            writer.update_metadata(changed)
        replaces = sum(samples[number].id in known for number in new)
        added += len(new) - replaces
        replaced += replaces
        skipped += len(same)
        if on_progress is not None:
            on_progress(start + len(samples), exported.manifest.samples)
    return added, replaced, skipped
