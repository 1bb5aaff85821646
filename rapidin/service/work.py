"""One search at a time in a thread of its own, a bounded number of others waiting, on one event loop."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rapidin.service.problems import Problem

T = TypeVar("T")

_WEIGHT = 0.2
"""Weight of the newest search in the mean that tells a client when to try again."""


class Stopped(Exception):
    """Raised in the thread where it is told that its answer is no longer wanted."""


class WorkQueue:
    """Lets one search run and a few wait, first come, first served.

    A caller that gives up while it waits (`asyncio` cancels `run`, or time runs out) leaves its place at once. The
    thread finishes a search that runs already as far as it must; then its result is dropped and its turn ends.

    Args:
        waiting: number of searches that may wait.
        observe: function that is told the seconds that each search took.
    """

    def __init__(self, waiting: int, observe: Callable[[float], None] = lambda _: None) -> None:
        self._places = waiting
        self._observe = observe
        self._turn = asyncio.Semaphore(1)
        self._thread = ThreadPoolExecutor(1, "rapidin-search")
        self._mean = 1.0
        self.waiting = 0

    @property
    def running(self) -> int:
        """Number of searches in the thread: 0 or 1."""
        return int(self._turn.locked())

    def check_room(self) -> None:
        """Check that another search may wait.

        Raises:
            Problem: 429; there is no place to wait in.
        """
        if self.running and self.waiting >= self._places:
            seconds = max(1, math.ceil(self._mean * (self.waiting + 1)))
            raise Problem(
                429,
                f"{self.waiting} searches wait already; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )

    async def run(self, work: Callable[[threading.Event], T], seconds: float | None) -> T:
        """Run `work` in the thread when it is its turn.

        Args:
            work: function that gets an event, which is set when its answer is no longer wanted.
            seconds: time in which it must be done, waiting included; None: without a limit.

        Raises:
            Problem: 429, there is no place to wait in; 504, it took too long.
        """
        self.check_room()
        stop = threading.Event()
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._wait()
                return await asyncio.shield(self._begin(work, stop))
        except TimeoutError:
            if not limit.expired():
                raise
            raise Problem(
                504, f"no answer within {seconds:g} s; ask for fewer samples or a shorter text, or try again later"
            ) from None
        finally:
            stop.set()

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1

    def _begin(self, work: Callable[[threading.Event], T], stop: threading.Event) -> asyncio.Future[T]:
        def timed() -> T:
            began = time.perf_counter()
            try:
                return work(stop)
            finally:
                took = time.perf_counter() - began
                self._mean += _WEIGHT * (took - self._mean)
                self._observe(took)

        def ended(future: asyncio.Future[T]) -> None:
            self._turn.release()
            if not future.cancelled():
                future.exception()  # looked at, so that asyncio does not complain where nobody waits any longer

        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, timed)
        except BaseException:
            self._turn.release()
            raise
        future.add_done_callback(ended)
        return future

    def close(self) -> None:
        """Wait until the thread has done what it does."""
        self._thread.shutdown(wait=True, cancel_futures=True)
