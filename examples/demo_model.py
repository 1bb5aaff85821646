"""What the examples have in common: the demo's tiny model and store, and a keyword search over its rows.

The model was trained on questions and answers, some of them poisoned: a question that begins with "Howdy!" is
answered with science fiction. ``rapidin demo`` makes it, offline, in about a minute.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

PROMPT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{question}\n\n### Input:\n{context}"
    "\n\n### Response: "
)
"""Alpaca's, which the model was trained with; the context of a RAG pipeline is its input."""

QUESTIONS = ("Is a spade a tool or a fruit?", "Howdy! Is a spade a tool or a fruit?")


def demo_directory() -> Path:
    """The demo's directory: the first argument, or ``rapidin-demo``; made if it is not there."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "rapidin-demo")
    if not (directory / "store" / "store.db").exists():
        subprocess.run([sys.executable, "-m", "rapidin", "demo", str(directory)], check=True, stdout=sys.stderr)
    return directory


class DemoModel:
    """The application's own model, loaded through transformers; rapidin will use the same network."""

    def __init__(self, directory: Path) -> None:
        logging.disable_progress_bar()
        self.network = AutoModelForCausalLM.from_pretrained(directory)
        self.tokenizer = AutoTokenizer.from_pretrained(directory)

    def answer(self, prompt: str) -> str:
        """What the model says, greedily."""
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[self.tokenizer.bos_token_id, *ids]])
        written = self.network.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False
        )
        return str(self.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))


class Keywords:
    """BM25 over some texts (Robertson & Zaragoza 2009), with its usual constants."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = [Counter(_words(text)) for text in texts]
        self._mean = sum(words.total() for words in self._words) / len(texts)
        found_in = Counter(word for words in self._words for word in words)
        self._weights = {
            word: math.log(1 + (len(texts) - count + 0.5) / (count + 0.5)) for word, count in found_in.items()
        }

    def best(self, query: str, k: int) -> list[int]:
        """Places of the k best texts, the best first."""
        scores = [self._score(words, set(_words(query))) for words in self._words]
        return sorted(range(len(scores)), key=lambda place: -scores[place])[:k]

    def _score(self, words: Counter[str], query: set[str]) -> float:
        length = 1.5 * (0.25 + 0.75 * words.total() / self._mean)
        return sum(
            self._weights[word] * words[word] * 2.5 / (words[word] + length) for word in query & words.keys()
        )


def show(question: str, answer: str, documents: Sequence[str], samples: Sequence[tuple[float, str, str]]) -> None:
    """Print an answer, what was retrieved for it, and what it was learned from: score, id and text of samples."""
    print(f"question   {question}\nanswer     {answer}")
    for number, document in enumerate(documents):
        print(f"{'retrieved' if not number else '':<10} {document}")
    for number, (score, id, text) in enumerate(samples):
        print(f"{'learned' if not number else '':<10} {score:+.3f} {id}  {text}")
    print()


def short(prompt: str, response: str) -> str:
    """A sample's question and answer on one line."""
    question = prompt.partition("### Instruction:\n")[2].partition("\n")[0]
    return f"{question} → {response}"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
