"""Settings of an ingest: those of the caller are compared with a store's, or become those of a new store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rapidin.errors import SettingError, StoreMismatchError
from rapidin.ingest.learning_rates import learning_rates, place_and_rate
from rapidin.model import absolute_place
from rapidin.settings import STORE_SETTINGS, RequestedSettings, ResolvedSettings, StoreSettings, section_of
from rapidin.text import load_template

_PARTS: dict[str, Any] = {
    setting.part: StoreSettings.model_fields[setting.part].annotation for setting in STORE_SETTINGS.values()
}
"""Parts of the settings, and their types."""
_PLACES = ("model", "adapter", "checkpoints")
"""Settings that are not compared: a model may move, and its fingerprint is compared instead of its path."""


def resolve(requested: RequestedSettings, existing: StoreSettings | None, store: Path) -> ResolvedSettings:
    """Fit a request to an existing store, or make the settings of a new one.

    Args:
        requested: settings that the caller gave; None counts as not given.
        existing: settings of the store, or None if it is to be created.
        store: path of the store, for error messages.

    Raises:
        SettingError: A value cannot be used, or the model of a new store is not given.
        StoreMismatchError: A value contradicts a setting of the store.
        ModelError: The model or adapter is neither a directory nor a hub id.
    """
    given = _given(requested)
    projection = given["projection"]
    if existing is not None:
        return _fitted(given, existing, store)
    if "model" not in given["model"]:
        raise SettingError("a new store needs --model: the directory or hub id of the fine-tuned model")
    if "shuffles" in projection:
        # Only one projection shuffles, so a number of shuffles without a projection means this one.
        projection.setdefault("kind", "shuffled")
    if checkpoints := given["model"].get("checkpoints"):
        if len(set(checkpoints)) < len(checkpoints):
            raise SettingError("--checkpoint: a directory is given twice; give each checkpoint once")
        given["model"].setdefault("learning_rates", learning_rates(checkpoints))
    validated = {part: _validated(part, values) for part, values in given.items()}
    section_of(validated["projection"], validated["model"], validated["gradient"])  # an error before it takes long
    if "shuffles" in projection and projection["kind"] != "shuffled":
        raise SettingError(
            f"--shuffles belongs to --projection shuffled; the {projection['kind']} one does not shuffle"
        )
    return ResolvedSettings(
        **validated,
        kind_given="kind" in projection,
        dimension_given="dimension" in projection,
    )


def _fitted(given: dict[str, dict[str, Any]], existing: StoreSettings, store: Path) -> ResolvedSettings:
    """Return the settings of a store, after a check that the given values do not contradict them."""
    if "shuffles" in given["projection"] and existing.projection.kind != "shuffled":
        raise StoreMismatchError(
            f"{store}: the store's projection is the {existing.projection.kind} one, which "
            "has no --shuffles: leave it out"
        )
    parts = {part: _validated(part, getattr(existing, part).model_dump() | given[part]) for part in _PARTS}
    conflicts = []
    rates = parts["model"].learning_rates
    if rates != existing.model.learning_rates:
        conflicts.append(f"learning rates are {existing.model.learning_rates}, not {rates}")
    for key, setting in STORE_SETTINGS.items():
        mine, asked = setting.of(existing), getattr(parts[setting.part], setting.field)
        if key not in _PLACES and mine != asked:
            conflicts.append(f"{key} is {mine!r}, not {asked!r}")
    if conflicts:
        raise StoreMismatchError(
            f"{store}: the store was created with other settings: {'; '.join(conflicts)}. Leave that out, "
            "or ingest into a new store"
        )
    return ResolvedSettings(**parts)


def _given(requested: RequestedSettings) -> dict[str, dict[str, Any]]:
    """Sort the given values by part and field; places become absolute, and a template is read."""
    unknown = sorted(set(requested) - set(STORE_SETTINGS))
    if unknown:
        raise SettingError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(STORE_SETTINGS))}")
    given: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for key, value in requested.items():
        if value is not None and value != []:  # an option that may be repeated, and was not given
            setting = STORE_SETTINGS[key]
            given[setting.part][setting.field] = value
    for what in ("model", "adapter"):
        if what in given["model"]:
            given["model"][what] = absolute_place(str(given["model"][what]), what)
    if given["model"].get("checkpoints"):
        places, rates = zip(*(place_and_rate(str(one)) for one in given["model"]["checkpoints"]), strict=True)
        given["model"]["checkpoints"] = tuple(absolute_place(place, "checkpoint") for place in places)
        if None not in rates:
            given["model"]["learning_rates"] = rates
        elif set(rates) != {None}:
            raise SettingError("--checkpoint: give the learning rate of every checkpoint, DIR=RATE, or of none")
    if "template" in given["text"]:
        given["text"]["template"] = load_template(Path(given["text"]["template"]))
    return given


def _validated(part: str, values: dict[str, Any]) -> Any:
    """Make a part of the settings; an error names the flag of the value that cannot be used."""
    try:
        return _PARTS[part].model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        flags = {one.field: one.flag.name for one in STORE_SETTINGS.values() if one.part == part}
        raise SettingError(
            f"{flags.get(field, field)} {problem['input']!r} cannot be used: {problem['msg']}"
        ) from error
