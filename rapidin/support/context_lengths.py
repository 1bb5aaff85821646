"""The length of the longest sequence that a model takes, as its configuration says."""

from __future__ import annotations

from typing import Any

_NAMES = (
    *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "max_seq_length"),
    *("max_target_positions", "max_context_length", "context_length", "seq_length", "seq_len", "block_size"),
)
"""Names under which configurations of different families give the length."""
_OF_TRAINING_ONLY = {"seq_length": ("bloom",)}
"""Names that say no more than what the model was trained with, and families for which this is so."""
_AFTER_PADDING = (
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "xmod"),
    *("longformer", "esm", "ibert", "mpnet", "luke", "lilt", "markuplm", "layoutlmv3"),
)
"""Families whose positions are counted from the number after that of the padding token, as in fairseq."""


def context_length(config: Any) -> int | None:
    """Find the length of the longest sequence that a model takes.

    Args:
        config: configuration of transformers; None if the model has none.

    Returns:
        The length in tokens; None if the configuration does not say.
    """
    if config is None:
        return None
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    family = getattr(text, "model_type", None)
    for name in _NAMES:
        length = getattr(text, name, None)
        if not isinstance(length, int) or length <= 0 or family in _OF_TRAINING_ONLY.get(name, ()):
            continue
        if family in _AFTER_PADDING:
            length -= (getattr(text, "pad_token_id", None) or 0) + 1
        return length if length > 0 else None
    return None
