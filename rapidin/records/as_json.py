"""Records as the plain dictionaries that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rapidin.records.results import Hit, SearchResult
from rapidin.records.stored import Sample, VerifyReport


def to_json(record: Any) -> Any:
    """Turn records, and tuples and mappings of them, into what ``json.dumps`` takes.

    A hit is flattened: rank and scores beside the sample's own fields and its text; what was not computed is left
    out. `tokens` are those of `results.Hit` there, and their number is `token_count`.
    """
    if isinstance(record, Hit):
        plain = {"rank": record.rank, "score": record.score}
        if record.exact_score is not None:
            plain["exact_score"] = record.exact_score
        plain |= to_json(record.sample)
        plain["token_count"] = plain.pop("tokens")
        return plain | _computed(record, "tokens", "words", "matrix")
    if isinstance(record, SearchResult):
        plain = {name: to_json(getattr(record, name)) for name in ("query", "proponents", "opponents", "index")}
        return plain | _computed(record, "by_token", "generation_tokens", "explained")
    if isinstance(record, Sample):
        plain = {name.name: to_json(getattr(record, name.name)) for name in fields(record)}
        if not record.target_spans:
            del plain["target_spans"]
        return {"id": plain.pop("id"), "text": record.text, **plain}
    if isinstance(record, VerifyReport):
        return {"ok": record.ok, "samples": record.samples, "problems": list(record.problems)}
    if hasattr(record, "__dataclass_fields__"):
        return {name.name: to_json(getattr(record, name.name)) for name in fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_json(item) for item in record]
    return record


def _computed(record: Any, *names: str) -> dict[str, Any]:
    """Those of a record's fields that have anything in them."""
    return {name: to_json(getattr(record, name)) for name in names if getattr(record, name)}
