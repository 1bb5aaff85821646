"""rapidin: which training samples made my language model say this?

>>> import rapidin
>>> rapidin.ingest_files("store", ["train.jsonl"], model="my-fine-tuned-model")
>>> with rapidin.Searcher("store") as searcher:
...     result = searcher.search("Who won the match?")
>>> for hit in result.proponents:
...     print(hit.score, hit.sample.id, hit.sample.response)

The names below are loaded when they are first used, so that importing rapidin costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapidin.errors import RapidinError
    from rapidin.ingest import ingest_files
    from rapidin.plain import to_json
    from rapidin.progress import IngestListener, Preflight
    from rapidin.records import (
        IndexInfo,
        IndexReport,
        IngestReport,
        RowFailure,
        Sample,
        SegmentInfo,
        StoreInfo,
        VerifyReport,
    )
    from rapidin.reports import CompactReport, ExportReport, ImportReport, RecodeReport
    from rapidin.results import Hit, Query, SearchResult, TokenInfluence, TokenResult
    from rapidin.search import Searcher
    from rapidin.storage import Store, import_vectors, recode

_HOMES = {
    "RapidinError": "rapidin.errors",
    "IngestListener": "rapidin.progress",
    "Preflight": "rapidin.progress",
    "ingest_files": "rapidin.ingest",
    "CompactReport": "rapidin.reports",
    "ExportReport": "rapidin.reports",
    "Hit": "rapidin.results",
    "ImportReport": "rapidin.reports",
    "IndexInfo": "rapidin.records",
    "IndexReport": "rapidin.records",
    "IngestReport": "rapidin.records",
    "Query": "rapidin.results",
    "RecodeReport": "rapidin.reports",
    "RowFailure": "rapidin.records",
    "Sample": "rapidin.records",
    "SearchResult": "rapidin.results",
    "SegmentInfo": "rapidin.records",
    "StoreInfo": "rapidin.records",
    "TokenInfluence": "rapidin.results",
    "TokenResult": "rapidin.results",
    "VerifyReport": "rapidin.records",
    "to_json": "rapidin.plain",
    "Searcher": "rapidin.search",
    "Store": "rapidin.storage",
    "import_vectors": "rapidin.storage",
    "recode": "rapidin.storage",
}

__version__ = "0.1.0"

__all__ = [
    "CompactReport",
    "ExportReport",
    "Hit",
    "ImportReport",
    "IndexInfo",
    "IndexReport",
    "IngestListener",
    "IngestReport",
    "Preflight",
    "Query",
    "RapidinError",
    "RecodeReport",
    "RowFailure",
    "Sample",
    "SearchResult",
    "Searcher",
    "SegmentInfo",
    "Store",
    "StoreInfo",
    "TokenInfluence",
    "TokenResult",
    "VerifyReport",
    "__version__",
    "import_vectors",
    "ingest_files",
    "recode",
    "to_json",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rapidin' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
