"""What is asked of a tokenizer, and tokenising texts that are far too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

CHARACTERS_PER_TOKEN = 32
"""Texts are eight times denser; where one is not, all of it is tokenised."""


class Tokenizer(Protocol):
    """What is used of a tokenizer of `transformers`, fast or slow."""

    @property
    def bos_token_id(self) -> int | None:
        """Id of the beginning-of-sequence token."""

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end-of-sequence token."""

    @property
    def is_fast(self) -> bool:
        """Whether it can tell the characters that a token stands for."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Tokens outside the vocabulary proper, the special ones among them."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenise a text."""

    def decode(self, token_ids: Any, **options: Any) -> Any:
        """The text of tokens."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a chat."""


def tokenize(tokenizer: Tokenizer, text: str, max_length: int, **options: Any) -> Any:
    """Tokenise a text without special tokens or warnings: the tokenizer's own ``BatchEncoding``.

    Of a text much longer than `max_length` tokens only the beginning is tokenised, since the rest is cut off
    anyway: ten megabytes took 14 seconds and 2 GB. The beginning must give more than twice `max_length` tokens.
    A cut alters the tokens next to it; with a tokenizer that splits texts into words these are the last word's,
    never among those kept. One that takes the whole text as a word could in theory carry a change further.
    """
    options |= {"add_special_tokens": False, "verbose": False}
    head = max_length * CHARACTERS_PER_TOKEN
    if len(text) > 2 * head:
        encoding = tokenizer(text[:head], **options)
        if len(encoding["input_ids"]) > 2 * max_length:
            return encoding
    return tokenizer(text, **options)
