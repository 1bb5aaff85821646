"""Checks that a checkpoint is a causal language model whose traced weights have gradients.

transformers loads many checkpoints as something that they are not: the decoder of an encoder–decoder model alone,
a masked language model whose tokens see the ones after them, a classifier without its head. Nothing fails then,
and every score would be wrong.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rapidin.errors import ModelError
from rapidin.settings import ModelSettings
from rapidin.support import inner_model, own_torch_modes

logger = logging.getLogger(__name__)

_OTHER_SENSES = re.compile(r"vision|visual|image|audio|speech|video|multi_?modal|projector|perceiver|mtp\b")
"""Parts of the names of weights that text does not need: other senses, and the prediction of later tokens."""
_WITHOUT_MEANING = re.compile(
    r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|num_batches_tracked)$"
)
"""Ends of the names of constants that older versions saved with the weights."""
_PROBED_TOKENS = 8
_PROBES = 3


def check_configuration(config: Any, place: str) -> None:
    """Make sure that a checkpoint is not of an encoder–decoder model, of which only the decoder would be loaded.

    Args:
        config: configuration of the checkpoint.
        place: directory or hub id, for the message.

    Raises:
        ModelError: it is one.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"model {place!r} has an encoder and a decoder{_classes(config)}, and its encoder would be left out: "
            "give a causal language model"
        )


def check_unexpected(names: Sequence[str], config: Any, place: str) -> None:
    """Make sure that a checkpoint has no weights that the loaded model has no place for.

    Weights for images, sound and the like are left out with a warning, because texts do not need them.

    Args:
        names: names of the weights without a place.
        config: configuration of the checkpoint.
        place: directory or hub id, for messages.

    Raises:
        ModelError: other weights have no place.
    """
    names = sorted(name for name in names if not _WITHOUT_MEANING.search(name))
    foreign = [name for name in names if not _OTHER_SENSES.search(name)]
    if foreign:
        raise ModelError(
            f"model {place!r} has {len(foreign)} weight tensors that its causal language model has no place for, "
            f"for example {foreign[0]!r}{_classes(config)}: give a checkpoint of a causal language model"
        )
    if names:
        logger.warning(
            "model %r: %d weight tensors are not loaded, because texts do not need them, for example %r",
            place,
            len(names),
            names[0],
        )


def check_weights_have_gradients(model: nn.Module, settings: ModelSettings) -> None:
    """Make sure that a model without an adapter is not quantised, unless the user says what to trace.

    Raises:
        ModelError: its weights are quantised.
    """
    if settings.adapter is not None or settings.parameters is not None:
        return
    whole = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
    quantised = [name for name, parameter in model.named_parameters() if parameter.dtype not in whole]
    if quantised or getattr(model, "is_quantized", False):
        named = f", for example {quantised[0]!r}" if quantised else ""
        raise ModelError(
            f"model {settings.model!r} is quantised, and quantised weights have no gradient{named}: give its "
            "--adapter, the checkpoint before quantisation, or name the --parameters that are to be traced"
        )


def check_causal(model: nn.Module, what: str) -> None:
    """Make sure that no token's prediction depends on the tokens after it.

    Args:
        model: the model, in evaluation mode.
        what: words for the model, for the message.

    Raises:
        ModelError: a prediction does.
    """
    vocabulary = inner_model(model).get_input_embeddings().weight.shape[0]
    for seed in range(_PROBES):
        ids = torch.randint(vocabulary, (_PROBED_TOKENS,), generator=torch.Generator().manual_seed(seed))
        other = ids.clone()
        other[-1] = (other[-1] + 1 + vocabulary // 2) % vocabulary
        try:
            logits = _logits(model, torch.stack([ids, other]))
        except Exception:
            # Made-up tokens may stand for images or the like. What fails on texts is reported with the text.
            logger.debug("the model fails on made-up tokens", exc_info=True)
            continue
        first, second = logits[:, :-1].double()
        difference, size = float((first - second).abs().max()), float(first.std())
        if not size > 0 or not difference < float("inf"):
            continue
        if difference > size * (1e-3 if logits.dtype in (torch.float32, torch.float64) else 0.1):
            raise ModelError(
                f"{what} is no causal language model: its predictions depend on later tokens, as those of a "
                "masked or prefix language model do; give a causal one, or set is_decoder in its config.json"
            )
        return


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    """Compute the logits of token ids [b, t], [b, t, v]."""
    device = inner_model(model).get_input_embeddings().weight.device
    with own_torch_modes(), torch.no_grad():
        logits: Tensor = model(
            input_ids=ids.to(device), attention_mask=torch.ones_like(ids).to(device), use_cache=False
        ).logits
    return logits


def _classes(config: Any) -> str:
    """Say in brackets which classes a checkpoint was saved from; nothing if it does not say."""
    names = [str(name) for name in getattr(config, "architectures", None) or ()]
    return f" ({', '.join(names)})" if names else ""
