"""The training loop of small models: AdamW, a warm-up and a cosine, rows in batches of about one length.

The demo trains its model with it, and ``rapidin evaluate lds`` the models that tell whether influence is right.
The model's loss is the caller's, since what is quickest depends on the model.

Shape letters: b batch · t tokens.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rapidin.attribution import TokenSample

IGNORED = -100
"""Label of a token that is no target, as `cross_entropy` has it."""

Samples = TypeVar("Samples", bound=TokenSample)
StepCallback = Callable[[int, int, float], None]
"""Told the step (counted from 1), the number of all steps and the step's loss."""
Loss = Callable[[Any, Sequence[Any], bool], Tensor]
"""Mean loss of a model on a batch: over its targets or, if the last is true, over all its tokens."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a model is trained.

    Attributes:
        epochs_all: epochs with the loss on every token, which teach what words there are.
        epochs_response: epochs after them, with the loss on the targets only.
        batch: rows in a step.
        learning_rate: the highest; it rises to it in `warm_up` steps and falls to `final_rate` of it by a cosine.
        weight_decay: of AdamW.
        gradient_norm: gradients are clipped to it.
    """

    epochs_all: int = 1
    epochs_response: int = 6
    batch: int = 8
    learning_rate: float = 3e-3
    final_rate: float = 0.1
    warm_up: int = 20
    weight_decay: float = 0.3
    gradient_norm: float = 1.0


def fit(
    model: nn.Module,
    samples: Sequence[TokenSample],
    random_numbers: random.Random,
    schedule: Schedule,
    loss_of: Loss,
    on_step: StepCallback | None = None,
) -> None:
    """Train a model in place and leave it in evaluation mode.

    Args:
        model: all of whose trainable parameters are trained.
        samples: the rows.
        random_numbers: shuffle them.
        schedule: how.
        loss_of: the model's loss, for example `batch_loss`.
        on_step: told of every step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
    )
    epochs = schedule.epochs_all + schedule.epochs_response
    steps = epochs * math.ceil(len(samples) / schedule.batch)
    step = 0
    model.train()
    for epoch in range(epochs):
        for batch in batches(samples, schedule.batch, random_numbers):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps, schedule)
            loss = loss_of(model, batch, epoch < schedule.epochs_all)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, schedule.gradient_norm)
            optimizer.step()
            step += 1
            if on_step is not None:
                on_step(step, steps, loss.item())
    model.eval()


def batches(samples: Sequence[Samples], size: int, random_numbers: random.Random) -> list[list[Samples]]:
    """All samples once, in batches of about equal length and random order."""
    shuffled = random_numbers.sample(list(samples), len(samples))
    shuffled.sort(key=lambda sample: len(sample.ids))  # stable, so samples of one length stay shuffled
    found = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    random_numbers.shuffle(found)
    return found


def padded(batch: Sequence[TokenSample], all_tokens: bool) -> tuple[Tensor, Tensor]:
    """Token ids, and labels that are `IGNORED` where nothing is to be learnt, int64 [b, t] each.

    The padding stands on the right, where no token of a causal model can see it, so its id does not matter.
    """
    length = max(len(sample.ids) for sample in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.int64)
    labels = torch.full((len(batch), length), IGNORED)
    for row, sample in enumerate(batch):
        tokens = torch.tensor(sample.ids)
        wanted = torch.ones(len(tokens), dtype=torch.bool) if all_tokens else torch.tensor(sample.targets)
        ids[row, : len(tokens)] = tokens
        labels[row, : len(tokens)] = torch.where(wanted, tokens, IGNORED)
    return ids, labels


def batch_loss(model: nn.Module, batch: Sequence[TokenSample], all_tokens: bool) -> Tensor:
    """Mean next-token cross-entropy of any causal model of transformers."""
    ids, labels = padded(batch, all_tokens)
    mask = torch.zeros_like(ids)
    for row, sample in enumerate(batch):
        mask[row, : len(sample.ids)] = 1
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    logits: Tensor = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    following = labels[:, 1:].to(logits.device)
    kept = following != IGNORED
    return functional.cross_entropy(logits[:, :-1][kept].float(), following[kept])


def _learning_rate(step: int, steps: int, schedule: Schedule) -> float:
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    decayed = schedule.final_rate + (1 - schedule.final_rate) * cosine
    return schedule.learning_rate * decayed * min(1.0, (step + 1) / schedule.warm_up)
