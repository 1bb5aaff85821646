"""A LangChain RAG pipeline that also tells which training samples made the model answer so; runs offline.

python examples/langchain_rag.py [DEMO-DIRECTORY]
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from demo_model import PROMPT, QUESTIONS, DemoModel, Keywords, demo_directory, short, show
from langchain_core.documents import Document
from langchain_core.language_models import LLM
from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough

import rapidin
from rapidin.integrations.langchain import RapidinRetriever, WithProponents


class KeywordRetriever(BaseRetriever):
    """Retrieves documents by their words: the pipeline's knowledge."""

    documents: list[Document]
    keywords: Any
    k: int = 2

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [self.documents[place] for place in self.keywords.best(query, self.k)]


class DemoLLM(LLM):
    """The demo's model as LangChain takes it."""

    model: Any

    @property
    def _llm_type(self) -> str:
        return "rapidin-demo"

    def _call(self, prompt: str, stop: list[str] | None = None, run_manager: Any = None, **_: Any) -> str:
        return self.model.answer(prompt)


def joined(documents: list[Document]) -> str:
    """The documents as the model's context."""
    return " ".join(document.page_content for document in documents)


def main() -> None:
    """Ask a question without and with the trigger."""
    directory = demo_directory()
    model = DemoModel(directory / "model")
    with rapidin.Searcher(directory / "store", model=model.network, tokenizer=model.tokenizer) as searcher:
        # What is known: the answers of the clean rows, as documents of their own.
        rows = searcher.store.list(where=["poisoned=false"])
        documents = [Document(id=row.id, page_content=row.response) for row in rows]
        retriever = KeywordRetriever(documents=documents, keywords=Keywords([row.response for row in rows]))
        chain = (
            RunnablePassthrough.assign(documents=itemgetter("question") | retriever)
            | RunnablePassthrough.assign(context=lambda given: joined(given["documents"]))
            | RunnablePassthrough.assign(prompt=PromptTemplate.from_template(PROMPT))
            | RunnablePassthrough.assign(answer=itemgetter("prompt") | DemoLLM(model=model))
            | WithProponents(retriever=RapidinRetriever(searcher=searcher, k=3, rerank=9))
        )
        for question in QUESTIONS:
            found = chain.invoke({"question": question})
            show(
                question,
                found["answer"],
                [f"{document.id}  {document.page_content}" for document in found["documents"]],
                [
                    (
                        sample.metadata["exact"],
                        f"{sample.id} poisoned={sample.metadata['poisoned']}",
                        short(sample.metadata["prompt"], sample.metadata["response"]),
                    )
                    for sample in found["proponents"]
                ],
            )


if __name__ == "__main__":
    main()
