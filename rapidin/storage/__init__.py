"""Where samples and their vectors are kept: the only home of FAISS and SQLAlchemy.

Outside, only the names below are used. The package knows nothing of models, text, ingest or search.

importing, recoding → store → creation, compaction, exporting → writer, snapshot, verify → tables, segments, scan →
database, schema
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
