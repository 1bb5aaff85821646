from .run import (
    ingest_files as ingest_files,
)
