"""One small store and its searcher for every integration."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import rapidin
from tests import worlds


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    directory = tmp_path_factory.mktemp("integrations")
    rows = worlds.rows(30)
    rows[0] = {**rows[0], "score": "of the row"}  # a field with the name of one of ours
    data = worlds.write_rows(directory / "data.jsonl", rows)
    rapidin.ingest_files(
        directory / "store", [data], model=str(model_directory), projection_dim=1024, curvature=False
    )
    return directory / "store"


@pytest.fixture(scope="session")
def searcher(store: Path) -> Iterator[rapidin.Searcher]:
    with rapidin.Searcher(store) as opened:
        yield opened
