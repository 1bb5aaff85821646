"""Settings of every test: few threads, no network, fixed seeds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import worlds

    return worlds.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def other_model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import worlds

    return worlds.save_model(tmp_path_factory.mktemp("other-model"), seed=1)


@pytest.fixture(scope="session")
def adapter_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    from tests import worlds

    return worlds.save_adapter(tmp_path_factory.mktemp("adapter"), model_directory)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 60 rows."""
    from tests import worlds

    return worlds.write_rows(tmp_path_factory.mktemp("data") / "data.jsonl", worlds.rows(60))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The one of the tests marked `browser`; Playwright can be started only once in a process."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail(
            f"none of {', '.join(_BROWSERS)} is installed; as root: apt-get install chromium", pytrace=False
        )
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path)
        yield started
        started.close()
