"""From data files to RapidGrads in a store: incremental, resumable, all of a batch or nothing."""

from rapidin.ingest.run import ingest_files

__all__ = ["ingest_files"]
