"""The page at ``/``: a form, and the display of reports for what is fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

from rapidin.report import SCRIPTS, STYLES, PageParts

_SCRIPTS = (*SCRIPTS, "link.js", "client.js", "form.js", "ask.js")
_POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Page:
    """A page and the policy that it is sent with, which says more than its own element may."""

    text: str
    policy: str


def ask_page() -> Page:
    """The page; it holds nothing of a store, which it asks for with the token that is typed into it."""
    text = PageParts("rapidin.service").page("ask.html", _SCRIPTS, (*STYLES, "ask.css"))
    (policy,) = _POLICY.findall(text)
    return Page(text, f"{unescape(policy)}; frame-ancestors 'none'")
