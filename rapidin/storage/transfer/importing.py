"""Taking an export into a store, new or old; `exported` reads it, `transfer` says what it is."""

from __future__ import annotations

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
    """Take an export into the store at `store_path`, which is made where there is none.

    The vectors may have been computed elsewhere, but by the same settings. All of the export is checked before
    anything is written. A sample whose id and content the store has is left as it is, except for metadata that
    changed; one of the same id and other content is replaced. An import that was killed is continued by the same
    call.

    Args:
        store_path: of the store.
        directory: of the export, see `transfer`.
        bits: per number in a new store; None: the export's. An existing store has its own.
        on_progress: told how many samples are done, and of how many.

    Returns:
        What was done.

    Raises:
        SettingError: there is no codec of so many bits.
        StoreFormatError: `directory` is no export, or one of a newer rapidin.
        StoreError: something in the export is missing, damaged or cannot be; names file, row or id.
        StoreMismatchError: the store was made with other settings; says which.
        StoreLockedError: another process is writing to the store.
        StoreSpaceError: the disk is full; what was done before stays.
    """
    path = Path(store_path)
    chosen = None if bits is None else codec_of_bits(bits)
    from rapidin.storage.transfer.export_reading import Exported  # with pyarrow, which nothing else here needs

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
        return ImportReport(added, replaced, skipped, store.count())
    finally:
        if existing is not None:
            existing.close()


def check_same_settings(store: Store, settings: StoreSettings, bits: int | None = None) -> None:
    """Check that vectors made by `settings` may lie beside those of the store.

    Raises:
        StoreMismatchError: they may not, or the store has other than the `bits` asked for; says what differs.
    """
    different = list(_differences(store.settings, settings))
    if different:
        raise StoreMismatchError(
            f"{store.path}: the store and the export differ in {', '.join(different)}; import into a new store"
        )
    if bits is not None and bits != store.settings.codec.bits:
        raise StoreMismatchError(
            f"{store.path}: the store has {store.settings.codec.bits} bits, not {bits}; leave the bits out, or "
            "import into a new store"
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
    """The number of the first sample and the samples of each batch."""
    start = 0
    for samples in exported.batches(max(1, BATCH_BYTES // (4 * exported.manifest.settings.projection.dimension))):
        yield start, samples
        start += len(samples)


def _check_all(exported: Exported, codec: Codec) -> None:
    """Check every sample and every number, as a commit will, and that no id comes twice."""
    seen: set[str] = set()
    for start, samples in _batches(exported):
        vectors = exported.vectors(start, start + len(samples))
        check_batch(samples, vectors, fitting_scales(vectors), vectors.shape[1], codec)
        for sample in samples:
            if sample.id in seen:
                raise StoreError(f"{exported.samples_path}: the id {sample.id!r} comes twice; make ids differ")
            seen.add(sample.id)
    if len(seen) != exported.manifest.samples:
        raise StoreError(
            f"{exported.samples_path}: it has {len(seen)} rows, not {exported.manifest.samples}; export it again"
        )


def _write(
    exported: Exported, store: Store, writer: StoreWriter, on_progress: Progress | None
) -> tuple[int, int, int]:
    """The numbers of samples that were added, replaced and skipped."""
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
