"""Chats as the tokenizer's chat template renders them, and the characters that are targets.

The target of an assistant's turn is what the turn adds to the rendered text after its generation prompt. The
template renders the messages before the turn with the generation prompt, and the messages up to and including the
turn. The second text must begin with the first, and the rest is the target. The whole chat must begin with the
second text. Otherwise the template rewrites earlier turns, and the model was trained on another text than the one
that it is asked to continue.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NoReturn

from rapidin.errors import RowError
from rapidin.text.rows import ASSISTANT, TextSample, Turn
from rapidin.text.tokenizers import Tokenizer, tokenize

Span = tuple[int, int]
"""Position of the first character, and the position after the last one."""


class Chat:
    """The messages of a sample, and their rendering.

    Args:
        tokenizer: tokenizer with the chat template.
        sample: sample with turns.
        response: text that replaces the assistant's last turn, or follows the last message, and is the only
            target; None if every turn of the assistant is a target.
    """

    def __init__(self, tokenizer: Tokenizer, sample: TextSample, response: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._sample = sample
        self._only_last = response is not None
        turns = sample.turns
        self._context = turns[:-1] if turns[-1].role == ASSISTANT else turns
        self._turns = turns if response is None else (*self._context, Turn(ASSISTANT, response))

    def generation_prompt(self) -> str:
        """Render the text after which the model writes the assistant's last turn."""
        return self._render(self._context, generation_prompt=True)

    @cached_property
    def text(self) -> str:
        """The whole chat, rendered."""
        return self._render(self._turns)

    def spans(self) -> Iterator[Span]:
        """Yield the targets in `text`, in order; each costs a rendering of everything before it."""
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
        """Character at which the first target begins."""
        start, _ = next(self.spans(), (len(self.text), 0))
        return start

    def _render(self, turns: tuple[Turn, ...], generation_prompt: bool = False) -> str:
        # transformers needs jinja2 for chat templates. It is imported here because only chats need it, and it is
        # slow.
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


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered chat as tokens.

    Attributes:
        ids: token ids.
        targets: whether each token lies in a target.
        truncated: whether tokens were cut off.
        spans: spans of the targets, from which equal tokens can be made again; targets that begin after the last
            token are left out, except the first target.
    """

    ids: list[int]
    targets: list[bool]
    truncated: bool
    spans: tuple[Span, ...]


def encode_rendered(text: str, spans: Iterable[Span], tokenizer: Tokenizer, max_length: int) -> Rendered:
    """Encode a rendered text as token ids and targets.

    Args:
        text: the whole rendered text.
        spans: spans of the targets in order; they are taken one by one, up to the last token that is kept.
        tokenizer: the tokenizer; a fast one takes the text in one piece, a slow one takes the parts of `pieces`.
        max_length: maximum number of tokens that are kept.
    """
    if tokenizer.is_fast:
        return _by_offsets(text, spans, tokenizer, max_length)
    return _by_pieces(text, spans, tokenizer, max_length)


def pieces(text: str, spans: Iterable[Span]) -> Iterator[tuple[Span, bool]]:
    """Divide a text for a slow tokenizer, which does not know the characters of its tokens.

    Yields:
        Spans of contexts and targets in turn, and whether each is a target.
    """
    position = 0
    for start, end in spans:
        yield (position, start), False
        yield (start, end), True
        position = end
    yield (position, len(text)), False


def _by_offsets(text: str, spans: Iterable[Span], tokenizer: Tokenizer, max_length: int) -> Rendered:
    """Encode the whole text in one piece; a token is a target if its first character is in a target."""
    encoding = tokenize(tokenizer, text, max_length, return_offsets_mapping=True)
    ids = list(encoding["input_ids"])
    kept = ids[:max_length]
    # Tokens are in order already, except those that stand for no character.
    begins = list(accumulate((begin for begin, _ in encoding["offset_mapping"][:max_length]), max))
    targets = [False] * len(kept)
    reached: list[Span] = []
    for start, end in spans:
        first, last = bisect_left(begins, start), bisect_left(begins, end)
        if first == len(begins) and reached:
            break
        reached.append((start, end))
        targets[first:last] = [True] * (last - first)
        if last == len(begins):
            break
    return Rendered(kept, targets, len(ids) > max_length, tuple(reached))


def _by_pieces(text: str, spans: Iterable[Span], tokenizer: Tokenizer, max_length: int) -> Rendered:
    """Encode the text piece by piece; the tokens of a target's piece are targets."""
    ids: list[int] = []
    targets: list[bool] = []
    reached: list[Span] = []
    for (start, end), target in pieces(text, spans):
        if target:
            reached.append((start, end))
        piece = tokenize(tokenizer, text[start:end], max_length)["input_ids"] if start < end else []
        ids.extend(piece)
        targets.extend([target] * len(piece))
        if target and len(ids) > max_length:
            break
    return Rendered(ids[:max_length], targets[:max_length], len(ids) > max_length, tuple(reached))
