"""Chats as the tokenizer's chat template renders them, and which of the characters are targets.

The target of an assistant's turn is what the turn adds to the rendered text after its generation prompt: the
template renders the messages before it with the generation prompt, and the messages up to and with it; the second
text must begin with the first, and the rest is the target. The whole chat must begin with the second, else the
template rewrites earlier turns and the model was trained on something else than what it is asked to continue.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import NoReturn

from rapidin.errors import RowError
from rapidin.text.rows import ASSISTANT, TextSample, Turn
from rapidin.text.tokens import Tokenizer, tokenize

Span = tuple[int, int]
"""First character, and the one behind the last."""


class Chat:
    """A sample's messages and their rendering.

    Args:
        tokenizer: whose chat template is used.
        sample: with turns.
        response: takes the place of the assistant's last turn, or follows the last message, and is the only
            target. None: every turn of the assistant is a target.
    """

    def __init__(self, tokenizer: Tokenizer, sample: TextSample, response: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._sample = sample
        self._only_last = response is not None
        turns = sample.turns
        self._context = turns[:-1] if turns[-1].role == ASSISTANT else turns
        self._turns = turns if response is None else (*self._context, Turn(ASSISTANT, response))

    def generation_prompt(self) -> str:
        """The text after which the model writes the assistant's last turn."""
        return self._render(self._context, generation_prompt=True)

    @cached_property
    def text(self) -> str:
        """The whole chat, rendered."""
        return self._render(self._turns)

    def spans(self) -> Iterator[Span]:
        """Targets in `text`, in order; lazily, since each costs a rendering of all before it."""
        for index, turn in enumerate(self._turns):
            if turn.role != ASSISTANT or (self._only_last and index + 1 < len(self._turns)):
                continue
            before = self._render(self._turns[:index], generation_prompt=True)
            after = self._render(self._turns[: index + 1])
            if not after.startswith(before):
                self._fail(
                    f"message {index + 1}: the chat template does not render the assistant's turn after its "
                    "generation prompt, so its targets are unknown; give a --template or another chat template"
                )
            if not self.text.startswith(after):
                self._fail(
                    f"message {index + 1}: the chat template rewrites earlier turns once others follow; "
                    "give one row per turn of the assistant, or another chat template"
                )
            yield len(before), len(after)

    @cached_property
    def first_target(self) -> int:
        """Where the first target begins."""
        start, _ = next(self.spans(), (len(self.text), 0))
        return start

    def _render(self, turns: tuple[Turn, ...], generation_prompt: bool = False) -> str:
        # A dependency of transformers' chat templates; slow to import, and only chats need it.
        from jinja2 import TemplateError

        if getattr(self._tokenizer, "chat_template", None) is None:
            self._fail("the row is a chat and the tokenizer has no chat template; give rows of another shape")
        if not turns:
            self._fail("message 1 is the assistant's; a chat needs a message before it")
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation_prompt
            )
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            complaint = " ".join(str(error).split()) or type(error).__name__
            error_reason = f"the chat template cannot render its {len(turns)} first messages: {complaint[:200]}"
            raise RowError(self._sample.file, self._sample.row, error_reason, self._sample.id) from error
        return str(rendered)

    def _fail(self, reason: str) -> NoReturn:
        raise RowError(self._sample.file, self._sample.row, reason, self._sample.id)


def displayed(chat: Chat) -> tuple[str, str]:
    """The rendered text before the first target, and the rest."""
    return chat.text[: chat.first_target], chat.text[chat.first_target :]


def target_flags(chat: Chat, tokenizer: Tokenizer, max_length: int) -> tuple[list[int], list[bool], bool]:
    """Token ids and targets of a chat, at most `max_length`, and whether tokens were cut off."""
    if tokenizer.is_fast:
        return _by_offsets(chat, tokenizer, max_length)
    return _by_pieces(chat, tokenizer, max_length)


def _by_offsets(chat: Chat, tokenizer: Tokenizer, max_length: int) -> tuple[list[int], list[bool], bool]:
    """The whole text in one piece; a token is a target where its first character is in a target."""
    encoding = tokenize(tokenizer, chat.text, max_length, return_offsets_mapping=True)
    ids = list(encoding["input_ids"])
    kept = ids[:max_length]
    # Non-decreasing already, but for tokens that stand for no character.
    begins = list(accumulate((begin for begin, _ in encoding["offset_mapping"][:max_length]), max))
    targets = [False] * len(kept)
    for start, end in chat.spans():
        first, last = bisect_left(begins, start), bisect_left(begins, end)
        targets[first:last] = [True] * (last - first)
        if last == len(begins):
            break
    return kept, targets, len(ids) > max_length


def _by_pieces(chat: Chat, tokenizer: Tokenizer, max_length: int) -> tuple[list[int], list[bool], bool]:
    """A slow tokenizer knows no characters: context and targets are tokenised apart."""
    ids: list[int] = []
    targets: list[bool] = []

    def add(text: str, target: bool) -> None:
        piece = tokenize(tokenizer, text, max_length)["input_ids"] if text else []
        ids.extend(piece)
        targets.extend([target] * len(piece))

    position = 0
    for start, end in chat.spans():
        add(chat.text[position:start], False)
        add(chat.text[start:end], True)
        position = end
        if len(ids) > max_length:
            break
    else:
        add(chat.text[position:], False)
    return ids[:max_length], targets[:max_length], len(ids) > max_length
