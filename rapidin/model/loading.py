"""Loading of tokenizers, models and adapters through transformers and PEFT; every failure is a one-line error."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from rapidin.attribution import ONE_STATE, ModelStates
from rapidin.errors import DependencyError, ModelError, SettingError
from rapidin.model.checkpoints import CheckpointWeights
from rapidin.model.devices import placement
from rapidin.model.locating import local_directory
from rapidin.settings import ModelSettings, TracedParameter
from rapidin.text import Tokenizer

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NO_MODEL = "; give the directory or hub id of a causal language model"
_NO_TOKENIZER = "; the model's directory must have the tokenizer's files, too"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode, ready to be differentiated.

    Attributes:
        model: the network, wrapped by PEFT where there is an adapter.
        parameters: traced parameter tensors, of the adapter if there is one, in the order of the flattened
            gradient.
        context_length: length of the longest sequence that the model takes, None if it does not say.
        states: checkpoints that the network can be put into, or its only state.
    """

    model: nn.Module
    parameters: tuple[TracedParameter, ...]
    context_length: int | None
    states: ModelStates = ONE_STATE


def load_tokenizer(settings: ModelSettings, trust_remote_code: bool = False) -> tuple[Tokenizer, int | None]:
    """Load a model's tokenizer, without its weights.

    Args:
        settings: settings of the model and its adapter.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Returns:
        The tokenizer, and the model's context length; None if its configuration does not say.

    Raises:
        ModelError: neither the model nor its adapter has a tokenizer, or it cannot be read.
    """
    config = library_call(
        f"model {settings.model!r}",
        lambda: transformers.AutoConfig.from_pretrained(settings.model, trust_remote_code=trust_remote_code),
        _NO_MODEL,
    )
    load = partial(transformers.AutoTokenizer.from_pretrained, trust_remote_code=trust_remote_code)
    try:
        tokenizer = library_call(f"tokenizer of {settings.model!r}", lambda: load(settings.model), _NO_TOKENIZER)
    except ModelError:
        if settings.adapter is None:
            raise
        # Some fine-tunes save the tokenizer beside the adapter only.
        tokenizer = library_call(
            f"tokenizer of {settings.adapter!r}", lambda: load(settings.adapter), _NO_TOKENIZER
        )
    return tokenizer, _context_length(config)


def load_model(settings: ModelSettings, device: str = "auto", trust_remote_code: bool = False) -> LoadedModel:
    """Load a causal language model and choose its traced parameters.

    Args:
        settings: settings of the model and its adapter.
        device: value of ``--device``.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Raises:
        ModelError: the model, adapter or a checkpoint cannot be loaded, lacks weights, or they do not fit.
        DependencyError: quantisation is wanted and bitsandbytes is not installed.
        SettingError: settings that exclude each other, an unknown device, or ``--parameters`` matches nothing.
    """
    arguments = placement(device, local_directory(settings.model, "config.json"))
    if settings.quantization != "none":
        arguments["quantization_config"] = _quantization(settings)
    dtype = _DTYPES.get(settings.dtype, "auto")
    model, report = library_call(
        f"model {settings.model!r}",
        lambda: transformers.AutoModelForCausalLM.from_pretrained(
            settings.model,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # an error below names them
            **arguments,
        ),
        _NO_MODEL,
    )
    mismatched = sorted(name for name, *_ in report["mismatched_keys"])
    if mismatched:
        raise ModelError(
            f"model {settings.model!r}: {len(mismatched)} weight tensors have another shape than its config.json "
            f"says, for example {mismatched[0]!r}; give a complete checkpoint"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model {settings.model!r} lacks {len(missing)} weight tensors, for example {missing[0]!r}, which "
            "would be random: is it a complete checkpoint of a causal language model?"
        )
    context_length = _context_length(model.config)
    if settings.adapter is not None:
        model = _with_adapter(model, settings)
    model.eval()
    traced = _traced(model, settings)
    states = CheckpointWeights(model, settings) if settings.checkpoints else ONE_STATE
    return LoadedModel(model, traced, context_length, states)


