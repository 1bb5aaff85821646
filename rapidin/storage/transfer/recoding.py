"""A copy of a store whose vectors have other bits."""

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
    """Copy a store, keeping each number of its vectors in `bits` bits.

    The copy is built under the name ``NEW_PATH.partial`` and renamed at the end; after a kill, the same call
    starts over. Deleted samples are left out, and samples keep their order.

    Args:
        store_path: of the store to copy; it is only read.
        new_path: of the copy, where nothing or an empty directory is.
        bits: 16, 4 or 1; more than the store has add nothing to what it knows, which a warning says.
        on_progress: told how many samples are done, and of how many.

    Raises:
        SettingError: there is no codec of so many bits.
        StoreError: something is at `new_path`, or a vector cannot be kept in so many bits; names its id.
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
                "%s: its vectors are of %d-bit numbers; %d bits will make them larger, not better",
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
                bytes_after = copy.info().bytes_vectors
            with file_errors(partial):  # those of a store that nobody has written to yet
                for name in (LOCK_NAME, HOLDER_NAME):
                    (partial / name).unlink(missing_ok=True)
    kinds = [derived.name for derived in (*info.indexes[1:], *info.derived)]
    return RecodeReport(
        done, bits, info.bytes_vectors, bytes_after, time.monotonic() - started, left_out(kinds, target)
    )
