"""A store and its model behind one queue, which the routes call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from rapidin.errors import SettingError
from rapidin.records import SearchResult
from rapidin.service.metrics import Metrics
from rapidin.service.problems import Problem
from rapidin.service.requests import SearchRequest, options_of
from rapidin.service.service_settings import ServiceSettings
from rapidin.service.work import Stopped, WorkQueue
from rapidin.storage import Store

if TYPE_CHECKING:
    from rapidin.search import Searcher

logger = logging.getLogger("rapidin.service")

Step = tuple[str, int, int]
"""A step of a search: its name, how much of it is done, and how much there is."""


class Service:
    """The objects that live as long as a server does.

    Args:
        store: is closed with the service.
        open_searcher: loads the model of the store; called once, in the thread that searches.
        settings: see `ServiceSettings`.

    Attributes:
        failure: why the model could not be loaded.
        draining: whether no new requests are taken.
        active: requests being answered.
    """

    def __init__(self, store: Store, open_searcher: Callable[[], Searcher], settings: ServiceSettings) -> None:
        self.settings = settings
        self.store = store
        self.metrics = Metrics()
        self.queue = WorkQueue(settings.limits.waiting, self.metrics.searched)
        self.failure: Exception | None = None
        self.draining = False
        self.active = 0
        self._open_searcher = open_searcher
        self._searcher: Searcher | None = None
        self.metrics.watch("rapidin_queue_length", "Searches that wait.", lambda: self.queue.waiting)
        self.metrics.watch("rapidin_searches_running", "Searches being computed.", lambda: self.queue.running)
        self.metrics.watch("rapidin_ready", "1 when the model is loaded.", lambda: self.ready)

    @property
    def ready(self) -> bool:
        """Whether the service takes searches."""
        return self._searcher is not None and not self.draining

    async def load(self) -> None:
        """Load the model; `failure` keeps an error."""
        try:
            self._searcher = await self.queue.run(lambda _: self._open_searcher(), None)
        except Exception as error:  # noqa: BLE001 - whoever serves raises it again
            self.failure = error
        else:
            logger.info("ready: the model is loaded")

    def check_ready(self) -> Searcher:
        """Return the searcher.

        Raises:
            Problem: 503; the model is not loaded yet.
        """
        if self._searcher is None:
            raise Problem(503, "the model is being loaded; try again in a few seconds", {"Retry-After": "5"})
        return self._searcher

    async def search(self, asked: SearchRequest, tell: Callable[[Step], None] | None = None) -> SearchResult:
        """Search as soon as it is this request's turn.

        Args:
            asked: the request.
            tell: function that is told of progress, on the event loop.

        Raises:
            Problem: 429, 503, 504.
            RapidinError: see `Searcher.search`.
        """
        searcher = self.check_ready()
        limits = self.settings.limits
        # Options that cannot be used are refused here, before any waiting.
        options = options_of(asked, limits, self.settings.regular_expressions)
        loop = asyncio.get_running_loop()

        def work(stop: threading.Event) -> SearchResult:
            def on_progress(step: str, done: int, total: int) -> None:
                if stop.is_set():
                    raise Stopped
                if tell is not None:
                    loop.call_soon_threadsafe(tell, (step, done, total))

            tokens = searcher.count_tokens(asked.prompt, asked.generation)
            if tokens > limits.tokens:
                raise SettingError(
                    f"prompt and generation have {tokens:,} tokens, and this service takes {limits.tokens:,}: "
                    "shorten them"
                )
            on_progress("searching", 0, 1)
            return searcher.search(asked.prompt, asked.generation, options=options, on_progress=on_progress)

        return await self.queue.run(work, limits.seconds)

    async def searching(self, asked: SearchRequest) -> AsyncGenerator[Step | SearchResult, None]:
        """Search as `search` does; yield steps as they are done, and in the end the result.

        Raises:
            Problem: 429, 503, 504.
            RapidinError: see `Searcher.search`.
        """
        steps: asyncio.Queue[Step] = asyncio.Queue()
        result = asyncio.ensure_future(self.search(asked, steps.put_nowait))
        try:
            while not result.done():
                step = asyncio.ensure_future(steps.get())
                await asyncio.wait((result, step), return_when=asyncio.FIRST_COMPLETED)
                if step.done():
                    yield step.result()
                step.cancel()
            yield result.result()
        finally:
            result.cancel()
            with suppress(BaseException):  # it was looked at above, unless nobody waits for it any longer
                await result

    def close(self) -> None:
        """Wait for the thread, then let go of the model and the store."""
        self.queue.close()
        if self._searcher is not None:
            self._searcher.close()
        self.store.close()
