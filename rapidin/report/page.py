"""The page: template, styles, scripts and data put into one text that nothing outside is needed for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rapidin.report.data import page_data
from rapidin.results import SearchResult

_STYLES = ("colours.css", "layout.css", "texts.css", "cards.css", "print.css")
_SCRIPTS = (
    "data.js",
    "numbers.js",
    "elements.js",
    "influence.js",
    "tooltip.js",
    "roving.js",
    "texts.js",
    "cards.js",
    "generation.js",
    "samples.js",
    "report.js",
)
_LONGEST_LABEL = 80
# What would end a script element early, or a line of JavaScript in old readers of JSON.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
_SURROGATES = re.compile("[\ud800-\udfff]")


def render_report(
    results: Sequence[SearchResult], *, title: str | None = None, facts: Mapping[str, str] | None = None
) -> str:
    """Results as an HTML page that holds all it needs, and may not load or send anything.

    Args:
        results: one for each query; with several the reader picks one at the top.
        title: heading of the page.
        facts: what else a reader should know, by name: the store, the model, how influences were computed.

    The same results give the same page.
    """
    environment = Environment(
        loader=PackageLoader("rapidin.report", "parts"), autoescape=True, undefined=StrictUndefined
    )
    samples, queries = page_data(results)
    style = _inlined(environment, _STYLES)
    theme = _inlined(environment, ("theme.js",))
    script = f'"use strict";\n(() => {{\n{_inlined(environment, _SCRIPTS)}\n}})();\n'
    page = environment.get_template("page.html").render(
        title=title or "Which training samples made the model say this?",
        facts={str(name): str(value) for name, value in (facts or {}).items()},
        labels=[_label(number, result) for number, result in enumerate(results, 1)],
        style=Markup(style),
        theme=Markup(theme),
        script=Markup(script),
        style_hash=_digest(style),
        script_hashes=[_digest(theme), _digest(script)],
        samples=_embedded(samples),
        queries=[_embedded(query) for query in queries],
    )
    # Half a character cannot be written to a file.
    return _SURROGATES.sub("\ufffd", page)


def _inlined(environment: Environment, names: Sequence[str]) -> str:
    """Files of the package as one text; they are the project's own, so nothing in them is escaped."""
    loader = environment.loader
    if loader is None:
        raise ValueError("the environment has no loader")
    return "\n".join(loader.get_source(environment, name)[0] for name in names)


def _digest(text: str) -> str:
    """What the page's security policy knows a script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _embedded(data: Any) -> Markup:
    """Data as JSON that cannot end the element it stands in."""
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(plain.translate(_UNSAFE))


def _label(number: int, result: SearchResult) -> str:
    """A query's line in the picker; isolating characters keep its direction from the rest of the line."""
    text = " ".join(result.query.generation.split()) or "(empty)"
    text = text if len(text) <= _LONGEST_LABEL else f"{text[:_LONGEST_LABEL]}…"
    return f"{number} · \u2068{result.query.id}\u2069 · \u2068{text}\u2069"
