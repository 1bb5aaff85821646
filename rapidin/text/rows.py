"""Reading of rows as text: shape, prompt, response, id and metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from rapidin.data import Row
from rapidin.errors import RowError
from rapidin.settings import Shape, Template
from rapidin.text.field_values import kind_of, plain_value, typed_cell
from rapidin.text.templates import ALPACA, check_template, named_fields, render

SHAPES = "messages; instruction + output (+ input); prompt + completion (or response); text"
"""Fields of each known shape, for error messages."""

ASSISTANT = "assistant"
HASH_DIGITS = 32
ID_DIGITS = 16


TRAINED_FLAGS = ("weight", "train", "training", "trainable", "loss")
"""Fields of a message by which trainers leave its tokens out of the loss."""
_UNSUPPORTED_FLAGS = ("train_detail", "training_detail", "train_offsets", "loss_mask", "prefix")
_CHAT_ARGUMENTS = ("tools", "documents", "chat_template_kwargs")
"""Fields of a row that trainers give to the chat template beside the messages."""
_OWN_ARGUMENTS = (
    *("conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template"),
    *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    *("tokenizer_kwargs", "load_audio_from_video"),
)
"""Arguments of a chat template that a row cannot set, because rapidin does."""
_DEEPEST = 100
"""Maximum number of levels of objects and lists within each other in a row."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat.

    Attributes:
        role: role of its author.
        content: its text; empty if it has none, for example because it only calls tools.
        fields: its other fields, which the chat template may render, such as ``reasoning_content``.
        trained: whether its tokens are targets, if it is the assistant's.
    """

    role: str
    content: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True

    @property
    def says_something(self) -> bool:
        """Whether it has text, or another field that stands for text."""
        others = self.fields.keys() - {*TRAINED_FLAGS, "name"}
        return bool(self.content.strip() or others)


@dataclass(frozen=True, slots=True)
class TextSample:
    """A row as text.

    Attributes:
        id: id of the row, or the first 16 digits of `content_hash` if it has none.
        shape: shape of the row; ``template`` if it was read by the user's template.
        prompt: text before the response; empty for ``text``, and for ``chat`` because a tokenizer renders it.
        response: text of the response: all of a ``text``, the last turn of a ``chat`` if it is the assistant's.
        turns: messages of a chat; empty for other shapes.
        has_response: whether `response` has any text.
        content_hash: 32 hexadecimal digits of the SHA-256 of shape and text; metadata, the order of fields and
            an empty ``input`` do not change it.
        metadata: all other fields, as JSON values.
        file: path of the data file, as the user wrote it; empty for a query that came from no file.
        row: number of the row in the file, from 1; 0 for a query that came from no file.
        chat_arguments: arguments of the chat template beside the messages, such as ``tools``.
    """

    id: str
    shape: Shape
    prompt: str
    response: str
    turns: tuple[Turn, ...]
    has_response: bool
    content_hash: str
    metadata: Mapping[str, Any]
    file: str
    row: int
    chat_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of a row that was read by a shape.

    Attributes:
        shape: shape of the row.
        used: names of the fields that are not metadata.
        text: fields that the content hash is made from.
        prompt: see `TextSample`.
        response: see `TextSample`.
        turns: see `TextSample`.
        has_response: see `TextSample`.
        chat_arguments: see `TextSample`.
    """

    shape: Shape
    used: frozenset[str]
    text: Mapping[str, Any]
    prompt: str = ""
    response: str = ""
    turns: tuple[Turn, ...] = ()
    has_response: bool = True
    chat_arguments: Mapping[str, Any] = field(default_factory=dict)


def hash_of(shape: Shape, text: Mapping[str, Any]) -> str:
    """Compute the `TextSample.content_hash` of a row from its shape and its fields of text."""
    canonical = json.dumps([shape, text], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:HASH_DIGITS]


