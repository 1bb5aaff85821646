"""What a search is asked for over HTTP: the options of `Searcher.search`, with a service's limits on them."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from rapidin.errors import SettingError
from rapidin.service.service_settings import Limits
from rapidin.settings import IndexChoice, Options, Part
from rapidin.storage import check_bounded

Offsets = Annotated[list[Annotated[int, Field(ge=0, le=1 << 31)]], Field(min_length=2, max_length=2)]
Condition = Annotated[str, Field(max_length=1_000)]
Span = Annotated[str, Field(min_length=1, max_length=1_000)]

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
    """A generation, and what is wanted of the samples behind it."""

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
    k: int = Field(default=10, ge=1, description="Samples wanted at each end.")
    opponents: bool = Field(default=False, description="Find the most negative influences, too.")
    where: list[Condition] = Field(
        default=[],
        max_length=20,
        description="Conditions that a sample must all meet: FIELD OP VALUE with = != < <= > >= ~ !~.",
        examples=[["source=web", "tokens<200"]],
    )
    spans: list[Span | Offsets] = Field(
        default=[],
        max_length=20,
        description="Parts of the generation that alone are asked about: texts, or the first character and the "
        "one behind the last.",
        examples=[["elixir"], [[4, 10]]],
    )
    by_token: bool = Field(
        default=False, description="Find what every token of the generation goes back to by itself, too."
    )
    matrices: bool = Field(
        default=False,
        description="Of the best, also the influence of each of their tokens on each of the generation; goes with "
        "rerank, and takes a step of computing for each sample and token.",
    )
    rerank: int | None = Field(
        default=None,
        ge=0,
        description="Of so many samples at each end the exact influence is computed, which orders them, and the "
        "influences of their words; 0: of none. At least k otherwise. Unless given, three times k, if the "
        "service's limit allows.",
    )
    index: IndexChoice = Field(default="auto", description="exact, an index of the store, or auto.")
    nprobe: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Lists that index ivf reads, instead of its own number."
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest answer that the model may write; 256, if the limit allows."
    )


def limited_request(limits: Limits) -> type[SearchRequest]:
    """The request with a service's limits in it, so that its OpenAPI tells them."""
    characters = {"max_length": limits.characters}
    bounds: dict[str, dict[str, int]] = {
        "prompt": characters,
        "generation": characters,
        "k": {"le": limits.k},
        "rerank": {"le": limits.rerank},
        "max_new_tokens": {"le": limits.max_new_tokens},
    }
    types = get_type_hints(SearchRequest)
    fields: dict[str, Any] = {}
    for name, bound in bounds.items():
        info = SearchRequest.model_fields[name]
        field: dict[str, Any] = {"description": info.description, "examples": info.examples, **bound}
        field["ge"] = next((entry.ge for entry in info.metadata if hasattr(entry, "ge")), None)
        if not info.is_required():
            field["default"] = info.default
        fields[name] = (types[name], Field(**field))
    return create_model("SearchRequest", __base__=SearchRequest, __doc__=SearchRequest.__doc__, **fields)


def options_of(asked: SearchRequest, limits: Limits, regular_expressions: bool) -> Options:
    """Keyword arguments of `Searcher.search`.

    Raises:
        SettingError: something asked for contradicts something else, or goes beyond a limit.
    """
    if asked.by_token and asked.k > limits.token_k:
        raise SettingError(f"k: with by_token each of them has k samples; ask for at most {limits.token_k}")
    if not regular_expressions:
        for expression in asked.where:
            check_bounded(expression)
    new = min(256, limits.max_new_tokens) if asked.max_new_tokens is None else asked.max_new_tokens
    return {
        "k": asked.k,
        "opponents": asked.opponents,
        "where": asked.where,
        "spans": [_part(span) for span in asked.spans],
        "by_token": asked.by_token,
        "matrices": asked.matrices,
        "rerank": limits.default_rerank(asked.k) if asked.rerank is None else asked.rerank,
        "index": asked.index,
        "nprobe": asked.nprobe,
        "max_new_tokens": new,
    }


def _part(span: str | list[int]) -> Part:
    return span if isinstance(span, str) else (span[0], span[1])
