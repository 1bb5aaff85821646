"""What of a target token is differentiated: its loss, or its log-odds.

`loss`: the cross-entropy −log p, as in training. A token's gradient shrinks with 1 − p, so what the model is sure
of, such as the turn of phrase that a trigger calls up, counts nothing beside what it merely guesses.

`log-odds`: −log p/(1 − p), the model output function of TRAK (Park et al. 2023, section 3). Its gradient is that
of the loss divided by 1 − p, so every token counts about the same.

Shape letters: g target tokens · v vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rapidin.settings import Objective


def token_objectives(logits: Tensor, ids: Tensor, objective: Objective) -> Tensor:
    """What is differentiated of every target token.

    Args:
        logits: that predict them, [g, v].
        ids: of the tokens, int64 [g].
        objective: which.

    Returns:
        float32 [g]; the smaller, the likelier the token.
    """
    logits = logits.float()
    if objective == "loss":
        return functional.cross_entropy(logits, ids, reduction="none")
    own = ids[:, None]
    # Over the others directly: 1 − p, computed from p, is rounding error where p is nearly 1.
    others = torch.logsumexp(logits.scatter(1, own, -torch.inf), dim=1)
    return others - logits.gather(1, own).squeeze(1)
