"""The LangChain retriever and chain step, with the real langchain-core."""

import asyncio
import sys

import pytest
from langchain_core.messages import AIMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_tests.integration_tests import RetrieversIntegrationTests

import rapidin
from rapidin.errors import DependencyError, FilterError, SettingError
from rapidin.integrations.langchain import RapidinRetriever, WithProponents


class TestStandard(RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    @pytest.fixture(autouse=True)
    def _of_searcher(self, searcher: rapidin.Searcher) -> None:
        self.searcher = searcher

    @property
    def retriever_constructor(self) -> type[RapidinRetriever]:
        return RapidinRetriever

    @property
    def retriever_constructor_params(self) -> dict:
        return {"searcher": self.searcher, "max_new_tokens": 8}

    @property
    def retriever_query_example(self) -> str:
        return "Name a colour."


@pytest.fixture
def retriever(searcher: rapidin.Searcher) -> RapidinRetriever:
    return RapidinRetriever(searcher=searcher, k=4)


def test_documents_are_what_a_search_finds(retriever: RapidinRetriever, searcher: rapidin.Searcher) -> None:
    found = retriever.invoke(
        "Name a colour.", generation="It is red", rerank=6, opponents=True, where=["number<20"]
    )
    result = searcher.search("Name a colour.", "It is red", k=4, rerank=6, opponents=True, where=["number<20"])
    hits = [*result.proponents, *result.opponents]
    assert [document.id for document in found] == [hit.id for hit in hits]
    assert [document.page_content for document in found] == [hit.text for hit in hits]
    for document, hit in zip(found, hits, strict=True):
        fields = document.metadata
        assert fields["score"] == pytest.approx(hit.score, abs=1e-6)
        assert fields["exact"] == pytest.approx(hit.exact, abs=1e-6)
        assert (fields["rank"], fields["prompt"], fields["response"]) == (
            hit.rank,
            hit.prompt,
            hit.response,
        )
        assert (fields["source"], fields["number"]) == (
            hit.metadata["source"],
            hit.metadata["number"],
        )
        assert fields["generation"] == "It is red"
    assert [document.metadata["end"] for document in found] == ["proponent"] * 4 + ["opponent"] * 4


def test_a_field_of_the_row_hides_none_of_ours(retriever: RapidinRetriever) -> None:
    (document,) = retriever.invoke("Name a colour.", generation="It is red", k=1, where=["id=row-0"])
    assert isinstance(document.metadata["score"], float)
    assert document.metadata["exact"] is None
    assert document.metadata["row_score"] == "of the row"


def test_the_query_may_be_the_generation(retriever: RapidinRetriever, searcher: rapidin.Searcher) -> None:
    both = retriever.invoke("It is red", query_is="generation", prompt="Name a colour.")
    assert both == retriever.invoke("Name a colour.", generation="It is red")
    alone = retriever.model_copy(update={"query_is": "generation"}).invoke("It is red 37")
    expected = searcher.search(None, "It is red 37", k=4).proponents
    assert [document.id for document in alone] == [hit.id for hit in expected]
    assert alone[0].metadata["query_prompt"] == ""


def test_what_cannot_be_meant_is_refused(retriever: RapidinRetriever) -> None:
    for changes, message in (
        ({"query_is": "generation", "generation": "It is red"}, "leave out generation"),
        ({"prompt": "Name"}, "leave out prompt"),
        ({"query_is": "both"}, "choose 'prompt' or 'generation'"),
        ({"top_k": 3}, "takes no 'top_k'"),
        ({"k": 0}, "-k 0 cannot be used"),
    ):
        with pytest.raises(SettingError, match=message):
            retriever.invoke("Name a colour.", **changes)
    with pytest.raises(FilterError, match="nonsense"):
        retriever.invoke("Name a colour.", generation="It is red", where="nonsense=1")


def test_the_async_path_searches_in_another_thread(
    retriever: RapidinRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = retriever.invoke("Name a colour.", generation="It is red")
    asked = []
    asearch = rapidin.Searcher.asearch

    async def noted(self, *arguments, **options):
        asked.append(arguments)
        return await asearch(self, *arguments, **options)

    monkeypatch.setattr(rapidin.Searcher, "asearch", noted)

    async def run() -> list:
        return await asyncio.gather(
            *(retriever.ainvoke("Name a colour.", generation="It is red") for _ in range(3))
        )

    assert asyncio.run(run()) == [expected] * 3
    assert asked == [("Name a colour.", "It is red")] * 3


def test_a_chain_gets_proponents(retriever: RapidinRetriever) -> None:
    chain = (
        RunnablePassthrough.assign(full_prompt=PromptTemplate.from_template("Answer: {question}"))
        | RunnablePassthrough.assign(reply=RunnableLambda(lambda given: AIMessage("It is red")))
        | WithProponents(retriever=retriever, prompt_key="full_prompt", answer_key="reply", output_key="rows")
    )
    found = chain.invoke({"question": "Name a colour."})
    expected = retriever.invoke("Answer: Name a colour.", generation="It is red")
    assert set(found) == {"question", "full_prompt", "reply", "rows"}
    assert found["rows"] == expected
    assert asyncio.run(chain.ainvoke({"question": "Name a colour."}))["rows"] == expected
    batch = chain.batch([{"question": "Name a colour."}, {"question": "Count to two."}])
    assert batch[0]["rows"] == expected
    assert batch[1]["rows"] != expected
    step = WithProponents(retriever=retriever)
    assert len(step.invoke({"prompt": "A", "answer": "It is red"}, k=2)["proponents"]) == 2


def test_a_chain_without_an_answer_is_told(retriever: RapidinRetriever) -> None:
    step = WithProponents(retriever=retriever)
    with pytest.raises(SettingError, match=r"no 'answer', but 'prompt'.*answer_key"):
        step.invoke({"prompt": "Name a colour."})
    with pytest.raises(SettingError, match="'prompt' is a int"):
        step.invoke({"prompt": 3, "answer": "It is red"})
    with pytest.raises(SettingError, match="has no keys"):
        step.invoke("Name a colour.")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core.callbacks", "langchain"),
        ("llamaindex", "llama_index.core.callbacks", "llamaindex"),
        ("mcp_server", "mcp.server.mcpserver", "mcp"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import import_module

    monkeypatch.delitem(sys.modules, f"rapidin.integrations.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf"pip install 'rapidin\[{extra}\]'"):
        import_module(f"rapidin.integrations.{module}")
