"""Formats: migrations make what the models say, older stores are migrated, newer ones refused."""

from __future__ import annotations

import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, update

from rapidin.errors import StoreError, StoreFormatError, StoreLockedError
from rapidin.storage import Store
from rapidin.storage.catalog import database, schema
from rapidin.storage.catalog.schema import Base, SettingsRow
from tests.storage.stores import numbered, plain, run_python

NEXT_FORMAT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "{number}", "{last}"
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


def test_indexes_are_exactly_those_of_the_models(store: Store) -> None:
    """Columns, conditions and all, and that metadata lies in a table without row numbers."""
    wanted = create_engine("sqlite://")
    Base.metadata.create_all(wanted)
    statement = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
    with store._database.reading() as session, wanted.connect() as connection:
        made = session.connection().exec_driver_sql(statement).all()
        assert made == connection.exec_driver_sql(statement).all()
        of_metadata = "SELECT sql FROM sqlite_master WHERE name = 'sample_metadata'"
        assert session.connection().exec_driver_sql(of_metadata).scalar().strip().endswith("WITHOUT ROWID")


def test_every_format_has_its_migration(store: Store) -> None:
    head = ScriptDirectory(str(database.MIGRATIONS)).get_current_head()
    assert head == f"{schema.FORMAT_VERSION:04}"
    assert store.format_version == store.info().format_version == schema.FORMAT_VERSION


def test_a_newer_format_is_refused(filled: Store) -> None:
    with filled._database.writing() as session:
        session.execute(update(SettingsRow).values(format_version=7))
    with pytest.raises(StoreFormatError, match=rf"format 7.*up to {schema.FORMAT_VERSION}.*upgrade rapidin"):
        Store.open(filled.path)


@pytest.fixture
def newer(monkeypatch, tmp_path):
    """A rapidin whose format is one higher; gives a function that writes its migration."""
    last = schema.FORMAT_VERSION
    folder = tmp_path / "100% migrations"
    shutil.copytree(database.MIGRATIONS, folder)
    monkeypatch.setattr(database, "MIGRATIONS", folder)
    monkeypatch.setattr(schema, "FORMAT_VERSION", last + 1)

    def write(more: str = "pass") -> None:
        script = NEXT_FORMAT.format(number=f"{last + 1:04}", last=f"{last:04}", more=more)
        (folder / "versions" / f"{last + 1:04}_extras.py").write_text(script)

    return write


def test_an_older_format_is_migrated(filled: Store, newer, caplog, capfd) -> None:
    newer()
    caplog.set_level(logging.INFO)
    with Store.open(filled.path) as store:
        assert store.format_version == schema.FORMAT_VERSION
        assert [plain(s) for s in store.list()] == [plain(s) for s in numbered(0, 20)]
        with store._database.reading() as session:
            assert "extras" in inspect(session.connection()).get_table_names()
        assert store.verify().ok
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_migration_waits_for_a_writer_but_not_for_ever(filled: Store, newer, monkeypatch) -> None:
    newer()
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    started = time.monotonic()
    with filled.writer(), pytest.raises(StoreLockedError, match="process"):
        Store.open(filled.path)
    assert time.monotonic() - started >= 0.2
    with Store.open(filled.path) as store:
        assert store.format_version == schema.FORMAT_VERSION


def test_a_failed_migration_leaves_the_old_format(filled: Store, newer, monkeypatch) -> None:
    newer("op.execute('UPDATE samples SET tokens = 1'); op.execute('nonsense')")
    with pytest.raises(StoreError, match="nonsense"):
        Store.open(filled.path)
    monkeypatch.undo()
    with Store.open(filled.path) as store:
        assert store.format_version == schema.FORMAT_VERSION
        assert store.verify().ok
        with store._database.reading() as session:
            assert "extras" not in inspect(session.connection()).get_table_names()


OPENED_AT_ONCE = """
import sys, time
from pathlib import Path
from rapidin.storage import Store
from rapidin.storage.catalog import database, schema
number, path = sys.argv[1], Path(sys.argv[2])
database.MIGRATIONS, schema.FORMAT_VERSION = Path(sys.argv[3]), int(sys.argv[4])
migrate = database.migrate
def migrate_slowly(*arguments):
    time.sleep(1)
    migrate(*arguments)
    (path.parent / f"migrated-{number}").touch()
database.migrate = migrate_slowly
(path.parent / f"ready-{number}").touch()
while len(list(path.parent.glob("ready-*"))) < 4:
    time.sleep(0.01)
with Store.open(path) as store:
    print(store.format_version, store.count(["rank >= 0"]))
"""


def test_several_processes_open_an_older_store_at_once(filled: Store, newer, tmp_path: Path) -> None:
    """One migrates, the others wait for it: all meet before they open, and the migration takes a second."""
    newer()
    arguments = (filled.path, database.MIGRATIONS, schema.FORMAT_VERSION)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda i: run_python(OPENED_AT_ONCE, i, *arguments), range(4)))
    assert [(of.stdout, of.stderr) for of in done] == [(f"{schema.FORMAT_VERSION} 20\n", "")] * 4
    assert len(list(tmp_path.glob("migrated-*"))) == 1
