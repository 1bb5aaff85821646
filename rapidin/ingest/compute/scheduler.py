"""Several workers compute an ingest's blocks; their results come back in the blocks' order.

Each worker has at most two blocks at hand, one that it computes and one that waits, so that it never idles between
two. Blocks of a worker that died are computed by another; a block on which two died ends the ingest. So that it is
the right one, a block that may have killed a worker is computed by one that has nothing else at hand.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing.connection import wait

import torch

from rapidin import errors
from rapidin.attribution import RapidGradBatch, TokenBudget
from rapidin.errors import ComputationError, RapidinError
from rapidin.ingest.blocks import Block, BlocksAhead
from rapidin.ingest.compute.local_workers import WorkerProcess
from rapidin.ingest.compute.messages import Begin, Computed, Failed, Load, Loaded, Logged, Ready
from rapidin.settings import ModelSettings, StoreSettings, TracedParameter
from rapidin.support import interruptions_wait, processors

logger = logging.getLogger(__name__)

_AT_HAND = 2
_UNDER_WAY = 16
"""The most blocks per worker whose results are not handed on yet. They wait where a slow block comes first; with
no more than two, all workers would keep step with the slowest."""

_WAITING_BYTES = 128 * 2**20
"""Memory for results that wait, above which no worker gets more than two blocks ahead of the first."""

_SECONDS_FOR_A_BLOCK = 0.05
"""How long results are waited for before looking again whether a block is ready for an idle worker."""

_SECONDS_TO_END = 2.0


class WorkerPool:
    """Workers with a model each; see `rapidin.ingest.compute.computer.Computer`.

    Args:
        model: to be loaded.
        devices: of each worker, as of ``--device``.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Raises:
        ModelError, DependencyError, SettingError: the model cannot be loaded; names the device.
        ComputationError: all workers died while they loaded it.
    """

    def __init__(self, model: ModelSettings, devices: tuple[str, ...], trust_remote_code: bool) -> None:
        threads = _threads(len(devices))
        level = logging.getLogger("rapidin").getEffectiveLevel()
        self._loads = [Load(model, device, trust_remote_code, threads, level) for device in devices]
        self._begin: Begin | None = None
        self._numbers = count(1)
        self._workers: list[WorkerProcess] = []
        # Blocks by number: below _next are handed on, below _taken are under way.
        self._taken = 0
        self._next = 0
        self._done: dict[int, tuple[Block, RapidGradBatch]] = {}
        self._again: deque[Block] = deque()
        self._suspects: set[int] = set()
        try:
            # A checkpoint's own code is copied to a cache by the first that loads it, and half a file is no code.
            first = 1 if trust_remote_code else len(devices)
            loaded = [*self._started(self._loads[:first]), *self._started(self._loads[first:])]
        except BaseException:
            self.stop()
            raise
        self.parameters: tuple[TracedParameter, ...] = loaded[0].parameters
        self._device_type = loaded[0].device_type
        self.processes = len(self._workers)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end(time.monotonic() + (_SECONDS_TO_END if exception[0] is None else 0))

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        """See `Computer.start`."""
        self._begin = Begin(settings.traced, settings.projection, tokens_per_batch)
        for worker in self._workers:
            worker.send(self._begin)
        self._answers(Ready, self._workers)
        return TokenBudget.for_device(
            tokens_per_batch, torch.device(self._device_type), settings.projection.dimension
        )

    def compute(self, blocks: BlocksAhead) -> Iterator[tuple[Block, RapidGradBatch]]:
        """See `Computer.compute`."""
        while True:
            self._hand_out(blocks)
            while self._next in self._done:
                done = self._done.pop(self._next)
                self._next += 1
                yield done
            if self._next < self._taken:
                self._listen(blocks)
            elif blocks.ended:
                break
        blocks.check()

    def stop(self) -> list[tuple[Block, RapidGradBatch]]:
        """See `Computer.stop`."""
        self._end(time.monotonic())
        done, self._done = self._done, {}
        return [done[number] for number in sorted(done)]

    def _end(self, deadline: float) -> None:
        """Let the workers end by themselves until a deadline, then kill them."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.hang_up()
        for worker in workers:
            worker.end(deadline)

    def _hand_out(self, blocks: BlocksAhead) -> None:
        """Give every worker a block before any gets a second one, and none beside a suspect."""
        for limit in range(1, _AT_HAND + 1):
            for worker in self._workers:
                if len(worker.at_hand) < limit and not (worker.at_hand and self._must_be_alone(worker)):
                    block = self._following(blocks)
                    if block is None:
                        return
                    worker.give(block)

    def _must_be_alone(self, worker: WorkerProcess) -> bool:
        """Whether the worker's block, or the one that it would get beside it, is a suspect."""
        return any(block.number in self._suspects for block in (*worker.at_hand, *list(self._again)[:1]))

    def _following(self, blocks: BlocksAhead) -> Block | None:
        """The next block to hand out, None where there is none now."""
        if self._again:
            return self._again.popleft()
        under_way = self._taken - self._next
        waiting = sum(batch.vectors.nbytes for _, batch in self._done.values())
        if under_way >= _UNDER_WAY * len(self._loads) or (
            waiting >= _WAITING_BYTES and under_way >= _AT_HAND * len(self._loads)
        ):
            return None
        block = blocks.take(timeout=0 if under_way else None)
        if block is not None:
            self._taken = block.number + 1
        return block

    def _listen(self, blocks: BlocksAhead) -> None:
        """Wait for results, or for a short time where workers could do more."""
        busy = all(len(worker.at_hand) == _AT_HAND for worker in self._workers) or blocks.ended
        for worker in self._ready(None if busy else _SECONDS_FOR_A_BLOCK):
            try:
                message = worker.receive()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(message, Computed):
                self._done[message.number] = (worker.take_back(message.number), message.batch)
            else:
                self._hear(worker, message)

    def _ready(self, timeout: float | None) -> list[WorkerProcess]:
        by_connection = {worker.connection: worker for worker in self._workers}
        return [by_connection[connection] for connection in wait(list(by_connection), timeout)]  # type: ignore[index]

    def _hear(self, worker: WorkerProcess, message: object) -> None:
        """Deal with a message that is no result."""
        if isinstance(message, Logged):
            target = logging.getLogger(message.name)
            if target.isEnabledFor(message.level):
                target.log(message.level, "%s: %s", worker.name, message.message)
        elif isinstance(message, Failed) and message.kind in (None, ComputationError.__name__):
            worker.last_word = message.message  # it ends now, and another may do better
        elif isinstance(message, Failed):
            raise _error(str(message.kind), f"{message.message} (on {worker.load.device})")
        else:
            raise TypeError(f"{worker.name} sends {type(message).__name__}")

    def _started(self, loads: Sequence[Load]) -> list[Loaded]:
        """Start workers and wait until they have loaded the model."""
        workers = []
        for load in loads:
            with interruptions_wait():  # until it is among those that are ended whatever happens
                self._workers.append(WorkerProcess(next(self._numbers), load))
            workers.append(self._workers[-1])
        return self._answers(Loaded, workers)

    def _answers(self, kind: type[Loaded] | type[Ready], workers: Sequence[WorkerProcess]) -> list[Loaded]:
        """Wait until workers have answered, or died; of all at least one must live."""
        answers: list[Loaded] = []
        waiting = set(workers)
        how = ""
        while waiting:
            for worker in self._ready(None):
                try:
                    message = worker.receive()
                except (EOFError, OSError):
                    how = worker.how_it_ended()
                    self._workers.remove(worker)
                    waiting.discard(worker)
                    logger.warning("%s %s before it computed anything", worker.name, how)
                    continue
                if isinstance(message, kind):
                    waiting.discard(worker)
                    answers += [message] if isinstance(message, Loaded) else []
                else:
                    self._hear(worker, message)
        if not self._workers:
            what = "load the model" if kind is Loaded else "make ready to compute with the model"
            raise ComputationError(
                f"no worker could {what}: the last one {how}; give fewer --workers, a smaller --dtype or "
                "another --device"
            )
        return answers

    def _bury(self, worker: WorkerProcess) -> None:
        """Take the blocks of a worker that died back, to be computed by another one.

        Raises:
            ComputationError: a worker died on the same block before.
        """
        how = worker.how_it_ended()
        self._workers.remove(worker)
        unfinished = sorted([*worker.at_hand, *self._again], key=lambda block: block.number)
        # On a GPU the second block is begun before the first is answered; on a CPU it was only waiting.
        for suspect in list(worker.at_hand)[: _AT_HAND if self._device_type == "cuda" else 1]:
            if suspect.number in self._suspects:  # so it was alone
                it = "them" if len(suspect.samples) > 1 else "it"
                raise ComputationError(
                    f"{suspect.names}: two workers died while they computed {it}, the last one {how}; all "
                    "that was computed before is stored. Give a smaller --tokens-per-batch or fewer --workers, or "
                    "leave the guilty row out"
                )
            self._suspects.add(suspect.number)
        self._again = deque(unfinished)
        again = " and ".join(block.names for block in worker.at_hand) or "nothing"
        logger.warning("%s %s; computed again: %s", worker.name, how, again)
        if not self._workers:
            self._replace(worker)

    def _replace(self, worker: WorkerProcess) -> None:
        """Start a worker in the place of the last one that died."""
        self._started([worker.load])
        for successor in self._workers:
            successor.send(self._begin)
        self._answers(Ready, self._workers)


def _error(kind: str, message: str) -> RapidinError:
    """The error of a worker; one that takes more than a message, or that nobody knows here, becomes another."""
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, RapidinError):
        with suppress(TypeError):
            return known(message)
    return ComputationError(message)


def _threads(workers: int) -> int:
    """Threads of each worker: its share of the processors, unless the user (OMP_NUM_THREADS) wants fewer."""
    return max(1, min(processors() // workers, torch.get_num_threads()))
