"""The options of ``rapidin search`` that say what is searched for, made from the fields of `SearchOptions`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, get_origin

import typer

from rapidin.settings import SEARCH_OPTIONS, SearchOption

REPEATED = "Repeat it to give several."


def with_search_flags(
    *, without: Mapping[str, str], unless_given: Mapping[str, str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: its ``**options`` become an option of the command line for each option of a search.

    Args:
        without: options that the command line does not have, with the reason.
        unless_given: options that are None unless they are given, with a sentence for the help that says what
            the command takes then.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        before: list[inspect.Parameter] = []
        after: list[inspect.Parameter] = []
        place = before
        for parameter in signature.parameters.values():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                place = after if parameter.kind is inspect.Parameter.KEYWORD_ONLY else before
                place.append(parameter)
        options = [
            _parameter(option, unless_given.get(name))
            for name, option in SEARCH_OPTIONS.items()
            if name not in without
        ]
        command.__signature__ = signature.replace(parameters=[*before, *options, *after])  # type: ignore[attr-defined]
        return command

    return decorated


def _parameter(option: SearchOption, unless_given: str | None) -> inspect.Parameter:
    flag, kind, default, words = option.flag, option.type, option.default, [option.flag.help]
    if get_origin(kind) is get_origin(Sequence[str]):
        kind, default = list[str], []
        words.append(REPEATED)
    if unless_given is not None:
        kind, default = kind | None, None
        words.append(unless_given)
    shown = typer.Option(flag.name, min=flag.least, metavar=flag.metavar, help=" ".join(words))
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
    )
