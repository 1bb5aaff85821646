"""Encoding of samples: the token ids that the model sees, and the tokens that are targets.

Prompt and response are tokenised separately and joined, ``[bos] + prompt + response + [eos]``, so that the
prompt's tokens do not depend on the response. A row of shape ``text`` is a response without a prompt. A chat is
rendered by the tokenizer's chat template and tokenised in one piece (see `rapidin.text.chat`).

If a text contains the text of a special token (a row that was rendered before), it is read as that token, because
trainers do so. A token that begins or ends a sequence is not added where the text has it already.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rapidin.errors import RapidinError, RowError, SettingError, StoreMismatchError
from rapidin.records import Sample
from rapidin.settings import TextSettings
from rapidin.support import named_line
from rapidin.text.chat import Chat, Span, encode_rendered
from rapidin.text.rows import TextSample
from rapidin.text.templates import check_template
from rapidin.text.token_spans import PlacesOfTokens
from rapidin.text.tokenizers import Tokenizer, tokenize

logger = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as the model sees it.

    Attributes:
        id: id of the sample.
        ids: token ids [t].
        targets: whether each token is a target [t]; the first token never is one.
        truncated: whether tokens were cut off.
        prompt: text before the response, in a chat the text before the first target; whole, even if tokens were
            cut off, and without the tokens that begin and end a sequence.
        response: rest of the text, also whole.
        target_spans: spans of a chat's targets in prompt and response together, as far as tokens were kept; empty
            for other shapes, whose prompt and response are tokenised separately.
    """

    id: str
    ids: tuple[int, ...]
    targets: tuple[bool, ...]
    truncated: bool
    prompt: str
    response: str
    target_spans: tuple[Span, ...] = ()


