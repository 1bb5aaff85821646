"""``store.db`` through SQLAlchemy: connections, transactions, migrations, and errors as the project's own.

This module knows SQLite and nothing of samples or vectors. Every access goes through `Database.reading` or
`Database.writing`, which commit, roll back and translate errors; no row or session leaves `rapidin.storage`.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, FromClause, create_engine, event, pool, select, update
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.orm import Session

from rapidin.errors import (
    SettingError,
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreSpaceError,
)
from rapidin.storage.catalog.commit_counter import CommitCounter
from rapidin.storage.catalog.digests import RowsDigest
from rapidin.storage.catalog.schema import SettingsRow
from rapidin.storage.catalog.sql_functions import SQL_FUNCTIONS
from rapidin.storage.concurrency import StoreConnection, opened_unchanging, state_of

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30.0
"""Time that a statement waits for another process's transaction; transactions are short."""

CACHE_BYTES = 2**26
"""Maximum size of the pages that a connection keeps; SQLite's default, 2 MiB, makes large stores half as fast."""
EMPTY_SHARE = 0.1
"""Share of free pages below which the file is not rewritten to give them back."""

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_FORMAT}
_NOT_ALLOWED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_CANTOPEN}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class _Compiler(SQLiteCompiler):
    """SQLAlchemy's compiler for SQLite, which leaves hints out; this one keeps them.

    Without hints SQLite looks keys up in the table, whose rows are wide, rather than in a narrow index.
    """

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:  # noqa: ARG002
        """Return the words that follow a table's name, such as ``INDEXED BY``."""
        return text


class Database:
    """One SQLite file; connects on first use.

    Every transaction compares the number of the last commit in the file with the last one that was acknowledged
    (see `commit_counter`), and that the file is still the one that was opened.

    Attributes:
        path: path of the file.
        commits: number of the last acknowledged commit.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        """Refer to the file at `path`. It must exist unless `create` is true; a new file counts no commits."""
        self.path = path
        self.commits = CommitCounter(path.parent)
        self._is_counted = not create
        self._mode = "rwc" if create else "rw"
        # There is no limit, because a thread that searches holds a connection and must not wait for others.
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=pool.QueuePool, max_overflow=-1)
        self._engine.dialect.statement_compiler = _Compiler
        event.listen(self._engine, "checkout", _refuse_stale)
        event.listen(self._engine, "begin", self._begin)
        self._writer_engine = self._engine.execution_options(rapidin_begin="BEGIN IMMEDIATE")
        self._watcher: StoreConnection | None = None
        self._watchers = 0
        self._watcher_lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session in a read transaction: it sees one state of the database throughout.

        Raises:
            StoreCorruptError: commits that were acknowledged are lost, or the file is damaged.
            StoreError: another user changed the file meanwhile, and this process may not use SQLite's locks.
        """
        with Session(self._engine) as session, self.using(session):
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session in a write transaction, which is committed at the end and rolled back on any error.

        Raises:
            StoreCorruptError: commits that were acknowledged are lost, or the file is damaged.
        """
        with self.translated_errors():
            with Session(self._writer_engine, expire_on_commit=False) as session, session.begin():
                number = commit_number(session) + 1
                yield session
                session.connection().exec_driver_sql(f"PRAGMA user_version={number}")
            if self._is_counted:
                self.commits.acknowledge(number)

    def open_session(self) -> Session:
        """Open a session for callers that need one state of the database for long; they close it themselves.

        They read from it within `using`.
        """
        return Session(self._engine, close_resets_only=False)

    @contextmanager
    def using(self, session: Session) -> Iterator[None]:
        """Turn errors of the body, which reads from `session`, into the project's own.

        Raises:
            StoreError: another user changed the file meanwhile, and this process may not use SQLite's locks.
        """
        with self.translated_errors():
            yield
            connection: Any = session.connection().connection.driver_connection
            if connection.unchanging and connection.is_stale():
                raise self._changed()

    def version(self) -> tuple[int, int]:
        """Return numbers that change with each commit of any process; they mean nothing outside this object."""
        with self.translated_errors(), self._watcher_lock:
            if self._watcher is not None and self._watcher.is_stale():
                self._watcher.close()
                self._watcher = None
            if self._watcher is None:
                self._watcher = self._connect()
                self._watchers += 1
            # This connection never writes, because SQLite does not count a connection's own commits.
            ((version,),) = self._watcher.execute("PRAGMA data_version")
            return self._watchers, int(version)

    def use_write_ahead_log(self) -> None:
        """Switch the file to a write-ahead log for good, so that neither readers nor a writer wait for others."""
        with self.translated_errors(), self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            connection.rollback()  # the mode cannot change inside a transaction
            driver.execute("PRAGMA journal_mode=WAL")

    def give_back_space(self) -> None:
        """Shrink the file if a good part of it is empty, and empty its log. This waits for no other process.

        The contents of the database stay as they are, whether this succeeds or not.
        """
        with self.translated_errors(), closing(self._connect()) as connection:
            connection.execute("PRAGMA busy_timeout=0")
            ((pages,),) = connection.execute("PRAGMA page_count")
            ((empty,),) = connection.execute("PRAGMA freelist_count")
            if empty >= EMPTY_SHARE * pages:
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # does less while somebody reads

    def size(self) -> int:
        """Return the size of the file in bytes, with what is still in its write-ahead log."""
        size = 0
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            with suppress(FileNotFoundError):  # the log goes when the last process closes the database
                size += path.stat().st_size
        return size

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        with self._watcher_lock:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Turn errors of SQLite and SQLAlchemy in the body into a `StoreError` that names the file.

        Raises:
            SettingError: a text that a query looks for is not valid Unicode.
        """
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _translated(error, self.path) from error
        except (RecursionError, OverflowError) as error:  # a stranger's JSON is nested very deeply, a number huge
            raise _damaged(self.path, f"it holds what no store holds: {error}") from error
        except UnicodeDecodeError as error:  # SQLite quotes damaged names in its messages
            raise _damaged(self.path, "it holds text that is not valid Unicode") from error
        except UnicodeEncodeError as error:  # bytes on the command line that are not UTF-8 become such text
            raise SettingError(
                f"{error.object[:80]!r} holds half a character (\\u{ord(error.object[error.start]):04x}), "
                "which no text in a store does; repair it"
            ) from error

    def _connect(self) -> StoreConnection:
        try:
            return _connected(self.path, self._mode)
        except sqlite3.OperationalError as error:
            unchanging = None if self._mode == "rwc" else opened_unchanging(self.path, error)
            if unchanging is None:
                raise
            return _prepared(unchanging)

    def _begin(self, connection: Connection) -> None:
        """Start the transaction that Python's sqlite3 would otherwise start late, or not at all.

        https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#serializable-isolation-savepoints-transactional-ddl

        Raises:
            StoreCorruptError: the file lacks commits that were acknowledged before.
            StoreError: the file was replaced or changed by another user.
        """
        # The number is read first, because more commits may be acknowledged at any time.
        acknowledged = self.commits.acknowledged() if self._is_counted else 0
        connection.exec_driver_sql(connection.get_execution_options().get("rapidin_begin", "BEGIN"))
        number = _commit_number(connection)
        if number >= acknowledged:
            return
        driver: Any = connection.connection.driver_connection
        if driver.is_stale():
            raise self._changed()
        raise StoreCorruptError(
            f"{self.path}: the last {acknowledged - number} of {acknowledged} commits are lost, because the file "
            "or its log (store.db-wal) was damaged, removed or replaced by an older one: restore the whole store "
            f"from a backup; or, to go on without them, remove {self.commits.path.name} and ingest again, which "
            "adds what is missing"
        )

    def _changed(self) -> StoreError:
        return StoreError(f"{self.path}: it was changed or replaced while it was being read; try again")


