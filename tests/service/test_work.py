"""The queue: turns, places, time, and those who give up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rapidin.service.problems import Problem
from rapidin.service.work import WorkQueue

SECONDS = 20.0


class Held:
    """Work that ends when the test lets it."""

    def __init__(self, value: str = "held") -> None:
        self.value = value
        self.begun = threading.Event()
        self.let = threading.Event()
        self.stop: threading.Event | None = None

    def __call__(self, stop: threading.Event) -> str:
        self.stop = stop
        self.begun.set()
        assert self.let.wait(SECONDS)
        return self.value


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not met():
            await asyncio.sleep(0.005)


def run(test: Callable[[WorkQueue], Coroutine[Any, Any, None]], waiting: int = 2) -> list[float]:
    seconds: list[float] = []

    async def whole() -> None:
        queue = WorkQueue(waiting, seconds.append)
        try:
            await test(queue)
        finally:
            await asyncio.to_thread(queue.close)

    asyncio.run(whole())
    return seconds


def test_one_at_a_time_and_first_come_first_served() -> None:
    order: list[int] = []
    inside: list[int] = []

    def work(number: int) -> int:
        inside.append(number)
        assert inside == [number]
        order.append(number)
        inside.remove(number)
        return number

    async def test(queue: WorkQueue) -> None:
        jobs = [queue.run(lambda _, number=number: work(number), SECONDS) for number in range(5)]  # type: ignore[misc]
        assert await asyncio.gather(*jobs) == [0, 1, 2, 3, 4]

    assert len(run(test, waiting=5)) == 5
    assert order == [0, 1, 2, 3, 4]


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    async def test(queue: WorkQueue) -> None:
        held = Held()
        jobs = [asyncio.ensure_future(queue.run(held, SECONDS)) for _ in range(3)]
        await until(lambda: held.begun.is_set() and queue.waiting == 2)
        with pytest.raises(Problem) as raised:
            await queue.run(held, SECONDS)
        assert raised.value.status == 429
        assert int(raised.value.headers["Retry-After"]) >= 1
        assert (queue.waiting, queue.running) == (2, 1)
        held.let.set()
        assert await asyncio.gather(*jobs) == ["held"] * 3
        assert (queue.waiting, queue.running) == (0, 0)

    run(test)


def test_no_place_to_wait_in_still_lets_one_run() -> None:
    async def test(queue: WorkQueue) -> None:
        assert await queue.run(lambda _: 1, SECONDS) == 1

    run(test, waiting=0)


def test_who_gives_up_waiting_leaves_the_place_and_never_runs() -> None:
    async def test(queue: WorkQueue) -> None:
        held, never = Held(), Held()
        first = asyncio.ensure_future(queue.run(held, SECONDS))
        second = asyncio.ensure_future(queue.run(never, SECONDS))
        await until(lambda: queue.waiting == 1)
        second.cancel()
        await until(lambda: queue.waiting == 0)
        held.let.set()
        assert await first == "held"
        assert await queue.run(lambda _: 2, SECONDS) == 2
        assert not never.begun.is_set()

    run(test)


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "too slow"])
def test_a_turn_lasts_until_the_thread_is_done(cancelled: bool) -> None:
    async def test(queue: WorkQueue) -> None:
        held = Held()
        slow = asyncio.ensure_future(queue.run(held, None if cancelled else 0.05))
        await until(held.begun.is_set)
        if cancelled:
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
        else:
            with pytest.raises(Problem) as raised:
                await slow
            assert raised.value.status == 504
        assert held.stop is not None
        assert held.stop.is_set()
        assert queue.running == 1
        after = asyncio.ensure_future(queue.run(lambda _: "after", SECONDS))
        await until(lambda: queue.waiting == 1)
        assert not after.done()
        held.let.set()
        assert await after == "after"

    run(test)


def test_time_spent_waiting_counts() -> None:
    async def test(queue: WorkQueue) -> None:
        held, never = Held(), Held()
        first = asyncio.ensure_future(queue.run(held, SECONDS))
        await until(held.begun.is_set)
        with pytest.raises(Problem) as raised:
            await queue.run(never, 0.05)
        assert raised.value.status == 504
        assert queue.waiting == 0
        held.let.set()
        await first
        assert not never.begun.is_set()

    run(test)


def test_errors_come_through_and_end_the_turn() -> None:
    def fail(stop: threading.Event) -> None:
        raise TimeoutError("its own")

    async def test(queue: WorkQueue) -> None:
        with pytest.raises(TimeoutError, match="its own"):
            await queue.run(fail, SECONDS)
        assert await queue.run(lambda _: 3, SECONDS) == 3

    run(test)
