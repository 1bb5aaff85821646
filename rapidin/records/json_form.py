"""Records as the plain dictionaries that ``--json`` prints and the service answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter


def to_json(record: Any) -> Any:
    """Turn records, and tuples and mappings of them, into what ``json.dumps`` takes.

    Fields of type `WhereComputed` are left out if they are empty. JSON has neither NaN nor infinity, so None
    stands for them.
    """
    if is_dataclass(record) and not isinstance(record, type):
        return to_json(_adapter(type(record)).dump_python(record, mode="json"))
    if isinstance(record, float):
        return record if math.isfinite(record) else None
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_json(item) for item in record]
    return record


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
