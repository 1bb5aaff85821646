"""What SQLite does for a statement: narrow indexes are read, the wide rows of samples are not."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from rapidin.storage import Store
from rapidin.storage.catalog import metadata_sql, tables

NARROW = "COVERING INDEX ix_samples_live"


@pytest.fixture
def plans(filled: Store):
    """Gives a function that tells how SQLite works on the statements of an action."""

    def plans_of(action) -> list[str]:
        statements = []

        def note(connection, cursor, statement, parameters, *rest) -> None:
            statements.append((statement, parameters))

        action()  # what it reads is compared with its digests once
        engine = filled._database._engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            action()
        finally:
            event.remove(engine, "before_cursor_execute", note)
        with filled._database.reading() as session:
            connection = session.connection()
            return [
                row[3]
                for statement, parameters in statements
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]

    return plans_of


def on_samples(plan: list[str]) -> list[str]:
    """The steps that read samples, under whatever name, but that which finds the largest key."""
    return [
        step for step in plan if step.startswith(("SCAN samples", "SEARCH samples")) and step != "SEARCH samples"
    ]


FILTERS = [
    [],
    ["tokens > 15"],
    ["targets = 5"],
    ["row != 3"],
    ["tokens ~ 1"],
    ["file = data.jsonl"],
    ["file ~ d.ta"],
    ["file !~ data"],
    ["truncated = false"],
    ["segment ~ faiss"],
    ["segment != x"],
    ["id = s003"],
    ["id ~ 00"],
    ["tokens > 15", "id != s017", "segment ~ ."],
]
METADATA_FILTERS = [
    ["topic = even"],
    ["topic != even"],
    ["topic = null"],
    ["topic ~ ^e.*n"],
    ["rank > 5"],
    ["rank = 5", "topic ~ odd", "tokens > 3"],
    ['rank != "5"'],
]


@pytest.mark.parametrize("where", [*FILTERS, *METADATA_FILTERS])
@pytest.mark.parametrize("few", [0.0, 1.0])
def test_filters_do_not_read_wide_rows(filled: Store, plans, monkeypatch, where, few: float) -> None:
    monkeypatch.setattr(metadata_sql, "_FEW", few)
    # Whatever can be in no index is looked up in the few rows that hold such.
    monkeypatch.setattr(metadata_sql, "_unindexed", lambda plain: [])
    with filled.snapshot() as snapshot:
        for action in (
            lambda: filled.count(where),
            lambda: filled.list(where, limit=0),
            lambda: snapshot._selected(where),
        ):
            steps = on_samples(plans(action))
            assert all("COVERING INDEX ix_samples_live" in step for step in steps)


@pytest.mark.parametrize("where", METADATA_FILTERS)
def test_metadata_is_searched_by_value(filled: Store, plans, monkeypatch, where) -> None:
    monkeypatch.setattr(metadata_sql, "_FEW", 1.0)
    plan = plans(lambda: filled.count(where))
    steps = [step for step in plan if "sample_metadata" in step]
    assert steps and all(step.startswith("SEARCH") for step in steps)
    assert any("COVERING INDEX ix_sample_metadata_value (field_id=? AND kind=?" in step for step in steps)


def test_equality_starts_from_the_matches(filled: Store, plans) -> None:
    for where in (["rank = 5"], ["id = s003"]):
        plan = plans(lambda where=where: filled.count(where))
        assert f"SEARCH samples USING {NARROW} (key=?)" in plan
        assert not any(step.startswith("SCAN samples") for step in plan)


def test_keys_come_in_order_without_sorting(filled: Store, plans) -> None:
    plan = plans(lambda: filled.list(limit=0, offset=3))
    assert on_samples(plan) == [f"SCAN samples USING {NARROW}"]
    assert not any("TEMP B-TREE" in step for step in plan)


def test_places_come_from_the_index_in_order(filled: Store, plans) -> None:
    with filled._database.reading() as session:
        plan = plans(lambda: tables.searchable_rows(session))
    assert plan[0] == "SCAN samples USING COVERING INDEX ix_samples_live_search"
    assert all(step.startswith("SEARCH digests USING") for step in plan[1:])


def test_large_stores_are_looked_at_one_by_one_only_for_common_values(filled: Store, plans) -> None:
    common, rare = (plans(lambda c=c: filled.count([c])) for c in ("rank >= 0", "rank > 17"))
    assert any("CORRELATED" in step for step in common)
    assert not any("CORRELATED" in step for step in rare)
