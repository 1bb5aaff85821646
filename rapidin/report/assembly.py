"""Pages from parts: a template, styles and scripts put into one text that nothing outside is needed for.

Reports and the page of `rapidin.service` show results with the same parts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

STYLES = ("colours.css", "layout.css", "texts.css", "cards.css", "print.css")
"""Of everything that shows results."""
SCRIPTS = (
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
"""The same; a script of the page follows them and calls `showQuery`."""
# What would end a script element early, or a line of JavaScript in old readers of JSON.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


class Parts:
    """Templates, styles and scripts of packages, the first of which has precedence.

    Args:
        packages: that have a directory ``parts``, besides this one.
    """

    def __init__(self, *packages: str) -> None:
        self._loader = ChoiceLoader([PackageLoader(package, "parts") for package in (*packages, "rapidin.report")])
        self._environment = Environment(loader=self._loader, autoescape=True, undefined=StrictUndefined)

    def page(self, template: str, scripts: Sequence[str], styles: Sequence[str] = STYLES, **values: Any) -> str:
        """A page whose policy allows what is in it, by hashes, and nothing else.

        Args:
            template: uses `theme`, `script`, `style`, and in its policy `script_hashes` and `style_hash`.
            scripts: in their order; one scope holds all of them.
            styles: in their order.
            values: what else the template uses; escaped.
        """
        style = self._inlined(styles)
        theme = self._inlined(("theme.js",))
        script = f'"use strict";\n(() => {{\n{self._inlined(scripts)}\n}})();\n'
        return self._environment.get_template(template).render(
            style=Markup(style),
            theme=Markup(theme),
            script=Markup(script),
            style_hash=_digest(style),
            script_hashes=[_digest(theme), _digest(script)],
            **values,
        )

    def _inlined(self, names: Sequence[str]) -> str:
        """Files of the packages as one text; they are the project's own, so nothing in them is escaped."""
        return "\n".join(self._loader.get_source(self._environment, name)[0] for name in names)


def as_json(data: Any) -> Markup:
    """Data as JSON that cannot end the element it stands in."""
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(plain.translate(_UNSAFE))


def _digest(text: str) -> str:
    """What a page's security policy knows a script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
