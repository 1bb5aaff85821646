"""Small random models of every causal architecture that the installed transformers has, made by shrinking.

Nothing is written down for single architectures, so that new ones are tried as soon as transformers has them. The
numbers of a configuration are replaced by small ones according to their names. Some configurations do not allow
that; several sets of numbers are tried, and the reason of the last failure is kept.
"""

from __future__ import annotations

import copy
import itertools
import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)

logger = logging.getLogger(__name__)

VOCABULARY = 96
MOST_PARAMETERS = 3_000_000
SECONDS = 20
"""Time for a model; a few architectures compute tokens in a loop."""

Rules = list[tuple[str, int]]
"""Patterns of names of numbers, and the numbers that replace them; the first pattern that matches counts."""

_COMMON: Rules = [
    (r"vocab_size|n_words|vocabulary|emb_vocab", VOCABULARY),
    (r"experts_per_tok|num_experts_per|moe_top_?k|^top_?k$|topk$|router_topk|k_greedy", 2),
    (r"n_group$|topk_group|expert_groups|num_shared_experts|n_shared|num_nextn|num_mtp|mtp_", 1),
    (r"experts", 4),
    (r"first_k_dense|num_dense_layers|num_kv_shared_layers|num_mem_blocks|decoder_start_layer", 1),
    (r"key_value_heads|kv_heads|head_kv|query_groups|num_key_heads|num_value_heads|n_kv", 2),
    (r"mamba_n_groups|mamba_ngroups|n_groups|num_groups|mamba_num_groups", 1),
    (r"head_dim|head_size|rotary_dim|mamba_d_head|d_kv|kv_channels|qk_|v_head|rope_dim", 8),
    (r"num_layers|n_layers?$|hidden_layers|decoder_layers|encoder_layers|num_blocks|block_count", 2),
    (r"max_position|n_positions|n_ctx|max_seq|seq_length|context_length|max_source|max_length|block_size", 64),
    (r"window|chunk|attention_span|local_", 16),
    (r"heads?$|heads_|num_attention_head", 4),
    (r"lora_rank|rank$|_rank_|d_state|state_size|dt_rank|time_step_rank|ssm_state", 8),
    (r"intermediate|ffn|ff_|_ff|d_inner|n_inner|dff|d_ff|inner_size|mlp_|feed_forward|feedforward", 48),
    (r"hidden_size|d_model|n_embd|embed_dim|embedding_size|embedding_dim|word_embed|emb_dim|lru_width|^dim$", 32),
    (r"_size_per_layer", 8),
]
WIDE: Rules = [
    (r"head_dim|head_size|rotary_dim|mamba_d_head|kv_channels|qk_|v_head|rope_dim", 16),
    (r"mamba_n_heads|mamba_num_heads|n_mamba_heads|num_heads$", 8),
    (r"hidden_size|d_model|n_embd|embed_dim|embedding_size|embedding_dim|word_embed|emb_dim|lru_width|^dim$", 64),
    (r"intermediate|ffn|ff_|_ff|d_inner|n_inner|dff|d_ff|inner_size|mlp_|feed_forward|feedforward", 128),
]
SAME_HEADS: Rules = [(r"key_value_heads|kv_heads|head_kv|query_groups|num_key_heads|num_value_heads|n_kv", 4)]
LAYERS: Rules = [(r"num_layers|n_layers?$|hidden_layers|decoder_layers|encoder_layers|num_blocks|block_count", 4)]
ATTEMPTS: tuple[Rules, ...] = (
    _COMMON,
    [*SAME_HEADS, *_COMMON],
    [*WIDE, *_COMMON],
    [*SAME_HEADS, *WIDE, *_COMMON],
    [*LAYERS, *_COMMON],
    [*LAYERS, *SAME_HEADS, *WIDE, *_COMMON],
)
_SIZES = (
    r"^head_dim$|(key_value_heads|moe_top_?k|experts_per_tok|topk_group|_intermediate_size|num_heads|n_group)$"
)
"""Names of sizes whose default may be None."""
_TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


