"""Where samples and their vectors are kept: the only home of FAISS and SQLAlchemy.

Outside, only the names below are used. The package knows nothing of models, text, ingest or search.

importing, recoding → store → creation, compaction, exporting → writer, snapshot, verify → tables, segments, scan →
database, schema
"""

from rapidin.storage.gpu import GpuSearch
from rapidin.storage.importing import import_vectors
from rapidin.storage.metadata import metadata_hash
from rapidin.storage.recoding import recode
from rapidin.storage.samples import NewSample, ScoredSample
from rapidin.storage.sliced import settle_torch
from rapidin.storage.snapshot import Snapshot
from rapidin.storage.store import Store
from rapidin.storage.writer import StoreWriter

__all__ = [
    "GpuSearch",
    "NewSample",
    "ScoredSample",
    "Snapshot",
    "Store",
    "StoreWriter",
    "import_vectors",
    "metadata_hash",
    "recode",
    "settle_torch",
]
