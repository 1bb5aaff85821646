"""Loading of tokenizers, models and adapters through transformers and PEFT; every failure is a one-line error."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from rapidin.model.identity import local_directory
from rapidin.model.networks import (
    SteadyLayers,
    check_causal,
    check_configuration,
    check_unexpected,
    check_weights_have_gradients,
)
from rapidin.settings import ModelSettings, TextSettings, TracedParameter
from rapidin.support import context_length, own_torch_modes
from rapidin.text import Encoder, Tokenizer

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NO_LIMIT = 10**9
"""Length from which a tokenizer's number means that there is no limit."""
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
    config = load_config(settings.model, trust_remote_code)
    load = partial(transformers.AutoTokenizer.from_pretrained, trust_remote_code=trust_remote_code)
    place = settings.model if settings.adapter is None else _place_of_tokenizer(settings.model, settings.adapter)
    try:
        tokenizer = library_call(f"tokenizer of {place!r}", lambda: load(place), _NO_TOKENIZER)
    except ModelError:
        if settings.adapter is None or place == settings.adapter:
            raise
        # The adapter may be on the hub, where its files are not known before they are asked for.
        tokenizer = library_call(
            f"tokenizer of {settings.adapter!r}", lambda: load(settings.adapter), _NO_TOKENIZER
        )
    if settings.adapter is not None and place == settings.model:
        _take_chat_template(tokenizer, settings.adapter)
    return tokenizer, context_length(config) or _context_of_tokenizer(tokenizer)


def make_encoder(
    settings: ModelSettings, text: TextSettings, trust_remote_code: bool = False
) -> tuple[Tokenizer, Encoder]:
    """Load a model's tokenizer, and make the encoder that turns texts into what the model takes.

    Args:
        settings: settings of the model and its adapter.
        text: settings of the texts.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Returns:
        The tokenizer, and an encoder that knows how long and how many tokens the model takes.

    Raises:
        ModelError: see `load_tokenizer`.
        SettingError: see `Encoder`.
    """
    tokenizer, length = load_tokenizer(settings, trust_remote_code)
    config = load_config(settings.model, trust_remote_code)
    return tokenizer, Encoder(tokenizer, text, length, vocabulary_size(config))


def vocabulary_size(config: Any) -> int | None:
    """Find the number of token ids that a model takes; None if its configuration does not say."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _place_of_tokenizer(model: str, adapter: str) -> str:
    """Choose whose tokenizer is loaded: the adapter's if it has one, because its training saved it there.

    Args:
        model: directory or hub id of the model.
        adapter: directory or hub id of the adapter.
    """
    directory = local_directory(adapter, "adapter_config.json")
    if directory is None or not (directory / "tokenizer_config.json").exists():
        return model
    logger.info("the tokenizer and chat template of the adapter %r are used", adapter)
    return adapter


def _take_chat_template(tokenizer: Any, adapter: str) -> None:
    """Give a tokenizer the chat template that stands beside an adapter, if there is one."""
    directory = local_directory(adapter, "adapter_config.json")
    file = None if directory is None else directory / "chat_template.jinja"
    if file is None or not file.exists():
        return
    try:
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read: {error}; save it again, or remove it") from error
    logger.info("the chat template of the adapter %r is used", adapter)


def _context_of_tokenizer(tokenizer: Any) -> int | None:
    """Find the length of the longest text that a tokenizer was made for; None if it does not say."""
    length = getattr(tokenizer, "model_max_length", None)
    return length if isinstance(length, int) and 0 < length < _NO_LIMIT else None


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
    with own_torch_modes():
        return _loaded(settings, device, trust_remote_code)


def _loaded(settings: ModelSettings, device: str, trust_remote_code: bool) -> LoadedModel:
    arguments = placement(device, local_directory(settings.model, "config.json"))
    if settings.quantization != "none":
        arguments["quantization_config"] = _quantization(settings)
    if settings.adapter is not None:
        _check_kind_of_adapter(settings.adapter)
    config = load_config(settings.model, trust_remote_code)
    kernels = _kernels(config)

    def load(**more: Any) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(
            settings.model,
            dtype=_DTYPES.get(settings.dtype, "auto"),
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # an error below names them
            **arguments,
            **more,
        )

    model, report = library_call(f"model {settings.model!r}", lambda: _with_kernels(load, kernels), _NO_MODEL)
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
    check_unexpected(report["unexpected_keys"], config, settings.model)
    length = context_length(model.config)
    check_weights_have_gradients(model, settings)
    if settings.adapter is not None:
        model = _with_adapter(model, settings)
    model.eval()
    SteadyLayers(model)
    traced = _traced(model, settings)
    check_causal(model, f"model {settings.model!r}")
    states = CheckpointWeights(model, settings) if settings.checkpoints else ONE_STATE
    return LoadedModel(model, traced, length, states)


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


def load_config(place: str, trust_remote_code: bool) -> Any:
    """Read the configuration of a checkpoint.

    Raises:
        ModelError: it cannot be read, or it is that of an encoder–decoder model.
    """
    config = library_call(
        f"model {place!r}",
        lambda: transformers.AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code),
        _NO_MODEL,
    )
    check_configuration(config, place)
    return config


def _kernels(config: Any) -> list[str]:
    """List implementations of attention to load a model with, in order; none: let transformers choose.

    Some configurations demand a kernel that needs another package or a GPU, or that has no backward step on a CPU.
    All of them compute the same function.
    """
    wanted = getattr(config, "_attn_implementation", None)
    return [] if wanted in (None, "eager", "sdpa") or isinstance(wanted, dict) else ["sdpa", "eager"]


def _with_kernels(load: Callable[..., Any], kernels: Sequence[str]) -> Any:
    """Load a model with the first implementation of attention that it has."""
    if not kernels:
        return load()
    for kernel in kernels[:-1]:
        try:
            return load(attn_implementation=kernel)
        except (ValueError, ImportError):  # the architecture does not have it
            continue
    return load(attn_implementation=kernels[-1])


def _check_kind_of_adapter(place: str) -> None:
    """Make sure that an adapter consists of weights.

    Raises:
        ModelError: it is a prompt-learning one.
    """
    import peft  # takes seconds, and models without an adapter need none of it

    what = f"adapter {place!r}"
    config = library_call(what, lambda: peft.PeftConfig.from_pretrained(place))
    if config.is_prompt_learning:
        raise ModelError(
            f"{what} is a prompt-learning one ({config.peft_type.value}), whose virtual tokens cannot be traced: "
            "give a LoRA or another adapter of weights"
        )


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
        DependencyError: it failed because a package is not installed, and the message says how to install it.
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
        reason = reason[:400].rstrip(".,:")
        if isinstance(error, ImportError) and "pip install" in str(error) + reason:
            raise DependencyError(f"{what} cannot be loaded: {reason}") from error
        advice = "; install that package" if isinstance(error, ImportError) else advice
        raise ModelError(f"{what} cannot be loaded: {reason}{advice}") from error


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
