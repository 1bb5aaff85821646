"""Formats: migrations make what the models say, older stores are migrated, newer ones refused."""

from __future__ import annotations

import logging
import shutil

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, update

from rapidin.errors import StoreError, StoreFormatError, StoreLockedError
from rapidin.storage import Store, database, schema
from rapidin.storage.schema import Base, SettingsRow
from tests.storage.stores import numbered, plain

THIRD_FORMAT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade():
    op.create_table("extras", sa.Column("name", sa.Text()))
    {more}
"""


def test_migrations_make_exactly_the_models(store: Store) -> None:
    with store._database.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        found = inspect(session.connection())
        live = next(i for i in found.get_indexes("samples") if i["name"] == "ix_samples_live_id")
        assert live["unique"] and str(live["dialect_options"]["sqlite_where"]) == "deleted_at IS NULL"
        for table in Base.metadata.sorted_tables:
            made = {constraint["name"] for constraint in found.get_check_constraints(table.name)}
            made |= {constraint["name"] for constraint in found.get_unique_constraints(table.name)}
            made |= {constraint["name"] for constraint in found.get_foreign_keys(table.name)}
            made |= {found.get_pk_constraint(table.name)["name"]}
            assert made == {constraint.name for constraint in table.constraints}


def test_every_format_has_its_migration(store: Store) -> None:
    head = ScriptDirectory(str(database.MIGRATIONS)).get_current_head()
    assert head == f"{schema.FORMAT_VERSION:04}"
    assert store.format_version == store.info().format_version == schema.FORMAT_VERSION


def test_a_newer_format_is_refused(filled: Store) -> None:
    with filled._database.writing() as session:
        session.execute(update(SettingsRow).values(format_version=7))
    with pytest.raises(StoreFormatError, match=r"format 7.*up to 2.*upgrade rapidin"):
        Store.open(filled.path)


@pytest.fixture
def newer(monkeypatch, tmp_path):
    """A rapidin whose format is 3; gives a function that writes its migration."""
    folder = tmp_path / "100% migrations"
    shutil.copytree(database.MIGRATIONS, folder)
    monkeypatch.setattr(database, "MIGRATIONS", folder)
    monkeypatch.setattr(schema, "FORMAT_VERSION", 3)

    def write(more: str = "pass") -> None:
        (folder / "versions" / "0003_extras.py").write_text(THIRD_FORMAT.format(more=more))

    return write


def test_an_older_format_is_migrated(filled: Store, newer, caplog, capfd) -> None:
    newer()
    caplog.set_level(logging.INFO)
    with Store.open(filled.path) as store:
        assert store.format_version == 3
        assert [plain(s) for s in store.list()] == [plain(s) for s in numbered(0, 20)]
        with store._database.reading() as session:
            assert "extras" in inspect(session.connection()).get_table_names()
        assert store.verify().ok
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_migration_waits_for_no_writer(filled: Store, newer) -> None:
    newer()
    with filled.writer(), pytest.raises(StoreLockedError, match="process"):
        Store.open(filled.path)
    with Store.open(filled.path) as store:
        assert store.format_version == 3


def test_a_failed_migration_leaves_the_old_format(filled: Store, newer, monkeypatch) -> None:
    newer("op.execute('UPDATE samples SET tokens = 1'); op.execute('nonsense')")
    with pytest.raises(StoreError, match="nonsense"):
        Store.open(filled.path)
    monkeypatch.undo()
    with Store.open(filled.path) as store:
        assert store.format_version == 2
        assert store.verify().ok
        with store._database.reading() as session:
            assert "extras" not in inspect(session.connection()).get_table_names()
