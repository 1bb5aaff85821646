"""Shapes of what a service answers, for its OpenAPI; `rapidin.records.as_json` makes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rapidin.service.problems import STATUSES, ProblemType, phrase

Pair = Annotated[list[int], Field(min_length=2, max_length=2)]
"""The first character of a part and the one behind its last."""


class Answer(BaseModel):
    """Base of all answers: they hold what they name and nothing else."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    """What is wrong, for programs and for people."""

    type: ProblemType
    message: str = Field(description="One line: what is wrong and what to do.")


class ErrorAnswer(Answer):
    """The shape of all errors."""

    error: ErrorDetail


class TokenInfluence(Answer):
    """A token or word, and the part of an influence that is its own."""

    token: str = Field(description="Its characters; empty for a token without any, such as the end.")
    start: int = Field(description="Its first character in the text.")
    end: int = Field(description="The character behind its last.")
    influence: float | None = Field(description="Signed.")


class SampleAnswer(Answer):
    """A training sample."""

    id: str
    text: str = Field(description="Prompt and response.")
    prompt: str
    response: str
    metadata: dict[str, Any] = Field(description="Every field of the row that is neither text nor id.")
    file: str = Field(description="The data file it came from.")
    row: int = Field(description="Its number in that file, from 1.")
    targets: int = Field(description="Tokens that are targets of the loss.")
    truncated: bool = Field(description="Whether tokens were cut off.")
    content_hash: str = Field(description="Digest of the text that the gradient was computed from.")
    target_spans: list[Pair] | None = Field(
        default=None, description="Of a chat: the parts of the text whose tokens are targets."
    )


class StoredSample(SampleAnswer):
    """A training sample as the store has it."""

    tokens: int = Field(description="Length in tokens.")


class Hit(SampleAnswer):
    """A training sample that was found; what was not computed is absent."""

    rank: int = Field(description="From 1.")
    score: float | None = Field(description="Influence, estimated from compressed gradients.")
    exact_score: float | None = Field(default=None, description="The same from the gradients themselves.")
    token_count: int = Field(description="Length in tokens.")
    tokens: list[TokenInfluence] | None = Field(
        default=None, description="The sample's target tokens; their influences add up to exact_score."
    )
    words: list[TokenInfluence] | None = Field(default=None, description="The same, added up to words.")
    matrix: list[list[float | None]] | None = None


class QueryAnswer(Answer):
    """What was asked, as the model saw it."""

    id: str
    prompt: str
    generation: str
    generated: bool = Field(description="True where the model wrote the generation in this search.")
    tokens: int = Field(description="Length in tokens.")
    targets: int = Field(description="Tokens of the generation.")
    truncated: bool
    metadata: dict[str, Any]
    spans: list[Pair] = Field(description="Parts of the generation that alone were asked about.")


class TokenAnswer(Answer):
    """What one token of the generation goes back to."""

    token: str
    start: int
    end: int
    proponents: list[Hit]
    opponents: list[Hit]


class SearchAnswer(Answer):
    """What a search found: the object that `rapidin search --json` prints."""

    query: QueryAnswer
    proponents: list[Hit] = Field(description="From the largest influence down.")
    opponents: list[Hit] = Field(description="From the smallest up; empty unless asked for.")
    index: str = Field(description="The way that was taken: exact, or an index's name.")
    by_token: list[TokenAnswer] | None = None
    generation_tokens: list[TokenInfluence] | None = None
    explained: str | None = Field(default=None, description="How the influences of tokens were computed.")


class State(Answer):
    """How a service is."""

    status: Literal["alive", "ready"]


class LimitsAnswer(Answer):
    """How much a request may ask for."""

    body: int = Field(description="Bytes.")
    characters: int = Field(description="Of a prompt, and of a generation.")
    tokens: int = Field(description="Of both together.")
    max_new_tokens: int
    k: int
    token_k: int = Field(description="The largest k where every token is looked up.")
    rerank: int
    waiting: int = Field(description="Searches that may wait.")
    seconds: float = Field(description="In which a search is answered, or not at all.")


class Waiting(Answer):
    """The search waits for others."""

    event: Literal["waiting"] = "waiting"
    ahead: int = Field(description="Searches before it.")


class Progress(Answer):
    """The search runs."""

    event: Literal["progress"] = "progress"
    step: str
    done: int
    total: int


class Report(Answer):
    """The result, as the page shows it."""

    event: Literal["report"] = "report"
    samples: list[dict[str, Any]]
    query: dict[str, Any]


class Failed(Answer):
    """What went wrong after the first line was sent."""

    event: Literal["error"] = "error"
    status: int
    error: ErrorDetail


_EXAMPLE_MESSAGES = {
    400: "the body is not JSON: Expecting value",
    401: "send the service's token in the header: Authorization: Bearer TOKEN",
    403: "a page of another origin may not ask this service",
    404: "no sample has the id 'train-1'",
    408: "the body did not come in time; send it at once",
    409: "store 'store' holds no samples: ingest some first",
    413: "the body is larger than 1,048,576 bytes; send less",
    415: "send JSON, with the header Content-Type: application/json",
    421: "the service is not called by that name; to let it be, start it with --allow-host and a token",
    422: "k: Input should be less than or equal to 100",
    429: "16 searches wait already; come again in 17 s",
    500: "something is wrong with the service; its log says what",
    503: "the model is being loaded; try again in a few seconds",
    504: "no answer within 120 s; ask for less, or come when less is asked",
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of errors for a route's OpenAPI."""
    return {
        status: {
            "model": ErrorAnswer,
            "description": phrase(status),
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
            "content": {
                "application/json": {
                    "example": {"error": {"type": STATUSES[status], "message": _EXAMPLE_MESSAGES[status]}}
                }
            },
        }
        for status in sorted(statuses)
    }
