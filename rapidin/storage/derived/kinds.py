"""All kinds of derived data that this rapidin knows. A store may hold others, which rapidin leaves alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rapidin.errors import SettingError
from rapidin.storage.derived.curvature import CURVATURE
from rapidin.storage.derived.derived_kind import DerivedKind
from rapidin.storage.derived.indexes import IndexKind, IvfKind, RabitqKind, is_index

_INDEXES: tuple[IndexKind, ...] = (IvfKind(), RabitqKind())
"""Kinds that searches can use, in the order in which messages name them; a new one is added here."""

_OTHERS: tuple[DerivedKind, ...] = (CURVATURE,)
"""Kinds that searches cannot use; a new one is added here."""

KINDS: dict[str, DerivedKind] = {kind.name: kind for kind in (*_INDEXES, *_OTHERS)}
"""All kinds by name."""


def kind_named(name: str) -> DerivedKind:
    """Return the kind of derived data with a name.

    Raises:
        SettingError: no kind has the name.
    """
    if name not in KINDS:
        raise SettingError(f"derived data {name!r} is unknown: choose from {', '.join(KINDS)}")
    return KINDS[name]


def index_kinds() -> dict[str, IndexKind]:
    """Return the kinds that searches can use, by name."""
    return {name: kind for name, kind in KINDS.items() if is_index(kind)}


def folders() -> dict[str, frozenset[str]]:
    """Return the folders of the store's directory that hold derived data, with the endings of its files."""
    found: dict[str, frozenset[str]] = {}
    for kind in KINDS.values():
        found[kind.folder] = found.get(kind.folder, frozenset()) | kind.suffixes
    return found


def unknown(store: Path, name: str) -> str:
    """Return the message about data of a kind that this rapidin does not know."""
    return f"{store}/store.db: {_title(name)} is unknown here and was left alone; upgrade rapidin"


def uncovered_notes(uncovered: Mapping[str, int], store: Path) -> tuple[str, ...]:
    """Return sentences that say how to extend derived data which no longer covers some samples.

    Args:
        uncovered: number of samples by name of the kind.
        store: directory of the store.
    """
    notes = []
    for name, count in uncovered.items():
        kind = KINDS.get(name)
        remedy = "upgrade rapidin to extend it" if kind is None else f"extend it with '{kind.command(store)}'"
        notes.append(f"{_title(name)} no longer covers {count:,} samples: {remedy}")
    return tuple(notes)


def left_out(names: Iterable[str], target: Path) -> tuple[str, ...]:
    """Return notes that say that the export or copy at `target` does not contain derived data of these kinds."""
    return tuple(
        KINDS[name].left_behind(target) if name in KINDS else f"{_title(name)} is not in {target}"
        for name in names
    )


def _title(name: str) -> str:
    """Return the title of a kind in messages, also of a kind that this rapidin does not know."""
    return KINDS[name].title if name in KINDS else f"derived data {name!r}"