class Encoder:
    """Turns text samples into token ids.

    Args:
        tokenizer: tokenizer of `transformers`; it is copied, because tokenising with options changes its state.
        settings: template, maximum length and targets.
        context_length: maximum number of tokens that the model takes; None if it has no limit.
        vocabulary: number of token ids that the model takes; None if it is unknown.

    Raises:
        SettingError: the maximum length is more than the context, the template is malformed, or it wants a
            beginning-of-sequence token that the tokenizer does not have.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: TextSettings,
        context_length: int | None,
        vocabulary: int | None = None,
    ) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        self._vocabulary = vocabulary
        self._settings = settings
        self.max_length = _max_length(settings.max_length, context_length)
        template = settings.template
        if template is not None:
            check_template(template)
        self._special = [
            str(token) for token in self._tokenizer.added_tokens_decoder.values() if token.special and str(token)
        ]
        self._bos = self._begin(None if template is None else template.add_bos)
        eos = self._tokenizer.eos_token_id
        self._eos = [] if eos is None or (template is not None and not template.add_eos) else [eos]

    def encode(self, sample: TextSample, response: str | None = None) -> EncodedSample:
        """Encode a sample as token ids and targets.

        Args:
            sample: sample as text.
            response: text that replaces the sample's own response, for example the model's answer. In a chat it
                replaces the assistant's last turn or follows the last message, and it is the only target. With
                None a chat has every turn of the assistant as a target.

        Raises:
            RowError: the sample has no response, a chat cannot be rendered, or no target is left within
                `max_length`.
        """
        if response is None and not sample.has_response and not sample.turns:
            raise _row_error(sample, "has no response; give one, or let the model write it")
        with _failing_on(sample):
            if sample.turns:
                encoded = self._encode_chat(sample, response)
            else:
                answer = sample.response if response is None else response
                self._tell_of_special_tokens(sample.prompt + answer)
                encoded = self._encode_pieces(sample.id, sample.prompt, answer)
        self._check_ids(encoded.ids, sample)
        if any(encoded.targets):
            return encoded
        if not encoded.truncated:
            raise _row_error(sample, "has no token to predict; its text is too short")
        raise self._prompt_too_long(sample)

    def encode_prompt(self, sample: TextSample) -> list[int]:
        """Encode a prompt as the token ids after which the model writes its response.

        Unless the sample is a chat, the token ids of `encode` begin with these.

        Raises:
            RowError: there is no prompt, a chat cannot be rendered, or no room is left within `max_length`.
        """
        with _failing_on(sample):
            if sample.turns:
                ids = self._tokenize(Chat(self._tokenizer, sample).generation_prompt())
            else:
                ids = self._prompt_ids(sample.prompt)
        if not ids:
            raise _row_error(sample, "has no prompt after which the model could write; give one")
        self._check_ids(ids, sample)
        if len(ids) >= self.max_length:
            raise self._prompt_too_long(sample)
        return ids

    def _check_ids(self, ids: Sequence[int], sample: TextSample) -> None:
        """Make sure that the model has an embedding of every token.

        Raises:
            RowError: the tokenizer has more tokens than the model, and the text has one of them.
        """
        if self._vocabulary is None or not ids or max(ids) < self._vocabulary:
            return
        token = max(ids)
        raise _row_error(
            sample,
            f"its text has the token {self._tokenizer.decode([token])!r}, number {token}, and the model takes "
            f"{self._vocabulary} tokens, numbered from 0: give the model's own tokenizer, or another text",
        )

    def encode_stored(self, sample: Sample) -> EncodedSample:
        """Encode a stored sample again as the token ids and targets that its gradient was computed from.

        A store keeps texts and counts, not ids. So the text is encoded again, the text of a chat with its
        `target_spans`.

        Args:
            sample: sample of a store that has the encoder's settings and tokenizer.

        Raises:
            StoreMismatchError: the numbers of tokens or targets differ from the stored ones, so the tokenizer is
                another one; the message names the id.
        """
        encoded = self._encode_again(sample)
        found = (len(encoded.ids), sum(encoded.targets), encoded.truncated)
        if found != (sample.tokens, sample.targets, sample.truncated):
            raise StoreMismatchError(
                f"sample {sample.id!r}: its text now gives {found[0]} tokens, {found[1]} of them targets, not "
                f"{sample.tokens} and {sample.targets} as when it was stored: take the tokenizer of that time, or "
                f"delete it and run 'rapidin ingest' for its row again ({sample.file}, row {sample.row})"
            )
        return encoded

    def token_spans(self, encoded: EncodedSample) -> list[Span]:
        """Find the span of each token in prompt and response together; see `rapidin.text.token_spans`.

        Args:
            encoded: sample that this encoder has encoded, or its prompt followed by tokens that the model wrote.
        """
        places = PlacesOfTokens(self._tokenizer, self.max_length)
        return places.of(encoded.ids, encoded.prompt, encoded.response, encoded.target_spans)

    def _encode_again(self, sample: Sample) -> EncodedSample:
        if sample.target_spans:
            return self._encode_text(sample.id, sample.text, len(sample.prompt), sample.target_spans)
        return self._encode_pieces(sample.id, sample.prompt, sample.response)

    def _encode_pieces(self, id: str, prompt: str, response: str) -> EncodedSample:
        prompt_ids = self._prompt_ids(prompt)
        ids = prompt_ids
        if len(prompt_ids) <= self.max_length:  # otherwise the whole response would be cut off
            response_ids = self._response_ids(response)
            if not prompt and response_ids[:1] == self._bos:
                prompt_ids = []  # the text has the token already
            ids = prompt_ids + response_ids
        first_target = 1 if self._settings.targets == "all" else max(1, len(prompt_ids))
        kept = tuple(ids[: self.max_length])
        return EncodedSample(
            id=id,
            ids=kept,
            targets=tuple(position >= first_target for position in range(len(kept))),
            truncated=len(ids) > self.max_length,
            prompt=prompt,
            response=response,
        )

    def _prompt_ids(self, prompt: str) -> list[int]:
        ids = self._tokenize(prompt)
        written = ids[:1] == self._bos  # for example by a template such as "<s>[INST] {instruction}"
        return ids if written else self._bos + ids

    def _response_ids(self, response: str) -> list[int]:
        ids = self._tokenize(response)
        return ids if ids[-1:] == self._eos else ids + self._eos

    def _encode_chat(self, sample: TextSample, response: str | None) -> EncodedSample:
        chat = Chat(self._tokenizer, sample, response)
        return self._encode_text(sample.id, chat.text, chat.first_target, chat.spans())

    def _encode_text(self, id: str, text: str, first_target: int, spans: Iterable[Span]) -> EncodedSample:
        rendered = encode_rendered(text, spans, self._tokenizer, self.max_length)
        targets = [True] * len(rendered.ids) if self._settings.targets == "all" else rendered.targets
        if targets:
            targets[0] = False
        return EncodedSample(
            id=id,
            ids=tuple(rendered.ids),
            targets=tuple(targets),
            truncated=rendered.truncated,
            prompt=text[:first_target],
            response=text[first_target:],
            target_spans=rendered.spans,
        )

    def _tokenize(self, text: str) -> list[int]:
        encoding = tokenize(self._tokenizer, text, self.max_length, split_special_tokens=False)
        return list(encoding["input_ids"])

    def _tell_of_special_tokens(self, text: str) -> None:
        """Log once that texts have special tokens in them."""
        found = next((token for token in self._special if token in text), None)
        if found is not None:
            logger.info("texts that contain a special token, such as %r, are read as having that token", found)
            self._special = []

    def _begin(self, wanted: bool | None) -> list[int]:
        """The beginning-of-sequence token or nothing; `Template.add_bos` says when."""
        bos = self._tokenizer.bos_token_id
        if wanted is None:
            wanted = bos is not None and (
                bos != self._tokenizer.eos_token_id or self._tokenizer("a")["input_ids"][:1] == [bos]
            )
        if not wanted:
            return []
        if bos is None:
            raise SettingError(
                "the template wants a beginning-of-sequence token (add_bos) and the tokenizer has none; "
                "leave add_bos out"
            )
        return [bos]

    def _prompt_too_long(self, sample: TextSample) -> RowError:
        return _row_error(
            sample,
            f"the prompt alone fills the {self.max_length} tokens of --max-length; "
            "raise it as far as the model's context allows, or shorten the prompt",
        )


@contextmanager
def _failing_on(sample: TextSample) -> Iterator[None]:
    """Turn whatever a tokenizer raises into an error that names the row.

    Raises:
        RowError: the tokenizer failed.
    """
    try:
        yield
    except (RapidinError, MemoryError):
        raise
    except Exception as error:
        raise _row_error(
            sample, f"the tokenizer fails on its text ({named_line(error)}); change the text"
        ) from error


def _max_length(wanted: int | None, context_length: int | None) -> int:
    if wanted is None:
        return DEFAULT_MAX_LENGTH if context_length is None else min(context_length, DEFAULT_MAX_LENGTH)
    if context_length is not None and wanted > context_length:
        raise SettingError(
            f"--max-length {wanted} is more than the model's context of {context_length} tokens; "
            f"give at most {context_length}"
        )
    return wanted


def _row_error(sample: TextSample, reason: str) -> RowError:
    return RowError(sample.file, sample.row, reason, sample.id)
