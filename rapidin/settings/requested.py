"""What a user asks a store to be, and how that fits with what an existing store is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from pydantic import ValidationError

from rapidin.errors import SettingError, StoreMismatchError
from rapidin.model import absolute_place
from rapidin.settings.store_settings import (
    CodecSettings,
    ModelSettings,
    ProjectionSettings,
    StoreSettings,
    TextSettings,
)
from rapidin.text import load_template


class RequestedSettings(TypedDict, total=False):
    """Settings of a store by the names of the command line's flags; what is left out is the store's or a default.

    See `rapidin.settings.store_settings` for their meaning; `template` is a file.
    """

    model: str | None
    adapter: str | None
    dtype: str | None
    quantization: str | None
    parameters: str | None
    template: str | Path | None
    max_length: int | None
    targets: str | None
    projection: str | None
    projection_dim: int | None
    shuffles: int | None
    seed: int | None
    objective: str | None
    normalise_layers: bool | None
    bits: int | None


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """The parts of a store's settings that do not depend on the loaded model.

    Attributes:
        kind_given: whether the user, or an existing store, says which projection; else it is chosen by what K
            and the model's size make best.
        dimension_given: the same of K; else a small adapter may get a smaller one than the default.
    """

    model: ModelSettings
    text: TextSettings
    projection: ProjectionSettings
    codec: CodecSettings
    kind_given: bool = True
    dimension_given: bool = True


_PARTS: dict[str, dict[str, str]] = {
    "model": {name: name for name in ("model", "adapter", "dtype", "quantization", "parameters")},
    "text": {name: name for name in ("template", "max_length", "targets")},
    "projection": {
        "projection": "kind",
        "projection_dim": "dimension",
        "shuffles": "shuffles",
        "seed": "seed",
        "objective": "objective",
        "normalise_layers": "normalise_layers",
    },
    "codec": {"bits": "bits"},
}
"""Flag → field of the settings, by part."""

_BITS_OF_NEW_STORES = 4
"""A quarter of half precision's bytes, sooner searched, and hardly noisier (benchmarks/RESULTS.md)."""

_PLACES = ("model", "adapter")
"""A model may move; its fingerprint is compared instead of its path."""


def resolve(requested: RequestedSettings, existing: StoreSettings | None, store: Path) -> ResolvedSettings:
    """Fit a request to an existing store, or make the settings of a new one.

    Args:
        requested: what the user gave; None counts as not given.
        existing: settings of the store, None where it is to be created.
        store: its path, for error messages.

    Raises:
        SettingError: a value cannot be used, or a new store lacks a model.
        StoreMismatchError: a value contradicts the store's.
        ModelError: the model or adapter is no directory and no hub id.
    """
    given = _given(requested)
    if existing is None:
        if "model" not in given["model"]:
            raise SettingError("a new store needs --model: the directory or hub id of the fine-tuned model")
        if "shuffles" in given["projection"]:
            # Shuffling is the one projection's; who asks for it asks for that.
            kind = given["projection"].setdefault("kind", "shuffled")
            if kind == "factored":
                raise SettingError(
                    "--shuffles belongs to --projection shuffled; the factored one does not shuffle"
                )
        return ResolvedSettings(
            model=_validated(ModelSettings, given["model"]),
            text=_validated(TextSettings, given["text"]),
            projection=_validated(ProjectionSettings, given["projection"]),
            codec=_validated(CodecSettings, {"bits": _BITS_OF_NEW_STORES, **given["codec"]}),
            kind_given="kind" in given["projection"],
            dimension_given="dimension" in given["projection"],
        )
    if "shuffles" in given["projection"] and existing.projection.kind == "factored":
        raise StoreMismatchError(f"{store}: the store's projection is the factored one, which has no --shuffles")
    parts: dict[str, Any] = {}
    conflicts: list[str] = []
    for part in _PARTS:
        mine = getattr(existing, part)
        theirs = _validated(type(mine), {**mine.model_dump(), **given[part]})
        conflicts += [
            f"{flag} is {getattr(mine, name)!r}, not {getattr(theirs, name)!r}"
            for flag, name in _PARTS[part].items()
            if name not in _PLACES and getattr(mine, name) != getattr(theirs, name)
        ]
        parts[part] = theirs
    if conflicts:
        raise StoreMismatchError(
            f"{store}: the store was created with other settings: {'; '.join(conflicts)}. Leave that out, "
            "or ingest into a new store"
        )
    return ResolvedSettings(**parts)


def _given(requested: RequestedSettings) -> dict[str, dict[str, Any]]:
    flags = {flag for names in _PARTS.values() for flag in names}
    unknown = sorted(set(requested) - flags)
    if unknown:
        raise SettingError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(flags))}")
    given: dict[str, dict[str, Any]] = {
        part: {name: requested[flag] for flag, name in names.items() if requested.get(flag) is not None}  # type: ignore[literal-required]
        for part, names in _PARTS.items()
    }
    for what in _PLACES:
        if what in given["model"]:
            given["model"][what] = absolute_place(str(given["model"][what]), what)
    if "template" in given["text"]:
        given["text"]["template"] = load_template(Path(given["text"]["template"]))
    return given


def _validated(kind: type[Any], values: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        flags = {name: flag for names in _PARTS.values() for flag, name in names.items()}
        field = str(problem["loc"][0]) if problem["loc"] else ""
        flag = "--" + flags.get(field, field).replace("_", "-")
        raise SettingError(f"{flag} {problem['input']!r} cannot be used: {problem['msg']}") from error
