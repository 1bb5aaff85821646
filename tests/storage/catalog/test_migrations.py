"""Formats: migrations make what the models say, older stores are migrated, newer ones refused."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, update

from rapidin.errors import StoreCorruptError, StoreError, StoreFormatError, StoreLockedError
from rapidin.storage import Store
from rapidin.storage.catalog import database, schema
from rapidin.storage.catalog.database import Database
from rapidin.storage.catalog.sample_rows import sample_values, text_checksum, values_checksum
from rapidin.storage.catalog.schema import Base, SettingsRow
from tests.storage.stores import new_sample, numbered, plain, run_python, store_settings

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


ODD = {"a": -0.0, "b": 2**63, "c": True, "d": "x" * 999, "e": [1, None], "f": None, "g": 5, "h": 5.0, "i": "\0é"}


def first_format(path: Path, samples: list, dead: int = 0) -> None:
    """A store of format 1 by its own migration and plain SQL; the first `dead` samples are marked as deleted."""
    path.mkdir()
    (path / "segments").mkdir()
    made = Database(path / "store.db", create=True)
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    with made.writing() as session:
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "0001")
    made.close()
    settings = store_settings().model_dump_json()
    with closing(sqlite3.connect(path / "store.db")) as connection, connection:
        connection.execute(
            "INSERT INTO settings VALUES (1, 1, '2026-01-01T00:00:00+00:00', ?, ?)",
            (settings, text_checksum(settings)),
        )
        connection.execute("INSERT INTO segments VALUES (1, 'gone.faiss', ?, 1, 'x', 'fp16')", (len(samples),))
        names = {(name,) for sample in samples for name in sample.metadata}
        connection.executemany("INSERT INTO metadata_fields VALUES (?)", sorted(names))
        for position, sample in enumerate(samples):
            values = sample_values(sample) | {"segment_id": 1, "position": position, "scale": 0.5}
            assert "target_spans" in values and values["target_spans"] is None
            values |= {"checksum": values_checksum(values), "deleted_at": "now" if position < dead else None}
            values["metadata"] = values.pop("metadata_json")
            del values["target_spans"]
            places = ", ".join("?" * len(values))
            connection.execute(
                f"INSERT INTO samples ({', '.join(values)}) VALUES ({places})", tuple(values.values())
            )


def filed(path: Path) -> list[tuple]:
    """What filters see of live samples."""
    with closing(sqlite3.connect(path / "store.db")) as connection:
        return connection.execute(
            "SELECT sample_id, name, kind, number, typeof(number), text FROM sample_metadata "
            "JOIN samples ON key = sample_key JOIN metadata_fields ON id = field_id "
            "WHERE deleted_at IS NULL ORDER BY sample_id, name"
        ).fetchall()


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_first_format_is_migrated(tmp_path: Path, store: Store, monkeypatch, at_once: int) -> None:
    """It then is what an ingest of the same samples makes."""
    scripts = ScriptDirectory(str(database.MIGRATIONS))
    text = Path(scripts.get_revision("0002").path).read_text()
    folder = tmp_path / "migrations"
    shutil.copytree(database.MIGRATIONS, folder)
    script = next((folder / "versions").glob("0002*.py"))
    script.write_text(text.replace("_SAMPLES_AT_ONCE = 1000", f"_SAMPLES_AT_ONCE = {at_once}"))
    path = tmp_path / "old"
    samples = [*numbered(0, 20), new_sample("odd", metadata=ODD), new_sample("none", metadata={})]
    first_format(path, samples, dead=3)
    monkeypatch.setattr(database, "MIGRATIONS", folder)
    with Store.open(path) as old, store.writer() as writer:
        assert old.format_version == schema.FORMAT_VERSION
        live = samples[3:]
        writer.commit(live, np.ones((len(live), 64), np.float32))
        assert filed(path) == filed(store.path)
        assert [plain(s) for s in old.list()] == [plain(s) for s in live]
        assert old.count(["rank > 10"]) == 9 and old.count(["a = 0", 'h = "5.0"', "b > 5"]) == 1
        assert old.info().metadata_fields == tuple(sorted({*ODD, "topic", "rank", "nested"}))
        assert [p for p in old.verify().problems if "gone.faiss" not in p] == []


OPENED_AT_ONCE = """
import sys, time
from pathlib import Path
from rapidin.storage import Store
from rapidin.storage.catalog import database
path, number = Path(sys.argv[1]), sys.argv[2]
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


