"""What every transport has to do; a new one is added to `TRANSPORTS`."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rapidin.ingest.compute.messages import Begin, Computed, Failed, Load, Loaded, Ready, TokenIds, Work
from rapidin.ingest.compute.transport import Transport, Worker
from rapidin.settings import GradientSettings, ModelSettings, ProjectionSettings
from tests.ingest.compute import stub_workers, traps

pytestmark = pytest.mark.timeout(120)

TRANSPORTS: dict[str, Callable[[], Transport]] = {
    "threads": stub_workers.StubThreads,
    "local": stub_workers.local_stubs,
}
LOAD = Load(ModelSettings(model="m"), "cpu", False, 1, 30)
BEGIN = Begin((), GradientSettings(), ProjectionSettings(dimension=stub_workers.DIMENSION), 20)


@pytest.fixture(params=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> Transport:
    return TRANSPORTS[request.param]()


@pytest.fixture
def before() -> set[int]:
    """Children of the process that runs the tests, before any worker."""
    return traps.children()


@pytest.fixture
def workers(transport: Transport, before: set[int]) -> Iterator[list[Worker]]:
    """Two workers, loaded and ready, that are ended after the test."""
    started = [transport.start(number, LOAD) for number in (1, 2)]
    try:
        for worker in started:
            assert worker.receive() == Loaded((), "cpu")
            worker.send(BEGIN)
            assert worker.receive() == Ready()
        yield started
    finally:
        for worker in started:
            worker.end(0)
    assert traps.no_children_but(before)


def work(number: int, first: int = 1) -> Work:
    return Work(number, (TokenIds("a", (first, 2), (False, True)), TokenIds("b", (3,), (True,))))


def answer(worker: Worker) -> tuple[int, list[list[float]]]:
    message = worker.receive()
    assert isinstance(message, Computed)
    assert message.batch.vectors.dtype == np.float32
    return message.number, message.batch.vectors.tolist()


def test_workers_have_names_of_their_own(workers: list[Worker]) -> None:
    one, other = workers
    assert one.name != other.name


def test_answers_come_in_the_order_of_the_work(workers: list[Worker]) -> None:
    for number in range(5):
        for worker in workers:
            worker.send(work(number))
    for worker in workers:
        assert [answer(worker) for _ in range(5)] == [(number, [[number, 3], [number, 3]]) for number in range(5)]


def test_large_work_and_answers_pass_while_nobody_receives(workers: list[Worker]) -> None:
    """A worker takes in its messages even while its answers are not fetched."""
    many = Work(0, (TokenIds("a", tuple(range(200_000)), (True,) * 200_000),) * 2)
    for _ in range(3):
        workers[0].send(many)
    assert [answer(workers[0])[0] for _ in range(3)] == [0, 0, 0]


def test_a_worker_with_an_answer_is_ready(transport: Transport, workers: list[Worker]) -> None:
    one, other = workers
    other.send(work(0))
    assert list(transport.ready(workers)) == [other]
    answer(other)
    one.send(work(1))
    other.send(work(1))
    waiting = {id(one), id(other)}
    while waiting:
        for worker in transport.ready([one for one in workers if id(one) in waiting]):
            assert answer(worker)[0] == 1
            waiting.remove(id(worker))


def test_a_worker_that_was_killed_is_ready_and_says_how_it_ended(
    transport: Transport, workers: list[Worker]
) -> None:
    one, other = workers
    one.send(work(0))
    one.send(work(1, stub_workers.KILLS))
    assert answer(one)[0] == 0
    assert list(transport.ready(workers)) == [one]
    with pytest.raises(EOFError):
        one.receive()
    assert one.how_it_ended().startswith("was killed")
    one.send(work(2))  # is lost
    with pytest.raises(EOFError):
        one.receive()
    other.send(work(3))
    assert answer(other)[0] == 3


@pytest.mark.parametrize(
    ("token", "word"),
    [
        (stub_workers.FAILS, Failed("ModelError", "no such layer")),
        (stub_workers.BREAKS, Failed(None, "KeyError: 'broken'")),
    ],
)
def test_a_worker_that_fails_says_so_before_it_ends(workers: list[Worker], token: int, word: Failed) -> None:
    workers[0].send(work(0, token))
    assert workers[0].receive() == word
    with pytest.raises(EOFError):
        workers[0].receive()


def test_workers_end_by_themselves_after_hanging_up(workers: list[Worker]) -> None:
    for worker in workers:
        worker.hang_up()
    started = time.monotonic()
    for worker in workers:
        worker.end(started + 60)
    assert time.monotonic() - started < 30
    for worker in workers:
        worker.end(0)  # a second time does nothing
        worker.send(work(0))


def test_workers_are_killed_at_the_deadline(workers: list[Worker], before: set[int]) -> None:
    for worker in workers:
        worker.end(0)
    assert traps.no_children_but(before)