class NotSmallError(Exception):
    """An architecture cannot be built small; the message says why."""


def architectures() -> list[str]:
    """List the names of every causal architecture; no model's module is imported for it."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def classes_of(name: str) -> tuple[type, type]:
    """Return the configuration and the model of an architecture."""
    config = CONFIG_MAPPING[name]
    model = MODEL_FOR_CAUSAL_LM_MAPPING[config]
    return config, model[0] if isinstance(model, tuple) else model


def small_model(name: str) -> nn.Module:
    """Make a small model that takes token ids and gives logits.

    Raises:
        NotSmallError: none of the sets of numbers gives one.
    """
    kind, made = classes_of(name)
    reason = "unknown"
    for rules, fill, inner in itertools.product(ATTEMPTS, (False, True), (False, True)):
        try:
            config = shrunk(kind(), rules, fill)
            if inner:
                if config.get_text_config() is config:
                    continue
                config = config.get_text_config()
            if hasattr(config, "is_decoder"):
                config.is_decoder = True
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in made(copy.deepcopy(config)).parameters())
            if size > MOST_PARAMETERS:
                reason = f"its smallest form has {size / 1e6:.0f} million parameters"
                continue
            torch.manual_seed(1)
            model = made(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    # Some start at zero or one, where mistakes could hide.
                    parameter.add_(0.1 * torch.randn_like(parameter) if parameter.is_floating_point() else 0)
                logits = model(input_ids=torch.arange(3, 15).unsqueeze(0), use_cache=False).logits
            if logits.shape[:2] != (1, 12):
                raise NotSmallError(f"it gives logits of shape {tuple(logits.shape)}")
            if not torch.isfinite(logits).all():
                raise NotSmallError("its logits are not finite with random weights")
            return model
        except TimeoutError:
            raise
        except Exception as error:
            logger.debug("the architecture does not take these numbers", exc_info=True)
            text = " ".join(str(error).split()) or type(error).__name__
            reason = f"{type(error).__name__}: {text[:110]}" if not isinstance(error, NotSmallError) else text
    raise NotSmallError(reason)


def shrunk(config: Any, rules: Rules, fill: bool) -> Any:
    """Make a configuration small, and the ones inside it; with `fill`, sizes that are None get numbers, too."""
    layers = getattr(config, "num_hidden_layers", None)
    values: dict[str, Any] = {}
    for name, value in vars(config).items():
        if hasattr(value, "to_dict"):
            values[name] = shrunk(value, rules, fill)
        elif type(value) is int:
            values[name] = _small(name, value, rules)
        elif value is None and fill and re.search(_SIZES, name):
            values[name] = _small(name, 10**6, rules)
        elif isinstance(value, list) and isinstance(layers, int) and len(value) == layers:
            count = next(number for pattern, number in rules if re.search(pattern, "num_hidden_layers"))
            # The kinds of layers alternate, so that one of each is taken as far as possible.
            kinds = list(dict.fromkeys(map(str, value)))
            firsts = sorted({list(map(str, value)).index(one) for one in kinds})[:count]
            others = [place for place in range(layers) if place not in firsts]
            values[name] = [value[place] for place in sorted([*firsts, *others[: count - len(firsts)]])]
    small = copy.deepcopy(config)
    for name, value in values.items():
        try:
            setattr(small, name, value)
        except (AttributeError, ValueError, TypeError):
            continue
    return small


def _small(name: str, value: int, rules: Rules) -> int:
    if name.endswith(("token_id", "token_index")):
        return _TOKENS.get(name, VOCABULARY - 1 - sum(map(ord, name)) % 16)
    for pattern, number in rules:
        if re.search(pattern, name):
            return min(value, number) if value > 0 else value
    return value


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Raise a TimeoutError if what is done inside takes too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it takes more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
