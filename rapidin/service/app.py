"""The application: its documented routes, and the layers around them."""

# No `from __future__ import annotations`: FastAPI reads the request's type, which is made for each application.

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import Body, Depends, FastAPI, Query, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.types import Receive, Scope, Send

import rapidin
from rapidin.records import Sample, SearchResult, StoreInfo, to_json
from rapidin.report import page_data
from rapidin.service.access import Gate
from rapidin.service.answers import Failed, LimitsAnswer, Progress, Report, State, Waiting, errors
from rapidin.service.ask_page import ask_page
from rapidin.service.bodies import LimitedBody, only_json
from rapidin.service.observing import Admission, Observed
from rapidin.service.problems import CLIENT_GONE, Problem, add_handlers, encoded, json_response, problem_of
from rapidin.service.requests import EXAMPLES, SearchRequest, limited_request
from rapidin.service.service import Service

T = TypeVar("T")
Route = TypeVar("Route", bound=Callable[..., Any])


class _Anything(StringConvertor):
    """Match the rest of a path, with slashes and line ends, because ids may hold any characters."""

    regex = r"[\s\S]*"


register_url_convertor("anything", _Anything())

_DESCRIPTION = """Which training samples made my language model say this?

Searches run one at a time; a few may wait, others get 429 and are told when to try again. Errors have one shape:
`{"error": {"type", "message"}}`."""
_REFUSED = (401, 403, 408, 413, 421, 503)
"""Statuses of requests that reach no route."""


class Application:
    """An ASGI application: the routes of `api`, and the layers that every request passes."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.api = _api(service)
        limited = LimitedBody(self.api, service.settings.limits)
        self._app = Observed(Admission(Gate(limited, service.settings), service), service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)


def create_app(service: Service) -> Application:
    """Make an application that loads the service's model when it starts, and closes it when it ends."""
    return Application(service)


def _api(service: Service) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        loading = asyncio.ensure_future(service.load())
        yield
        await asyncio.to_thread(service.queue.close)
        await loading  # so that `close` knows of a model that was loaded just now
        await asyncio.to_thread(service.close)

    api = FastAPI(
        title="rapidin",
        version=rapidin.__version__,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,  # their scripts come from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=errors(*_REFUSED),
    )
    add_handlers(api, service.store.path)
    _add_states(api, service)
    _add_store(api, service)
    _add_searches(api, service)
    return api


def _secured(service: Service) -> list[Any]:
    """Say in the OpenAPI that a token is needed; `Gate` has checked it before."""
    if service.settings.token is None:
        return []
    return [Security(HTTPBearer(auto_error=False, description="The token that the service was started with."))]


