"""Calls of a model with other values in place of some of its parameters.

A parameter may be in several places of a model: as a tied weight in two modules, or in one module that stands
under several names, as PEFT's shared adapters do. `torch.func.functional_call` exchanges the second kind twice,
and puts the exchanged value back at the end instead of the parameter. So every place is named here exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def call_with(model: nn.Module, parameters: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> Any:
    """Call a model with some of its parameters exchanged, wherever they are used.

    Args:
        model: the model.
        parameters: values that take the place of parameters, by the names that `nn.Module.named_parameters` gives.
        arguments: arguments of the call, by name.

    Returns:
        What the model returns.
    """
    wanted = {id(model.get_parameter(name)): value for name, value in parameters.items()}
    everywhere = {
        f"{prefix}.{name}" if prefix else name: wanted[id(parameter)]
        for prefix, module in model.named_modules()  # each module once, under its first name
        for name, parameter in module._parameters.items()
        if parameter is not None and id(parameter) in wanted
    }
    return torch.func.functional_call(model, everywhere, (), dict(arguments), tie_weights=False)
