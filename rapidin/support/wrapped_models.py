"""The transformers model inside of what wraps it."""

from __future__ import annotations

from typing import Any

from torch import nn


def inner_model(model: nn.Module) -> Any:
    """The model that PEFT has wrapped, with the adapter's layers in place; the model itself where nothing does.

    PEFT's wrapper passes calls on, but not everything: its forward takes any argument, and attributes that are set
    on it stay there.
    """
    wrapper: Any = model
    return wrapper.get_base_model() if hasattr(wrapper, "get_base_model") else wrapper
