"""Rotary positions that depend on the length of the input, and how samples are batched in spite of that.

Two kinds of scaling change the positions of *all* tokens with the number of tokens in the longest sample of a
batch (`transformers.modeling_rope_utils`). So a short sample beside a long one would get other gradients than
alone:

`longrope` has one set of frequencies up to the length that the model was first trained with, and another one
beyond it.

`dynamic` (dynamic NTK) stretches the frequencies by the length, as soon as it exceeds the original one. It also
remembers the longest input so far, so that the result for one input would depend on the inputs before it.

`PositionScaling` tells which lengths get equal positions. `forget_longer_inputs` makes a model's result depend on
its input alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.objectives import TokenSample
from rapidin.support import inner_model

_TWO_SETS = ("longrope", "su")
"""Names of scalings with two sets of frequencies; ``su`` is the older name."""
_STRETCHED = "dynamic"
"""Part of the names of scalings that are stretched by the length."""


@dataclass(frozen=True, slots=True)
class PositionScaling:
    """Which lengths of input get equal positions.

    Attributes:
        switches: lengths beyond which a model uses another set of frequencies.
        stretched: lengths beyond which every length has its own frequencies.
    """

    switches: tuple[int, ...]
    stretched: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module) -> PositionScaling:
        """Read the scaling from a model's configuration; most models have none, so all lengths are alike."""
        switches: set[int] = set()
        stretched: set[int] = set()
        for rope, config in _scalings(getattr(inner_model(model), "config", None)):
            kind = rope.get("rope_type", rope.get("type"))
            if not isinstance(kind, str):
                continue
            lengths = _original_lengths(rope, config)
            if _STRETCHED in kind or (kind in _TWO_SETS and not lengths):
                stretched.add(min(lengths, default=0))
            elif kind in _TWO_SETS:
                switches.add(lengths[0])
        return cls(tuple(sorted(switches)), tuple(sorted(stretched)))

    def group(self, length: int) -> Hashable:
        """Return a key that two lengths share if inputs of these lengths get equal positions."""
        return tuple(length > switch for switch in self.switches), tuple(max(length, s) for s in self.stretched)

    def batches(self, samples: Sequence[TokenSample]) -> list[list[int]]:
        """Divide samples into batches whose samples get the positions that they have alone.

        Returns:
            Positions in `samples`, ascending in each batch; every position once.
        """
        batches: dict[Hashable, list[int]] = {}
        for position, sample in enumerate(samples):
            batches.setdefault(self.group(len(sample.ids)), []).append(position)
        return list(batches.values())


def forget_longer_inputs(model: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
    """Make a model with dynamic scaling forget the longest input so far before every forward pass.

    Its modules take their original frequencies back when they are asked about a short input. So they are asked
    about the first position before they compute.

    Returns:
        Handles that remove the change.
    """

    def without_memory(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = {name: _first_position(value) for name, value in kwargs.items()}
        with torch.no_grad():
            module.forward(*map(_first_position, args), **first)

    return [
        module.register_forward_pre_hook(without_memory, with_kwargs=True)
        for module in model.modules()
        if hasattr(module, "max_seq_len_cached") and _STRETCHED in str(getattr(module, "rope_type", ""))
    ]


def _first_position(value: Any) -> Any:
    """Replace a tensor of positions by zeros; anything else is returned itself."""
    is_positions = isinstance(value, Tensor) and not value.is_floating_point()
    return torch.zeros_like(value) if is_positions else value


def _scalings(config: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Find all settings of rotary positions in a configuration and those inside it, each with its owner.

    A model may have one such dictionary, or one for each kind of layer.
    """
    for name, value in vars(config).items() if hasattr(config, "to_dict") else ():
        if hasattr(value, "to_dict"):
            yield from _scalings(value)
        elif name in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
            for rope in (value, *value.values()):
                if isinstance(rope, dict):
                    yield rope, config


def _original_lengths(rope: dict[str, Any], config: Any) -> list[int]:
    """List the lengths that a configuration gives as the original one, the most specific first."""
    given = [
        rope.get("original_max_position_embeddings"),
        getattr(config, "original_max_position_embeddings", None),
        getattr(config, "max_position_embeddings", None),
    ]
    return [length for length in given if isinstance(length, int) and length > 0]
