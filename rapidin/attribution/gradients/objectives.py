"""The objective of samples: the quantity that is differentiated, implemented here for every part of rapidin.

Samples are padded into a `TargetBatch`. The model gives the logits that predict the targets, and every target gets
a value, where p is the probability that the model gives to the target:

`loss`: the cross-entropy −log p, as in training. A token's gradient shrinks with 1 − p, so tokens that the model
is sure of, such as the phrase that a trigger calls up, count almost nothing beside tokens that it guesses.

`log-odds`: −log p/(1 − p), the model output function of TRAK (Park et al. 2023, section 3). Its gradient is the
gradient of the loss divided by 1 − p, so every token counts about the same.

A third kind, `FisherDraw`, is no user's choice: its gradients are random vectors whose second moment is the
curvature of the loss, see there.

The caller decides how these values are weighted and added up: RapidGrads and influence take the mean over each
sample's targets, training takes the mean over all targets of the batch.

Shape letters: b batch · t tokens · g target tokens of the batch · v vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from rapidin.attribution.integer_hashes import hash32
from rapidin.settings import Objective


class TokenSample(Protocol):
    """The part of a sample that gradients need: token ids, and which of them are targets."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids, [t]."""

    @property
    def targets(self) -> Sequence[bool]:
        """Whether each token is a target, so that its objective counts, [t]; the first token never is one."""


