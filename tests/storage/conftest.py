"""Fixtures of the storage tests; what they build is in `stores`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rapidin.storage import Store
from tests.storage.stores import fill, store_settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="session")
def empty_template(tmp_path_factory) -> Path:
    """An empty store to copy, which is quicker than creating one."""
    path = tmp_path_factory.mktemp("empty") / "store"
    Store.create(path, store_settings()).close()
    return path


@pytest.fixture(scope="session")
def filled_template(tmp_path_factory, empty_template: Path) -> Path:
    path = tmp_path_factory.mktemp("filled") / "store"
    shutil.copytree(empty_template, path)
    with Store.open(path) as store:
        fill(store)
    return path


@pytest.fixture
def store(path: Path, empty_template: Path):
    shutil.copytree(empty_template, path)
    with Store.open(path) as store:
        yield store


@pytest.fixture
def filled(path: Path, filled_template: Path):
    """20 samples in segments of 8, 8 and 4, with `random_vectors(20)`."""
    shutil.copytree(filled_template, path)
    with Store.open(path) as store:
        yield store
