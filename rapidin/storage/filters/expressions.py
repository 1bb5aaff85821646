"""Filter expressions ``FIELD OPERATOR VALUE``: how they are read, and what they mean for one value.

Operators: ``=`` (or ``==``), ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``~`` (a regular expression finds
something) and ``!~``. Spaces around the operator do not count. Field and value may stand in quotes, single or
double, with a backslash before a quote or backslash inside; a quoted value is text, never a number or null.

=================  ==========================================================================================
``=``              compares numbers if field and value both are numbers, else texts; the text of any other value
                   is its JSON (``true``, ``["a","b"]``); ``null`` also matches a missing field
``<`` and so on    compare numbers with numbers, else text with text, by code point
``~``              searches the text
``!=``, ``!~``     match exactly what ``=`` and ``~`` do not match, missing fields included
truth values       a field that holds only these can be compared with ``true`` and ``false`` only
missing, null      match none of ``<``, ``<=``, ``>``, ``>=`` and ``~``
=================  ==========================================================================================

`filter_sql` compiles them for SQL; this module knows nothing of a database.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rapidin.errors import FilterError
from rapidin.storage.filters.metadata import value_text

BUILT_IN_FIELDS = (
    *("id", "prompt", "response", "text", "file", "row", "tokens", "targets", "truncated"),
    "segment",
)
METADATA_PREFIX = "metadata."
BUILT_IN_PREFIX = "sample."
"""Prefixes that say which field is meant where a built-in one and one of the metadata have the same name."""

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""Comparisons by operator, for Python values and for SQL columns."""

