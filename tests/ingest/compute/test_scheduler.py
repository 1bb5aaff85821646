"""The pool's order of work, with threads in the place of processes, which do as they are told at once."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest

from rapidin.attribution.rapidgrads import RapidGradBatch
from rapidin.errors import ComputationError, DataFileError, ModelError
from rapidin.ingest.blocks import Block, BlocksAhead
from rapidin.ingest.compute import scheduler
from rapidin.ingest.compute.local_workers import WorkerProcess
from rapidin.ingest.compute.messages import Begin, Channel, Computed, Failed, Load, Loaded, Logged, Ready, Work
from rapidin.settings.store_settings import ModelSettings, ProjectionSettings
from tests.ingest.test_blocks_ahead import budget, sample

pytestmark = pytest.mark.timeout(60)

DIMENSION = 64
Behaviour = Callable[[int, int], object]
"""Worker and block number → a message to say before the result, or an exception that ends the worker."""


class Died(Exception):
    pass


def workers(
    monkeypatch: pytest.MonkeyPatch, behave: Behaviour, device_type: str = "cpu", followed: int = -1
) -> list[int]:
    """Let the pool start threads; the numbers of those that it has started.

    On a pretended GPU they begin a block before they answer the one before it, if it comes soon enough; to
    the block `followed` the first of them waits for the next one.
    """
    started: list[int] = []

    def serve(channel: Channel, number: int) -> None:
        begun: deque[Computed] = deque()
        try:
            while True:
                message = channel.receive()
                if isinstance(message, Load):
                    channel.send(Loaded((), device_type))
                elif isinstance(message, Begin):
                    channel.send(Ready())
                elif isinstance(message, Work):
                    said = behave(number, message.number)
                    if said is not None:
                        channel.send(said)
                    if isinstance(said, Failed):
                        raise Died
                    vectors = np.full((len(message.samples), DIMENSION), message.number, np.float32)
                    begun.append(Computed(message.number, RapidGradBatch(vectors, {})))
                    while len(begun) > 1:
                        channel.send(begun.popleft())
                    patience = 30 if number == 1 and message.number == followed else 0.05
                    if device_type == "cpu" or not channel.connection.poll(patience):
                        channel.send(begun.popleft())
        except (EOFError, OSError, Died):
            channel.close()

    class ThreadWorker(WorkerProcess):
        def __init__(self, number: int, load: Load) -> None:
            self.load, self.last_word, self.name = load, None, f"worker {number}"
            self.at_hand = deque()
            ours, theirs = Pipe()
            self._channel = Channel(ours)
            threading.Thread(target=serve, args=(Channel(theirs), number), daemon=True).start()
            started.append(number)
            self.send(load)

        def how_it_ended(self) -> str:
            return "was killed" if self.last_word is None else f"gave up: {self.last_word}"

        def end(self, deadline: float) -> None:
            self._channel.close()

    monkeypatch.setattr(scheduler, "WorkerProcess", ThreadWorker)
    return started


class Run:
    """A pool over blocks of one sample each; what it yields, and the most blocks that were under way."""

    def __init__(self, count: int, devices: int = 2, error: Exception | None = None) -> None:
        self.yielded: list[int] = []
        self.most_under_way = 0
        self.left: list[int] = []
        self._count, self._devices, self._error = count, devices, error

    def _samples(self) -> Iterator:
        yield from (sample(number, 20) for number in range(self._count))
        if self._error is not None:
            raise self._error

    def __call__(self) -> None:
        settings = SimpleNamespace(traced=(), projection=ProjectionSettings(dimension=DIMENSION))
        model = ModelSettings(model="m")
        run = self

        class Watched(BlocksAhead):
            looked = False

            @property
            def ended(self) -> bool:
                """The thread that makes the blocks may find out late that there are no more, between two looks."""
                if len(run.yielded) == run._count and not self.looked:
                    self.looked = True
                    return False
                return self.looked and super().ended

            def take(self, timeout: float | None = None) -> Block | None:
                block = super().take(timeout)
                if block is not None:
                    run.most_under_way = max(run.most_under_way, block.number + 1 - len(run.yielded))
                return block

        with (
            scheduler.WorkerPool(model, ("cpu",) * self._devices, False) as opened,
            Watched(self._samples(), 1, budget(20), size=4) as blocks,
        ):
            opened.start(settings, 20)  # type: ignore[arg-type]
            try:
                for block, batch in opened.compute(blocks):
                    assert (batch.vectors == block.number).all()
                    self.yielded.append(block.number)
            finally:
                self.left = [block.number for block, _ in opened.stop()]


@pytest.mark.parametrize("devices", [2, 3])
def test_results_come_in_order_and_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    others: set[int] = set()
    seen_by_first: list[int] = []
    bound = 16 * devices
    at_the_bound, beyond = threading.Event(), threading.Event()

    def behave(worker: int, block: int) -> None:
        if worker == 1 and block == 0:
            # Work goes to who has time: all that may be under way, but for this block and one that waits for it.
            assert at_the_bound.wait(30)
            beyond.wait(0.2)
            seen_by_first.append(max(others))
        elif worker != 1:
            others.add(block)
            if len(others) >= bound - 2:
                at_the_bound.set()
            if block >= bound:
                beyond.set()

    workers(monkeypatch, behave)
    run = Run(5 * bound, devices)
    run()
    assert run.yielded == list(range(5 * bound))
    assert bound - 2 <= seen_by_first[0] < bound
    assert bound - 1 <= run.most_under_way <= bound


def test_large_results_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_WAITING_BYTES", 3 * 4 * DIMENSION)
    others: set[int] = set()
    three_wait, too_many = threading.Event(), threading.Event()

    def behave(worker: int, block: int) -> None:
        if block == 0:
            assert three_wait.wait(30)
            too_many.wait(0.5)
        elif not three_wait.is_set() or worker == 2:
            others.add(block)
            if len(others) == 3:
                three_wait.set()
            if block > 6:
                too_many.set()

    workers(monkeypatch, behave)
    run = Run(40)
    run()
    assert run.yielded == list(range(40))
    assert 4 <= run.most_under_way <= 3 + 2 * 2  # three that wait, and two at hand of each worker


def test_blocks_of_a_dead_worker_are_done_by_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    died = threading.Event()

    def behave(worker: int, block: int) -> None:
        if worker == 1 and block >= 4:
            died.set()
            raise Died
        if block >= 6:  # so that the other one is given blocks, too
            assert died.wait(30)

    started = workers(monkeypatch, behave)
    run = Run(20)
    with caplog.at_level(logging.WARNING, "rapidin"):
        run()
    assert run.yielded == list(range(20))
    assert started == [1, 2]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "worker 1 was killed; computed again: sample '" in warning


def test_another_worker_is_started_when_none_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=30)

    def behave(worker: int, block: int) -> None:
        if worker <= 2 and block >= 3:
            both.wait()
            raise Died

    started = workers(monkeypatch, behave)
    run = Run(20)
    run()
    assert run.yielded == list(range(20))
    assert started == [1, 2, 3]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_a_block_that_kills_twice_is_named_and_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch, device_type: str
) -> None:
    later: set[int] = set()
    others_go_on = threading.Event()

    def behave(worker: int, block: int) -> None:
        if block > 6:
            later.add(block)
            if len(later) >= 4:  # at most two are at hand beside block 6
                others_go_on.set()
        if block == 6:
            assert others_go_on.wait(30)
            raise Died

    workers(monkeypatch, behave, device_type)
    run = Run(20)
    with pytest.raises(ComputationError, match=r"^sample '6': two workers died while they computed it"):
        run()
    assert run.yielded == [0, 1, 2, 3, 4, 5]
    assert run.left
    assert run.left == sorted(set(run.left) & set(range(7, 20)))


def test_on_a_gpu_the_block_that_was_begun_second_is_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(worker: int, block: int) -> None:
        if block == 6:
            raise Died

    started = workers(monkeypatch, behave, "cuda", followed=5)
    run = Run(10, devices=1)
    with caplog.at_level(logging.WARNING, "rapidin"), pytest.raises(ComputationError, match=r"^sample '6': two"):
        run()
    assert run.yielded == [0, 1, 2, 3, 4, 5]
    assert started == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "worker 1 was killed; computed again: sample '5' and sample '6'"
    ]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_an_innocent_block_that_was_at_hand_twice_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch, device_type: str
) -> None:
    deaths = iter([3, 7, 11])
    next_death = [next(deaths)]

    def behave(worker: int, block: int) -> None:
        if block == next_death[0]:
            next_death[0] = next(deaths, -1)
            raise Died

    workers(monkeypatch, behave, device_type)
    run = Run(15, devices=1)
    run()
    assert run.yielded == list(range(15))


@pytest.mark.parametrize("kind", ["GradientError", "RowError", "wait", "Unheard"])
def test_an_error_that_takes_more_than_a_message_becomes_another(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    workers(monkeypatch, lambda worker, block: Failed(kind, "of some code"))
    with pytest.raises(ComputationError, match=r"^of some code \(on cpu\)$"):
        Run(4)()


def test_workers_that_die_before_they_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    workers(monkeypatch, lambda worker, block: None)
    monkeypatch.setattr(Begin, "__reduce__", lambda self: (_die, ()))
    with pytest.raises(ComputationError, match=r"no worker could make ready .*: the last one was killed"):
        Run(4)()


def _die() -> None:
    raise Died


def test_a_block_that_two_workers_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    workers(monkeypatch, lambda worker, block: Failed("ComputationError", "no GPU") if block == 2 else None)
    with pytest.raises(ComputationError, match=r"sample '2': two workers .* gave up: no GPU"):
        Run(8)()


def test_an_error_of_rapidin_is_the_users_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    workers(monkeypatch, lambda worker, block: Failed("ModelError", "no such layer") if block == 3 else None)
    with pytest.raises(ModelError, match=r"no such layer \(on cpu\)"):
        Run(8)()


def test_what_workers_log_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    workers(monkeypatch, lambda worker, block: Logged("rapidin.somewhere", logging.WARNING, f"100 % at {block}"))
    with caplog.at_level(logging.WARNING, "rapidin"):
        Run(2)()
    messages = {record.getMessage().partition(": ")[2] for record in caplog.records}
    assert messages == {"100 % at 0", "100 % at 1"}
    assert {record.name for record in caplog.records} == {"rapidin.somewhere"}
    caplog.clear()
    with caplog.at_level(logging.ERROR, "rapidin"):
        Run(2)()
    assert not caplog.records


def test_an_error_in_the_data_comes_after_the_blocks_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    workers(monkeypatch, lambda worker, block: None)
    run = Run(9, error=DataFileError("the file has changed"))
    with pytest.raises(DataFileError, match="has changed"):
        run()
    assert run.yielded == list(range(9))
