"""The scheduler: workers compute an ingest's blocks, and their results come back in the blocks' order.

Each worker has at most two blocks at hand: it computes one, and the other one waits, so that the worker is never
idle between two blocks. If a worker dies, another one computes its blocks. If a second worker dies on the same
block, the ingest ends with an error. A block that may have killed a worker is a suspect; it is given to a worker
that has nothing else at hand, so that no other block can be blamed if this worker dies, too.

The scheduler does not know what workers are. It reaches them through a `Transport`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Self

import torch

from rapidin import errors
from rapidin.attribution import RapidGradBatch, TokenBudget
from rapidin.errors import ComputationError, RapidinError
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.compute.messages import Begin, Computed, Failed, Load, Loaded, Logged, Ready, TokenIds, Work
from rapidin.ingest.compute.transport import Transport, Worker
from rapidin.settings import StoreSettings, TracedParameter
from rapidin.support import interruptions_wait

logger = logging.getLogger(__name__)

_AT_HAND = 2
_UNDER_WAY = 16
"""Maximum number of blocks per worker whose results are not handed over yet, because they wait behind a slow
block.

With only two blocks, the slowest worker would hold up all others.
"""

_WAITING_BYTES = 128 * 2**20
"""Size in bytes of waiting results above which no worker gets more than two blocks ahead of the first one."""

_SECONDS_TO_END = 2.0


@dataclass(slots=True, eq=False)
class _Station:
    """A worker, and what the scheduler knows about it.

    Attributes:
        worker: the worker.
        load: first message that the worker got.
        at_hand: blocks that the worker was given and has not answered; it computes the first of them.
        last_word: reason that the worker gave for its end; None if it gave none.
    """

    worker: Worker
    load: Load
    at_hand: deque[WorkBlock] = field(default_factory=deque)
    last_word: str | None = None

    def give(self, block: WorkBlock) -> None:
        """Let the worker compute a block after those that it has at hand."""
        self.at_hand.append(block)
        samples = tuple(TokenIds(one.id, one.ids, one.targets) for one in block.samples)
        self.worker.send(Work(block.number, samples, block.draw))

    def take_back(self, number: int) -> WorkBlock:
        """Remove the block that the worker has answered from those that it has at hand, and return it."""
        block = self.at_hand.popleft()
        if block.number != number:
            raise RuntimeError(f"{self.worker.name} answers block {number} before block {block.number}")
        return block

    def how_it_ended(self) -> str:
        """Say how the worker ended."""
        how = self.worker.how_it_ended()
        return how if self.last_word is None else f"gave up: {self.last_word}"


class Scheduler:
    """A computer that hands blocks to several workers, each with a model of its own; see `Computer`.

    Args:
        transport: transport that starts the workers.
        loads: first message of each worker: the model and the worker's device.
        waiting_bytes: size in bytes of waiting results above which no worker gets more than two blocks ahead.

    Raises:
        ModelError, DependencyError, SettingError: the model cannot be loaded; the message names the device.
        ComputationError: all workers died while they loaded it.
    """

    def __init__(self, transport: Transport, loads: Sequence[Load], waiting_bytes: int = _WAITING_BYTES) -> None:
        self._transport = transport
        self._most_under_way = _UNDER_WAY * len(loads)
        self._under_way_when_full = _AT_HAND * len(loads)
        self._waiting_bytes = waiting_bytes
        self._begin: Begin | None = None
        self._numbers = count(1)
        self._stations: list[_Station] = []
        # Blocks with numbers below _next are handed over; those from _next to _taken - 1 are under way.
        self._taken = 0
        self._next = 0
        self._exhausted = False
        self._error: Exception | None = None
        self._done: dict[int, tuple[WorkBlock, RapidGradBatch]] = {}
        self._again: deque[WorkBlock] = deque()
        self._suspects: set[int] = set()
        try:
            # A checkpoint's own code is copied to a cache by the first worker that loads it. A second worker that
            # came too early would find half a file.
            first = 1 if any(load.trust_remote_code for load in loads) else len(loads)
            loaded = [*self._started(loads[:first]), *self._started(loads[first:])]
        except BaseException:
            self.stop()
            raise
        self.parameters: tuple[TracedParameter, ...] = loaded[0].parameters
        self._device_type = loaded[0].device_type
        self.processes = len(self._stations)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end(time.monotonic() + (_SECONDS_TO_END if exception[0] is None else 0))

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        """See `Computer.start`."""
        self._begin = Begin(settings.traced, settings.gradient, settings.section, tokens_per_batch)
        for station in self._stations:
            station.worker.send(self._begin)
        self._answers(Ready, self._stations)
        return TokenBudget.for_device(
            tokens_per_batch, torch.device(self._device_type), settings.section.dimension
        )

    def compute(self, blocks: Iterator[WorkBlock]) -> Iterator[tuple[WorkBlock, RapidGradBatch]]:
        """See `Computer.compute`."""
        while True:
            self._hand_out(blocks)
            while self._next in self._done:
                done = self._done.pop(self._next)
                self._next += 1
                yield done
            if self._next < self._taken:
                self._listen()
            elif self._exhausted:
                break
        if self._error is not None:
            raise self._error
        # All blocks are handed over, and the next call numbers its blocks from 0 again.
        self._taken = self._next = 0
        self._exhausted = False
        self._suspects.clear()

    def stop(self) -> list[tuple[WorkBlock, RapidGradBatch]]:
        """See `Computer.stop`."""
        self._end(time.monotonic())
        done, self._done = self._done, {}
        return [done[number] for number in sorted(done)]

    def _end(self, deadline: float) -> None:
        """Let the workers end by themselves until a deadline, then kill them."""
        stations, self._stations = self._stations, []
        for station in stations:
            station.worker.hang_up()
        for station in stations:
            station.worker.end(deadline)

    def _hand_out(self, blocks: Iterator[WorkBlock]) -> None:
        """Give blocks to workers: a first one to each before any gets a second one, and none beside a suspect."""
        for limit in range(1, _AT_HAND + 1):
            for station in self._stations:
                if len(station.at_hand) < limit and not (station.at_hand and self._must_be_alone(station)):
                    block = self._following(blocks)
                    if block is None:
                        return
                    station.give(block)

    def _must_be_alone(self, station: _Station) -> bool:
        """Tell whether the worker's block, or the one that it would get beside it, is a suspect."""
        return any(block.number in self._suspects for block in (*station.at_hand, *list(self._again)[:1]))

    def _following(self, blocks: Iterator[WorkBlock]) -> WorkBlock | None:
        """Return the next block to give to a worker; None if there is none now."""
        if self._again:
            return self._again.popleft()
        under_way = self._taken - self._next
        waiting = sum(batch.vectors.nbytes for _, batch in self._done.values())
        full = waiting >= self._waiting_bytes and under_way >= self._under_way_when_full
        if self._exhausted or full or under_way >= self._most_under_way:
            return None
        try:
            block = next(blocks, None)
        except Exception as error:  # noqa: BLE001 - it is raised in `compute`
            # It is raised after the results of the blocks before it.
            block, self._error = None, error
        if block is None:
            self._exhausted = True
        else:
            self._taken = block.number + 1
        return block

    def _listen(self) -> None:
        """Wait for messages from workers and deal with them."""
        for station in self._ready():
            try:
                message = station.worker.receive()
            except EOFError:
                self._bury(station)
                continue
            if isinstance(message, Computed):
                self._done[message.number] = (station.take_back(message.number), message.batch)
            else:
                self._hear(station, message)

    def _ready(self) -> list[_Station]:
        """Wait until a worker has a message or has ended."""
        by_worker = {id(station.worker): station for station in self._stations}
        return [by_worker[id(worker)] for worker in self._transport.ready([one.worker for one in self._stations])]

    def _hear(self, station: _Station, message: object) -> None:
        """Deal with a message that is not a result."""
        if isinstance(message, Logged):
            target = logging.getLogger(message.name)
            if target.isEnabledFor(message.level):
                target.log(message.level, "%s: %s", station.worker.name, message.message)
        elif isinstance(message, Failed) and message.kind in (None, ComputationError.__name__):
            station.last_word = message.message  # this worker ends now, and another one may succeed
        elif isinstance(message, Failed):
            raise _error(str(message.kind), f"{message.message} (on {station.load.device})")
        else:
            raise TypeError(f"{station.worker.name} sends {type(message).__name__}")

    def _started(self, loads: Sequence[Load]) -> list[Loaded]:
        """Start workers and wait until they have loaded the model."""
        stations = []
        for load in loads:
            with interruptions_wait():  # until the worker is in the list of those that `_end` ends
                self._stations.append(_Station(self._transport.start(next(self._numbers), load), load))
            stations.append(self._stations[-1])
        return self._answers(Loaded, stations)

    def _answers(self, kind: type[Loaded] | type[Ready], stations: Sequence[_Station]) -> list[Loaded]:
        """Wait until each of some workers has answered or died.

        Args:
            kind: class of the answer.
            stations: the workers.

        Returns:
            The answers of kind `Loaded`.

        Raises:
            ComputationError: no worker is left.
        """
        answers: list[Loaded] = []
        waiting = set(stations)
        how = ""
        while waiting:
            for station in self._ready():
                try:
                    message = station.worker.receive()
                except EOFError:
                    how = station.how_it_ended()
                    self._stations.remove(station)
                    waiting.discard(station)
                    logger.warning("%s %s before it computed anything", station.worker.name, how)
                    continue
                if isinstance(message, kind):
                    waiting.discard(station)
                    answers += [message] if isinstance(message, Loaded) else []
                else:
                    self._hear(station, message)
        if not self._stations:
            what = "load the model" if kind is Loaded else "get ready to compute with the model"
            raise ComputationError(
                f"no worker could {what}: the last one {how}; give fewer --workers, a smaller --dtype or "
                "another --device"
            )
        return answers

    def _bury(self, station: _Station) -> None:
        """Take back the blocks of a worker that died, so that another one computes them.

        Raises:
            ComputationError: another worker died on the same block before.
        """
        how = station.how_it_ended()
        self._stations.remove(station)
        unfinished = sorted([*station.at_hand, *self._again], key=lambda block: block.number)
        # A GPU begins the second block before it has answered the first, so either may be the cause. On a CPU the
        # second block was only waiting.
        for suspect in list(station.at_hand)[: _AT_HAND if self._device_type == "cuda" else 1]:
            if suspect.number in self._suspects:  # it was alone, so it is the cause
                it = "them" if len(suspect.samples) > 1 else "it"
                raise ComputationError(
                    f"{suspect.names}: two workers died while they computed {it}, the last one {how}; all "
                    "that was computed before is stored. Give a smaller --tokens-per-batch or fewer --workers, or "
                    "leave the guilty row out"
                )
            self._suspects.add(suspect.number)
        self._again = deque(unfinished)
        again = " and ".join(block.names for block in station.at_hand) or "nothing"
        logger.warning("%s %s; computed again: %s", station.worker.name, how, again)
        if not self._stations:
            self._replace(station)

    def _replace(self, station: _Station) -> None:
        """Start a worker in the place of the last one that died."""
        if self._begin is None:
            raise RuntimeError("start comes before compute")
        self._started([station.load])
        for successor in self._stations:
            successor.worker.send(self._begin)
        self._answers(Ready, self._stations)


def _error(kind: str, message: str) -> RapidinError:
    """Make the error that a worker reports; its class must be known and take a message, else it is replaced."""
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, RapidinError):
        with suppress(TypeError):
            return known(message)
    return ComputationError(message)
