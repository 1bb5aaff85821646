"""A report on disk: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rapidin.errors import SettingError
from rapidin.records import SearchResult
from rapidin.report.report_page import render_report


def write_report(
    path: str | Path,
    results: Sequence[SearchResult],
    *,
    title: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page of `render_report` to a file; one that is there already is replaced.

    Raises:
        SettingError: the path cannot be written.
    """
    page = render_report(results, title=title, facts=facts).encode()
    try:
        _replace(Path(path), page)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingError(
            f"the report cannot be written to {str(path)!r}: {reason}; name another file"
        ) from error


def _replace(path: Path, content: bytes) -> None:
    # Renaming over a link would cut it, renaming over a device would destroy the device.
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(None, "it is not a file")
    part = path.with_name(f".rapidin-report-{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
