"""What retrievers have in common: from a query text to a question, from a hit to plain fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rapidin.errors import DependencyError, SettingError
from rapidin.records import Hit, SearchResult

if TYPE_CHECKING:  # the package loads torch, for which a server of the protocol does not wait
    from rapidin.settings import Options

QueryIs = Literal["prompt", "generation"]
"""What the text of a query is: what the model was asked, or what it said."""

End = Literal["proponent", "opponent"]


def missing(package: str, extra: str) -> DependencyError:
    """The error about a package of an extra that is not installed."""
    return DependencyError(f"rapidin.integrations needs {package}: pip install 'rapidin[{extra}]'")


def question(
    query: str, query_is: QueryIs, prompt: str | None, generation: str | None
) -> tuple[str | None, str | None]:
    """Prompt and generation that a query asks about.

    Args:
        query: the text that was given.
        query_is: what it is.
        prompt: of a query that is a generation, if it is known.
        generation: of a query that is a prompt; None: the model writes it.

    Raises:
        SettingError: what the query is was given a second time, or it is nothing that can be searched for.
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


def options_of(k: int, rerank: int, where: str | Sequence[str], opponents: bool, max_new_tokens: int) -> Options:
    """Options of a search; exact influences, if any, are computed of k samples at least."""
    return {
        "k": k,
        "rerank": max(k, rerank) if rerank else 0,
        "where": [where] if isinstance(where, str) else list(where),
        "opponents": opponents,
        "max_new_tokens": max_new_tokens,
    }


def ends(result: SearchResult) -> list[tuple[End, Hit]]:
    """Proponents, then opponents, of a result."""
    proponents: list[tuple[End, Hit]] = [("proponent", hit) for hit in result.proponents]
    return [*proponents, *(("opponent", hit) for hit in result.opponents)]


def fields_of(end: End, hit: Hit, result: SearchResult) -> dict[str, Any]:
    """A hit as flat metadata.

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
