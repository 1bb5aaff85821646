"""Errors of the service: their statuses, and the one shape of their bodies, {"error": {"type", "message"}}."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from rapidin.errors import (
    DerivedNotFoundError,
    GradientError,
    RapidinError,
    RowError,
    SampleNotFoundError,
    SettingError,
    StoreEmptyError,
    StoreLockedError,
    StoreMismatchError,
    StoreSpaceError,
)
from rapidin.settings import SEARCH_OPTIONS
from rapidin.support import one_line

logger = logging.getLogger("rapidin.service")

ProblemType = Literal[
    "bad_request",
    "unauthorized",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "too_slow",
    "conflict",
    "too_large",
    "unsupported_media_type",
    "wrong_host",
    "unusable",
    "busy",
    "internal",
    "unavailable",
    "timeout",
]
STATUSES: dict[int, ProblemType] = dict(
    zip(
        (400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 500, 503, 504),
        get_args(ProblemType),
        strict=True,
    )
)
"""Name of each status in an error."""
CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client left before it was answered."""

_UNUSABLE = (SettingError, RowError, GradientError, DerivedNotFoundError, StoreMismatchError)
_SURROGATES = re.compile("[\ud800-\udfff]")
_LONGEST_MESSAGE = 1_000
_FIELDS = {"--prompt": "prompt", "--generation": "generation"} | {
    option.flag.name: name for name, option in SEARCH_OPTIONS.items()
}
"""Names of a request's fields, by the names of the command line's options."""
_FLAGS = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, _FIELDS)) + r")(?![\w-])")


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: one of `STATUSES`.
        message: what is wrong and what to do.
        headers: headers to send with the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, dict[str, str]]:
        """Body of the answer."""
        return {"error": {"type": STATUSES[self.status], "message": _clipped(self.message)}}

    def response(self) -> Response:
        """Make the whole answer."""
        return json_response(self.body, self.status, self.headers)


def problem_of(error: Exception, store: Path) -> Problem:
    """Make the answer to an error; a fault of the service itself is logged and not told to the client.

    Args:
        error: any error.
        store: path of the store, of which a client is told the last part only.
    """
    hidden = str(error).replace(str(store), store.name) if store.name else str(error)  # "." hides nothing
    match error:
        case Problem():
            return error
        case SampleNotFoundError():
            return Problem(404, hidden)
        case StoreEmptyError():
            return Problem(409, hidden)
        case StoreLockedError() | StoreSpaceError():
            logger.error("%s", error)
            return Problem(503, "the store cannot be read now; try again later", {"Retry-After": "10"})
        case RapidinError() if isinstance(error, _UNUSABLE):
            return Problem(422, _as_field(hidden))
        case HTTPException():
            return _of_http(error)
        case RapidinError():
            logger.error("%s", error)
        case _:
            logger.error("an error that nobody expected", exc_info=error)
    return Problem(500, "something is wrong with the service; its log says what")


def add_handlers(api: FastAPI, store: Path) -> None:
    """Give every error of an application the one shape; see `problem_of`."""

    async def handled(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return problem_of(error, store).response()

    async def invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return _of_validation(error).response() if isinstance(error, RequestValidationError) else Response()

    for kind in (Problem, RapidinError, HTTPException, Exception):
        api.add_exception_handler(kind, handled)
    api.add_exception_handler(RequestValidationError, invalid)


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make an answer in JSON; any characters and numbers may be in it."""
    return Response(encoded(data), status, dict(headers or {}), "application/json")


def encoded(data: Any) -> bytes:
    """Encode data as JSON that every reader takes: lone surrogates become U+FFFD, NaN and infinity become null."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        lenient = json.dumps(data, ensure_ascii=False)
        data = json.loads(lenient, parse_constant=lambda _: None)
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _SURROGATES.sub("\ufffd", text).encode()


def _of_http(error: HTTPException) -> Problem:
    status = error.status_code if error.status_code in STATUSES else 400
    message = {
        404: "there is nothing at this address; /openapi.json lists what there is",
        405: "this address does not take that method; the header Allow lists those that it takes",
    }.get(status, str(error.detail))
    return Problem(status, message, error.headers)


def _of_validation(error: RequestValidationError) -> Problem:
    """Describe the first thing that is wrong with a request, by the name of its field."""
    first, *others = error.errors()
    if first["type"] == "json_invalid":
        return Problem(400, f"the body is not JSON: {first['ctx']['error']}")
    name = ".".join(str(part) for part in first["loc"][1:] if not isinstance(part, int)) or "body"
    more = f" (and {len(others)} more)" if others else ""
    return Problem(422, f"{name[:100]}: {first['msg']}{more}")


def _as_field(message: str) -> str:
    """Name fields of a request in a message that names options of the command line."""
    message = message.replace("with --exact", "with index exact")
    return _FLAGS.sub(lambda flag: _FIELDS[flag[1]], message)


def _clipped(message: str) -> str:
    return one_line(message, _LONGEST_MESSAGE)


def phrase(status: int) -> str:
    """Return the name that HTTP gives a status."""
    return HTTPStatus(status).phrase
