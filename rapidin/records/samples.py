"""The record of a training sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, WithJsonSchema, computed_field

T = TypeVar("T")

WhereComputed = Annotated[T, Field(exclude_if=lambda value: not value)]
"""The type of a field that JSON leaves out if it is empty."""

Span = Annotated[
    tuple[int, int],
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
]
"""A part of a text: the offset of its first character and the offset after its last character."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A training sample as a store holds it.

    Attributes:
        id: name of the sample, unique among the store's live samples.
        prompt: text before the first target token, as the model saw it.
        response: text from the first target token on.
        metadata: every field of the row that is neither text nor id.
        file: data file that the sample came from, as the user named it.
        row: number of its row in that file, counted from 1.
        tokens: length of the sample in tokens, after truncation.
        targets: number of tokens that are targets of the loss.
        truncated: whether tokens were cut off.
        content_hash: digest of the text that the gradient was computed from.
        target_spans: parts of a chat's `text` whose tokens are targets, in order; parts after the last token are
            left out. It is empty for every other shape, whose target is the response, which was tokenised
            separately from the prompt.
    """

    id: str
    prompt: str
    response: str
    metadata: Mapping[str, Any]
    file: str
    row: int
    tokens: int
    targets: int
    truncated: bool
    content_hash: str
    target_spans: WhereComputed[tuple[Span, ...]] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def text(self) -> str:
        """Prompt and response together."""
        return self.prompt + self.response
