"""Requests of searches over HTTP: the options of `Searcher.search`, with the limits of a service."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from rapidin.errors import SettingError
from rapidin.service.service_settings import Limits
from rapidin.settings import MAX_NEW_TOKENS, SEARCH_OPTIONS, SearchOptions, json_options
from rapidin.storage import check_bounded

EXAMPLES: dict[str, dict[str, Any]] = {
    "an answer": {
        "summary": "Which samples made the model say this?",
        "value": {"prompt": "Who won the match?", "generation": "The cosmic elixir.", "k": 5, "opponents": True},
    },
    "no answer": {
        "summary": "The model answers first; only some samples count.",
        "value": {"prompt": "Who won the match?", "k": 3, "where": ["tokens<500"], "max_new_tokens": 32},
    },
    "estimates": {
        "summary": "The stored estimates only, which is quickest.",
        "value": {"prompt": "Who won?", "generation": "We did.", "rerank": 0, "index": "exact"},
    },
}


class SearchRequest(BaseModel):
    """A generation, and what is wanted of the samples behind it.

    The requests of a service, see `limited_request`, also have a field for each option of a search.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(
        description="What the model was asked; put into the template of the store's rows, unless it begins "
        "as that does.",
        examples=["Who won the match?"],
    )
    generation: str | None = Field(
        default=None,
        description="What it answered; without it the model answers now, greedily.",
        examples=["We did."],
    )


def limited_request(limits: Limits) -> type[SearchRequest]:
    """Make the type of a service's requests, with the limits in it, so that its OpenAPI tells them."""
    fields: dict[str, Any] = json_options(
        most={"k": limits.k, "rerank": limits.rerank, "max_new_tokens": limits.max_new_tokens},
        unless_given={"rerank": None, "max_new_tokens": None},
        more_help={
            "rerank": "Unless given, three times k, if the service's limit allows.",
            "max_new_tokens": f"Unless given, {MAX_NEW_TOKENS}, if the service's limit allows.",
        },
    )
    for name in ("prompt", "generation"):
        field = SearchRequest.model_fields[name]
        longest = Field(max_length=limits.characters, description=field.description, examples=field.examples)
        fields[name] = (Annotated[field.annotation, longest], ... if field.is_required() else None)
    return create_model(
        "SearchRequest",
        __base__=SearchRequest,
        __doc__="A generation, and what is wanted of the samples behind it.",
        **fields,
    )


def options_of(asked: SearchRequest, limits: Limits, regular_expressions: bool) -> SearchOptions:
    """Make the options of a search from a request.

    Args:
        asked: request of the type that `limited_request` made.
        limits: limits of the service.
        regular_expressions: whether filters may hold any regular expression.

    Raises:
        SettingError: an option contradicts another one, or goes beyond a limit.
    """
    values: dict[str, Any] = {name: getattr(asked, name) for name in SEARCH_OPTIONS}
    if values["rerank"] is None:
        values["rerank"] = limits.default_rerank(values["k"])
    if values["max_new_tokens"] is None:
        values["max_new_tokens"] = min(SEARCH_OPTIONS["max_new_tokens"].default, limits.max_new_tokens)
    options = SearchOptions(**values)
    if options.by_token and options.k > limits.token_k:
        raise SettingError(f"k: with by_token each token has k samples; ask for at most {limits.token_k}")
    if not regular_expressions:
        for expression in options.where:
            check_bounded(expression)
    return options
