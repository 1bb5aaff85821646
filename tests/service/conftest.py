"""A tiny store, served over real connections by a server in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import rapidin
from rapidin.records.hits import SearchResult
from rapidin.search import Searcher
from rapidin.service import Limits, Service, ServiceSettings
from rapidin.service.running import Server, address_of, listen
from rapidin.storage import Store
from tests import worlds

SCRIPT = "</script><script>document.title='bad'</script><img src=x onerror=\"document.title='bad'\">"
ODD_IDS = ("a/b c", "..", "100% of #1?", "new\nline", "crab 🦀", "/", SCRIPT)
QUESTION = {"prompt": "Name the colour.", "generation": "It is blue 99, and not red.", "k": 3}
SECONDS = 30.0


class GatedSearcher(Searcher):
    """A searcher that searches when the test lets it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.searched: list[str] = []

    def search(self, prompt: str, *arguments: Any, **options: Any) -> SearchResult:
        self.searched.append(prompt)
        self.begun.release()
        assert self.let.acquire(timeout=SECONDS)
        return super().search(prompt, *arguments, **options)


class Running:
    """A server, and what a test needs of it."""

    def __init__(self, store: Path, searcher: type[Searcher], settings: ServiceSettings) -> None:
        opened = Store.open(store)
        self.service = Service(opened, lambda: self._keep(searcher(opened)), settings)
        self.searcher: Any = None
        listening = listen(settings.host, settings.port)
        self.url = address_of(listening)
        self.address = listening.getsockname()[:2]
        self._loops: list[asyncio.AbstractEventLoop] = []
        self.server = Server(self.service)

        async def serve() -> None:
            self._loops.append(asyncio.get_running_loop())
            await self.server.serve([listening])

        self.thread = threading.Thread(target=lambda: asyncio.run(serve()))
        self.thread.start()

    def _keep(self, searcher: Searcher) -> Searcher:
        self.searcher = searcher
        return searcher

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False, **options)

    def loop(self) -> asyncio.AbstractEventLoop:
        """That of the server's thread."""
        (one,) = [loop for loop in self._loops if loop.is_running()]
        return one

    def wait_until_ready(self) -> None:
        headers = {"Authorization": f"Bearer {self.service.settings.token}"} if self.service.settings.token else {}
        with self.client(headers=headers) as client:
            wait_for(lambda: client.get("/ready").status_code == 200)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


def wait_for(met: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Look again and again until something is so."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if met():
            return
        pause.wait(0.02)
    pytest.fail("it never came to be")


@contextmanager
def running(
    store: Path, searcher: type[Searcher] = Searcher, limits: Limits | None = None, **settings: Any
) -> Iterator[Running]:
    """A server that is ready, and stopped afterwards."""
    server = Running(store, searcher, ServiceSettings(port=0, limits=limits or Limits(), **settings))
    try:
        server.wait_until_ready()
        yield server
    finally:
        if isinstance(server.searcher, GatedSearcher):
            server.searcher.let.release(100)
        server.stop()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """Thirty plain samples and some whose ids, texts and metadata are not."""
    directory = tmp_path_factory.mktemp("service")
    rows = worlds.rows(30)
    rows += [
        {
            "id": id,
            "instruction": f"Say {SCRIPT}",
            "output": f"{SCRIPT} {number}",
            "source": SCRIPT,
            "number": 1000,
        }
        for number, id in enumerate(ODD_IDS)
    ]
    data = worlds.write_rows(directory / "data.jsonl", rows)
    rapidin.ingest_files(
        directory / "store", [data], model=str(model_directory), projection_dim=worlds.DIMENSION, curvature=False
    )
    return directory / "store"


@pytest.fixture(scope="session")
def server(store: Path) -> Iterator[Running]:
    with running(store) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
