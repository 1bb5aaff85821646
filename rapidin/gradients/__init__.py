"""Gradients of single training samples, and the RapidGrads made of them."""

from rapidin.gradients.batches import TokenBudget, compute_block, compute_blocks, compute_in_batches
from rapidin.gradients.rapidgrad import RapidGradBatch, RapidGradEngine

__all__ = [
    "RapidGradBatch",
    "RapidGradEngine",
    "TokenBudget",
    "compute_block",
    "compute_blocks",
    "compute_in_batches",
]
