"""Digests of a model's weight files, tensor by tensor, that tell one model from another without loading it.

Each tensor's digest covers its type, shape and bytes. If a tensor is larger than a mebibyte, sixteen windows of
64 KiB that are spread evenly over it stand for its bytes, so that a model of many gigabytes takes about a second;
fine-tuning changes every window. The digests do not depend on how tensors are spread over files, on where the
files lie, or on the type and device that tensors are later loaded with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rapidin.errors import FingerprintMismatchError, ModelError
from rapidin.model.identity.locating import absolute_place, local_directory, weight_files
from rapidin.settings import Fingerprint, ModelSettings
from rapidin.storage import Store

_WINDOW = 64 * 1024
_WINDOWS = 16
_ADAPTER_KEYS = (
    *("peft_type", "r", "lora_alpha", "target_modules", "target_parameters", "modules_to_save", "use_rslora"),
    *("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias", "layers_to_transform"),
    *(
        "layers_pattern",
        "layer_replication",
        "exclude_modules",
        "lora_bias",
        "use_qalora",
        "alora_invocation_tokens",
    ),
    *("trainable_token_indices", "token_indices", "feedforward_modules", "adapter_layers", "adapter_len"),
    *("alpha", "scaling", "randlora_alpha", "delora_lambda", "lambda_pattern", "shadow_alpha", "psoft_alpha"),
    *("decompose_both", "decompose_factor", "use_effective_conv2d", "block_share", "coft", "eps", "apply_GS"),
    *("oft_block_size", "boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "use_cayley_neumann"),
    *("topk", "vector_length", "num_vectors", "n_frequency", "n_frequency_pattern", "random_loc_seed"),
    *("projection_prng_key", "projection_seed", "proj_seed", "rng_seed", "random_seed", "sparse", "very_sparse"),
    *("mini_r", "hybrid_r", "gralora_k", "wavelet_family", "weight_tying"),
)
"""Keys that decide how an adapter's weights act; other keys change from version to version of PEFT."""


ADAPTER_SETTINGS = "adapter_config.json"
"""Name under which the digest of an adapter's configuration stands among the digests of its tensors."""


def fingerprint(settings: ModelSettings) -> Fingerprint | None:
    """Compute the fingerprint of a model and its adapter from the files on disk.

    Returns:
        The fingerprint; None if the files are on the hub and were not downloaded yet.

    Raises:
        ModelError: a directory holds no weights, or a weight file is damaged.
    """
    base = _digests(settings.model, "config.json", "model")
    if base is None:
        return None
    adapter: dict[str, str] | None = {}
    if settings.adapter is not None:
        adapter = _digests(settings.adapter, "adapter_config.json", "adapter")
        if adapter is not None:
            adapter = {**adapter, **adapter_settings(settings.adapter)}
    if adapter is None:
        return None
    return Fingerprint(model=base, adapter=adapter, checkpoints=checkpoint_digests(settings))


def checkpoint_digests(settings: ModelSettings) -> tuple[dict[str, str], ...]:
    """Compute the digests of the weights of every checkpoint.

    Raises:
        ModelError: a checkpoint is not there, or a weight file is missing or damaged.
    """
    marker = "config.json" if settings.adapter is None else "adapter_config.json"
    found = []
    what = "model" if settings.adapter is None else "adapter"
    for place in settings.checkpoints:
        if not (Path(place) / marker).exists():
            raise ModelError(
                f"checkpoint {place!r} has no {marker}: give its present place with --checkpoint, for every "
                "checkpoint of the store in the same order"
            )
        found.append(_digests(place, marker, "checkpoint", what) or {})
    return tuple(found)