def migrate(database: Database, format_version: int) -> None:
    """Bring the tables to the newest format in one transaction, and record its number.

    The caller holds the writer's lock.
    """
    # Alembic is slow to import and only needed here.
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with database.writing() as session:
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "head")
        session.execute(update(SettingsRow).values(format_version=format_version))


def read_format_version(database: Database) -> int:
    """Return the number of the format that the file was written in.

    Raises:
        StoreFormatError: the file is a database, but not one of a store.
    """
    try:
        with database.reading() as session:
            version = session.scalar(select(SettingsRow.format_version))
    except StoreError as error:
        if "no such table" in str(error.__cause__) or "no such column" in str(error.__cause__):
            raise StoreFormatError(
                f"{database.path}: this database was not made by rapidin; give the directory of a store"
            ) from error
        raise
    if not isinstance(version, int):
        raise StoreCorruptError(
            f"{database.path}: its settings are missing; restore the file from a backup or ingest again"
        )
    return version


def commit_number(session: Session) -> int:
    """Return the number of the last commit that the transaction of `session` sees."""
    return _commit_number(session.connection())


def _commit_number(connection: Connection) -> int:
    # Each commit changes this number, which SQLite keeps in the file's header for applications.
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _refuse_stale(connection: Any, *_: object) -> None:
    """Have the pool open another connection in place of one whose file was replaced or changed."""
    if connection.is_stale():
        raise DisconnectionError


def _connected(path: Path, mode: str) -> StoreConnection:
    """Open a connection that has proved to work, with the functions that filters need."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    seen = state_of(path, whole=False)
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=StoreConnection,
    )
    _prepared(connection)
    connection.remember(path, seen or state_of(path, whole=False))  # a new file exists only now
    return connection


def _prepared(connection: StoreConnection) -> StoreConnection:
    """Return the connection once it has proved to work; close it if it does not."""
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{CACHE_BYTES // 1024}")
        connection.execute("PRAGMA trusted_schema=OFF")  # a store may come from a stranger
        connection.execute("SELECT count(*) FROM sqlite_master")  # opens the file and its log
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    for name, arguments, function in SQL_FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)
    connection.create_aggregate("rapidin_digest", -1, RowsDigest)
    return connection


def _translated(error: SQLAlchemyError | sqlite3.Error, path: Path) -> StoreError:
    """Return the project's error that corresponds to an error of SQLite or SQLAlchemy."""
    original = error.orig if isinstance(error, DBAPIError) else error
    reason = " ".join(str(original).split())
    # The low byte is the kind of the error, the others a detail.
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreSpaceError(
            f"{path}: no space left to write ({reason}); make room and run the same command again"
        )
    if code in _BUSY:
        return StoreLockedError(f"{path}: another process keeps it locked ({reason}); try again later")
    if code in _NOT_ALLOWED:
        return StoreError(f"{path}: cannot be opened or written ({reason}); check its permissions")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"{path}: the disk failed or is full ({reason}): make room, because SQLite needs a little space even "
            "to read, or check the disk, and run the same command again"
        )
    if code in _CORRUPT or isinstance(original, sqlite3.DatabaseError):
        return _damaged(path, reason)
    return StoreError(f"{path}: {reason}")


def _damaged(path: Path, reason: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{path}: damaged ({reason}); restore it from a backup, or remove the store and ingest again"
    )
