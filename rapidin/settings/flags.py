"""The option of the command line that belongs to a field of the settings; the field carries it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of ``rapidin ingest`` or ``rapidin search``.

    Attributes:
        name: name of the option, such as ``--projection-dim``.
        help: text that the help shows.
        metavar: name of the value in the help; None for the name of its type.
        takes: type of the value that is typed; None where it is the field's own.
        switches_off: whether the option takes no value and makes the field False.
        least: smallest number that an option of a search takes; None if it is no number.
    """

    name: str
    help: str
    metavar: str | None = None
    takes: type | None = None
    switches_off: bool = False
    least: int | None = None
