"""Where a model's files are: a directory, or a snapshot of the hub in the local cache."""

from __future__ import annotations

import json
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


_STEMS = {"model": (("model", ".safetensors"), ("pytorch_model", ".bin"))}
_STEMS["adapter"] = (("adapter_model", ".safetensors"), ("adapter_model", ".bin"))
"""Names of the weight files that transformers and PEFT look for, in their order."""


def weight_files(directory: Path, kind: str) -> list[Path]:
    """List the files that a model's or an adapter's weights are loaded from, by name.

    A training leaves other files of the same types beside them, such as ``training_args.bin``.

    Args:
        directory: directory of the checkpoint.
        kind: ``model`` or ``adapter``.

    Returns:
        Files that exist, all of one type: the one file, or those that an index lists; else every file whose name
        begins like that of a part; an empty list if there is none.
    """
    for stem, ending in _STEMS[kind]:
        whole = directory / f"{stem}{ending}"
        if whole.exists():
            return [whole]
        listed = _listed(directory / f"{stem}{ending}.index.json")
        parts = sorted(file for name in listed if (file := directory / name).exists())
        parts = parts or sorted(directory.glob(f"{stem}-*{ending}"))
        if parts:
            return parts
    return []


def _listed(index: Path) -> set[str]:
    """List the names of the files that an index of shards refers to; an index that cannot be read lists none."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return {name for name in places if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
