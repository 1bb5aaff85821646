"""Search: queries are encoded, answered by the model where they have no answer, differentiated and looked up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from rapidin.model import StoreCorrections, StoreModel
from rapidin.records import Sample, SearchResult, StoreInfo
from rapidin.search.closing_latch import ClosingLatch
from rapidin.search.exact_curvature import Tell
from rapidin.search.queries import query_of_prompt, read_queries
from rapidin.search.query_search import QuerySearch
from rapidin.settings import SearchKeywords, SearchOptions, options_with
from rapidin.storage import OpenSource, Store, scan_on

if TYPE_CHECKING:
    from torch import nn

    from rapidin.text import Tokenizer

Result = TypeVar("Result")

_QUERIES_AT_ONCE = 64
_THREADS = 4
"""Number of threads for asynchronous searches. One computes and one scans at a time; more would only wait."""


class Searcher:
    """A store and its model, loaded once for any number of searches, from any number of threads.

    The model serves one search at a time; comparing vectors, filtering and reading samples need not wait for it.
    Every search sees the store as it is at that time, so you need not reopen it after another process ingested,
    deleted or compacted. Close the searcher, or use it in a ``with`` or an ``async with``.

    Args:
        store: the store, or its path.
        model: where the model is now, if it has moved since the store was built; or the network, if the
            application has it in memory already: a causal language model of transformers, or a PEFT model if
            the store has an adapter. Names and shapes of the traced parameters are compared with the store's, and
            so is the content of all tensors whose type in memory allows it, see `rapidin.model.networks.borrowed`;
            a warning tells how many could not be compared. Until `close` the network is in evaluation mode, and
            its parameters need no gradients; then modes, flags and gradients are restored. Between searches
            the application may use the network, but not train it; other threads must hold `lock` meanwhile.
        tokenizer: tokenizer of the network that is given; None: the one beside the store's model is loaded. A
            check tells whether it encodes a stored sample as at ingest.
        adapter: where the adapter is now, if it has moved.
        checkpoints: where all checkpoints of the store are now, in their order, if they have moved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``; a network that is given stays where it is.
        tokens_per_batch: number of padded tokens computed together; it is halved when memory runs out.
        trust_remote_code: whether the checkpoint's own Python code may run; a store does not remember this.
        source: function that opens what answers searches, see `VectorSource`, for example a search over several
            machines, or ``lambda: store.snapshot(scan)``; None: a snapshot of the store, whose vectors `device`
            compares.

    Raises:
        StoreError: the store cannot be opened.
        StoreMismatchError: the tokenizer differs from the store's.
        ModelError: the model cannot be loaded.
        FingerprintMismatchError: the model is not the one that the store was built with.
        SettingError: a tokenizer is given without a network, or an adapter's place with one.

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
        checkpoints: Sequence[str | Path] | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
        source: OpenSource | None = None,
    ) -> None:
        self._owns_store = not isinstance(store, Store)
        self.store = store if isinstance(store, Store) else Store.open(store)
        self._latch = ClosingLatch(f"the searcher of {self.store.path}")
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="rapidin-search")
        try:
            self._model = StoreModel(
                self.store,
                model=model,
                tokenizer=tokenizer,
                adapter=adapter,
                checkpoints=checkpoints,
                device=device,
                tokens_per_batch=tokens_per_batch,
                trust_remote_code=trust_remote_code,
            )
            try:
                self._search = QuerySearch(
                    partial(self.store.snapshot, scan_on(device)) if source is None else source,
                    self._model,
                    StoreCorrections(self.store),
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
        """Let go of the model, and of the store if it was opened here; a second call does nothing.

        The call waits for searches under way. Searches that begin meanwhile or later, also the next step of a
        `search_file`, raise `ClosedError`.

        Raises:
            ClosedError: a search's `on_progress` calls it.
        """
        if self._latch.close():
            self._executor.shutdown()
            self._model.close()
            if self._owns_store:
                self.store.close()

    async def aclose(self) -> None:
        """Close as `close` does, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    @property
    def closed(self) -> bool:
        """Whether the searcher was closed."""
        return self._latch.closed

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Lock that is held while the model computes.

        Take it to use the network that you gave to the searcher in another thread.
        """
        return self._model.lock

    def sample(self, id: str) -> Sample:
        """Return the stored sample with that id.

        Raises:
            SampleNotFoundError: no sample has the id.
            ClosedError: the searcher was closed.
        """
        with self._latch.inside():
            return self.store.get(id)

    def info(self) -> StoreInfo:
        """Say what the store holds now.

        Raises:
            ClosedError: the searcher was closed.
        """
        with self._latch.inside():
            return self.store.info()

    def count_tokens(self, prompt: str | None, generation: str | None = None) -> int:
        """Count the tokens of a query as the model sees it, after it was cut to the store's maximum length.

        Raises:
            RapidinError: the same errors as `search` raises.
        """
        query = query_of_prompt(prompt, generation, self.store.settings.text)
        with self._latch.inside():
            return self._model.count_tokens(query)

    def search(
        self,
        prompt: str | None = None,
        generation: str | None = None,
        *,
        options: SearchOptions | None = None,
        on_progress: Tell | None = None,
        **changes: Unpack[SearchKeywords],
    ) -> SearchResult:
        """Find the training samples behind one generation.

        Args:
            prompt: what the model was asked; put into the template of the store's rows. None: the generation is
                asked about by itself, as if the model had written it from nothing.
            generation: what it answered; None: the model answers now, greedily.
            options: options of the search; None: the defaults.
            on_progress: function that is told of what takes longer: a step, how much of it is done, and of how
                much. It is called while the model waits, so it must not wait for another search.
            changes: options by name, such as ``k=5``, in place of those of `options`.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        wanted = options_with(options, changes)
        query = query_of_prompt(prompt, generation, self.store.settings.text)
        with self._latch.inside():
            (result,) = self._search.results([query], wanted, on_progress)
        return result

    async def asearch(
        self,
        prompt: str | None = None,
        generation: str | None = None,
        *,
        options: SearchOptions | None = None,
        on_progress: Tell | None = None,
        **changes: Unpack[SearchKeywords],
    ) -> SearchResult:
        """Search as `search` does, in a thread of its own, while the event loop goes on.

        A task that is cancelled stops waiting at once. If its search has begun, the search goes on in its thread
        and its result is dropped; if not, it never begins. The searcher stays usable.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        wanted = options_with(options, changes)
        search = partial(self.search, prompt, generation, options=wanted, on_progress=on_progress)
        return await self._in_thread(search)

    def search_file(
        self,
        file: str | Path,
        *,
        options: SearchOptions | None = None,
        on_progress: Callable[[int], None] | None = None,
        on_step: Tell | None = None,
        **changes: Unpack[SearchKeywords],
    ) -> Iterator[SearchResult]:
        """Search for every row of a data file, in its order; rows without a response get the model's own.

        Args:
            file: data file, whose rows have the shapes that `ingest` takes.
            options: options of every search; None: the defaults.
            on_progress: function that is told the number of queries answered so far.
            on_step: function that is told of what takes longer before the next query is answered, as by `search`.
            changes: options by name, such as ``k=5``, in place of those of `options`.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        wanted = options_with(options, changes)
        queries = read_queries(Path(file), self.store.settings.text)
        done = 0
        while chunk := list(islice(queries, _QUERIES_AT_ONCE)):
            answers = self._search.results(chunk, wanted, on_step)
            while True:
                with self._latch.inside():  # not while the caller looks at a result
                    result = next(answers, None)
                if result is None:
                    break
                yield result
                done += 1
                if on_progress is not None:
                    on_progress(done)

    async def asearch_file(
        self, file: str | Path, *, options: SearchOptions | None = None, **changes: Unpack[SearchKeywords]
    ) -> AsyncIterator[SearchResult]:
        """Search as `search_file` does, with each step in a thread, while the event loop goes on.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        results = self.search_file(file, options=options_with(options, changes))
        while (result := await self._in_thread(partial(next, results, None))) is not None:
            yield result

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        with self._latch.inside():  # an executor that was shut down would say it less clearly
            future = self._executor.submit(call)
        return await asyncio.wrap_future(future)
