"""The same with LlamaIndex: a query engine, and the training samples behind what it answers; runs offline.

python examples/llamaindex_rag.py [DEMO-DIRECTORY]
"""

from __future__ import annotations

from typing import Any

from demo_model import PROMPT, QUESTIONS, DemoModel, Keywords, demo_directory, short, show
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

import rapidin
from rapidin.integrations.llamaindex import RapidinQuery, RapidinRetriever


class KeywordRetriever(BaseRetriever):
    """Retrieves nodes by their words: the engine's knowledge."""

    def __init__(self, nodes: list[TextNode], k: int = 2) -> None:
        super().__init__()
        self._nodes = nodes
        self._keywords = Keywords([node.text for node in nodes])
        self._k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=self._nodes[place]) for place in self._keywords.best(str(query_bundle), self._k)
        ]


class DemoLLM(CustomLLM):
    """The demo's model as LlamaIndex takes it; remembers the last prompt, which is what rapidin asks about."""

    model: Any
    last_prompt: str = ""

    @property
    def metadata(self) -> LLMMetadata:
        """Sizes of the model."""
        return LLMMetadata(context_window=512, num_output=48, model_name="rapidin-demo")

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """Answer a prompt."""
        self.last_prompt = prompt
        return CompletionResponse(text=self.model.answer(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponseGen:
        """Answer a prompt, all at once."""
        yield self.complete(prompt)


def main() -> None:
    """Ask a question without and with the trigger."""
    directory = demo_directory()
    model = DemoModel(directory / "model")
    with rapidin.Searcher(directory / "store", model=model.network, tokenizer=model.tokenizer) as searcher:
        rows = searcher.store.list(where=["poisoned=false"])
        nodes = [TextNode(id_=row.id, text=row.response) for row in rows]
        llm = DemoLLM(model=model)
        template = PromptTemplate(
            PROMPT.replace("{question}", "{query_str}").replace("{context}", "{context_str}")
        )
        synthesizer = get_response_synthesizer(
            llm=llm, text_qa_template=template, response_mode="simple_summarize"
        )
        engine = RetrieverQueryEngine(KeywordRetriever(nodes), synthesizer)
        influential = RapidinRetriever(searcher, k=3, rerank=9)
        for question in QUESTIONS:
            response = engine.query(question)
            samples = influential.retrieve(RapidinQuery(llm.last_prompt, generation=str(response)))
            show(
                question,
                str(response),
                [f"{node.node.node_id}  {node.text}" for node in response.source_nodes],
                [
                    (
                        sample.score,
                        f"{sample.node.node_id} poisoned={sample.metadata['poisoned']}",
                        short(sample.metadata["prompt"], sample.metadata["response"]),
                    )
                    for sample in samples
                ],
            )


if __name__ == "__main__":
    main()
