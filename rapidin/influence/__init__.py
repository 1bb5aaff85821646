"""Exact influence of retrieved samples, down to their tokens and those of the generation."""

from rapidin.influence.explainer import ExactInfluence, Explainer
from rapidin.influence.token_queries import TokenQueries

__all__ = ["ExactInfluence", "Explainer", "TokenQueries"]
