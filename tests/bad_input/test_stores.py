"""Places where no store can be, damaged stores, full disks, closed directories and other writers."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rapidin.storage.vectors import segment_writing
from tests import worlds
from tests.bad_input.command_line import FAILED, ROOT, CommandLine, MadeStore, copied

ASKED = ("--prompt", "Say it.", "--generation", "It is said.")
READERS = {
    "info": ("info",),
    "list": ("list",),
    "show": ("show", "row-1"),
    "search": ("search", *ASKED),
    "verify": ("verify",),
    "delete": ("delete", "row-1"),
}


def call(rapidin: CommandLine, command: str, store: object, data: Path):
    """One of the commands, or an ingest, on a store."""
    if command == "ingest":
        return rapidin("ingest", store, "--data", data)
    name, *more = READERS[command]
    return rapidin(name, store, *more)


COMMANDS = [*READERS, "ingest"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_as_store(
    rapidin: CommandLine, model_directory: Path, tmp_path: Path, more_data: Path, command: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    if command == "ingest":
        made = ("--model", model_directory, "--projection-dim", 128)
        rapidin("ingest", file, "--data", more_data, *made).error(FAILED, file, "it is a file; give")
    else:
        call(rapidin, command, file, more_data).error(
            FAILED, file, "it is a file, not a store; give the directory"
        )
    assert file.read_text() == "mine"


def test_a_directory_with_other_things(
    rapidin: CommandLine, model_directory: Path, tmp_path: Path, more_data: Path
) -> None:
    place = tmp_path / "photographs"
    place.mkdir()
    (place / "cat.png").write_text("mine")
    made = ("ingest", place, "--data", more_data, "--model", model_directory, "--projection-dim", 128)
    rapidin(*made).error(FAILED, place, "the directory holds 'cat.png'; give a new or empty one")
    assert [file.name for file in place.iterdir()] == ["cat.png"]


def test_such_places_are_found_before_the_model_is_loaded(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, model_directory: Path, tmp_path: Path, more_data: Path
) -> None:
    from rapidin.model import loading

    def loaded(*arguments: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(loading, "load_model", loaded)
    for place in (more_data, tmp_path, more_data / "below"):
        rapidin("ingest", place, "--data", more_data, "--model", model_directory).error(FAILED, place)


def test_names_that_are_too_long(
    rapidin: CommandLine, store: MadeStore, model_directory: Path, more_data: Path
) -> None:
    long = "x" * 300
    for command in COMMANDS:
        call(rapidin, command, long, more_data).error(FAILED, long, "File name too long")
    rapidin("ingest", long, "--data", more_data, "--model", model_directory).error(FAILED, long, "too long")
    rapidin("ingest", store, "--data", f"{long}.jsonl").error(FAILED, long, "too long")
    for flag in ("--model", "--adapter"):
        rapidin("ingest", store, "--data", more_data, flag, long).error(FAILED, long, "too long; check the path")
        rapidin("search", store, *ASKED, flag, long).error(FAILED, long, "too long; check the path")
    store.check_unharmed()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_of_a_newer_format(rapidin: CommandLine, store: MadeStore, more_data: Path, command: str) -> None:
    connection = sqlite3.connect(store.path / "store.db")
    with connection:
        connection.execute("UPDATE settings SET format_version = 99")
    connection.close()
    call(rapidin, command, store, more_data).error(FAILED, store, "has format 99, this rapidin", "upgrade rapidin")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_is_none(rapidin: CommandLine, store: MadeStore, more_data: Path, command: str) -> None:
    database = store.path / "store.db"
    database.write_bytes(b"no database, but long enough to be one " * 200)
    call(rapidin, command, store, more_data).error(FAILED, database, "damaged", "restore it from a backup")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte flipped": (flip, "its checksum is wrong"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes instead of"),
    "removed": (lambda file: file.unlink(), "the file is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment(rapidin: CommandLine, store: MadeStore, damage: str) -> None:
    (file,) = store.segment_files()
    change, expected = DAMAGES[damage]
    change(file)
    rapidin("search", store, *ASKED).error(FAILED, file, expected, "restore it from a backup")
    report = rapidin("verify", store)
    assert report.code == FAILED and str(file) in report.stdout and expected in report.stdout
    as_json = rapidin("verify", store, "--json")
    assert as_json.code == FAILED and '"ok": false' in as_json.stdout and str(file) in as_json.stdout
    assert rapidin("list", store).code == 0  # the samples themselves are well


def test_a_preflight_finds_the_disk_too_small(
    rapidin: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    store: MadeStore,
    model_directory: Path,
    tmp_path: Path,
    more_data: Path,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    expected = ("2 samples need about", "make room, or give a smaller --projection-dim")
    rapidin("ingest", store, "--data", more_data).error(FAILED, store, *expected)
    place = tmp_path / "deep" / "new"
    rapidin("ingest", place, "--data", more_data, "--model", model_directory).error(FAILED, place, *expected)
    assert not place.parent.exists()
    monkeypatch.undo()
    store.check_unharmed()


@pytest.mark.parametrize("step", ["write_temporary", "sync_file", "publish", "sync_directory", "describe"])
def test_the_disk_fills_up_during_a_commit(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: MadeStore, more_data: Path, step: str
) -> None:
    def failing(path: Path, *rest: object) -> None:
        with segment_writing.file_errors(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(segment_writing, step, failing)
        rapidin("ingest", store, "--data", more_data).error(
            FAILED, store, "no space left to write", "make room and run the same command again"
        )
    store.check_unharmed()
    assert rapidin("ingest", store, "--data", more_data, "--json").json["added"] == 2


WRITER = """
import sys
from rapidin.storage import Store
with Store.open(sys.argv[1]) as store, store.writer():
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(store: MadeStore) -> Iterator[subprocess.Popen[str]]:
    """Another process that is writing to the store."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    yield process
    process.communicate()


def test_two_writers(
    rapidin: CommandLine, store: MadeStore, more_data: Path, tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    expected = (store, f"process {writer.pid} (since 2", "wait until it has finished, or stop it")
    changed = worlds.write_rows(tmp_path / "changed.jsonl", [{**worlds.rows(1)[0], "source": "other"}])
    rapidin("ingest", store, "--data", more_data).error(FAILED, *expected)
    rapidin("ingest", store, "--data", changed).error(FAILED, *expected)
    rapidin("delete", store, "row-1").error(FAILED, *expected)
    # Readers and a look at the data are not in its way.
    assert rapidin("search", store, *ASKED).code == 0
    assert rapidin("ingest", store, "--data", more_data, "--dry-run").code == 0
    writer.communicate()
    store.check_unharmed()
    assert rapidin("ingest", store, "--data", more_data, "--json").json["added"] == 2


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to write everywhere; nothing to give up for others."""
    if os.geteuid() != 0:
        yield
        return
    os.setresgid(65534, 65534, 0)
    os.setresuid(65534, 65534, 0)  # the real one too, which os.access goes by
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