class NamedSample(TokenSample, Protocol):
    """A sample that errors can name."""

    @property
    def id(self) -> str:
        """Id of the sample."""


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Padded samples and their targets.

    The padding is on the right, where no token of a causal model can see it, so its id does not matter.

    Attributes:
        ids: token ids, int64 [b, t].
        mask: 1 for a token and 0 for padding, int64 [b, t].
        rows: sample of each target, int64 [g].
        places: place of each target in its sample, at least 1, int64 [g].
        targets: token id of each target, int64 [g].
        counts: number of targets of each sample, float32 [b].
    """

    ids: Tensor
    mask: Tensor
    rows: Tensor
    places: Tensor
    targets: Tensor
    counts: Tensor

    @classmethod
    def of(cls, samples: Sequence[TokenSample], all_tokens: bool = False) -> TargetBatch:
        """Pad samples.

        Args:
            samples: the b samples.
            all_tokens: whether every token but the first is a target, rather than the samples' own targets.
        """
        ids, mask = padded_ids([sample.ids for sample in samples])
        wanted = torch.zeros(ids.shape, dtype=torch.bool)
        for row, sample in enumerate(samples):
            wanted[row, : len(sample.ids)] = True if all_tokens else torch.as_tensor(sample.targets)
        wanted[:, 0] = False  # nothing predicts the first token
        rows, places = torch.nonzero(wanted, as_tuple=True)
        counts = wanted.sum(dim=1, dtype=torch.float32)
        return cls(ids, mask, rows, places, ids[rows, places], counts)

    def on(self, device: torch.device) -> TargetBatch:
        """Copy the batch to a device."""
        parts = (self.ids, self.mask, self.rows, self.places, self.targets, self.counts)
        return TargetBatch(*(part.to(device) for part in parts))

    def predicting(self, states: Tensor) -> Tensor:
        """Select what predicts each target from logits or hidden states.

        A target is predicted at the place before it. One indexing operation replaces a slice and a mask, because
        the backward step of each of these writes zeros for all logits.

        Args:
            states: logits or hidden states [b, t, …].

        Returns:
            The states at the places before the targets, [g, …].
        """
        return states[self.rows.to(states.device), self.places.to(states.device) - 1]

    def sample_weights(self, samples: int = 1) -> Tensor:
        """Compute weights of targets that make a weighted sum of their values out of the samples' means.

        Args:
            samples: number that the sum of the samples' means is divided by; with the number of all samples, the
                sum is their overall mean.

        Returns:
            Weight of each target, float32 [g]: one over `samples` times its sample's number of targets.
        """
        return (1 / (self.counts * samples))[self.rows]


def padded_ids(samples: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad token ids on the right.

    Returns:
        Ids, int64 [b, t], and the mask, which is 1 for a token and 0 for padding, int64 [b, t].
    """
    ids = torch.zeros(len(samples), max(len(sample) for sample in samples), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sample in enumerate(samples):
        ids[row, : len(sample)] = torch.as_tensor(sample)
        mask[row, : len(sample)] = 1
    return ids, mask


def token_objectives(logits: Tensor, targets: Tensor, objective: Objective) -> Tensor:
    """Compute the objective of every target token.

    Args:
        logits: logits that predict the targets, [g, v].
        targets: token ids of the targets, int64 [g].
        objective: the quantity to compute.

    Returns:
        Value of each target [g], float32, or float64 if the logits are; a smaller value means a likelier token.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.device)
    if objective == "loss":
        return functional.cross_entropy(logits, targets, reduction="none")
    own = targets[:, None]
    # 1 − p is summed over the other tokens, because computed from p it is rounding error where p is nearly 1.
    others = torch.logsumexp(logits.scatter(1, own, -torch.inf), dim=1)
    return others - logits.gather(1, own).squeeze(1)


@dataclass(frozen=True, slots=True)
class FisherDraw:
    """A random quantity of a target token whose gradients have the Gauss–Newton matrix as their second moment.

    Where the model predicts the distribution p over the vocabulary, let z be v independent random signs and
    u = √p∘z − p·(√pᵀz), a constant. The quantity is ⟨u, logits⟩, so its gradient by the logits is u, and
    E[uuᵀ] = diag(p) − ppᵀ, the Hessian of the cross-entropy by the logits. The gradient ψ of the quantities' *sum*
    over a sample's targets then has E[ψψᵀ] = Σ JᵀHJ, the Gauss–Newton matrix of the sample's summed loss, because
    the signs of different targets are independent. It is also the Fisher information under the model's own
    predictions (Martens 2020, arXiv 1412.1193, section 9.2); the targets that stand in the sample do not enter it.

    The signs are hashes of the sample's token ids, the place of the target, and these two numbers, so a sample's
    draw is the same in any batch, on any device and in any process.

    Attributes:
        seed: seed of all draws.
        number: number of the draw; a sample can be drawn several times.
    """

    seed: int
    number: int

    def values(self, logits: Tensor, batch: TargetBatch) -> Tensor:
        """Compute the quantities, float32 [g].

        Args:
            logits: logits that predict the targets, [g, v].
            batch: the targets.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        with torch.no_grad():
            roots = logits.softmax(dim=1).sqrt_()
            drawn = roots * self._signs(batch, logits.shape[1], logits.device)
            drawn -= roots.square() * drawn.sum(dim=1, keepdim=True)
        return (drawn * logits).sum(dim=1)

    def _signs(self, batch: TargetBatch, vocabulary: int, device: torch.device) -> Tensor:
        """Draw ±1 for every target and token of the vocabulary, float32 [g, v]."""
        samples = torch.tensor(
            [
                self._sample_key(ids[: int(length)])
                for ids, length in zip(batch.ids, batch.mask.sum(1), strict=True)
            ]
        )
        targets = hash32(batch.places.cpu(), samples[batch.rows.cpu()]).to(device)
        hashed = hash32(torch.arange(vocabulary, device=device), targets[:, None])
        return (hashed & 1).to(torch.float32).mul_(2).sub_(1)

    def _sample_key(self, ids: Tensor) -> int:
        """Derive a 32-bit key from a sample's token ids, int64 [t]."""
        content = f"rapidin fisher draw {self.seed} {self.number} ".encode() + ids.cpu().numpy().tobytes()
        return int.from_bytes(hashlib.sha256(content).digest()[:4], "little")


Differentiated: TypeAlias = Objective | FisherDraw
"""What a gradient is the gradient of."""


def weighted_values(logits: Tensor, batch: TargetBatch, weights: Tensor, objective: Differentiated) -> Tensor:
    """Add up a batch's values times their weights.

    Args:
        logits: logits that predict the targets, [g, v].
        batch: the targets.
        weights: weight of each target, float32 [g].
        objective: quantity to add up.
    """
    if isinstance(objective, FisherDraw):
        return (objective.values(logits, batch) * weights.to(logits.device)).sum()
    return weighted_objective(logits, batch.targets, weights, objective)


def weighted_objective(logits: Tensor, targets: Tensor, weights: Tensor, objective: Objective = "loss") -> Tensor:
    """Add up the objectives of target tokens, each times its weight.

    Args:
        logits: logits that predict the targets, [g, v].
        targets: token ids of the targets, int64 [g].
        weights: weight of each target, float32 [g].
        objective: the quantity to add up.
    """
    return (token_objectives(logits, targets, objective) * weights.to(logits.device)).sum()
