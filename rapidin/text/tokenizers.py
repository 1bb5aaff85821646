"""The part of a tokenizer that rapidin uses, and tokenising of texts that are far too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

CHARACTERS_PER_TOKEN = 32
"""Characters per token at most; usual texts have about four, and a text that has more is tokenised whole."""


class Tokenizer(Protocol):
    """The methods of a tokenizer of `transformers`, fast or slow, that rapidin calls."""

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
    """Tokenise a text without special tokens or warnings, and return the tokenizer's own ``BatchEncoding``.

    If a text is much longer than `max_length` tokens, only its beginning is tokenised, because the rest is cut off
    anyway: ten megabytes took 14 seconds and 2 GB. The beginning must give more than twice `max_length` tokens.
    A cut changes the tokens next to it. If a tokenizer splits texts into words, these are the tokens of the last
    word, which are never kept. If it takes the whole text as a word, a change could in theory reach further.
    """
    options |= {"add_special_tokens": False, "verbose": False}
    head = max_length * CHARACTERS_PER_TOKEN
    if len(text) > 2 * head:
        encoding = tokenizer(text[:head], **options)
        if len(encoding["input_ids"]) > 2 * max_length:
            return encoding
    return tokenizer(text, **options)
