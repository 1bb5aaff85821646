"""Where samples and their vectors are kept: the only home of FAISS and SQLAlchemy.

Outside, only the names below are used, and `importing.import_vectors` and `recoding.recode`. The package knows
nothing of models, text, ingest or search.

importing, recoding → store → creation, compaction, exporting → writer, snapshot, verify → tables, segments, scan →
database, schema
"""

from rapidin.storage.metadata import metadata_hash
from rapidin.storage.samples import NewSample, ScoredSample
from rapidin.storage.snapshot import Snapshot
from rapidin.storage.store import Store
from rapidin.storage.writer import StoreWriter

__all__ = ["NewSample", "ScoredSample", "Snapshot", "Store", "StoreWriter", "metadata_hash"]
