"""Checkpoints of a training: their weights are put into the one module that is in memory.

A checkpoint is a directory as transformers' Trainer writes it: a whole model, or a PEFT adapter if the store's
model has one. Its tensors are copied from memory-mapped safetensors files into the module's own, so memory does
not grow with the number of checkpoints. Types and devices stay those of the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rapidin.errors import ModelError
from rapidin.model.identity import adapter_settings, local_directory, weight_files
from rapidin.model.networks import adapter_tensors, base_tensors
from rapidin.settings import ModelSettings


class CheckpointWeights:
    """The checkpoints of a store as states of its module; see `rapidin.attribution.ModelStates`.

    Args:
        module: the network in memory, wrapped by PEFT if there is an adapter.
        settings: settings of the store's model, with the present places of the checkpoints.
        keep: whether the network's own tensors are kept in memory to be restored; if not, they are read from the
            files of the model.

    Raises:
        ModelError: a checkpoint cannot be read, or its tensors are not those of the module.
    """

    def __init__(self, module: nn.Module, settings: ModelSettings, keep: bool = False) -> None:
        self.names = tuple(f"checkpoint {place!r}" for place in settings.checkpoints)
        self.shares = settings.shares
        # What a file holds beside the adapter, such as trained embeddings, has the module's own names.
        adapted = settings.adapter is not None
        needed = dict(adapter_tensors(module)) if adapted else dict(module.named_parameters())
        self._into: dict[str, Tensor] = (
            {**module.state_dict(), **needed} if adapted else dict(base_tensors(module))
        )
        self._needed = {name: tensor.data_ptr() for name, tensor in needed.items()}
        own = {tensor.data_ptr() for tensor in module.state_dict().values()}
        if not own.issuperset(self._needed.values()):
            raise ModelError(
                f"adapter {settings.adapter!r} is of a kind whose weights cannot be exchanged in memory: leave "
                "out --checkpoint"
            )
        self._at: int | None = None
        self._open = ExitStack()
        what = "adapter" if settings.adapter is not None else "model"
        try:
            self._files = [self._opened(place, what) for place in settings.checkpoints]
            final = settings.model if settings.adapter is None else settings.adapter
            if settings.adapter is not None:
                _check_alike(settings.checkpoints, settings.adapter)
            if keep:
                self._final: Mapping[str, Any] = {}
                # Several names may stand for one tensor, for example that of a tied head.
                names = {name for files in self._files for name in files}
                once = {self._into[name].data_ptr(): name for name in names}
                self._kept = {name: self._into[name].clone() for name in once.values()}
            else:
                self._kept = {}
                self._final = self._opened(final, what)
        except BaseException:
            self._open.close()
            raise

    def place(self, number: int) -> None:
        """See `ModelStates.place`."""
        if self._at != number:
            # Until the copy is complete, the module is in no state.
            self._at = -1
            self._copy(self._files[number])
            self._at = number

    def restore(self) -> None:
        """See `ModelStates.restore`."""
        if self._at is None:
            return
        self._at = -1
        with torch.no_grad():
            for name, tensor in self._kept.items():
                self._into[name].copy_(tensor)
        self._copy(self._final)
        self._at = None

    @torch.no_grad()
    def _copy(self, tensors: Mapping[str, Any]) -> None:
        for name, file in tensors.items():
            self._into[name].copy_(file.get_tensor(name))

    def _opened(self, place: str, what: str) -> dict[str, Any]:
        """Open a checkpoint's files: for every tensor that the module has, the file that holds it.

        Raises:
            ModelError: the files cannot be read, or do not hold all tensors of the module.
        """
        found: dict[str, Any] = {}
        try:
            for path in _weight_files(place, what):
                file = self._open.enter_context(safe_open(path, framework="pt", device="cpu"))
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    target = self._into.get(name)
                    if target is None:
                        continue
                    shape = tuple(file.get_slice(name).get_shape())
                    if shape != tuple(target.shape):
                        raise ModelError(
                            f"checkpoint {place!r}: its tensor {name!r} has the shape {shape} instead of "
                            f"{tuple(target.shape)}: give checkpoints of the store's own model"
                        )
                    found[name] = file
        except (OSError, SafetensorError) as error:
            raise ModelError(f"checkpoint {place!r} cannot be read: {error}; fetch or save it again") from error
        covered = {self._into[name].data_ptr() for name in found}
        missing = [name for name, pointer in self._needed.items() if pointer not in covered]
        if missing:
            raise ModelError(
                f"checkpoint {place!r} lacks {len(missing)} of the tensors that the {what} has in memory, for "
                f"example {missing[0]!r}: give checkpoints of the store's own {what}, as it stores them"
            )
        return found


def _weight_files(place: str, what: str) -> Iterator[Path]:
    """Yield the safetensors files of a checkpoint, or of the model itself.

    Raises:
        ModelError: there are none.
    """
    directory = local_directory(place, "config.json" if what == "model" else "adapter_config.json")
    files = [] if directory is None else weight_files(directory, what)
    if not files or files[0].suffix != ".safetensors":
        raise ModelError(
            f"checkpoint {place!r} has no *.safetensors file, which weights are read from: save it with "
            "safe_serialization=True"
        )
    yield from files


def _check_alike(checkpoints: Sequence[str], adapter: str) -> None:
    """Make sure that the weights of all checkpoints of an adapter act alike.

    Raises:
        ModelError: a configuration differs, for example in ``lora_alpha``.
    """
    expected = adapter_settings(adapter)
    for place in checkpoints:
        if adapter_settings(place) != expected:
            raise ModelError(
                f"checkpoint {place!r}: its adapter_config.json differs from that of {adapter!r} in how weights "
                "act: give checkpoints of the same training"
            )
