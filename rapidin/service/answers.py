"""Shapes of answers that only a service gives, for its OpenAPI; samples and results are in `rapidin.records`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rapidin.service.problems import STATUSES, ProblemType, phrase


class Answer(BaseModel):
    """Base of all answers: they hold what they name and nothing else."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    """An error, for programs and for people."""

    type: ProblemType
    message: str = Field(description="One line: what is wrong and what to do.")


class ErrorAnswer(Answer):
    """The shape of all errors."""

    error: ErrorDetail


class State(Answer):
    """The state of a service."""

    status: Literal["alive", "ready"]


class LimitsAnswer(Answer):
    """The limits of a request."""

    body: int = Field(description="Maximum bytes of a request.")
    characters: int = Field(description="Maximum characters of a prompt, and of a generation.")
    tokens: int = Field(description="Maximum tokens of both together.")
    max_new_tokens: int
    k: int
    token_k: int = Field(description="The largest k if every token is looked up.")
    rerank: int
    waiting: int = Field(description="Number of searches that may wait.")
    seconds: float = Field(description="Time in which a search must be answered.")


class Waiting(Answer):
    """The search waits for others."""

    event: Literal["waiting"] = "waiting"
    ahead: int = Field(description="Number of searches before it.")


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
    """An error that occurred after the first line was sent."""

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
    421: "this service does not answer to that host; to allow it, start it with --allow-host and a token",
    422: "k: Input should be less than or equal to 100",
    429: "16 searches wait already; try again in 17 s",
    500: "something is wrong with the service; its log says what",
    503: "the model is being loaded; try again in a few seconds",
    504: "no answer within 120 s; ask for fewer samples or a shorter text, or try again later",
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe errors for a route's OpenAPI."""
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
