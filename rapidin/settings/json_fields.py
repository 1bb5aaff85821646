"""The options of a search as fields of JSON, for the HTTP service and for agents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from rapidin.settings.search_options import SEARCH_OPTIONS, Part

_ITEMS = 20
_CHARACTERS = 1_000
_LARGEST = 1_000_000
"""Largest number of an option, and largest offset in a text."""

_Text = Annotated[str, Field(min_length=1, max_length=_CHARACTERS)]
_Offsets = Annotated[
    list[Annotated[int, Field(ge=0, le=_LARGEST)]], Field(min_length=2, max_length=2), AfterValidator(tuple)
]
_LISTS: dict[Any, Any] = {
    Sequence[str]: list[Annotated[str, Field(max_length=_CHARACTERS)]],
    Sequence[Part]: list[_Text | _Offsets],
}
"""Types in JSON of the options that are sequences; everything from outside has a largest size."""

_MEANT: dict[Any, str] = {
    Sequence[Part]: "Each is a text, or the offsets of its first character and of the one behind its last."
}


def json_options(
    *,
    without: Collection[str] = (),
    most: Mapping[str, int] | None = None,
    unless_given: Mapping[str, Any] | None = None,
    more_help: Mapping[str, str] | None = None,
) -> dict[str, tuple[Any, Any]]:
    """Make a type for pydantic, and a default, of each option of a search.

    Args:
        without: names of options that are left out.
        most: largest numbers, by names of options; others may be as large as 1,000,000.
        unless_given: defaults that differ from those of `SearchOptions`; None: the caller chooses the value.
        more_help: sentences to add to the help of options.

    Returns:
        by name, the type with its bounds and description, and the default.
    """
    most, unless_given, more_help = most or {}, unless_given or {}, more_help or {}
    found: dict[str, tuple[Any, Any]] = {}
    for name, option in SEARCH_OPTIONS.items():
        if name in without:
            continue
        default = unless_given.get(name, option.default)
        kind = _LISTS.get(option.type, option.type)
        bounds: dict[str, Any] = {}
        if option.type in _LISTS:
            default, bounds = list(default), {"max_length": _ITEMS}
        elif option.flag.least is not None:
            bounds = {"ge": option.flag.least, "le": most.get(name, _LARGEST)}
        if default is None:
            kind = kind | None
        words = (option.flag.help, _MEANT.get(option.type), more_help.get(name))
        description = " ".join(filter(None, words))
        found[name] = (Annotated[kind, Field(description=description, **bounds)], default)
    return found
