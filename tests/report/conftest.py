"""Reports in a real browser, and what is watched in each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rapidin.records.hits import SearchResult
from rapidin.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens results as a page from disk; at the end nothing was asked for but the file, and nothing complained."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []
    path = tmp_path / "report.html"

    def open_page(results: Sequence[SearchResult], width: int = 1280, **options: Any) -> Page:
        write_report(path, results, facts={"store": "runs/store"})
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert set(requests) <= {path.as_uri(), "data:,"}
