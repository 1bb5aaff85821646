"""The LlamaIndex retriever, with the real llama-index-core."""

import asyncio

import pytest
from llama_index.core.base.response.schema import Response
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

import rapidin
from rapidin.errors import SettingError
from rapidin.integrations.llamaindex import RapidinQuery, RapidinRetriever

ASKED = RapidinQuery("Name a colour.", generation="It is red")


def scores(nodes: list[NodeWithScore]) -> list[tuple[str, float]]:
    return [(node.node.node_id, pytest.approx(node.score, abs=1e-6)) for node in nodes]


def test_nodes_are_what_a_search_finds(searcher: rapidin.Searcher) -> None:
    retriever = RapidinRetriever(searcher, k=4, opponents=True, where=["even=true"], rerank=6)
    found = retriever.retrieve(ASKED)
    result = searcher.search("Name a colour.", "It is red", k=4, opponents=True, where=["even=true"], rerank=6)
    hits = [*result.proponents, *result.opponents]
    assert scores(found) == [(hit.id, hit.exact) for hit in hits]
    assert [node.text for node in found] == [hit.text for hit in hits]
    assert found[0].metadata["source"] == hits[0].metadata["source"]
    assert found[0].metadata["rank"] == 1
    assert found[0].node.get_content(MetadataMode.LLM) == hits[0].text


def test_a_query_says_what_differs(searcher: rapidin.Searcher) -> None:
    retriever = RapidinRetriever(searcher, k=4, max_new_tokens=8)
    first = retriever.retrieve(ASKED)
    assert len(first) == 4
    assert first[0].score == first[0].metadata["score"]
    narrowed = retriever.retrieve(RapidinQuery("Name a colour.", generation="It is red", k=2, where=["number<9"]))
    assert [node.metadata["number"] < 9 for node in narrowed] == [True, True]
    turned = retriever.retrieve(RapidinQuery("It is red", query_is="generation", prompt="Name a colour."))
    assert scores(turned) == scores(first)
    answered = searcher.search("Name a colour.", k=4, max_new_tokens=8)
    for query in ("Name a colour.", QueryBundle("Name a colour.")):
        assert [node.node.node_id for node in retriever.retrieve(query)] == [hit.id for hit in answered.proponents]
    said = RapidinRetriever(searcher, k=1, query_is="generation").retrieve("It is red")
    assert said[0].metadata["query_prompt"] == ""
    with pytest.raises(SettingError, match="leave out prompt"):
        retriever.retrieve(RapidinQuery("Name a colour.", prompt="Name"))


def test_the_async_path_searches_in_another_thread(
    searcher: rapidin.Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = RapidinRetriever(searcher, k=3)
    expected = scores(retriever.retrieve(ASKED))
    asked = []
    asearch = rapidin.Searcher.asearch

    async def noted(self, *arguments, **options):
        asked.append(arguments)
        return await asearch(self, *arguments, **options)

    monkeypatch.setattr(rapidin.Searcher, "asearch", noted)

    async def run() -> list[list[NodeWithScore]]:
        return await asyncio.gather(*(retriever.aretrieve(ASKED) for _ in range(3)))

    assert [scores(nodes) for nodes in asyncio.run(run())] == [expected] * 3
    assert asked == [("Name a colour.", "It is red")] * 3


def test_it_serves_a_query_engine(searcher: rapidin.Searcher) -> None:
    engine = RetrieverQueryEngine.from_args(
        RapidinRetriever(searcher, k=2, max_new_tokens=4), llm=MockLLM(max_tokens=4)
    )
    response = engine.query("Name a colour.")
    assert isinstance(response, Response)
    assert len(response.source_nodes) == 2