def checked_settings(
    store: Store, model: str | None, adapter: str | None, checkpoints: Sequence[str | Path] | None = None
) -> ModelSettings:
    """Make sure that the model on disk is the one that a store was built with.

    Args:
        store: the store.
        model: directory or hub id of the model, if it has moved since the store was built.
        adapter: directory or hub id of the adapter, if it has moved.
        checkpoints: directories of all checkpoints, in their order, if they have moved.

    Returns:
        The settings of the store's model, with its present places.

    Raises:
        ModelError: a place cannot be one, or the model is not there.
        FingerprintMismatchError: the store was built with another model.
    """
    places = (("model", model), ("adapter", adapter))
    moved: dict[str, Any] = {name: absolute_place(place, name) for name, place in places if place is not None}
    settings = with_checkpoints(store.settings.model.model_copy(update=moved), checkpoints)
    found = fingerprint(settings)
    if found is None:
        raise ModelError(
            f"model {settings.model!r} is not in the local cache: fetch it, or name its directory with --model"
        )
    remedy = "Give the right one with --model and --adapter"
    check_same(settings, store.settings.fingerprint, found, store.path, remedy)
    return settings


def with_checkpoints(settings: ModelSettings, checkpoints: Sequence[str | Path] | None) -> ModelSettings:
    """Return settings with the present places of the checkpoints; None or no place leaves them as they are.

    Raises:
        ModelError: a place is no directory.
    """
    if not checkpoints:
        return settings
    places = tuple(absolute_place(str(place), "checkpoint") for place in checkpoints)
    return settings.model_copy(update={"checkpoints": places})


def check_same(
    settings: ModelSettings, expected: Fingerprint, found: Fingerprint, store: Path, remedy: str
) -> None:
    """Make sure that a model is the one that a store was built with.

    Args:
        settings: settings of the model that `found` was computed from.
        expected: fingerprint in the store.
        found: fingerprint of the model.
        store: path of the store, for the message.
        remedy: sentence that says what the user can do.

    Raises:
        FingerprintMismatchError: the store was built with another model; the message says what differs.
    """
    difference = describe_difference(expected, found)
    if difference is not None:
        remedy = "Give the right ones with --checkpoint" if difference.startswith("checkpoint") else remedy
        adapter = "" if settings.adapter is None else f" with the adapter {settings.adapter!r}"
        raise FingerprintMismatchError(
            f"{store}: {settings.model!r}{adapter} is not the model this store was built with: "
            f"{difference}. {remedy}"
        )


def check_checkpoints(settings: ModelSettings, expected: Fingerprint, store: Path) -> None:
    """Make sure that the checkpoints are those that a store was built with, without a look at the model.

    Args:
        settings: settings of the store's model, with the present places of the checkpoints.
        expected: fingerprint in the store.
        store: path of the store, for the message.

    Raises:
        ModelError: a checkpoint is not there.
        FingerprintMismatchError: one of them has other weights.
    """
    found = expected.model_copy(update={"checkpoints": checkpoint_digests(settings)})
    check_same(settings, expected, found, store, "")


def describe_difference(expected: Fingerprint, found: Fingerprint) -> str | None:
    """Say in one clause what differs between two fingerprints; None if nothing does."""
    for what, mine, theirs in (
        ("model", expected.model, found.model),
        ("adapter", expected.adapter, found.adapter),
    ):
        if mine == theirs:
            continue
        if not mine or not theirs:
            return f"the {what} is {'given now, but the store was built without it' if theirs else 'missing now'}"
        names = mine.keys() & theirs.keys()
        changed = sorted(name for name in names if mine[name] != theirs[name])
        if mine.keys() != theirs.keys():
            missing, new = len(mine.keys() - theirs.keys()), len(theirs.keys() - mine.keys())
            return f"the weight tensors of its {what} have other names ({missing} of them missing, {new} new)"
        if changed == [ADAPTER_SETTINGS]:
            return "the adapter's weights are the same, but its adapter_config.json differs in how they act"
        return f"{len(changed)} of {len(mine)} weight tensors of its {what} differ, for example {changed[0]!r}"
    return _checkpoint_difference(expected.checkpoints, found.checkpoints)


