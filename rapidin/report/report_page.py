"""A report: a page that contains its data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rapidin.records import SearchResult
from rapidin.report.display_data import page_data
from rapidin.report.page_assembly import SCRIPTS, PageParts, as_json
from rapidin.support import one_line

_LONGEST_LABEL = 80
_SURROGATES = re.compile("[\ud800-\udfff]")


def render_report(
    results: Sequence[SearchResult], *, title: str | None = None, facts: Mapping[str, str] | None = None
) -> str:
    """Make an HTML page of results. It contains everything it needs, and cannot load or send anything.

    Args:
        results: one result for each query; if there are several, the reader picks one at the top.
        title: heading of the page.
        facts: other facts for the reader, by name: the store, the model, how influences were computed.

    Returns:
        HTML, which is always equal for equal results.
    """
    samples, queries = page_data(results)
    page = PageParts().page(
        "page.html",
        (*SCRIPTS, "embedded.js"),
        title=title or "Which training samples made the model say this?",
        facts={str(name): str(value) for name, value in (facts or {}).items()},
        labels=[_label(number, result) for number, result in enumerate(results, 1)],
        samples=as_json(samples),
        queries=[as_json(query) for query in queries],
    )
    # A surrogate, which is half a character, cannot be written to a file.
    return _SURROGATES.sub("\ufffd", page)


def _label(number: int, result: SearchResult) -> str:
    """Make a query's line in the picker; isolating characters keep text from right to left in its place."""
    text = one_line(result.query.generation, _LONGEST_LABEL) or "(empty)"
    return f"{number} · \u2068{result.query.id}\u2069 · \u2068{text}\u2069"
