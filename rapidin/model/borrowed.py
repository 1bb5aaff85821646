"""A network that the application holds already, borrowed for a while and given back as it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn

from rapidin.errors import FingerprintMismatchError, ModelError
from rapidin.model.contents import compared
from rapidin.settings import StoreSettings, TracedParameter

logger = logging.getLogger(__name__)


class HeldNetwork:
    """A network in evaluation mode and without gradients, until `close` gives it back as it was.

    Args:
        module: a causal language model of transformers, or one wrapped by PEFT.
        store: path of the store that it is to be the model of, for messages.
        settings: of that store.

    Raises:
        ModelError: it is no causal language model.
        FingerprintMismatchError: it is not the model that the store was built with, as far as memory tells; see
            `check_held`.

    Attributes:
        module: the network.
        context_length: longest sequence the model takes, None if it does not say.
    """

    def __init__(self, module: nn.Module, store: Path, settings: StoreSettings) -> None:
        check_held(module, store, settings)
        self.module = module
        config = cast(Any, module).config.get_text_config()
        length = getattr(config, "max_position_embeddings", None)
        self.context_length: int | None = length if isinstance(length, int) and length > 0 else None
        self._modes = [(part, part.training) for part in module.modules()]
        # What the application has accumulated must neither be added to nor lost.
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        for parameter in module.parameters():
            if parameter.grad is not None:
                self._gradients.append((parameter, parameter.grad))
                parameter.grad = None
        module.eval()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the modes of all modules and the gradients back; a second time does nothing."""
        for part, training in self._modes:
            part.training = training
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self._modes, self._gradients = [], []


def check_held(module: nn.Module, store: Path, settings: StoreSettings) -> None:
    """Make sure that a network in memory is the one that a store was built with.

    Compared are names and shapes of the traced parameters, and the bytes of every tensor, base and adapter, whose
    fingerprint can be computed from memory: those that are in memory in the type they have in the checkpoint, or
    in one that holds its values exactly (float32 for a checkpoint in bfloat16). A network in lower precision than
    its checkpoint, a quantised one, tensors that transformers renames or joins when it loads them, and checkpoints
    that are pickles cannot be compared; then a warning is logged. What an adapter's configuration says about how
    its weights act is compared, too.

    Args:
        module: the network.
        store: path of the store, for messages.
        settings: of the store.

    Raises:
        ModelError: it is no causal language model of transformers.
        FingerprintMismatchError: it is another model.
    """
    if not hasattr(module, "get_input_embeddings") or not hasattr(module, "config"):
        raise ModelError(
            f"a {type(module).__name__} is no causal language model of transformers: give one, or a PEFT model"
        )
    remedy = "give the network that the store was built with, or leave it out to have it loaded"
    difference = _shapes_differ(module, settings.traced)
    if difference is None:
        comparison = compared(module, settings.fingerprint)
        difference = comparison.difference
    if difference is not None:
        raise FingerprintMismatchError(
            f"{store}: the {type(module).__name__} that was given is not the model this store was built with: "
            f"{difference}; {remedy}"
        )
    if comparison.unknown:
        logger.warning(
            "%s: of the network that was given %d of %d weight tensors could be compared with the store's model; "
            "the others differ in type or name from the checkpoint",
            store,
            comparison.same,
            comparison.same + comparison.unknown,
        )


def _shapes_differ(module: nn.Module, traced: Sequence[TracedParameter]) -> str | None:
    parameters = dict(module.named_parameters())
    for wanted in traced:
        found = parameters.get(wanted.name)
        if found is None:
            return f"it has no parameter {wanted.name!r}, which the store traces"
        if tuple(found.shape) != wanted.shape:
            return f"its parameter {wanted.name!r} has the shape {tuple(found.shape)} instead of {wanted.shape}"
    return None
