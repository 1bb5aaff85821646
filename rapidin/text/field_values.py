"""Values of metadata fields as JSON values, and words for values of a wrong kind."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

_whole = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_decimal = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def typed_cell(cell: str) -> Any:
    """Read a CSV cell as a number or truth value if it is plainly one; 007, +1 and .5 stay text."""
    if _whole.fullmatch(cell):
        return int(cell)
    if _decimal.fullmatch(cell) and math.isfinite(float(cell)):
        return float(cell)
    return {"true": True, "false": False}.get(cell.lower(), cell)


def plain_value(value: Any) -> Any:
    """Convert a value to a JSON value: a date to ISO 8601, bytes to text or base64, NaN to null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(value).decode("ascii")
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def kind_of(value: Any) -> str:
    """Say in words what kind of value this is, for an error message."""
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        ((list, tuple), "a list"),
        (Mapping, "an object"),
        ((datetime, date, time), "a date or time"),
        ((bytes, bytearray), "binary data"),
        (type(None), "missing"),
    )
    if isinstance(value, str) and not value.strip():
        return "empty"
    return next((name for kind, name in names if isinstance(value, kind)), f"a {type(value).__name__}")
