"""Comparison of a network in memory with the fingerprint of a checkpoint's files.

`fingerprints` digests the tensors of files, and this module digests tensors in memory. A digest does not show
which type a tensor has in its file. So a tensor is digested in its own type and in every other type that holds all
its values, because a float32 network may come from a checkpoint in bfloat16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rapidin.model.identity import ADAPTER_SETTINGS, digest_of_settings, window_places
from rapidin.settings import Fingerprint

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in safetensors files, see https://huggingface.co/docs/safetensors/index#format."""
_OTHER_TYPES = {
    torch.float64: (torch.float32, torch.bfloat16, torch.float16),
    torch.float32: (torch.bfloat16, torch.float16),
    torch.bfloat16: (torch.float32,),
    torch.float16: (torch.float32,),
}
TRACED_ADAPTER = "default"
"""Name that PEFT gives to an adapter unless it is told otherwise; the names of a store's parameters contain it."""
_LOSSY = (torch.bfloat16, torch.float16)
"""Types to which a checkpoint in another type may have been rounded."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing a network with a fingerprint.

    Attributes:
        same: number of weight tensors that are equal.
        unknown: number of weight tensors that cannot be compared.
        difference: clause that says what differs; None if no difference was found.
    """

    same: int
    unknown: int
    difference: str | None = None


def compare_with_fingerprint(module: nn.Module, expected: Fingerprint) -> Comparison:
    """Compare a network with the fingerprint of a checkpoint.

    Args:
        module: the network, wrapped by PEFT or not.
        expected: fingerprint of the files of the model and its adapter.
    """
    adapted = hasattr(module, "peft_config")
    if adapted != bool(expected.adapter):
        return Comparison(0, 0, "it has an adapter" if adapted else "its adapter is missing")
    base = _comparison(dict(base_tensors(module)), expected.model, "model")
    if base.difference is not None or not adapted:
        return base
    digests = dict(expected.adapter)
    settings = digests.pop(ADAPTER_SETTINGS, None)
    adapter = _comparison(dict(adapter_tensors(module)), digests, "adapter")
    difference = adapter.difference
    if difference is None and settings is not None and settings != _settings_of(module):
        difference = "the settings of its adapter differ in how its weights act"
    return Comparison(base.same + adapter.same, base.unknown + adapter.unknown, difference)


def _comparison(tensors: Mapping[str, Tensor], expected: Mapping[str, str], what: str) -> Comparison:
    """Compare the tensors of a model or adapter with the digests of a checkpoint.

    Args:
        tensors: tensors in memory by name.
        expected: digests by tensor name.
        what: ``model`` or ``adapter``, for the clause about a difference.
    """
    same = 0
    low = False  # whether the checkpoint is known to hold tensors in low precision
    rounded: list[str] = []
    changed: list[str] = []
    unknown = 0
    for name, digest in expected.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype not in _TYPES or tensor.is_meta:
            unknown += 1
        elif (form := next((form for form in _forms(tensor) if _digest(form) == digest), None)) is not None:
            same += 1
            low = low or form.dtype in _LOSSY
        else:
            (rounded if tensor.dtype in _LOSSY else changed).append(name)
    if not low:  # the checkpoint may be more precise, so all of these may have been rounded
        unknown, rounded = unknown + len(rounded), []
    different = sorted([*rounded, *changed])
    if not different:
        return Comparison(same, unknown)
    return Comparison(
        same,
        unknown,
        f"{len(different)} of {len(expected)} weight tensors of its {what} differ, for example {different[0]!r}",
    )


def base_tensors(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the base model with the names that a checkpoint may have for them."""
    base = module.get_base_model() if hasattr(module, "peft_config") else module
    prefix = f"{getattr(base, 'base_model_prefix', '')}."
    for name, tensor in base.state_dict().items():
        plain = name.replace(".base_layer.", ".").replace(".original_module.", ".")
        yield plain, tensor
        if plain.startswith(prefix):  # a checkpoint of the model without its head
            yield plain.removeprefix(prefix), tensor


def adapter_tensors(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the adapter with the names that its file has for them."""
    import peft  # takes seconds, and models without an adapter need none of it

    yield from peft.get_peft_model_state_dict(
        module, adapter_name=TRACED_ADAPTER, save_embedding_layers=False
    ).items()


def _settings_of(module: Any) -> str:
    """Digest the part of the traced adapter's configuration that decides how its weights act."""
    config = module.peft_config[TRACED_ADAPTER].to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return digest_of_settings(json.loads(json.dumps(plain, default=str)))


def _forms(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensor in every type that holds its values, its own type first."""
    tensor = tensor.detach()
    yield tensor
    for other in _OTHER_TYPES.get(tensor.dtype, ()):
        form = tensor.to(other)
        if torch.equal(form.to(tensor.dtype), tensor):
            yield form


def _digest(tensor: Tensor) -> str:
    """Digest a tensor as `rapidin.model.identity.fingerprints` digests one in a safetensors file."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8)
    digest = hashlib.sha256(f"{_TYPES[tensor.dtype]}{list(tensor.shape)} {len(data)}".encode())
    for start, end in window_places(len(data)):
        digest.update(data[start:end].cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
