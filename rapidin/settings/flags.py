"""Options of the command line that belong to fields of the settings; a field carries its option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_origin


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of ``rapidin ingest`` or ``rapidin search``.

    Attributes:
        name: name of the option, such as ``--projection-dim``.
        help: text that the help shows.
        metavar: name of the value in the help; None for the name of its type.
        takes: type of the value that is typed; None if it is the field's own type. An option that takes a list
            is repeated.
        switches_off: whether the option takes no value and sets the field to False.
        least: smallest number that an option of a search takes; None if it takes no number.
    """

    name: str
    help: str
    metavar: str | None = None
    takes: Any = None
    switches_off: bool = False
    least: int | None = None

    @property
    def repeated(self) -> bool:
        """Whether the option may be given several times."""
        return get_origin(self.takes) is list