def recognise(row: Row, template: Template | None = None, response_required: bool = True) -> TextSample:
    """Read a row as text, by a template or by the shape that its fields show.

    Args:
        row: row of a data file.
        template: template of the user, whose fields must all be in the row, except ``input``; None to recognise
            the shape.
        response_required: whether a row without a response is refused; false for a query, because the model may
            write the response.

    Raises:
        RowError: the row has no known shape, a field of the wrong type, an unusable id, or no response although
            one is required.
        SettingError: the template is malformed.
    """
    reader = _Reader(row)
    if template is not None:
        check_template(template)
        content = reader.fill("template", template, response_required)
    else:
        content = reader.detect(response_required)
    content_hash = hash_of(content.shape, content.text)
    return TextSample(
        id=content_hash[:ID_DIGITS] if reader.id is None else reader.id,
        shape=content.shape,
        prompt=content.prompt,
        response=content.response,
        turns=content.turns,
        has_response=content.has_response,
        content_hash=content_hash,
        metadata=reader.metadata(content.used),
        file=row.file,
        row=row.number,
        chat_arguments=content.chat_arguments,
    )


class _Reader:
    """Reads one row; every error names its file, number and id."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.fields = {name: value for name, value in row.fields.items() if value is not None}
        self.id: str | None = None
        self.id = self._own_id()
        for name, value in self.fields.items():
            if _is_too_deep(value):
                self.fail(f"field {name!r} is nested more than {_DEEPEST} levels deep; make it flatter")

    def fail(self, reason: str) -> NoReturn:
        """Raise the error of this row."""
        raise RowError(self.row.file, self.row.number, reason, self.id)

    def _own_id(self) -> str | None:
        value = self.fields.get("id")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            self.fail(f"field 'id' is {kind_of(value)}; an id is text or a whole number")
        if not str(value).strip():
            self.fail("field 'id' is empty; give each row an id of its own, or leave the field out")
        self._check_unicode("id", str(value))
        return str(value)

    def detect(self, response_required: bool) -> _Content:
        """Read the row by the first shape whose fields are all present."""
        fields = self.fields
        answer = next((name for name in ("completion", "response") if name in fields), None)
        if "messages" in fields:
            return self._chat(response_required)
        if "instruction" in fields and "output" in fields:
            return self.fill("alpaca", ALPACA, response_required)
        if "prompt" in fields and answer is not None:
            return self._completion(answer, response_required)
        if "text" in fields:
            return self._text()
        if "instruction" in fields:
            return self.fill("alpaca", ALPACA, response_required)
        if "prompt" in fields:
            return self._completion("completion", response_required)
        names = ", ".join(repr(name) for name in list(fields)[:20]) or "none"
        self.fail(f"its fields ({names}) have no known shape; known are {SHAPES}; or give a --template")

    def fill(self, shape: Shape, template: Template, response_required: bool) -> _Content:
        """Read the row by a template."""
        with_input = template.prompt_with_input if self.fields.get("input", "") != "" else None
        prompt = template.prompt if with_input is None else with_input
        prompt_fields, response_fields = named_fields(prompt), named_fields(template.response)
        values = {name: self._value(name, shape) for name in prompt_fields}
        answers: dict[str, str] = {}
        absent = [name for name in response_fields if name not in self.fields and name != "input"]
        if absent and response_required:
            self._no_response(absent[0])
        if not absent:
            answers = {name: self._value(name, shape) for name in response_fields}
        has_response = any(answer.strip() for answer in answers.values())
        if response_required and not has_response:
            self._no_response(response_fields[0])
        if not has_response:
            answers = {}
        return _Content(
            shape=shape,
            used=frozenset((*named_fields(template.prompt), *prompt_fields, *response_fields))
            | frozenset(named_fields(template.prompt_with_input or "")),
            text={**values, **answers},
            prompt=render(prompt, values),
            response=render(template.response, answers) if has_response else "",
            has_response=has_response,
        )

    def _completion(self, answer: str, response_required: bool) -> _Content:
        prompt = self._string("prompt")
        response = self._string(answer) if answer in self.fields else ""
        has_response = bool(response.strip())
        if response_required and not has_response:
            self._no_response(answer)
        return _Content(
            shape="completion",
            used=frozenset(("prompt", answer)),
            text={"prompt": prompt} | ({"response": response} if has_response else {}),
            prompt=prompt,
            response=response if has_response else "",
            has_response=has_response,
        )

    def _text(self) -> _Content:
        text = self._string("text")
        if not text.strip():
            self._no_response("text")
        return _Content(shape="text", used=frozenset(("text",)), text={"text": text}, response=text)

    def _chat(self, response_required: bool) -> _Content:
        messages = self.fields["messages"]
        if not isinstance(messages, (list, tuple)):
            self.fail(f"field 'messages' is {kind_of(messages)}; it must be a list of {{role, content}}")
        if not messages:
            self.fail("field 'messages' is empty; a chat needs at least one message")
        turns = tuple(self._turn(number, message) for number, message in enumerate(messages, start=1))
        answers = [turn for turn in turns if turn.role == ASSISTANT and turn.says_something]
        if response_required and not answers:
            self.fail("field 'messages' has no text from the assistant; a training row needs a response")
        if response_required and not any(turn.trained for turn in answers):
            self.fail("field 'messages': all of the assistant's have weight 0, so that no token is a target")
        last = turns[-1]
        has_response = last.role == ASSISTANT and last.says_something
        if last.role == ASSISTANT and not has_response and not response_required:
            turns = turns[:-1]  # an empty message is the place of an answer, not an answer
            if not turns:
                self.fail("field 'messages' is a single empty message of the assistant; give it a question")
        arguments = self._chat_arguments()
        # Rows without other fields have the digest of their roles and contents alone.
        text: dict[str, Any] = {
            "messages": [
                [turn.role, turn.content, *([plain_value(turn.fields)] if turn.fields else [])] for turn in turns
            ]
        }
        if arguments:
            text["arguments"] = plain_value(arguments)
        return _Content(
            shape="chat",
            used=frozenset(("messages", *(name for name in _CHAT_ARGUMENTS if self._is_argument(name)))),
            text=text,
            response=last.content if has_response else "",
            turns=turns,
            has_response=has_response,
            chat_arguments=arguments,
        )

    def _is_argument(self, name: str) -> bool:
        """Tell whether a field is an argument of the chat template; a text of ``documents`` is metadata."""
        return name in self.fields and (name != "documents" or isinstance(self.fields[name], (list, tuple)))

    def _chat_arguments(self) -> dict[str, Any]:
        """Return what the row gives to the chat template beside the messages."""
        if "functions" in self.fields:
            self.fail("field 'functions' is an old form that no chat template renders; write it as 'tools'")
        arguments: dict[str, Any] = {}
        for name in ("tools", "documents"):
            if not self._is_argument(name):
                continue
            value = self.fields[name]
            if isinstance(value, str):  # tables have no other form for objects of different kinds
                try:
                    value = json.loads(value) if value.strip() else []
                except (ValueError, RecursionError) as error:
                    self.fail(f"field {name!r} is text and no JSON: {error}; write a list of objects")
            if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) for one in value):
                self.fail(f"field {name!r} is {kind_of(value)}; it must be a list of objects")
            if value:
                arguments[name] = list(value)
        more = self.fields.get("chat_template_kwargs", {})
        if not isinstance(more, Mapping):
            self.fail(f"field 'chat_template_kwargs' is {kind_of(more)}; it must be an object")
        for name, value in more.items():
            if name in _OWN_ARGUMENTS:
                self.fail(f"field 'chat_template_kwargs' cannot set {name!r}; leave it out")
            if value is not None:
                arguments[str(name)] = value
        return arguments

    def _turn(self, number: int, message: Any) -> Turn:
        where = f"field 'messages', message {number}"
        if not isinstance(message, Mapping):
            self.fail(f"{where} is {kind_of(message)}; it must be an object with role and content")
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role.strip():
            self.fail(f"{where}: role is {kind_of(role)}; it must be a name such as user or assistant")
        # Tables have all fields in all messages, and null where there is none.
        fields = {
            str(name): value
            for name, value in message.items()
            if name not in ("role", "content") and value is not None
        }
        if content is None and fields.keys() - TRAINED_FLAGS:
            content = ""
        if isinstance(content, (list, tuple)):
            content = "".join(self._part(where, part) for part in content)
        if not isinstance(content, str):
            self.fail(f"{where}: content is {kind_of(content)}; it must be text")
        self._check_unicode("messages", role + content + json.dumps(plain_value(fields), ensure_ascii=False))
        return Turn(role, content, fields, self._is_trained(where, role, fields))

    def _is_trained(self, where: str, role: str, fields: Mapping[str, Any]) -> bool:
        """Read whether a message's tokens are targets."""
        for name in _UNSUPPORTED_FLAGS:
            if name in fields:
                self.fail(f"{where}: field {name!r} chooses targets in a way that cannot be done; leave it out")
        trained = True
        for name in TRAINED_FLAGS:
            value = fields.get(name)
            if value is None:
                continue
            if not isinstance(value, (bool, int, float)) or value not in (0, 1):
                self.fail(f"{where}: {name} is {value!r}; it must be 0 or 1, or true or false")
            if value and role != ASSISTANT:
                self.fail(
                    f"{where}: {name} makes a target of the message of {role!r}; only the assistant's can be, "
                    "unless all tokens are, with --targets all"
                )
            trained = trained and bool(value)
        return trained

    def _part(self, where: str, part: Any) -> str:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") in (None, "text") else None
        if not isinstance(text, str):
            self.fail(f"{where}: content has a part that is not text; only text can be used")
        return text

    def _no_response(self, field: str) -> NoReturn:
        state = "empty" if field in self.fields else "missing"
        self.fail(f"field {field!r} is {state}; a training row needs a response")

    def _value(self, name: str, shape: Shape) -> str:
        """Return a field's text for a template; a user's template also takes numbers and truth values."""
        if name not in self.fields:
            if name == "input":
                return ""
            self.fail(f"field {name!r} is missing; the {shape} prompt needs it")
        value = self.fields[name]
        if shape == "template" and isinstance(value, (bool, int, float)):
            return json.dumps(value)
        return self._string(name)

    def _string(self, name: str) -> str:
        value = self.fields[name]
        if not isinstance(value, str):
            self.fail(f"field {name!r} is {kind_of(value)}; it must be text")
        self._check_unicode(name, value)
        return value

    def _check_unicode(self, name: str, text: str) -> None:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            self.fail(f"field {name!r} holds half a character (\\u{ord(text[error.start]):04x}); repair the text")

    def metadata(self, used: frozenset[str]) -> dict[str, Any]:
        """Return all fields that are neither id nor text, as JSON values."""
        others = {name: value for name, value in self.fields.items() if name != "id" and name not in used}
        if self.row.untyped:
            return {name: typed_cell(value) for name, value in others.items()}
        plain = {str(name): plain_value(value) for name, value in others.items()}
        for name, value in plain.items():
            self._check_unicode(name, name + json.dumps(value, ensure_ascii=False))
        return plain


def _is_too_deep(value: Any) -> bool:
    """Tell whether objects and lists within each other have more than `_DEEPEST` levels."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                inner.extend(one.values())
            elif isinstance(one, (list, tuple, set, frozenset)):
                inner.extend(one)
        level = [one for one in inner if isinstance(one, (Mapping, list, tuple, set, frozenset))]
        if not level:
            return False
    return True
