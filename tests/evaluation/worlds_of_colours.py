"""A small store in which rows about blue are to be found, and queries about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rapidin
from tests import worlds

LABEL = "source=blue"
QUERIES: list[dict[str, Any]] = [
    {
        "id": "a",
        "instruction": "Name the colour number 3.",
        "output": "It is blue 12",
        "source": "blue",
        "span": "blue",
    },
    {"id": "b", "instruction": "Name the colour.", "output": "It is blue indeed", "span": ["blue", "indeed"]},
    {"id": "c", "instruction": "Name it.", "output": "It is red", "source": "red", "span": "red"},
    {
        "id": "d",
        "instruction": "Name a colour. Please.",
        "output": "blue, it is blue",
        "source": "blue",
        "span": "blue",
    },
]


def make(directory: Path, model: Path) -> tuple[Path, Path]:
    """A store of 60 rows, 12 of them about blue, and a file of queries."""
    data = worlds.write_rows(directory / "data.jsonl", worlds.rows(60))
    rapidin.ingest_files(directory / "store", [data], model=str(model), projection_dim=16384, curvature=False)
    return directory / "store", worlds.write_rows(directory / "queries.jsonl", QUERIES)