def _with_adapter(model: nn.Module, settings: ModelSettings) -> nn.Module:
    """Wrap a model with its adapter, after a check that every tensor of the adapter finds its place."""
    import peft  # takes seconds, and models without an adapter need none of it

    what = f"adapter {settings.adapter!r}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = library_call(
                what, lambda: peft.PeftModel.from_pretrained(model, settings.adapter, is_trainable=True)
            )
    except ModelError as error:
        raise ModelError(f"{error}. Was it made for another base than {settings.model!r}?") from error
    if any(config.is_prompt_learning for config in adapted.peft_config.values()):
        raise ModelError(
            f"{what} is a prompt-learning one (prompt, prefix or P-tuning), whose virtual tokens cannot be "
            "traced: give a LoRA or another adapter of weights"
        )
    saved = library_call(what, lambda: peft.utils.load_peft_weights(settings.adapter, device="cpu")).keys()
    # Embedding layers are left out, because "auto" would look up the base's vocabulary on the hub.
    placed = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    unused = sorted(name for name in saved - placed if "embed" not in name and "lm_head" not in name)
    missing = sorted(placed - saved)
    if unused:
        raise ModelError(
            f"{what} does not fit the model {settings.model!r}: it has no place for {len(unused)} of the "
            f"adapter's tensors, for example {unused[0]!r}; give the base that it was made for"
        )
    if missing:
        raise ModelError(
            f"{what} lacks {len(missing)} tensors for the model {settings.model!r}, for example {missing[0]!r}, "
            "which would be random: give the whole adapter, and the base that it was made for"
        )
    wrapped: nn.Module = adapted
    return wrapped


def _traced(model: nn.Module, settings: ModelSettings) -> tuple[TracedParameter, ...]:
    """Choose the traced parameters: the matrices among the trained ones, or those that --parameters matches.

    The few hundred numbers of a norm layer say how large activations are, not what was learnt from a text. With
    normalisation they would count as much as a matrix that is thousands of times as large, and the wrong samples
    would become the strongest proponents (benchmarks/RESULTS.md, "What is traced").
    """
    with_adapter = settings.adapter is not None
    chosen = [
        TracedParameter(name=name, shape=tuple(parameter.shape))
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and (parameter.requires_grad or not with_adapter)
    ]
    if settings.parameters is None:
        chosen = [parameter for parameter in chosen if len(parameter.shape) > 1] or chosen
    else:
        names = [parameter.name for parameter in chosen]
        chosen = [parameter for parameter in chosen if re.search(settings.parameters, parameter.name)]
        if not chosen:
            raise SettingError(
                f"--parameters {settings.parameters!r} matches none of the {len(names)} trainable parameters; "
                f"they are named like {names[len(names) // 2]!r}"
            )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(
            f"model {settings.model!r} does not fit on the devices, and weights kept off them have no gradient: "
            "give more of them with --device, a smaller --dtype, or --quantization with an adapter"
        )
    if not chosen:
        raise ModelError(f"adapter {settings.adapter!r} trains no parameter that could be traced")
    return tuple(chosen)


def _quantization(settings: ModelSettings) -> transformers.BitsAndBytesConfig:
    """Make the settings of bitsandbytes for a quantised base model."""
    if settings.adapter is None:
        raise SettingError(
            f"--quantization {settings.quantization} needs --adapter: weights of {settings.quantization} have "
            "no gradient, so only an adapter on top of them can be traced"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"--quantization {settings.quantization} needs bitsandbytes: pip install 'rapidin[bnb]'"
        ) from error
    if settings.quantization == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    # These are the settings of QLoRA (Dettmers et al. 2023): NormalFloat4 with double quantisation.
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_DTYPES.get(settings.dtype, torch.bfloat16),
    )


def _context_length(config: Any) -> int | None:
    """Find the length of the longest sequence that a model takes; None if its configuration does not say."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def library_call(what: str, load: Callable[[], Any], advice: str = "") -> Any:
    """Call into transformers or PEFT and turn whatever it raises into a `ModelError` of one line.

    These libraries raise every kind of exception for a bad checkpoint: OSError, ValueError, KeyError,
    RuntimeError, safetensors' and json's own, ImportError for remote code.

    Args:
        what: words for the thing that is loaded, for the message.
        load: function that calls the library.
        advice: end of the message.

    Raises:
        ModelError: the call failed.
    """
    try:
        with _quiet():
            return load()
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{what} does not fit into the device's memory: give another --device or --dtype"
        ) from error
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        if (len(lines) > 1 and len(reason) < 40) or reason.endswith((":", ",")):
            reason = " ".join(lines[:2])
        raise ModelError(f"{what} cannot be loaded: {reason[:400].rstrip('.,:')}{advice}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and reports on loading; what matters in them is raised as an error instead."""
    from transformers.utils import logging as library_logging

    level = library_logging.get_verbosity()
    library_logging.set_verbosity_error()
    bars = library_logging.is_progress_bar_enabled()
    library_logging.disable_progress_bar()
    peft_logger = logging.getLogger("peft")
    peft_level = peft_logger.level
    peft_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        peft_logger.setLevel(peft_level)
        if bars:
            library_logging.enable_progress_bar()
