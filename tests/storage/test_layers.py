"""Storage is built in layers: each part of it imports only from itself and from the parts before it."""

from __future__ import annotations

import ast
from pathlib import Path

import rapidin.storage

ROOT = Path(rapidin.storage.__file__).parent
LAYERS = [
    ("store_files",),
    ("filters",),
    ("concurrency",),
    ("vectors",),
    ("catalog",),
    ("scan",),
    ("derived",),
    ("maintenance",),
    ("vector_source",),
    ("store_state",),
    ("snapshot", "store_writer", "creation"),
    ("store",),
    ("transfer",),
]


def layer_of(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_imports_go_one_way() -> None:
    """At any depth, so that a late import does not hide a circle."""
    wrong = []
    for file in sorted(ROOT.rglob("*.py")):
        home = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if home == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rapidin.storage"):
                parts = (node.module or "").split(".")[2:] or [alias.name for alias in node.names]
                if parts[0] != home and layer_of(parts[0]) >= layer_of(home):
                    wrong.append(f"{file.relative_to(ROOT)} imports {node.module}")
    assert wrong == []


def test_the_door_tells_the_layers() -> None:
    """In the same order, in a list in the docstring."""
    told = [line.split()[0] for line in (rapidin.storage.__doc__ or "").splitlines() if "  " in line.strip()]
    assert [name for names in LAYERS for name in names if name in told] == told
