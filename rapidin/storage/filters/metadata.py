"""Metadata as JSON text: one form is stored, another tells whether the metadata changed.

Values that tables have and JSON lacks are converted: NaN, which stands for a missing value, becomes null; dates
and times become ISO 8601 text; a decimal becomes text. Other values are refused, with the name of the field.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from rapidin.errors import StoreError


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return the JSON text of `metadata`, with fields in their order, compact and without escaped letters.

    Raises:
        StoreError: a value has no form in JSON; the message names the field.
    """
    plain = {}
    for name, value in metadata.items():
        if not isinstance(name, str):
            raise StoreError(f"metadata field {name!r}: its name is not text; give every field a text name")
        plain[name] = value
    for name, value in plain.items():
        try:
            plain[name] = _plain(value)
            _dump({name: plain[name]}).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise StoreError(
                f"metadata field {name!r} cannot be stored: {error}; change or leave out the field"
            ) from error
    return _dump(plain)


def metadata_hash(metadata: Mapping[str, Any]) -> str:
    """Return a digest of `metadata` that does not depend on the order of its fields.

    Returns:
        The first 32 hexadecimal digits of the SHA-256 of its canonical JSON.

    Raises:
        StoreError: a value has no form in JSON; the message names the field.
    """
    canonical = json.dumps(json.loads(metadata_text(metadata)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def value_text(value: Any) -> str:
    """Return the text of a metadata value: a text itself, or the stored JSON of any other value."""
    return value if isinstance(value, str) else _dump(value)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    """Convert everything in `value` that JSON lacks."""
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("JSON has no infinite numbers")
        return None if math.isnan(value) else float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("it holds an object with a name that is not text")
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
