"""Training samples as LangChain documents: a retriever, and a step that adds them to what a chain answered.

>>> retriever = RapidinRetriever(searcher=rapidin.Searcher("store"), k=5)
>>> retriever.invoke("Who won the match?")
>>> retriever.invoke("Who won the match?", generation="The cosmic elixir.", where=["source=web"])
>>> chain | WithProponents(retriever=retriever, prompt_key="question", answer_key="answer")

Needs ``rapidin[langchain]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from rapidin.errors import SettingError
from rapidin.integrations.retrieval import QueryIs, ends, fields_of, missing, question, retriever_options
from rapidin.records import SearchResult
from rapidin.search import Searcher
from rapidin.settings import SearchKeywords, SearchOptions

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForChainRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.messages import BaseMessage
    from langchain_core.prompt_values import PromptValue
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import RunnableConfig, RunnableSerializable
except ImportError as error:
    raise missing("langchain-core", "langchain") from error


class RapidinRetriever(BaseRetriever):
    """Retrieves the training samples behind what a model says.

    The query is what the model was asked, or, with `query_is`, what it said. All fields but the searcher can also
    be given per call: ``retriever.invoke(query, k=3, generation="…")``. It is async all the way.

    Documents have the sample's id, its text as content, and as metadata `retrieval.fields_of`:
    signed ``score``, ``estimate`` and ``exact``, ``rank``, ``prompt``, ``response``, and the row's own fields.

    Args:
        searcher: an open searcher; the caller closes it.
        query_is: what a query is, ``prompt`` or ``generation``.
        generation: what the model said, if the query is a prompt; None: the model answers now.
        prompt: what the model was asked, if the query is a generation; None: nothing, the generation stands by
            itself.
        options: options of every search; None: the defaults.
        langchain: what LangChain's own retrievers take: ``name``, ``tags`` and ``metadata`` of the runs.
        changes: options by name, such as ``k=5``, in place of those of `options`, see `rapidin.SearchOptions`; all
            but those of `retrieval.NOT_FOR_RETRIEVERS`.

    Raises:
        SettingError: an option cannot be used.

    Attributes:
        options: options of every search.
    """

    searcher: Searcher
    query_is: QueryIs = "prompt"
    generation: str | None = None
    prompt: str | None = None
    options: SearchOptions

    def __init__(
        self,
        *,
        searcher: Searcher,
        query_is: QueryIs = "prompt",
        generation: str | None = None,
        prompt: str | None = None,
        options: SearchOptions | None = None,
        langchain: Mapping[str, Any] | None = None,
        **changes: Unpack[SearchKeywords],
    ) -> None:
        super().__init__(
            searcher=searcher,
            query_is=query_is,
            generation=generation,
            prompt=prompt,
            options=retriever_options(options, changes),
            **langchain or {},
        )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
        **changes: Any,
    ) -> list[Document]:
        prompt, generation, options = self._asked(query, changes)
        return _documents(self.searcher.search(prompt, generation, options=options))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002
        **changes: Any,
    ) -> list[Document]:
        prompt, generation, options = self._asked(query, changes)
        return _documents(await self.searcher.asearch(prompt, generation, options=options))

    def _asked(self, query: str, changes: dict[str, Any]) -> tuple[str | None, str | None, SearchOptions]:
        """Return the prompt, the generation and the options of a call."""
        given = {name: changes.pop(name, getattr(self, name)) for name in ("query_is", "prompt", "generation")}
        return *question(query, **given), retriever_options(self.options, changes)


class WithProponents(RunnableSerializable[dict[str, Any], dict[str, Any]]):
    """A step after a chain, which adds the training samples behind the answer to the chain's dictionary.

    The prompt should be the whole prompt as the model saw it, retrieved documents included. Prompt and answer may
    be texts, messages or prompt values; of these the text counts.

    Attributes:
        retriever: retriever of the samples, whose options apply.
        prompt_key: key of the prompt in the chain's dictionary.
        answer_key: key of the answer.
        output_key: key of the documents in the dictionary that this step returns.
    """

    retriever: RapidinRetriever
    prompt_key: str = "prompt"
    answer_key: str = "answer"
    output_key: str = "proponents"

    def invoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the chain's dictionary with the samples.

        Args:
            input: dictionary that the chain returned.
            config: configuration of the run.
            kwargs: arguments of the retriever's call, such as `k`.

        Raises:
            SettingError: `input` lacks prompt or answer, or one is no text.
            RapidinError: one of its kinds.
        """

        def add(
            given: dict[str, Any],
            run_manager: CallbackManagerForChainRun,  # noqa: ARG001
            config: RunnableConfig,
        ) -> dict[str, Any]:
            prompt, changes = self._call(given, kwargs)
            return {**given, self.output_key: self.retriever.invoke(prompt, config, **changes)}

        return self._call_with_config(add, input, config)

    async def ainvoke(
        self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Do as `invoke` does, while the event loop goes on."""

        async def add(
            given: dict[str, Any],
            run_manager: AsyncCallbackManagerForChainRun,  # noqa: ARG001
            config: RunnableConfig,
        ) -> dict[str, Any]:
            prompt, changes = self._call(given, kwargs)
            return {**given, self.output_key: await self.retriever.ainvoke(prompt, config, **changes)}

        return await self._acall_with_config(add, input, config)

    def _call(self, given: dict[str, Any], changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the prompt for the retriever, and the arguments of its call, among them the chain's answer."""
        if not isinstance(given, dict):
            raise SettingError(f"a chain's {type(given).__name__} has no keys: put a dictionary before this step")
        prompt, answer = (
            _text(given, key, name)
            for key, name in ((self.prompt_key, "prompt_key"), (self.answer_key, "answer_key"))
        )
        return prompt, {"query_is": "prompt", "prompt": None, "generation": answer, **changes}


def _text(given: dict[str, Any], key: str, name: str) -> str:
    if key not in given:
        keys = ", ".join(sorted(map(repr, given))) or "nothing"
        raise SettingError(f"the chain gave no {key!r}, but {keys}: say with {name} which one it is")
    value = given[key]
    if isinstance(value, PromptValue):
        return value.to_string()
    if isinstance(value, BaseMessage):
        return str(value.text)
    if not isinstance(value, str):
        raise SettingError(
            f"the chain's {key!r} is a {type(value).__name__}: give a text, message or prompt value"
        )
    return value


def _documents(result: SearchResult) -> list[Document]:
    return [
        Document(id=hit.id, page_content=hit.text, metadata=fields_of(end, hit, result))
        for end, hit in ends(result)
    ]
