"""Training samples as LlamaIndex nodes.

>>> retriever = RapidinRetriever(rapidin.Searcher("store"), k=5)
>>> retriever.retrieve("Who won the match?")
>>> retriever.retrieve(RapidinQuery("Who won the match?", generation="The cosmic elixir.", k=3))

Needs ``rapidin[llamaindex]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rapidin.integrations.retrieval import QueryIs, ends, fields_of, missing, options_of, question
from rapidin.records import SearchResult
from rapidin.search import Searcher

try:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise missing("llama-index-core", "llamaindex") from error


@dataclass
class RapidinQuery(QueryBundle):
    """A query that says more than its text; what is None is the retriever's.

    Attributes:
        query_str: the text, see `query_is` of the retriever.
        generation: what the model said, where the text is a prompt.
        prompt: what it was asked, where the text is a generation.
        query_is: what the text is.
        k: samples wanted at each end.
        where: filter expressions that a sample must all meet.
    """

    generation: str | None = None
    prompt: str | None = None
    query_is: QueryIs | None = None
    k: int | None = None
    where: Sequence[str] | None = None


class RapidinRetriever(BaseRetriever):
    """Retrieves the training samples behind what a model says; async all the way.

    A node has the sample's id and text; its score is the signed influence, the exact one where it was computed.
    Its metadata are those of `retrieval.fields_of`, none of which is shown to a language model
    or an embedding.

    Args:
        searcher: an open one; closing it is the caller's.
        k: samples wanted at each end.
        query_is: what a query's text is, ``prompt`` or ``generation``.
        opponents: whether the most negative influences follow the proponents.
        where: filter expressions that a sample must all meet.
        rerank: of so many samples at each end the exact influence is computed, which orders them; 0: none.
        max_new_tokens: longest answer that the model may write, where none is given.
        callback_manager: LlamaIndex's.
        verbose: LlamaIndex's.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        k: int = 10,
        query_is: QueryIs = "prompt",
        opponents: bool = False,
        where: Sequence[str] = (),
        rerank: int = 0,
        max_new_tokens: int = 256,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self._searcher = searcher
        self._query_is = query_is
        self._options: dict[str, Any] = {
            "k": k,
            "opponents": opponents,
            "where": where,
            "rerank": rerank,
            "max_new_tokens": max_new_tokens,
        }

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        prompt, generation, options = self._asked(query_bundle)
        return _nodes(self._searcher.search(prompt, generation, **options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        prompt, generation, options = self._asked(query_bundle)
        return _nodes(await self._searcher.asearch(prompt, generation, **options))

    def _asked(self, query: QueryBundle) -> tuple[str | None, str | None, Any]:
        """Prompt, generation and options of a query."""
        if not isinstance(query, RapidinQuery):
            return *question(query.query_str, self._query_is, None, None), options_of(**self._options)
        changes = {"k": query.k, "where": query.where}
        given = self._options | {name: value for name, value in changes.items() if value is not None}
        query_is = query.query_is or self._query_is
        return *question(query.query_str, query_is, query.prompt, query.generation), options_of(**given)


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
