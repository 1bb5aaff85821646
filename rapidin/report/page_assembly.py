"""Assembly of pages: a template, styles and scripts become one text that loads nothing.

Reports and the page of `rapidin.service` show results with the parts in this package.
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
"""Styles of every page that shows results."""
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
"""Scripts of every page that shows results; a script of the page follows them and calls `showQuery`."""
# Characters that would end a script element early, or a line of JavaScript in old readers of JSON.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


class PageParts:
    """Templates, styles and scripts in the directories ``parts`` of some packages.

    Args:
        packages: packages besides this one; a file of an earlier package replaces a later one's of equal name.
    """

    def __init__(self, *packages: str) -> None:
        self._loader = ChoiceLoader([PackageLoader(package, "parts") for package in (*packages, "rapidin.report")])
        self._environment = Environment(loader=self._loader, autoescape=True, undefined=StrictUndefined)

    def page(self, template: str, scripts: Sequence[str], styles: Sequence[str] = STYLES, **values: Any) -> str:
        """Make a page whose security policy allows, by hashes, the scripts and styles in it, and nothing else.

        Args:
            template: name of a template that uses `theme`, `script` and `style`, and `script_hashes` and
                `style_hash` in its policy.
            scripts: names of the scripts in order; one scope holds all of them.
            styles: names of the styles in order.
            values: other values that the template uses; they are escaped.
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
        """Join files of the packages; nothing in them is escaped, because they are the project's own."""
        return "\n".join(self._loader.get_source(self._environment, name)[0] for name in names)


def as_json(data: Any) -> Markup:
    """Write data as JSON that cannot end the HTML element in which it stands."""
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(plain.translate(_UNSAFE))


def _digest(text: str) -> str:
    """Compute the hash by which a page's security policy names a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
