"""Functions that all retrievers share: from a query text to a question, from a hit to plain fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from rapidin.errors import DependencyError, SettingError
from rapidin.records import Hit, SearchResult
from rapidin.settings import SEARCH_OPTIONS, SearchOptions, options_as_keywords

QueryIs = Literal["prompt", "generation"]
"""Kind of a query's text: what the model was asked, or what it said."""

End = Literal["proponent", "opponent"]

NOT_FOR_RETRIEVERS = {
    "by_token": "a document stands for the whole generation",
    "matrices": "a document has no place for them",
}
"""Options of a search that retrievers do not have, each with the reason."""

RETRIEVER_OPTIONS = tuple(name for name in SEARCH_OPTIONS if name not in NOT_FOR_RETRIEVERS)


def missing(package: str, extra: str) -> DependencyError:
    """Make the error about a package of an extra that is not installed."""
    return DependencyError(f"rapidin.integrations needs {package}: pip install 'rapidin[{extra}]'")


def question(
    query: str, query_is: QueryIs, prompt: str | None, generation: str | None
) -> tuple[str | None, str | None]:
    """Return the prompt and the generation that a query asks about.

    Args:
        query: text that was given.
        query_is: what the text is.
        prompt: prompt of a query that is a generation, if it is known.
        generation: generation of a query that is a prompt; None: the model writes it.

    Raises:
        SettingError: the text was given a second time under its own name, or `query_is` is unknown.
    """
    if query_is not in ("prompt", "generation"):
        raise SettingError(f"query_is {query_is!r} is unknown: choose 'prompt' or 'generation'")
    if query_is == "prompt":
        if prompt is not None:
            raise SettingError("the query is the prompt: leave out prompt, or give query_is='generation'")
        return query, generation
    if generation is not None:
        raise SettingError("the query is the generation: leave out generation, or give query_is='prompt'")
    return prompt, query


def retriever_options(options: SearchOptions | None, changes: Mapping[str, Any]) -> SearchOptions:
    """Make the options of a retriever's search.

    Exact influences, if any are wanted, are computed of at least k samples, because callers may change k for each
    call.

    Args:
        options: options to start from; None: the defaults.
        changes: options by name that take the place of those of `options`.

    Raises:
        SettingError: a name is unknown, a retriever cannot show what an option asks for, or an option cannot be
            used.
    """
    unknown = sorted(changes.keys() - SEARCH_OPTIONS.keys())
    if unknown:
        raise SettingError(f"a retriever takes no {unknown[0]!r}: give some of {', '.join(RETRIEVER_OPTIONS)}")
    values = {**options_as_keywords(options), **changes}
    for name, reason in NOT_FOR_RETRIEVERS.items():
        if values.get(name):
            raise SettingError(f"a retriever cannot take {name}, because {reason}: call Searcher.search instead")
    k, rerank = (values.get(name, SEARCH_OPTIONS[name].default) for name in ("k", "rerank"))
    if isinstance(k, int) and isinstance(rerank, int) and 0 < rerank < k:
        values["rerank"] = k
    return SearchOptions(**values)


def ends(result: SearchResult) -> list[tuple[End, Hit]]:
    """Return the proponents of a result, then its opponents."""
    proponents: list[tuple[End, Hit]] = [("proponent", hit) for hit in result.proponents]
    return [*proponents, *(("opponent", hit) for hit in result.opponents)]


def fields_of(end: End, hit: Hit, result: SearchResult) -> dict[str, Any]:
    """Return a hit as flat metadata.

    Returns:
        ``id``, ``end``, ``rank``, ``score``, ``estimate`` and ``exact`` (signed; None: not computed), ``prompt``
        and ``response`` of the sample, ``file`` and ``row`` it came from, ``query_prompt`` and ``generation`` that
        were searched for, and every field of the row's own metadata under its name; a field that has the name of
        another one here gets the prefix ``row_``.
    """
    own: dict[str, Any] = {
        "id": hit.id,
        "end": end,
        "rank": hit.rank,
        "score": hit.score,
        "estimate": hit.estimate,
        "exact": hit.exact,
        "prompt": hit.prompt,
        "response": hit.response,
        "file": hit.file,
        "row": hit.row,
        "query_prompt": result.query.prompt,
        "generation": result.query.generation,
    }
    return {f"row_{name}" if name in own else name: value for name, value in hit.metadata.items()} | own
