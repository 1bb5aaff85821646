"""Search: queries are encoded, answered by the model where they have no answer, differentiated and looked up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from rapidin.model import StoreModel
from rapidin.records import Sample, SearchResult, StoreInfo
from rapidin.search.closing import Gate
from rapidin.search.explaining import Tell
from rapidin.search.queries import query_of_prompt, read_queries
from rapidin.search.query_search import QuerySearch
from rapidin.settings import Options, SearchOptions
from rapidin.storage import OpenSource, Store, scan_on

if TYPE_CHECKING:
    from torch import nn

    from rapidin.text import Tokenizer

Result = TypeVar("Result")

_QUERIES_AT_ONCE = 64
_THREADS = 4
"""Of asynchronous searches. One computes and one scans at a time; more only wait."""


class Searcher:
    """A store and its model, loaded once for any number of searches, from any number of threads.

    The model serves one search at a time; comparing vectors, filters and reading samples need not wait for it.
    Every search sees the store as it is then: what others ingest, delete or compact needs no reopening.
    Close it, or use it in a ``with`` or an ``async with``.

    Args:
        store: the store, or its path.
        model: where the model is now, if it has moved since the store was built; or the network, if the
            application has it in memory already: a causal language model of transformers, or a PEFT model where
            the store has an adapter. Names and shapes of the traced parameters are compared with the store's, and
            so is the content of all tensors whose type in memory allows it, see `rapidin.model.borrowed`;
            a warning tells how many could not be. Until `close` the network is in evaluation mode, and its
            parameters need no gradients; then modes, flags and gradients are what they were. Between searches the
            application may use it as it likes, except for training; in other threads only while it holds `lock`.
        tokenizer: of the network that is given; None: the one beside the store's model is loaded. Whether it
            encodes a stored sample as at ingest is checked.
        adapter: where the adapter is now, if it has moved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``; a network that is given stays where it is.
        tokens_per_batch: padded tokens computed together; halves itself when memory runs out.
        trust_remote_code: whether the checkpoint's own Python code may run; never remembered.
        source: function that opens what answers searches, see `VectorSource`, for example a search over several
            machines, or ``lambda: store.snapshot(scan)``; None: a snapshot of the store, whose vectors `device`
            compares.

    Raises:
        StoreError: the store cannot be opened.
        StoreMismatchError: the tokenizer is another one.
        ModelError: the model cannot be loaded.
        FingerprintMismatchError: it is not the model that the store was built with.
        SettingError: a tokenizer without a network, or an adapter's place with one.

    Attributes:
        store: the open store.
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        model: str | nn.Module | None = None,
        tokenizer: Tokenizer | None = None,
        adapter: str | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
        source: OpenSource | None = None,
    ) -> None:
        self._owns_store = not isinstance(store, Store)
        self.store = store if isinstance(store, Store) else Store.open(store)
        self._gate = Gate(f"the searcher of {self.store.path}")
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="rapidin-search")
        try:
            self._model = StoreModel(
                self.store,
                model=model,
                tokenizer=tokenizer,
                adapter=adapter,
                device=device,
                tokens_per_batch=tokens_per_batch,
                trust_remote_code=trust_remote_code,
            )
            try:
                self._search = QuerySearch(
                    partial(self.store.snapshot, scan_on(device)) if source is None else source, self._model
                )
            except BaseException:
                self._model.close()
                raise
        except BaseException:
            if self._owns_store:
                self.store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def close(self) -> None:
        """Let go of the model, and of the store if it was opened here; a second time does nothing.

        Searches under way are waited for; those that begin meanwhile or later, also the next step of a
        `search_file`, raise `ClosedError`.

        Raises:
            ClosedError: a search's `on_progress` calls it.
        """
        if self._gate.close():
            self._executor.shutdown()
            self._model.close()
            if self._owns_store:
                self.store.close()

    async def aclose(self) -> None:
        """`close`, without keeping the event loop waiting."""
        await asyncio.to_thread(self.close)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._gate.closed

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Held while the model computes; to be taken by who uses a network that was given in another thread."""
        return self._model.lock

    def sample(self, id: str) -> Sample:
        """The stored sample with that id.

        Raises:
            SampleNotFoundError: there is none.
            ClosedError: the searcher was closed.
        """
        with self._gate.inside():
            return self.store.get(id)

    def info(self) -> StoreInfo:
        """What the store holds now.

        Raises:
            ClosedError: the searcher was closed.
        """
        with self._gate.inside():
            return self.store.info()

    def count_tokens(self, prompt: str | None, generation: str | None = None) -> int:
        """Tokens of a query as the model sees it, after it was cut to the store's maximum length.

        Raises:
            RapidinError: as of `search`.
        """
        query = query_of_prompt(prompt, generation, self.store.settings.text)
        with self._gate.inside():
            return self._model.count_tokens(query)

    def search(
        self,
        prompt: str | None = None,
        generation: str | None = None,
        *,
        on_progress: Tell | None = None,
        **options: Unpack[Options],
    ) -> SearchResult:
        """Find the training samples behind one generation.

        Args:
            prompt: what the model was asked; put into the template of the store's rows. None: the generation is
                asked about by itself, as if the model had written it from nothing.
            generation: what it answered; None: the model answers now, greedily.
            on_progress: told of what takes longer: a step, how much of it is done, and of how much. It is called
                while the model waits, so it must not wait for another search.
            options: see `Options`.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        wanted = SearchOptions(**options)
        query = query_of_prompt(prompt, generation, self.store.settings.text)
        with self._gate.inside():
            (result,) = self._search.results([query], wanted, on_progress)
        return result

    async def asearch(
        self,
        prompt: str | None = None,
        generation: str | None = None,
        *,
        on_progress: Tell | None = None,
        **options: Unpack[Options],
    ) -> SearchResult:
        """`search` in a thread of its own, while the event loop goes on.

        A task that is cancelled stops waiting at once. A search that has begun then ends unheard in its thread,
        one that has not never begins, and the searcher stays usable.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        search = partial(self.search, prompt, generation, on_progress=on_progress, **options)
        return await self._in_thread(search)

    def search_file(
        self,
        file: str | Path,
        *,
        on_progress: Callable[[int], None] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[SearchResult]:
        """Search for every row of a data file, in its order; rows without a response get the model's own.

        Args:
            file: of the shapes that `ingest` takes.
            on_progress: told the number of queries answered so far.
            options: see `Options`.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        wanted = SearchOptions(**options)
        queries = read_queries(Path(file), self.store.settings.text)
        done = 0
        while chunk := list(islice(queries, _QUERIES_AT_ONCE)):
            answers = self._search.results(chunk, wanted, None)
            while True:
                with self._gate.inside():  # not while the caller looks at a result
                    result = next(answers, None)
                if result is None:
                    break
                yield result
                done += 1
                if on_progress is not None:
                    on_progress(done)

    async def asearch_file(self, file: str | Path, **options: Unpack[Options]) -> AsyncIterator[SearchResult]:
        """`search_file`, each of its steps in a thread, while the event loop goes on.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        results = self.search_file(file, **options)
        while (result := await self._in_thread(partial(next, results, None))) is not None:
            yield result

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        with self._gate.inside():  # an executor that was shut down would say it less clearly
            future = self._executor.submit(call)
        return await asyncio.wrap_future(future)