def test_several_processes_open_an_older_store_at_once(tmp_path: Path) -> None:
    """One migrates, the others wait for it: all meet before they open, and the migration takes a second."""
    first_format(tmp_path / "old", numbered(0, 20))
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda i: run_python(OPENED_AT_ONCE, tmp_path / "old", i), range(4)))
    assert [(of.stdout, of.stderr) for of in done] == [(f"{schema.FORMAT_VERSION} 20\n", "")] * 4
    assert len(list(tmp_path.glob("migrated-*"))) == 1


def test_a_damaged_row_does_not_stop_the_migration(tmp_path: Path) -> None:
    first_format(tmp_path / "old", numbered(0, 3))
    with closing(sqlite3.connect(tmp_path / "old" / "store.db")) as connection, connection:
        connection.execute("UPDATE samples SET metadata = '{' WHERE sample_id = 's001'")
    with Store.open(tmp_path / "old") as store:
        assert store.count(["rank >= 0"]) == 2
        assert any("s001" in problem for problem in store.verify().problems)


def test_metadata_of_the_first_format_keeps_its_order(tmp_path: Path) -> None:
    first_format(tmp_path / "old", [new_sample("a", metadata={"z": 1, "b": {"y": 1, "a": 2}})])
    with Store.open(tmp_path / "old") as store:
        assert json.dumps(store.get("a").metadata) == '{"z": 1, "b": {"y": 1, "a": 2}}'


def second_format(path: Path, samples: list) -> None:
    """What a rapidin of format 2 left: the first format, migrated by 0002 only."""
    first_format(path, samples)
    made = Database(path / "store.db")
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    with made.writing() as session:
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "0002")
        session.execute(update(SettingsRow).values(format_version=2))
    made.close()


def test_the_second_format_is_migrated(tmp_path: Path) -> None:
    """Old rows keep their checksums and have no spans; new ones have some, and theirs cover them."""
    path = tmp_path / "old"
    second_format(path, numbered(0, 3))
    columns = "SELECT sample_id, checksum, {} FROM samples WHERE deleted_at IS NULL ORDER BY key"
    with closing(sqlite3.connect(path / "store.db")) as connection:
        assert "target_spans" not in [row[1] for row in connection.execute("PRAGMA table_info(samples)")]
        before = connection.execute(columns.format("NULL")).fetchall()
    chat = new_sample("chat", target_spans=((3, 9), (12, 20)))
    with Store.open(path) as store:
        assert store.format_version == schema.FORMAT_VERSION
        assert [plain(s) for s in store.list()] == [plain(s) for s in numbered(0, 3)]
        with store.writer() as writer:
            writer.commit([chat], np.ones((1, 64), np.float32))
        assert store.get("chat").target_spans == ((3, 9), (12, 20))
        assert [p for p in store.verify().problems if "gone.faiss" not in p] == []
    with closing(sqlite3.connect(path / "store.db")) as connection, connection:
        after = connection.execute(columns.format("target_spans")).fetchall()
        assert after[:3] == before
        assert after[3][2] == "[[3,9],[12,20]]"
        connection.execute("UPDATE samples SET target_spans = '[[3,9]]' WHERE sample_id = 'chat'")
        connection.execute("UPDATE samples SET target_spans = '[[3,9]]' WHERE sample_id = 's001'")
    with Store.open(path) as store:
        for id in ("chat", "s001"):
            with pytest.raises(StoreCorruptError, match=f"the row of sample '{id}' was altered"):
                store.get(id)
        assert store.get("s002").target_spans == ()
