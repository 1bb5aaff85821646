"""Stores made once and copied for each test, and the command line to call."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rapidin.ingest import ingest_files
from tests import worlds
from tests.bad_input.command_line import CommandLine, MadeStore

DIMENSION = 128


@pytest.fixture
def rapidin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", worlds.rows(6))


@pytest.fixture(scope="session")
def plain_template(tmp_path_factory, model_directory: Path, data_file: Path) -> Path:
    path = tmp_path_factory.mktemp("plain") / "store"
    ingest_files(path, [data_file], model=str(model_directory), projection_dim=DIMENSION, curvature=False)
    return path


@pytest.fixture(scope="session")
def adapter_template(tmp_path_factory, model_directory: Path, adapter_directory: Path, data_file: Path) -> Path:
    path = tmp_path_factory.mktemp("adapted") / "store"
    model, adapter = str(model_directory), str(adapter_directory)
    ingest_files(path, [data_file], model=model, adapter=adapter, projection_dim=DIMENSION, curvature=False)
    return path


@pytest.fixture
def store(tmp_path: Path, plain_template: Path) -> MadeStore:
    """Six samples of the tiny model, in one segment."""
    return MadeStore(Path(shutil.copytree(plain_template, tmp_path / "store")))


@pytest.fixture
def adapter_store(tmp_path: Path, adapter_template: Path) -> MadeStore:
    """The same of the tiny model with its adapter."""
    return MadeStore(Path(shutil.copytree(adapter_template, tmp_path / "store")))


@pytest.fixture
def more_data(tmp_path: Path) -> Path:
    """Two rows that the stores do not have."""
    return worlds.write_rows(tmp_path / "more.jsonl", worlds.rows(2, first=6))
