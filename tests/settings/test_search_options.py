"""Every option of a search is declared once, and every interface has it or says why not."""

import inspect
from typing import Any, get_type_hints

import pytest
from typer.main import get_command

from rapidin.commands.search import NOT_ON_THE_COMMAND_LINE
from rapidin.errors import SettingError
from rapidin.integrations.retrieval import NOT_FOR_RETRIEVERS, retriever_options
from rapidin.settings import (
    SEARCH_OPTIONS,
    SearchKeywords,
    SearchOptions,
    json_options,
    options_as_keywords,
    options_with,
)

GIVEN: dict[str, Any] = {
    "k": 3,
    "opponents": True,
    "where": ("a=1",),
    "rerank": 4,
    "by_token": True,
    "spans": ("word", (2, 3)),
    "matrices": True,
    "exact_curvature": True,
    "index": "exact",
    "measure": "influence",
    "objective": "log-odds",
    "nprobe": 2,
    "max_new_tokens": 5,
}


def test_keywords_are_the_fields_with_their_types() -> None:
    assert get_type_hints(SearchKeywords) == get_type_hints(SearchOptions)
    assert list(get_type_hints(SearchKeywords)) == list(SEARCH_OPTIONS)


def test_an_option_knows_its_default() -> None:
    assert {name: option.default for name, option in SEARCH_OPTIONS.items()} == options_as_keywords(
        SearchOptions()
    )


def test_every_value_given_is_taken_and_kept() -> None:
    assert set(GIVEN) == set(SEARCH_OPTIONS)
    options = SearchOptions(**GIVEN)
    assert options_as_keywords(options) == GIVEN
    assert options_with(options, {}) is options
    changed = options_with(options, {"k": 1})
    assert (changed.k, changed.spans) == (1, options.spans)
    assert options_with(None, {}) == SearchOptions()
    assert SearchOptions(where="a=1").where == ("a=1",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "-k 0 cannot be used: give a number of at least 1"),
        ({"k": "3"}, "-k '3' cannot be used"),
        ({"k": None}, "-k None cannot be used"),
        ({"rerank": -1}, "--rerank -1 cannot be used: give a number of at least 0"),
        ({"rerank": 3}, "--rerank 3 is less than the 10 samples wanted"),
        ({"nprobe": 0}, "--nprobe 0 cannot be used"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0 cannot be used"),
        ({"index": "hnsw"}, "--index 'hnsw' is unknown: choose one of auto, exact, ivf, rabitq"),
        ({"matrices": True}, "give --rerank"),
        ({"exact_curvature": True}, "--exact-curvature goes with exact influences: give --rerank"),
        ({"spans": "word"}, r"give a list of texts, such as \['word'\]"),
        ({"spans": [" "]}, "blank"),
        ({"spans": [(1,)]}, "no part of a generation"),
    ],
)
def test_what_cannot_be_used_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SearchOptions(**changes)


def test_the_command_has_every_option_or_says_why_not() -> None:
    import typer

    from rapidin.commands.search import search

    app = typer.Typer(add_completion=False)
    app.command()(search)
    shown = {parameter.name: parameter for parameter in get_command(app).params}
    for name, option in SEARCH_OPTIONS.items():
        if name in NOT_ON_THE_COMMAND_LINE:
            assert name not in shown
            continue
        assert shown[name].opts == [option.flag.name]
        assert option.flag.help in shown[name].help
    assert set(NOT_ON_THE_COMMAND_LINE) < set(SEARCH_OPTIONS)


def test_the_service_has_every_option() -> None:
    from rapidin.service.requests import limited_request
    from rapidin.service.service_settings import Limits

    request = limited_request(Limits())
    assert set(request.model_fields) == {"prompt", "generation", *SEARCH_OPTIONS}
    for name, option in SEARCH_OPTIONS.items():
        assert option.flag.help in request.model_fields[name].description


def test_the_tool_of_agents_has_every_option_or_says_why_not() -> None:
    pytest.importorskip("mcp")
    from rapidin.integrations.mcp_server import MOST, NOT_FOR_AGENTS, UNLESS_GIVEN

    assert set(NOT_FOR_AGENTS) | set(MOST) | set(UNLESS_GIVEN) <= set(SEARCH_OPTIONS)
    offered = json_options(without=NOT_FOR_AGENTS, most=MOST, unless_given=UNLESS_GIVEN)
    assert set(offered) == set(SEARCH_OPTIONS) - set(NOT_FOR_AGENTS)
    assert offered["k"][1] == UNLESS_GIVEN["k"]


@pytest.mark.parametrize("name", list(SEARCH_OPTIONS))
def test_a_retriever_takes_every_option_or_says_why_not(name: str) -> None:
    if name in NOT_FOR_RETRIEVERS:
        with pytest.raises(SettingError, match=f"cannot take {name}, because"):
            retriever_options(None, {"rerank": 10, name: True})
    else:
        options = retriever_options(SearchOptions(k=1, rerank=1), {name: GIVEN[name]})
        assert getattr(options, name) == GIVEN[name]


def test_a_retriever_computes_exactly_what_it_returns() -> None:
    assert retriever_options(SearchOptions(k=4), {"rerank": 2}).rerank == 4
    assert retriever_options(SearchOptions(k=4, rerank=5), {"k": 9}).rerank == 9
    with pytest.raises(SettingError, match=r"takes no 'top_k': give some of k, .*max_new_tokens"):
        retriever_options(None, {"top_k": 3})


def test_the_searcher_and_the_retrievers_take_the_keywords() -> None:
    from rapidin.search import Searcher

    functions = [Searcher.search, Searcher.asearch, Searcher.search_file, Searcher.asearch_file]
    for function in functions:
        changes = inspect.signature(function, eval_str=True).parameters["changes"]
        assert changes.kind is inspect.Parameter.VAR_KEYWORD
        assert changes.annotation.__args__ == (SearchKeywords,)


def test_json_types_have_bounds_and_descriptions() -> None:
    from pydantic import TypeAdapter, ValidationError

    offered = json_options(most={"k": 7}, unless_given={"rerank": None}, more_help={"k": "More."})
    kind, default = offered["k"]
    assert default == SEARCH_OPTIONS["k"].default
    assert kind.__metadata__[0].description.endswith("More.")
    for wrong in (0, 8):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(wrong)
    rerank, none = offered["rerank"]
    assert none is None
    assert TypeAdapter(rerank).validate_python(None) is None
    spans, _ = offered["spans"]
    assert TypeAdapter(spans).validate_python(["word", [1, 2]]) == ["word", (1, 2)]
    with pytest.raises(ValidationError):
        TypeAdapter(spans).validate_python(["word"] * 21)
