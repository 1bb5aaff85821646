"""Writing of reports: a file is written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rapidin.errors import SettingError
from rapidin.records import SearchResult
from rapidin.report.report_page import render_report
from rapidin.support import write_whole


def write_report(
    path: str | Path,
    results: Sequence[SearchResult],
    *,
    title: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page of `render_report` to a file; an existing file is replaced.

    >>> rapidin.write_report("why.html", [searcher.search("Who won the match?")])

    Args:
        path: file that is written.
        results, title, facts: see `render_report`.

    Raises:
        SettingError: the file cannot be written.
    """
    page = render_report(results, title=title, facts=facts)
    try:
        write_whole(path, page, durable=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingError(
            f"the report cannot be written to {str(path)!r}: {reason}; name another file"
        ) from error
