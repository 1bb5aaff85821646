"""A network that the application has in memory: it is borrowed for a while and given back as it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn

from rapidin.errors import FingerprintMismatchError, ModelError
from rapidin.model.networks.adapter_state import foreign_hooks, what_acts_otherwise
from rapidin.model.networks.model_checks import check_causal
from rapidin.model.networks.quantised_layers import SteadyLayers
from rapidin.model.networks.tensors_in_memory import compare_with_fingerprint
from rapidin.settings import StoreSettings, TracedParameter
from rapidin.support import context_length

logger = logging.getLogger(__name__)


class BorrowedNetwork:
    """A network that is in evaluation mode and without gradients until `close` gives it back as it was.

    Args:
        module: a causal language model of transformers, or one wrapped by PEFT.
        store: path of the store that was built with it, for messages.
        settings: settings of that store.

    Raises:
        ModelError: the module is no causal language model.
        FingerprintMismatchError: the store was built with another model; see `check_network`.

    Attributes:
        module: the network.
        vocabulary: number of token ids that the model takes.
        context_length: length of the longest sequence that the model takes, None if it does not say.
    """

    def __init__(self, module: nn.Module, store: Path, settings: StoreSettings) -> None:
        check_network(module, store, settings)
        self.module = module
        embeddings = cast(Any, module).get_input_embeddings().weight
        self.vocabulary = int(embeddings.shape[0])
        self.context_length: int | None = context_length(cast(Any, module).config)
        self._modes = [(part, part.training) for part in module.modules()]
        # The application may have accumulated gradients; nothing may be added to them, and they must not be lost.
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        for parameter in module.parameters():
            if parameter.grad is not None:
                self._gradients.append((parameter, parameter.grad))
                parameter.grad = None
        module.eval()
        self._layers = SteadyLayers(module)
        try:
            check_causal(module, f"the {type(module).__name__} that was given")
        except ModelError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the modes of all modules and the gradients back; a second call does nothing."""
        for part, training in self._modes:
            part.training = training
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self._modes, self._gradients = [], []
        self._layers.release()


def check_network(module: nn.Module, store: Path, settings: StoreSettings) -> None:
    """Make sure that a network in memory is the one that a store was built with.

    Four things are compared. The first are the names and shapes of the traced parameters. The second are the
    bytes of every tensor of base and adapter that can be compared: its type in memory must be that of the
    checkpoint, or one that holds the checkpoint's values exactly (float32 for a checkpoint in bfloat16). The third
    is the part of the adapter's configuration that decides how its weights act.

    The fourth is what an application may have changed of a network: an adapter that is scaled, disabled, merged or
    joined by another one, and weights that were made in inference mode. Functions that hook into forward passes
    are reported as a warning, because nobody can tell what they do.

    Some tensors cannot be compared, and then a warning is logged: those of a network in lower precision than its
    checkpoint, of a quantised network and of a checkpoint that is a pickle, and tensors that transformers renames
    or joins when it loads them.

    Args:
        module: the network.
        store: path of the store, for messages.
        settings: settings of the store.

    Raises:
        ModelError: the module is no causal language model of transformers.
        FingerprintMismatchError: the store was built with another model.
    """
    if not hasattr(module, "get_input_embeddings") or not hasattr(module, "config"):
        raise ModelError(
            f"a {type(module).__name__} is no causal language model of transformers: give one, or a PEFT model"
        )
    remedy = "give the network that the store was built with, or leave it out to have it loaded"
    difference = _shapes_differ(module, settings.traced)
    if difference is None:
        comparison = compare_with_fingerprint(module, settings.fingerprint)
        difference = comparison.difference
    if difference is None:
        difference = what_acts_otherwise(module, adapted=bool(settings.fingerprint.adapter))
    if difference is not None:
        raise FingerprintMismatchError(
            f"{store}: the {type(module).__name__} that was given is not the model this store was built with: "
            f"{difference}; {remedy}"
        )
    hooks = foreign_hooks(module)
    if hooks:
        logger.warning(
            "%s: %d modules of the given network have forward hooks, for example %r; what these change is in no "
            "stored gradient",
            store,
            len(hooks),
            hooks[0],
        )
    if comparison.unknown:
        logger.warning(
            "%s: %d of %d weight tensors of the given network could be compared with the store's model; "
            "the others differ in type or name from the checkpoint",
            store,
            comparison.same,
            comparison.same + comparison.unknown,
        )


def _shapes_differ(module: nn.Module, traced: Sequence[TracedParameter]) -> str | None:
    """Say which traced parameter a network lacks or has in another shape; None if there is none."""
    parameters = dict(module.named_parameters())
    for wanted in traced:
        found = parameters.get(wanted.name)
        if found is None:
            return f"it has no parameter {wanted.name!r}, which the store traces"
        if tuple(found.shape) != wanted.shape:
            return f"its parameter {wanted.name!r} has the shape {tuple(found.shape)} instead of {wanted.shape}"
    return None
