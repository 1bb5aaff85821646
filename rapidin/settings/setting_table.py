"""Table of the settings that a user may set for a store, made from the fields that carry a `Flag`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rapidin.settings.flags import Flag
from rapidin.settings.store_settings import Frozen, StoreSettings


@dataclass(frozen=True, slots=True)
class StoreSetting:
    """One setting.

    Attributes:
        key: name in `RequestedSettings` and in ``rapidin info --json``.
        part: name of the part of `StoreSettings` that has the field.
        field: name of the field.
        flag: option of the command line.
        type: type of the value that is typed.
    """

    key: str
    part: str
    field: str
    flag: Flag
    type: Any

    def of(self, settings: StoreSettings) -> Any:
        """Read the setting's value in a store's settings."""
        return getattr(getattr(settings, self.part), self.field)


def _settings() -> Iterator[StoreSetting]:
    for part, described in StoreSettings.model_fields.items():
        model = described.annotation
        if isinstance(model, type) and issubclass(model, Frozen):
            for field, inner in model.model_fields.items():
                for flag in (one for one in inner.metadata if isinstance(one, Flag)):
                    own = flag.switches_off or flag.repeated
                    key = field if own else flag.name.removeprefix("--").replace("-", "_")
                    yield StoreSetting(key, part, field, flag, flag.takes or inner.annotation)


STORE_SETTINGS: dict[str, StoreSetting] = {setting.key: setting for setting in _settings()}
"""The table, by key, in the order of the fields."""


def stated(settings: StoreSettings) -> dict[str, Any]:
    """List the values that a store has, by key, as values that JSON can hold."""
    values = {key: setting.of(settings) for key, setting in STORE_SETTINGS.items()}
    return {key: value.model_dump() if isinstance(value, Frozen) else value for key, value in values.items()}
