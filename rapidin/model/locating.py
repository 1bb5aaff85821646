"""Where a model's files are: a directory, or a snapshot of the hub in the local cache."""

from __future__ import annotations

import re
from pathlib import Path

from rapidin.errors import ModelError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def absolute_place(name: str, what: str = "model") -> str:
    """Turn a directory into an absolute path; a hub id stays as it is.

    Args:
        name: directory or hub id that the user gave.
        what: ``model``, ``adapter`` or ``checkpoint``, for the error message; a checkpoint has no hub id.

    Raises:
        ModelError: the name is neither an existing directory nor a possible hub id.
    """
    path = Path(name).expanduser()
    try:
        if what == "model" and (path / "adapter_config.json").exists() and not (path / "config.json").exists():
            raise ModelError(f"model {name!r} is an adapter: give it with --adapter, and its base with --model")
        if path.is_dir():
            return str(path.resolve())
        there = path.exists()
    except OSError as error:  # a name that is too long, for example
        raise ModelError(f"{what} {name!r} cannot be opened: {error.strerror}; check the path") from error
    if there:
        raise ModelError(f"{what} {name!r} is a file: give the directory that has its config and weights")
    if what == "checkpoint" or not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ModelError(f"{what} {name!r}: there is no such directory; check the path")
    return name


def local_directory(name: str, marker: str) -> Path | None:
    """Find the directory that holds a model's files, without any network request.

    Args:
        name: directory or hub id.
        marker: a file that every such directory has, ``config.json`` or ``adapter_config.json``.

    Returns:
        The directory, or the hub snapshot in the local cache; None if it was never downloaded.

    Raises:
        ModelError: there is no such directory, and it cannot be a hub id.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, marker)
    except HFValidationError as error:
        what = marker.removesuffix("config.json").strip("_") or "model"
        raise ModelError(
            f"{what} {name!r}: there is no such directory; give its present place with --{what}"
        ) from error
    return Path(found).parent if isinstance(found, str) else None