@pytest.fixture
def closed(store: MadeStore, tmp_path: Path) -> Iterator[MadeStore]:
    """A store that may be read and not written; pytest's own directories are closed to others altogether."""
    files = [store.path, *store.path.rglob("*")]
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    above = [path for path in (tmp_path, *tmp_path.parents) if "pytest" in str(path)]
    modes = {path: path.stat().st_mode for path in above}
    for path in above:
        path.chmod(0o755)
    yield store
    for path, mode in modes.items():
        path.chmod(mode)
    for path in files:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_directory_without_write_permission(
    rapidin: CommandLine, model_directory: Path, tmp_path: Path, more_data: Path, closed: MadeStore
) -> None:
    model = copied(model_directory, tmp_path / "model")
    for path in (model, *model.iterdir()):
        path.chmod(0o755)
    ingest = ("ingest", closed, "--data", more_data, "--model", model)
    below = ("ingest", closed.path / "below", *ingest[2:], "--projection-dim", 128)
    # What these commands import may lie where others may not read.
    shutil.copytree(closed.path, tmp_path / "open")
    (tmp_path / "open" / "segments").chmod(0o755)
    assert rapidin("ingest", tmp_path / "open", *ingest[2:]).code == 0
    assert rapidin("verify", tmp_path / "open").code == 0
    with as_nobody():
        outcomes = [rapidin(*command) for command in (ingest, ("delete", closed, "row-1"), below)]
        verified = rapidin("verify", closed, "--json")
    for outcome in outcomes:
        outcome.error(FAILED, closed, "Permission denied; check the permissions")
    assert verified.json["ok"]
    closed.check_unharmed()
