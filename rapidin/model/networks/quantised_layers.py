"""Layers of bitsandbytes, kept in the form whose gradients are right.

On CPUs with AVX512-BF16, bitsandbytes repacks a 4-bit layer's weights at the first pass in which the layer's input
needs no gradient, for example when the model answers. From then on the layer computes with a kernel that has no
backward step, and no gradient passes through it any more.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_REPACKS = "support_avx512bf16_for_cpu"
"""Attribute of a layer that says whether it may repack its weights."""


class SteadyLayers:
    """Keeps the layers of a model from repacking their weights until `release`; repacked ones are put back.

    Args:
        module: the model.
    """

    def __init__(self, module: nn.Module) -> None:
        self._changed: list[Any] = []
        for layer in module.modules():
            if getattr(layer, _REPACKS, False):
                setattr(layer, _REPACKS, False)
                self._changed.append(layer)
            _put_back(layer)

    def release(self) -> None:
        """Let the layers repack their weights again, if they could before."""
        for layer in self._changed:
            setattr(layer, _REPACKS, True)
        self._changed = []


def _put_back(layer: Any) -> None:
    """Give a layer that has repacked its weights the form that they are loaded in."""
    weight: Any = getattr(layer, "weight", None)
    if not getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False):
        return
    # This is the function that bitsandbytes itself calls before it saves such a layer.
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    weight.data, weight.quant_state = _convert_weight_packed_for_cpu_inverse(weight.data, weight.quant_state)
    layer.quant_state = weight.quant_state
