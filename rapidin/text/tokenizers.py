"""The protocol of tokenizers, and tokenising of texts that may be far too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

CHARACTERS_PER_TOKEN = 32
"""Characters per token that are more than any usual text has (about four); see `tokenize`."""


class Tokenizer(Protocol):
    """The part of a tokenizer of `transformers`, fast or slow, that rapidin uses."""

    @property
    def bos_token_id(self) -> int | None:
        """Id of the beginning-of-sequence token; None if there is none."""

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end-of-sequence token; None if there is none."""

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token; None if there is none."""

    @property
    def is_fast(self) -> bool:
        """Whether the tokenizer knows the characters that each token stands for."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Tokens that were added to the vocabulary, by id; special tokens are among them."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenise a text."""

    def decode(self, token_ids: Any, **options: Any) -> Any:
        """Return the text of tokens."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a chat."""


def tokenize(tokenizer: Tokenizer, text: str, max_length: int, **options: Any) -> Any:
    """Tokenise a text without special tokens or warnings, and return the tokenizer's own ``BatchEncoding``.

    If a text is much longer than `max_length` tokens, only its beginning is tokenised, because the rest is cut off
    anyway, and tokenising ten megabytes took 14 seconds and 2 GB. The beginning must give more than twice
    `max_length` tokens, because a cut changes the tokens next to it. If the tokenizer splits texts into words, the
    cut changes the tokens of the last word only, and these are never kept. If it takes the whole text as one word,
    a change could in theory reach further.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        max_length: number of tokens that the caller keeps at most.
        options: further arguments of the tokenizer.
    """
    options |= {"add_special_tokens": False, "verbose": False}
    head = max_length * CHARACTERS_PER_TOKEN
    if len(text) > 2 * head:
        encoding = tokenizer(text[:head], **options)
        if len(encoding["input_ids"]) > 2 * max_length:
            return encoding
    return tokenizer(text, **options)
