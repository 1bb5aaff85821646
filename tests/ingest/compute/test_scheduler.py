"""The scheduler's order of work, with threads in the place of processes, which do as they are told at once."""

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from rapidin.errors import ComputationError, DataFileError, ModelError
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.compute.messages import Failed, Load, Logged
from rapidin.ingest.compute.scheduler import Scheduler
from rapidin.settings import GradientSettings, ModelSettings, ProjectionSettings
from tests.ingest.compute.stub_workers import DIMENSION, Died, ThreadWorkers
from tests.ingest.planned import single_blocks

pytestmark = pytest.mark.timeout(60)


class Run:
    """A scheduler over blocks of one sample each; what it yields, and the most blocks that were under way."""

    def __init__(self, count: int, devices: int = 2, error: Exception | None = None, times: int = 1) -> None:
        self.yielded: list[int] = []
        self.most_under_way = 0
        self.left: list[int] = []
        self._count, self._devices, self._error, self._times = count, devices, error, times

    def _blocks(self) -> Iterator[WorkBlock]:
        for block in single_blocks(self._count):
            self.most_under_way = max(self.most_under_way, block.number + 1 - len(self.yielded))
            yield block
        if self._error is not None:
            raise self._error

    def __call__(self, transport: ThreadWorkers, **options: int) -> None:
        settings = SimpleNamespace(
            traced=(), gradient=GradientSettings(), section=ProjectionSettings(dimension=DIMENSION)
        )
        loads = [Load(ModelSettings(model="m"), "cpu", False, 1, logging.WARNING)] * self._devices
        with Scheduler(transport, loads, **options) as scheduler:
            scheduler.start(settings, 20)  # type: ignore[arg-type]
            try:
                for _ in range(self._times):
                    for block, batch in scheduler.compute(self._blocks()):
                        assert (batch.vectors == block.number).all()
                        self.yielded.append(block.number)
            finally:
                self.left = [block.number for block, _ in scheduler.stop()]


@pytest.mark.parametrize("devices", [2, 3])
def test_results_come_in_order_and_do_not_pile_up(devices: int) -> None:
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

    transport = ThreadWorkers(behave)
    run = Run(5 * bound, devices)
    run(transport)
    assert run.yielded == list(range(5 * bound))
    assert bound - 2 <= seen_by_first[0] < bound
    assert bound - 1 <= run.most_under_way <= bound


def test_large_results_do_not_pile_up() -> None:
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

    transport = ThreadWorkers(behave)
    run = Run(40)
    run(transport, waiting_bytes=3 * 4 * DIMENSION)
    assert run.yielded == list(range(40))
    assert 4 <= run.most_under_way <= 3 + 2 * 2  # three that wait, and two at hand of each worker


def test_blocks_of_a_dead_worker_are_done_by_another(caplog: pytest.LogCaptureFixture) -> None:
    died = threading.Event()

    def behave(worker: int, block: int) -> None:
        if worker == 1 and block >= 4:
            died.set()
            raise Died
        if block >= 6:  # so that the other one is given blocks, too
            assert died.wait(30)

    transport = ThreadWorkers(behave)
    run = Run(20)
    with caplog.at_level(logging.WARNING, "rapidin"):
        run(transport)
    assert run.yielded == list(range(20))
    assert transport.started == [1, 2]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "worker 1 was killed; computed again: sample '" in warning


def test_another_worker_is_started_when_none_lives() -> None:
    both = threading.Barrier(2, timeout=30)

    def behave(worker: int, block: int) -> None:
        if worker <= 2 and block >= 3:
            both.wait()
            raise Died

    transport = ThreadWorkers(behave)
    run = Run(20)
    run(transport)
    assert run.yielded == list(range(20))
    assert transport.started == [1, 2, 3]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_a_block_that_kills_twice_is_named_and_the_others_are_kept(device_type: str) -> None:
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

    transport = ThreadWorkers(behave, device_type)
    run = Run(20)
    with pytest.raises(ComputationError, match=r"^sample '6': two workers died while they computed it"):
        run(transport)
    assert run.yielded == [0, 1, 2, 3, 4, 5]
    assert run.left
    assert run.left == sorted(set(run.left) & set(range(7, 20)))