_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_EXPRESSION = re.compile(
    rf"""\s*(?P<prefix>metadata\s*\.\s*(?=["']))?      # metadata."odd name"
         (?:(?P<quoted>{_QUOTED})|(?P<bare>[^=!<>~"'][^=!<>~]*?))
         \s*(?P<operator>==|!=|<=|>=|!~|=|<|>|~)
         \s*(?P<value>.*?)\s*""",
    re.DOTALL | re.VERBOSE,
)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_UNBOUNDED = re.compile(r"[*+?{(]")
_LONGEST_NUMBER = 300
"""Maximum number of characters of a number; a longer integer fits no float, and Python refuses very long ones."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter expression that was read.

    Attributes:
        field: name of a built-in field, or a metadata key.
        in_metadata: whether `field` is certainly a metadata key.
        operator: one of `COMPARISONS` or ``~``.
        negated: whether the expression means the rows that field, operator and value do not match.
        text: text of the value, without quotes.
        quoted: whether the value stood in quotes.
        certain: whether `field` is certainly a built-in one.
    """

    field: str
    in_metadata: bool
    operator: str
    negated: bool
    text: str
    quoted: bool
    certain: bool = False

    @property
    def number(self) -> int | float | None:
        """The value as a number, or None if it is not a number."""
        if self.quoted or len(self.text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(self.text):
            return None
        return int(self.text) if re.fullmatch(r"[+-]?[0-9]+", self.text) else float(self.text)

    @property
    def is_built_in(self) -> bool:
        """Whether the expression names a built-in field."""
        return not self.in_metadata and self.field in BUILT_IN_FIELDS

    def matches(self, value: Any) -> bool:
        """Tell whether the expression matches a sample whose field holds `value`, or None without a value."""
        return self._plainly_matches(value) != self.negated

    def _plainly_matches(self, value: Any) -> bool:
        if value is None:
            return self.operator == "=" and self.text == "null" and not self.quoted
        if self.operator == "~":
            return re.search(self.text, value_text(value)) is not None
        compare = COMPARISONS[self.operator]
        number = self.number
        if number is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
            return bool(compare(value, number))
        if isinstance(value, bool) and not self.quoted:
            return bool(compare(value_text(value), self.text.lower()))  # Python's users write True
        return bool(compare(value_text(value), self.text))


def parse(expression: str) -> Condition:
    """Read one filter expression.

    Raises:
        FilterError: the expression cannot be read, or what follows ``~`` is not a regular expression.
    """
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise FilterError(
            f"filter {expression!r} cannot be read: write FIELD OPERATOR VALUE, for example 'tokens > 100', "
            "with one of the operators = != < <= > >= ~ !~; quote a field that contains an operator"
        )
    symbol = "=" if match["operator"] == "==" else match["operator"]
    text, quoted = _unquoted_value(match["value"], expression)
    if symbol.endswith("~"):
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise FilterError(f"filter {expression!r}: {text!r} is not a regular expression: {error}") from error
    bare = match["bare"]
    in_metadata = match["prefix"] is not None
    field = _unquoted(match["quoted"]) if bare is None else bare
    if bare is not None and bare.startswith(METADATA_PREFIX):
        in_metadata, field = True, bare.removeprefix(METADATA_PREFIX)
    certain = bare is not None and bare.startswith(BUILT_IN_PREFIX)
    certain = certain and field.removeprefix(BUILT_IN_PREFIX) in BUILT_IN_FIELDS
    field = field.removeprefix(BUILT_IN_PREFIX) if certain else field
    negated = symbol.startswith("!")
    plain = {"!=": "=", "!~": "~"}.get(symbol, symbol)
    return Condition(field, in_metadata, plain, negated, text, quoted, certain)


def check_field(condition: Condition, metadata_fields: Sequence[str]) -> None:
    """Check that a condition names a field that exists, and one only.

    Raises:
        FilterError: there is no such field, and the message lists the existing ones; or there are two.
    """
    name = condition.field
    if condition.is_built_in and not condition.certain and name in metadata_fields:
        raise FilterError(
            f"filter on {name!r}: that is both a built-in field and one of the metadata; write "
            f"{METADATA_PREFIX}{name} for the metadata's, or {BUILT_IN_PREFIX}{name} for the built-in one"
        )
    if condition.certain and BUILT_IN_PREFIX + name in metadata_fields:
        raise FilterError(
            f"filter on {BUILT_IN_PREFIX + name!r}: the metadata has a field of this name; write "
            f'{METADATA_PREFIX}"{BUILT_IN_PREFIX}{name}" for it; the built-in {name!r} cannot be asked for'
        )
    if not condition.is_built_in and condition.field not in metadata_fields:
        known = ", ".join(BUILT_IN_FIELDS)
        of_metadata = ", ".join(sorted(metadata_fields)) or "none"
        raise FilterError(
            f"no sample has a field {condition.field!r}; the fields are {known}; "
            f"those of the metadata: {of_metadata}"
        )


def check_boolean(condition: Condition) -> None:
    """Check that a condition on a field of truth values compares with one, or it would silently match nothing.

    Raises:
        FilterError: the condition compares with something else, such as 1 or yes.
    """
    known = ("true", "false") if condition.is_built_in else ("true", "false", "null")
    if condition.operator != "~" and condition.text.lower() not in known:
        raise FilterError(
            f"filter on {condition.field!r}: its values are true or false, not {condition.text!r}; write, for "
            f"example, '{condition.field}=true'"
        )


def check_bounded(expression: str) -> None:
    """Check that a filter from an untrusted source cannot keep Python busy for ever.

    Only a regular expression with repetition or groups can do that. Python cannot interrupt one, and other threads
    do not run meanwhile.

    Raises:
        FilterError: the expression cannot be read, or its regular expression has repetition or groups.
    """
    condition = parse(expression)
    if condition.operator == "~" and _UNBOUNDED.search(condition.text):
        raise FilterError(
            f"filter {expression!r}: a regular expression with * + ? {{ or ( can take for ever, so this service "
            "does not take it unless it is started with --allow-regular-expressions"
        )


def _unquoted_value(value: str, expression: str) -> tuple[str, bool]:
    """Return the value's text, and whether it stood in quotes."""
    if value[:1] not in ("'", '"'):
        return value, False
    if not re.fullmatch(_QUOTED, value, re.DOTALL):
        raise FilterError(
            f"filter {expression!r}: the quotes of {value!r} do not match; "
            "put a backslash before a quote inside them"
        )
    return _unquoted(value), True


def _unquoted(quoted: str) -> str:
    r"""Return the text between quotes; ``\`` is an escape only before that quote or another ``\``."""
    quote = quoted[0]
    return re.sub(rf"\\([{quote}\\])", r"\1", quoted[1:-1])
