"""Vectors of whole texts: a model's last hidden states, averaged over the tokens.

Shape letters: n samples · b batch · t tokens · h hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.errors import ModelError
from rapidin.support import inner_model

_TOKENS_AT_ONCE = 4096
_MOST_SAMPLES = 64


def mean_hidden_states(
    model: nn.Module, samples: Sequence[Sequence[int]], on_progress: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """Compute the mean of the last hidden states over all tokens of each sample.

    Args:
        model: a causal language model in evaluation mode, with or without adapter.
        samples: token ids of n texts.
        on_progress: function that is called with the number of samples that are done.

    Returns:
        The mean of each sample, float32 [n, h].

    Raises:
        ModelError: the model does not give its hidden states.
    """
    base = inner_model(model)
    # Logits are not needed; a model can be asked for those of one token at least.
    few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}
    device = base.get_input_embeddings().weight.device
    order = sorted(range(len(samples)), key=lambda number: len(samples[number]), reverse=True)
    found: NDArray[np.float32] | None = None
    done = 0
    while done < len(order):
        longest = len(samples[order[done]])
        chosen = order[done : done + max(1, min(_MOST_SAMPLES, _TOKENS_AT_ONCE // longest))]
        ids = torch.zeros(len(chosen), longest, dtype=torch.int64)
        mask = torch.zeros(len(chosen), longest, dtype=torch.int64)
        for row, number in enumerate(chosen):
            length = len(samples[number])
            ids[row, :length] = torch.tensor(samples[number])
            mask[row, :length] = 1
        with torch.no_grad():
            output = model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                output_hidden_states=True,
                use_cache=False,
                **few,
            )
        if getattr(output, "hidden_states", None) is None:
            raise ModelError("the model does not give its hidden states: give another one with --embedding-model")
        means = _means(output.hidden_states[-1], mask)
        if found is None:
            found = np.empty((len(samples), means.shape[1]), dtype=np.float32)
        found[chosen] = means
        done += len(chosen)
        if on_progress is not None:
            on_progress(done)
    return np.empty((0, 0), dtype=np.float32) if found is None else found


def _means(states: Tensor, mask: Tensor) -> NDArray[np.float32]:
    """Return the means [b, h] of states [b, t, h] over the tokens of the mask [b, t]."""
    weights = mask.to(states.device, torch.float32)[:, :, None]
    means: NDArray[np.float32] = ((states.float() * weights).sum(dim=1) / weights.sum(dim=1)).cpu().numpy()
    return means