def _add_states(api: FastAPI, service: Service) -> None:
    page = ask_page()

    @api.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(page.text, headers={"Content-Security-Policy": page.policy})

    @api.get("/health", tags=["state"], summary="Whether the service lives", response_model=State)
    async def health() -> Response:
        """Answer at once, whatever else the service does."""
        return json_response({"status": "alive"})

    @api.get("/ready", tags=["state"], summary="Whether the model is loaded", response_model=State)
    async def ready() -> Response:
        """Answer 503 until the model is loaded, and after the service was told to end."""
        service.check_ready()
        if service.draining:
            raise Problem(503, "the service is shutting down", {"Retry-After": "5"})
        return json_response({"status": "ready"})

    @api.get(
        "/metrics",
        tags=["state"],
        summary="Figures for Prometheus",
        dependencies=_secured(service),
        response_class=Response,
        responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        """Tell numbers of requests, latencies by route, waiting searches, and seconds of the model."""
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


def _add_store(api: FastAPI, service: Service) -> None:
    secured = _secured(service)

    @api.get(
        "/v1/info", tags=["store"], summary="What the store holds", response_model=StoreInfo, dependencies=secured
    )
    async def info() -> Response:
        """Return the object that `rapidin info --json` prints."""
        return json_response(to_json(await run_in_threadpool(service.store.info)))

    @api.get(
        "/v1/limits",
        tags=["store"],
        summary="How much may be asked",
        response_model=LimitsAnswer,
        dependencies=secured,
    )
    async def limits() -> Response:
        """Return the limits of requests; a request beyond them gets 413 or 422."""
        every = asdict(service.settings.limits)
        return json_response({name: every[name] for name in LimitsAnswer.model_fields})

    async def found(id: str) -> Response:
        return json_response(to_json(await run_in_threadpool(service.store.get, id)))

    @api.get(
        "/v1/samples/{id:anything}",
        tags=["store"],
        summary="One sample, whole",
        response_model=Sample,
        responses=errors(404, 422),
        dependencies=secured,
    )
    async def sample(id: str) -> Response:
        """Return the object that `rapidin show --json` prints. Slashes of an id need no escape."""
        return await found(id)

    @api.get(
        "/v1/samples",
        tags=["store"],
        summary="The same, of an id that no path can hold",
        response_model=Sample,
        responses=errors(404, 422),
        dependencies=secured,
    )
    async def sample_by_query(
        id: Annotated[str, Query(description="Of the sample, for example `..`.")],
    ) -> Response:
        return await found(id)


def _add_searches(api: FastAPI, service: Service) -> None:
    secured = [*_secured(service), Depends(only_json)]
    failures = errors(400, 409, 415, 422, 429, 504)
    limited = limited_request(service.settings.limits)
    body: Any = Annotated[limited, Body(openapi_examples=EXAMPLES)]  # type: ignore[arg-type]

    def within_limits(route: Route) -> Route:
        """Give FastAPI the request's type with the limits in it, which no annotation can name."""
        route.__annotations__["asked"] = body
        return route

    @api.post(
        "/v1/search",
        tags=["search"],
        summary="Find the training samples behind a generation",
        response_model=SearchResult,
        responses=failures,
        dependencies=secured,
    )
    @within_limits
    async def search(asked: SearchRequest, request: Request) -> Response:
        """Return the object that `rapidin search --json` prints."""
        result = await _unless_gone(request, service.search(asked))
        if result is None:
            return Response(status_code=CLIENT_GONE)
        return Response(await run_in_threadpool(lambda: encoded(to_json(result))), media_type="application/json")

    @api.post(
        "/v1/report",
        tags=["search"],
        summary="The same, for the page",
        response_class=StreamingResponse,
        responses=failures
        | {
            200: {
                "description": "Lines of JSON: some of `waiting` and `progress`, then one of `report` or `error`.",
                "content": {
                    "application/x-ndjson": {
                        "schema": {"type": "string"},
                        "example": '{"event":"progress","step":"exact influences","done":8,"total":30}\n',
                    }
                },
            }
        },
        dependencies=secured,
    )
    @within_limits
    async def report(asked: SearchRequest) -> Response:
        """Return influences of tokens with offsets as browsers count them. The shape may change with the page."""
        service.check_ready()
        service.queue.check_room()
        return StreamingResponse(_lines(service, asked), media_type="application/x-ndjson")


async def _lines(service: Service, asked: SearchRequest) -> AsyncIterator[bytes]:
    """Yield the progress and the result of a search, a line each."""
    try:
        if service.queue.running:
            yield _line(Waiting(ahead=service.queue.waiting + 1))
        async with contextlib.aclosing(service.searching(asked)) as events:
            async for event in events:
                if isinstance(event, SearchResult):
                    yield await run_in_threadpool(_report_line, event)
                else:
                    yield _line(Progress(step=event[0], done=event[1], total=event[2]))
    except Exception as error:  # noqa: BLE001 - the status has been sent, so the error is a line
        problem = problem_of(error, service.store.path)
        yield encoded({"event": "error", "status": problem.status, **problem.body}) + b"\n"


def _line(event: Waiting | Progress | Failed) -> bytes:
    return encoded(event.model_dump()) + b"\n"


def _report_line(result: SearchResult) -> bytes:
    samples, (query,) = page_data([result])
    return encoded({"event": Report.model_fields["event"].default, "samples": samples, "query": query}) + b"\n"


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`; if the client leaves, give the work up and return None."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await _quiet(one)


async def _quiet(task: Awaitable[Any]) -> None:
    await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
