"""Parquet, through the `datasets` library."""

from __future__ import annotations

import glob
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapidin.data.row import Row
from rapidin.errors import DataFileError, RowError
from rapidin.support import error_line

PARQUET_BATCH = 512
"""Rows decoded at a time; `datasets` takes a whole row group by default, and fails on a file without rows."""


def parquet_rows(path: Path) -> Iterator[Row | RowError]:
    """Rows of a Parquet file; values are Python objects (dates are dates), null values are absent fields.

    When the rows end, or the iterator is closed, so is the file. Threads of pyarrow's own pools stay, as they do
    for any use of it, and pyarrow cannot be asked to wait for them: on a busy machine one may abort the process
    while the interpreter ends (apache/arrow#34314, huggingface/datasets#7566).
    """
    number = 0
    try:
        # Takes a second or two, and imports torch itself. Before it is made quiet: importing it sets its logging.
        from datasets import IterableDataset

        with _quiet_datasets():
            # Not load_dataset: it reports the load to a server. The directory is for the lock file that
            # datasets would otherwise leave in the user's cache; the path is taken for a glob pattern.
            with tempfile.TemporaryDirectory() as cache:
                rows = IterableDataset.from_parquet(
                    glob.escape(str(path.absolute())), cache_dir=cache, batch_size=PARQUET_BATCH
                )
            for row in rows:
                number += 1
                yield Row(str(path), number, {name: field for name, field in row.items() if field is not None})
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:  # pyarrow's errors are among them
        raise DataFileError(
            f"{path}: cannot be read as Parquet after row {number}: {error_line(error)}; write the file again"
        ) from error


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keep `datasets` from logging the failure that is raised as an error anyway."""
    logger = logging.getLogger("datasets")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