def test_on_a_gpu_the_block_that_was_begun_second_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    def behave(worker: int, block: int) -> None:
        if block == 6:
            raise Died

    transport = ThreadWorkers(behave, "cuda", followed=5)
    run = Run(10, devices=1)
    with caplog.at_level(logging.WARNING, "rapidin"), pytest.raises(ComputationError, match=r"^sample '6': two"):
        run(transport)
    assert run.yielded == [0, 1, 2, 3, 4, 5]
    assert transport.started == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "worker 1 was killed; computed again: sample '5' and sample '6'"
    ]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_an_innocent_block_that_was_at_hand_twice_is_not_blamed(device_type: str) -> None:
    deaths = iter([3, 7, 11])
    next_death = [next(deaths)]

    def behave(worker: int, block: int) -> None:
        if block == next_death[0]:
            next_death[0] = next(deaths, -1)
            raise Died

    transport = ThreadWorkers(behave, device_type)
    run = Run(15, devices=1)
    run(transport)
    assert run.yielded == list(range(15))


@pytest.mark.parametrize("kind", ["GradientError", "RowError", "wait", "Unheard"])
def test_an_error_that_takes_more_than_a_message_becomes_another(kind: str) -> None:
    transport = ThreadWorkers(lambda worker, block: Failed(kind, "of some code"))
    with pytest.raises(ComputationError, match=r"^of some code \(on cpu\)$"):
        Run(4)(transport)


def test_workers_that_die_before_they_are_ready() -> None:
    transport = ThreadWorkers(dies_at_the_start=True)
    with pytest.raises(ComputationError, match=r"no worker could get ready .*: the last one was killed"):
        Run(4)(transport)


def test_a_block_that_two_workers_give_up() -> None:
    transport = ThreadWorkers(lambda worker, block: Failed("ComputationError", "no GPU") if block == 2 else None)
    with pytest.raises(ComputationError, match=r"sample '2': two workers .* gave up: no GPU"):
        Run(8)(transport)


def test_an_error_of_rapidin_is_the_users_at_once() -> None:
    transport = ThreadWorkers(lambda worker, block: Failed("ModelError", "no such layer") if block == 3 else None)
    with pytest.raises(ModelError, match=r"no such layer \(on cpu\)"):
        Run(8)(transport)


def test_what_workers_log_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    transport = ThreadWorkers(
        lambda worker, block: Logged("rapidin.somewhere", logging.WARNING, f"100 % at {block}")
    )
    with caplog.at_level(logging.WARNING, "rapidin"):
        Run(2)(transport)
    messages = {record.getMessage().partition(": ")[2] for record in caplog.records}
    assert messages == {"100 % at 0", "100 % at 1"}
    assert {record.name for record in caplog.records} == {"rapidin.somewhere"}
    caplog.clear()
    with caplog.at_level(logging.ERROR, "rapidin"):
        Run(2)(transport)
    assert not caplog.records


def test_an_error_in_the_data_comes_after_the_blocks_before_it() -> None:
    transport = ThreadWorkers()
    run = Run(9, error=DataFileError("the file has changed"))
    with pytest.raises(DataFileError, match="has changed"):
        run(transport)
    assert run.yielded == list(range(9))


def test_it_computes_again_and_a_suspect_of_before_is_none_any_more() -> None:
    computed: list[int] = []

    def behave(worker: int, block: int) -> None:
        computed.append(block)
        if block == 1 and computed.count(1) in (1, 3):  # once in each run
            raise Died

    transport = ThreadWorkers(behave)
    run = Run(3, devices=1, times=2)
    run(transport)
    assert run.yielded == [0, 1, 2, 0, 1, 2]
