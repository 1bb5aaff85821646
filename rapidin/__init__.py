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
    from rapidin.records.as_json import to_json
    from rapidin.records.maintenance_reports import CompactReport, ExportReport, ImportReport, RecodeReport
    from rapidin.records.progress import IngestListener, Preflight
    from rapidin.records.results import Hit, Query, SearchResult, TokenInfluence, TokenResult
    from rapidin.records.stored import (
        IndexInfo,
        IndexReport,
        IngestReport,
        RowFailure,
        Sample,
        SegmentInfo,
        StoreInfo,
        VerifyReport,
    )
    from rapidin.search import Searcher
    from rapidin.storage import Store, export_vectors, import_vectors, recode

_HOMES = {
    "RapidinError": "rapidin.errors",
    "IngestListener": "rapidin.records.progress",
    "Preflight": "rapidin.records.progress",
    "ingest_files": "rapidin.ingest",
    "CompactReport": "rapidin.records.maintenance_reports",
    "ExportReport": "rapidin.records.maintenance_reports",
    "Hit": "rapidin.records.results",
    "ImportReport": "rapidin.records.maintenance_reports",
    "IndexInfo": "rapidin.records.stored",
    "IndexReport": "rapidin.records.stored",
    "IngestReport": "rapidin.records.stored",
    "Query": "rapidin.records.results",
    "RecodeReport": "rapidin.records.maintenance_reports",
    "RowFailure": "rapidin.records.stored",
    "Sample": "rapidin.records.stored",
    "SearchResult": "rapidin.records.results",
    "SegmentInfo": "rapidin.records.stored",
    "StoreInfo": "rapidin.records.stored",
    "TokenInfluence": "rapidin.records.results",
    "TokenResult": "rapidin.records.results",
    "VerifyReport": "rapidin.records.stored",
    "to_json": "rapidin.records.as_json",
    "Searcher": "rapidin.search",
    "Store": "rapidin.storage",
    "export_vectors": "rapidin.storage",
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
    "export_vectors",
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
