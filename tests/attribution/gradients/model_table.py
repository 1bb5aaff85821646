"""What rapidin does with every causal architecture of transformers and every method of PEFT, measured.

``python -m tests.attribution.gradients.model_table`` writes docs/reference/models.md.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import peft
import torch
import transformers
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from rapidin.attribution.gradients import GradientEngine
from rapidin.errors import ModelError
from rapidin.model.networks import check_causal
from tests import tiny
from tests.attribution.gradients.small_models import NotSmallError, architectures, small_model, time_limit
from tests.attribution.gradients.test_against_autograd import (
    Dense,
    Tokens,
    one_sample_gradient,
    relative_error,
    traced,
)

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "models.md"
BATCHES, SINGLE, REFUSED, UNTRIED = "in batches", "one by one", "refused", "not tried"
ARCHITECTURES, ADAPTERS = "Architectures", "Adapters"
_TOLERANCE = 1e-3
_ADAPTER = {
    **{"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"], "r": 4, "num_virtual_tokens": 4},
    **{"num_vectors": 8, "vector_length": 4, "topk": 2, "n_frequency": 16, "oft_block_size": 0},
    **{"adapter_layers": 2, "adapter_len": 4, "token_indices": [5, 7], "init_weights": True, "num_tasks": 1},
    **{"feedforward_modules": [], "boft_block_size": 4, "block_size": 8, "hidden_size": 32, "total_step": 10},
    "group_size": 8,
}
"""Small numbers for the adapters' configurations, where they have a field of that name."""


INTRODUCTION = """\
# Models and adapters

This page is measured with {versions}: `python -m tests.attribution.gradients.model_table`.
Every causal architecture is built small, with random weights, and the gradients of a padded batch are compared
with those of plain autograd for each sample alone. A slow test does the same.

* *in batches*: hooks compute the gradients of a batch in one pass. This is fast.
* *one by one*: plain autograd computes each sample, because some parameter is used in a way that hooks do not see.
  This is as right, and slower. rapidin finds it out by itself.
* *refused*: rapidin ends with an error that says why.
* *not tried*: no small model could be made automatically. rapidin compares such a model with plain autograd before
  its first gradient counts, as it does with every model.

Decoders of encoder–decoder families are taken, and checkpoints with both an encoder and a decoder are refused.
"""


def samples() -> list[Tokens]:
    """A long sample and a short one."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for length in (13, 6):
        ids = torch.randint(3, 80, (length,), generator=generator).tolist()
        found.append(Tokens(ids, [position >= length // 3 + 1 for position in range(length)]))
    return found


def outcome(model: nn.Module) -> tuple[str, str]:
    """Compute a batch with a model, and compare it with one-sample autograd.

    Returns:
        One of the outcomes, and the reason if there is one.

    Raises:
        AssertionError: a gradient is wrong.
    """
    try:
        check_causal(model, "it")
    except ModelError as error:
        return REFUSED, str(error).partition(":")[0].removeprefix("it ")
    names, two = traced(model), samples()
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    try:
        expected = torch.stack([one_sample_gradient(model, sample) for sample in two])
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        return UNTRIED, f"its small form fails: {' '.join(str(error).split())[:110]}"
    try:
        with GradientEngine(model, names) as engine:
            found = engine.accumulate(two, lambda batch: Dense(batch, sizes), "loss")
            batched = engine.batched
    except ModelError as error:
        return REFUSED, str(error).partition(":")[0]
    error = relative_error(found, expected)
    assert error <= _TOLERANCE, f"its gradients differ from one-sample autograd's by {error:.2g}"
    return (BATCHES if batched else SINGLE), ""


def architecture_outcome(name: str) -> tuple[str, str]:
    """See `outcome`; an architecture that cannot be built small is not tried."""
    try:
        with time_limit():
            return outcome(small_model(name))
    except NotSmallError as error:
        return UNTRIED, str(error)
    except TimeoutError as error:
        return UNTRIED, str(error)


def methods() -> dict[str, type]:
    """The configuration of every method of PEFT, by name."""
    found = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    return dict(sorted(found.items()))


def adapted(name: str) -> nn.Module:
    """Make a small model with an adapter whose weights are random.

    Raises:
        NotSmallError: the method needs more than a few numbers.
    """
    kind = methods()[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    reason = ""
    for without in ((), ("init_weights",), ("r",), ("r", "block_size"), ("oft_block_size", "block_size")):
        given = {key: value for key, value in _ADAPTER.items() if key in fields and key not in without}
        try:
            torch.manual_seed(1)
            model = peft.get_peft_model(tiny.llama(num_key_value_heads=4), kind(**given)).eval()
        except Exception as error:
            logger.debug("the method does not take these numbers", exc_info=True)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:110]}"
            continue
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model
    raise NotSmallError(reason)


def method_outcome(name: str) -> tuple[str, str]:
    """See `outcome`; prompt-learning methods are refused when a model is loaded."""
    config = methods()[name]
    if issubclass(config, peft.PromptLearningConfig):
        return REFUSED, "its virtual tokens cannot be traced"
    try:
        model = adapted(name)
        if not traced(model):
            return UNTRIED, "it has no parameters of its own"
        return outcome(model)
    except NotSmallError as error:
        return UNTRIED, str(error)


def page() -> str:
    """Measure everything, and write the page."""
    parts: list[str | list[str]] = [INTRODUCTION.format(versions=versions())]
    for title, names, tried in (
        (ARCHITECTURES, architectures(), architecture_outcome),
        (ADAPTERS, list(methods()), method_outcome),
    ):
        found = {name: tried(name) for name in _told(names)}
        parts += [f"## {title}", ""]
        for kind in (BATCHES, SINGLE):
            those = [f"`{name}`" for name, (one, _) in found.items() if one == kind]
            parts += _wrapped(f"**{kind.capitalize()}** ({len(those)}): {', '.join(those)}."), ""
        for kind in (REFUSED, UNTRIED):
            those = [(name, why) for name, (one, why) in found.items() if one == kind]
            parts += [f"| {kind} ({len(those)}) | why |", "|---|---|"]
            parts += [f"| `{name}` | {why.replace('|', '/')} |" for name, why in those]
            parts += [""]
    lines: list[str] = []
    for part in parts:
        lines += part if isinstance(part, list) else [part]
    return "\n".join(lines).rstrip() + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def recorded() -> tuple[str, dict[tuple[str, str], str]]:
    """Read the page: its first paragraph, and the outcome of every architecture and adapter on it."""
    found: dict[tuple[str, str], str] = {}
    section = kind = ""
    text = PAGE.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("## "):
            section, kind = line.removeprefix("## "), ""
        elif match := re.match(r"(?:\*\*|\| )(In batches|One by one|refused|not tried)", line):
            kind = match[1].lower()
        if section and kind:
            names = line.split("|")[1] if line.startswith("|") else line
            found.update({(section, name): kind for name in re.findall(r"`([^`]+)`", names)})
    return text.partition("\n\n")[2].partition("\n\n")[0], found


def versions() -> str:
    """Name the installed versions of the libraries."""
    return f"transformers {transformers.__version__} and PEFT {peft.__version__}"


def _told(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        print(name, file=sys.stderr)  # noqa: T201 - minutes pass
        yield name


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    PAGE.write_text(page(), encoding="utf-8")
