"""What an application may have changed of a network in memory beside its weights."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from rapidin.model.networks.tensors_in_memory import TRACED_ADAPTER

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "rapidin")


def what_acts_otherwise(module: nn.Module, adapted: bool) -> str | None:
    """Say what about a network makes it compute otherwise than its weights and configuration say.

    Args:
        module: the network, whose weights are those of the store's model.
        adapted: whether the store's model has an adapter.

    Returns:
        A clause about the first difference; None if there is none.
    """
    made = next((name for name, parameter in module.named_parameters() if parameter.is_inference()), None)
    if made is not None:
        return f"its weights, for example {made!r}, were made within torch.inference_mode and have no gradient"
    if not adapted:
        found = next((name for name, layer in module.named_modules() if _is_tuner(layer)), None)
        return None if found is None else f"an adapter acts on its module {found!r}"
    return _state(module) or _numbers(module)


def foreign_hooks(module: nn.Module) -> list[str]:
    """List the modules with forward hooks that neither torch nor a library of models has put there."""
    return [
        name
        for name, part in module.named_modules()
        for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
        if str(getattr(hook, "__module__", "")).partition(".")[0] not in _LIBRARIES
    ]


def _is_tuner(layer: nn.Module) -> bool:
    """Tell whether a module is one that PEFT puts in the place of a layer; PEFT need not be imported for it."""
    return any(kind.__name__ in ("BaseTunerLayer", "AuxiliaryTrainingWrapper") for kind in type(layer).__mro__)


def _tuners(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers of the adapters, by name."""
    return ((name, layer) for name, layer in module.named_modules() if _is_tuner(layer))


def _state(module: nn.Module) -> str | None:
    """Say which layer of the adapter is disabled or merged, or has another adapter active."""
    for name, layer in _tuners(module):
        if getattr(layer, "disable_adapters", False):
            return f"its adapter is disabled in {name!r}: enable it"
        if getattr(layer, "merged", False):
            return f"its adapter is merged into {name!r}: unmerge it"
        active = getattr(layer, "active_adapters", [TRACED_ADAPTER])
        if list(active) != [TRACED_ADAPTER]:
            named = " and ".join(repr(one) for one in active) or "none"
            return f"the active adapter in {name!r} is {named}: make {TRACED_ADAPTER!r} the only active one"
    return None


def _numbers(module: Any) -> str | None:
    """Say which number of an adapter's layer is not the one that its configuration gives, such as a scaling.

    A second network is made from the configurations, without memory for its weights, and compared.
    """
    import peft  # takes seconds, and models without an adapter need none of it

    base, config = module.get_base_model(), copy.deepcopy(module.peft_config[TRACED_ADAPTER])
    if isinstance(getattr(config, "init_lora_weights", None), str):
        config.init_lora_weights = True  # the others compute something of the weights, and there are none
    try:
        with torch.device("meta"):
            fresh = peft.get_peft_model(type(base)(copy.deepcopy(base.config)), config)
    except Exception:
        logger.debug("no second network can be made", exc_info=True)
        logger.warning("whether the given network's adapter is scaled cannot be found out")
        return None
    there = dict(module.named_modules())
    for name, layer in _tuners(fresh):
        for attribute, values in vars(layer).items():
            if not isinstance(values, dict) or not isinstance(values.get(TRACED_ADAPTER), (int, float, str)):
                continue
            found = getattr(there.get(name), attribute, {}).get(TRACED_ADAPTER)
            if not _same(values[TRACED_ADAPTER], found):
                return f"{attribute} of its adapter in {name!r} is {found!r} instead of {values[TRACED_ADAPTER]!r}"
    return None


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return math.isclose(expected, found, rel_tol=1e-6)
    return bool(expected == found)
