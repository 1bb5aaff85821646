"""Training samples as LlamaIndex nodes.

>>> retriever = RapidinRetriever(rapidin.Searcher("store"), k=5)
>>> retriever.retrieve("Who won the match?")
>>> retriever.retrieve(RapidinQuery("Who won the match?", generation="The cosmic elixir.", k=3))

Needs ``rapidin[llamaindex]``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Unpack

from rapidin.integrations.retrieval import QueryIs, ends, fields_of, missing, question, retriever_options
from rapidin.records import SearchResult
from rapidin.search import Searcher
from rapidin.settings import SearchKeywords, SearchOptions

try:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise missing("llama-index-core", "llamaindex") from error


@dataclass(init=False)
class RapidinQuery(QueryBundle):
    """A query that says more than its text.

    Args:
        query_str: the text; `query_is` says what it is.
        generation: what the model said, if the text is a prompt.
        prompt: what the model was asked, if the text is a generation.
        query_is: what the text is; None: the retriever says it.
        changes: options by name, such as ``k=5``, in place of those of the retriever.
    """

    generation: str | None = None
    prompt: str | None = None
    query_is: QueryIs | None = None
    changes: SearchKeywords = field(default_factory=SearchKeywords)

    def __init__(
        self,
        query_str: str,
        *,
        generation: str | None = None,
        prompt: str | None = None,
        query_is: QueryIs | None = None,
        **changes: Unpack[SearchKeywords],
    ) -> None:
        super().__init__(query_str)
        self.generation, self.prompt, self.query_is, self.changes = generation, prompt, query_is, changes


class RapidinRetriever(BaseRetriever):
    """Retrieves the training samples behind what a model says; asynchronous calls never block the event loop.

    A node has the sample's id and text; its score is the signed influence, the exact one if it was computed. Its
    metadata are those of `retrieval.fields_of`, none of which is shown to a language model or an embedding.

    Args:
        searcher: an open searcher; the caller closes it.
        query_is: what a query's text is, ``prompt`` or ``generation``.
        options: options of every search; None: the defaults.
        callback_manager: LlamaIndex's.
        verbose: LlamaIndex's.
        changes: options by name, such as ``k=5``, in place of those of `options`, see `rapidin.SearchOptions`; all
            but those of `retrieval.NOT_FOR_RETRIEVERS`.

    Raises:
        SettingError: an option cannot be used.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        query_is: QueryIs = "prompt",
        options: SearchOptions | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        **changes: Unpack[SearchKeywords],
    ) -> None:
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self._searcher = searcher
        self._query_is = query_is
        self._options = retriever_options(options, changes)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        prompt, generation, options = self._asked(query_bundle)
        return _nodes(self._searcher.search(prompt, generation, options=options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        prompt, generation, options = self._asked(query_bundle)
        return _nodes(await self._searcher.asearch(prompt, generation, options=options))

    def _asked(self, query: QueryBundle) -> tuple[str | None, str | None, SearchOptions]:
        """Return the prompt, the generation and the options of a query."""
        if not isinstance(query, RapidinQuery):
            return *question(query.query_str, self._query_is, None, None), self._options
        query_is = query.query_is or self._query_is
        asked = question(query.query_str, query_is, query.prompt, query.generation)
        return *asked, retriever_options(self._options, query.changes)


def _nodes(result: SearchResult) -> list[NodeWithScore]:
    nodes = []
    for end, hit in ends(result):
        fields = fields_of(end, hit, result)
        node = TextNode(
            id_=hit.id,
            text=hit.text,
            metadata=fields,
            excluded_llm_metadata_keys=list(fields),
            excluded_embed_metadata_keys=list(fields),
        )
        nodes.append(NodeWithScore(node=node, score=hit.score))
    return nodes
