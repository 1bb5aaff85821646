"""The command line to call, and stores made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rapidin.storage import Store
from tests import worlds
from tests.bad_input.command_line import CommandLine
from tests.storage.derived.clusters import clustered_store, settings_of


@pytest.fixture
def rapidin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store"
    clustered_store(path, bits=4).close()
    return path


@pytest.fixture
def store(tmp_path: Path, template: Path) -> Path:
    """600 samples in three segments, with 4 bits a number and the metadata field 'third'."""
    return Path(shutil.copytree(template, tmp_path / "store"))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    Store.create(tmp_path / "empty", settings_of(4)).close()
    return tmp_path / "empty"


@pytest.fixture(scope="session")
def twelve_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", worlds.rows(12))
