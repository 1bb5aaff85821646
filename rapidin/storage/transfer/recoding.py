"""Copies of a store whose vectors have another number of bits."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from rapidin.records import Progress, RecodeReport
from rapidin.storage.catalog import NewSample
from rapidin.storage.concurrency import HOLDER_NAME, LOCK_NAME
from rapidin.storage.derived import left_out
from rapidin.storage.store import Store
from rapidin.storage.store_files import file_errors
from rapidin.storage.transfer.built_aside import built_aside, check_free
from rapidin.storage.vectors import codec_of_bits, fitting_scales, segment_writing

BLOCK_BYTES = 2**27
"""Number of bytes of the vectors that make one segment, before they are coded."""
_logger = logging.getLogger(__name__)


def recode(
    store_path: str | Path, new_path: str | Path, bits: int, *, on_progress: Progress | None = None
) -> RecodeReport:
    """Copy a store, and keep each number of its vectors in `bits` bits.

    The copy is built under the name ``NEW_PATH.partial`` and renamed at the end. After a kill, the same call
    starts from the beginning. Deleted samples are left out, and samples keep their order. The curvature is copied,
    because it does not depend on the bits; indexes are not.

    Args:
        store_path: directory of the store to copy, which is only read.
        new_path: path of a new or empty directory for the copy.
        bits: number of bits: 16, 4 or 1. More bits than the store has make vectors larger, not better, and a
            warning says so.
        on_progress: function that takes the number of samples done and the number of all samples.

    Raises:
        SettingError: no codec has this number of bits.
        StoreError: `new_path` holds something, or a vector cannot be kept in `bits` bits; the message names its
            id.
        StoreCorruptError: the store is damaged.
        StoreSpaceError: the disk is full.
        StoreLockedError: another process is making the same copy.
    """
    started = time.monotonic()
    codec = codec_of_bits(bits)
    target = Path(new_path)
    check_free(target.absolute())
    done = 0
    with Store.open(store_path) as store, store.snapshot() as snapshot:
        if bits > store.settings.codec.bits:
            _logger.warning(
                "%s: its vectors have %d-bit numbers; %d bits make them larger, not better",
                *(store.path, store.settings.codec.bits, bits),
            )
        settings = store.settings.model_copy(update={"codec": codec.settings})
        info = store.info()
        metadata = info.bytes_metadata * info.samples // max(1, info.samples + info.deleted)
        with built_aside(target) as partial:
            row_bytes = codec.row_bytes(settings.projection.dimension)
            segment_writing.check_space(partial, snapshot.samples, row_bytes, metadata)
            with Store.create(partial, settings) as copy:
                with copy.writer() as writer:
                    for block in snapshot.blocks(block_bytes=BLOCK_BYTES):
                        samples = [NewSample.of(sample) for sample in block.samples]
                        writer.commit(samples, block.vectors, fitting_scales(block.vectors))
                        done += len(samples)
                        if on_progress is not None:
                            on_progress(done, snapshot.samples)
                    taken = snapshot.travelling() if done else []
                    for data in taken:
                        writer.take_derived(data)
                bytes_after = copy.info().bytes_vectors
            with file_errors(partial):  # the size of a store that was never written to
                for name in (LOCK_NAME, HOLDER_NAME):
                    (partial / name).unlink(missing_ok=True)
    kinds = {derived.name for derived in (*info.indexes[1:], *info.derived)} - {data.kind for data in taken}
    return RecodeReport(
        done, bits, info.bytes_vectors, bytes_after, time.monotonic() - started, left_out(sorted(kinds), target)
    )