def _checkpoint_difference(expected: Sequence[dict[str, str]], found: Sequence[dict[str, str]]) -> str | None:
    """Say in one clause what differs between the checkpoints of two fingerprints; None if nothing does."""
    if len(expected) != len(found):
        return f"checkpoints are {len(found)} now, and the store was built with {len(expected)}"
    for number, (mine, theirs) in enumerate(zip(expected, found, strict=True), start=1):
        if mine != theirs:
            there = next((place for place, one in enumerate(expected, start=1) if one == theirs), None)
            if there is not None:
                return f"checkpoint {number} is the store's checkpoint {there}, in another order"
            return f"checkpoint {number} of {len(found)} has other weights"
    return None


def adapter_settings(name: str) -> dict[str, str]:
    """Digest what an adapter's configuration says about how its weights act (``lora_alpha``, for example)."""
    directory = local_directory(name, "adapter_config.json")
    if directory is None:
        return {}
    file = directory / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        digest = digest_of_settings(config)
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read: {error}; give the directory of a whole adapter") from error
    return {ADAPTER_SETTINGS: digest}


def digest_of_settings(config: dict[str, Any]) -> str:
    """Digest what an adapter's configuration, in the form of its file, says about how its weights act."""
    functional = {key: config[key] for key in _ADAPTER_KEYS if config.get(key) not in (None, {}, [], False)}
    # A list of modules stands for a set, which PEFT saves in any order.
    functional = {key: sorted(value) if isinstance(value, list) else value for key, value in functional.items()}
    canonical = json.dumps(functional, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def window_places(size: int) -> list[tuple[int, int]]:
    """Choose the windows of a tensor that are digested.

    Args:
        size: size of the tensor in bytes.

    Returns:
        For each window its first byte, and the byte after its last one.
    """
    if size <= _WINDOW * _WINDOWS:
        return [(0, size)]
    starts = [(size - _WINDOW) * window // (_WINDOWS - 1) for window in range(_WINDOWS)]
    return [(start, start + _WINDOW) for start in starts]


def _digests(name: str, marker: str, what: str, kind: str | None = None) -> dict[str, str] | None:
    """Digest every weight tensor of a checkpoint.

    Args:
        name: directory or hub id of the checkpoint.
        marker: a file that every such checkpoint has.
        what: ``model``, ``adapter`` or ``checkpoint``, for error messages.
        kind: ``model`` or ``adapter``; None if `what` says it.

    Returns:
        Digests by tensor name, or by file name for a checkpoint of pickles; None if nothing was downloaded yet.

    Raises:
        ModelError: the directory holds no weights, or a weight file is damaged.
    """
    directory = local_directory(name, marker)
    if directory is None:
        return None
    files = weight_files(directory, kind or what)
    if files and files[0].suffix == ".safetensors":
        digests: dict[str, str] = {}
        for file in files:
            digests.update(_tensor_digests(file))
        return digests
    # Older checkpoints are pickles, which may run code when they are opened. So the bytes of the whole files are
    # digested in place of those of the tensors.
    if not files and not Path(name).is_dir():
        return None
    if not files:
        if not os.access(directory, os.R_OK | os.X_OK):
            raise ModelError(f"{what} {name!r} cannot be read: check its permissions")
        raise ModelError(
            f"{what} {name!r} holds no weights, neither *.safetensors nor *.bin: give a complete directory"
        )
    return {file.name: _digest(file, 0, file.stat().st_size, file.name) for file in files}


def _tensor_digests(file: Path) -> Iterator[tuple[str, str]]:
    """Digest every tensor of a safetensors file (8-byte header length, JSON header, data)."""
    try:
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            first, end = tensor["data_offsets"]
            if 8 + length + end > file.stat().st_size:
                raise ValueError("it ends too early")
            yield name, _digest(file, 8 + length + first, end - first, f"{tensor['dtype']}{tensor['shape']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file} cannot be read as a safetensors file: {error}; fetch or save it again"
        ) from error


def _digest(file: Path, start: int, size: int, kind: str) -> str:
    """Digest one tensor: `size` bytes of a file from `start` on, after the words for its type and shape."""
    digest = hashlib.sha256(f"{kind} {size}".encode())
    with file.open("rb") as stream:
        for first, end in window_places(size):
            stream.seek(start + first)
            digest.update(stream.read(end - first))
    return digest.hexdigest()[:32]
