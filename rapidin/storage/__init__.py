"""Stores of samples and their vectors: the only home of FAISS and SQLAlchemy.

The package knows nothing of models, text, ingest or search. Each part imports only from those above it:

store_files    names of a store's files, and errors of the operating system as the project's own
filters        expressions such as ``topic=odd``, without SQL
concurrency    locks of the writer and of readers
vectors        codecs and segments, immutable files of coded vectors
catalog        everything that SQLite holds: samples, metadata, segments, derived data
scan           exact search
derived        data made from the samples and kept beside them, such as indexes
maintenance    inventory, verification, garbage, compaction
vector_source  the questions of a search, which a snapshot or other machines answer
store          `Store`, with its `Snapshot` for reading and its `StoreWriter`
transfer       export, import and recoding of whole stores
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
