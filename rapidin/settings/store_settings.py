"""What a store is created with and never changes: projection, model, text, traced parameters.

These models know nothing of torch, transformers, FAISS or SQL, so that every other module may import them.
They are stored as JSON in the store and read back by `StoreSettings.model_validate_json`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rapidin.errors import SettingError
from rapidin.settings.choices import Bits, DType, Objective, ProjectionKind, Quantization, Shape, Targets

MINIMUM_PROJECTION_DIM = 64
"""Fewer numbers than this say nothing about a gradient (noise variance 1/64)."""

MAXIMUM_PROJECTION_DIM = 2**28
"""A row of 512 MiB in half precision; larger is surely a slip."""


class Frozen(BaseModel):
    """Base of the settings: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ProjectionSettings(Frozen):
    """Everything that the map gradient → RapidGrad depends on besides the parameters' shapes.

    Attributes:
        kind: ``shuffled`` shuffles and projects the formed gradient, ``factored`` sketches each layer from the
            factors of its gradient; see `rapidin.attribution.projections`. A store never mixes them.
        dimension: K, the numbers in a RapidGrad; a power of two.
        shuffles: λ, the rounds of random shuffling (Alg. 1); without meaning for ``factored``.
        seed: of shuffling and Rademacher signs.
        objective: what of a target token is differentiated, see `rapidin.attribution.gradients.objectives`.
        normalise_layers: whether each parameter tensor's gradient is divided by its L2 norm.
        version: of the map's definition; a store never mixes versions.
    """

    kind: ProjectionKind = "shuffled"
    dimension: int = 65536
    shuffles: Annotated[int, Field(ge=1, le=10_000)] = 20
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    objective: Objective = "loss"
    normalise_layers: bool = True
    version: Literal[1] = 1

    @field_validator("dimension")
    @classmethod
    def _power_of_two(cls, dimension: int) -> int:
        if not MINIMUM_PROJECTION_DIM <= dimension <= MAXIMUM_PROJECTION_DIM or dimension & (dimension - 1):
            raise SettingError(
                f"projection dimension {dimension} cannot be used: "
                f"give a power of two from {MINIMUM_PROJECTION_DIM} to {MAXIMUM_PROJECTION_DIM}, "
                "for example 65536"
            )
        return dimension


CODEC_OF_BITS: dict[int, str] = {16: "fp16", 4: "hadamard-uniform4", 1: "hadamard-rabitq1"}
"""Names of the codecs that ``--bits`` chooses; see `rapidin.storage.vectors.codecs`."""


class CodecSettings(Frozen):
    """How the numbers of a RapidGrad are kept.

    Attributes:
        name: name of the codec; see `rapidin.storage.vectors.codecs`. Without it, `CODEC_OF_BITS` gives the name.
        bits: bits of a number, which follow from the codec and are kept beside its name for comparisons.
    """

    bits: Bits = 16
    name: str = CODEC_OF_BITS[16]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and "name" not in values and values.get("bits") in CODEC_OF_BITS:
            return {**values, "name": CODEC_OF_BITS[values["bits"]]}
        return values


class ModelSettings(Frozen):
    """Where the model comes from and which of its parameters are traced.

    Attributes:
        model: directory or hub id, as it can be loaded again (directories are absolute).
        adapter: PEFT adapter directory or hub id, or None.
        dtype: of the weights in memory; ``auto`` takes the checkpoint's.
        quantization: of the frozen base under an adapter.
        parameters: regular expression; only parameters whose name it finds are traced. None: the trainable
            matrices, or where there is none (as in adapters that only scale) all that is trainable.
    """

    model: str
    adapter: str | None = None
    dtype: DType = "auto"
    quantization: Quantization = "none"
    parameters: str | None = None

    @field_validator("parameters")
    @classmethod
    def _readable_expression(cls, parameters: str | None) -> str | None:
        if parameters is not None:
            try:
                re.compile(parameters)
            except re.error as error:
                raise SettingError(f"--parameters {parameters!r} is not a regular expression: {error}") from error
        return parameters


class Template(Frozen):
    """How a row of fields becomes prompt and response.

    The strings are Python format strings over the row's fields, for example ``{instruction}``.

    Attributes:
        prompt: text before the response.
        prompt_with_input: used instead of `prompt` where the row's field ``input`` is not empty; None: never.
        response: text whose tokens are the targets.
        add_bos: whether the beginning-of-sequence token is put first; None: where the tokenizer has one of
            its own, that is, one that differs from its end-of-sequence token, or puts it first by itself.
        add_eos: whether the end-of-sequence token is the last target.
    """

    prompt: str
    response: str
    prompt_with_input: str | None = None
    add_bos: bool | None = None
    add_eos: bool = True


class TextSettings(Frozen):
    """How rows become tokens and targets.

    Attributes:
        template: the user's, or None for the built-in one of each row shape.
        max_length: tokens of a sample; what is beyond is cut off. None: the model's context, at most 2,048.
        targets: which tokens are targets, the response's or all but the first.
        shape: of the rows that the store was created from; a bare prompt of a search is put into it.
    """

    template: Template | None = None
    max_length: Annotated[int, Field(ge=2)] | None = None
    targets: Targets = "response"
    shape: Shape | None = None


class Fingerprint(Frozen):
    """Digests that tell one model from another.

    Attributes:
        model: digest of each weight tensor of the base model, by name.
        adapter: the same of the adapter; empty without one.
    """

    model: dict[str, str]
    adapter: dict[str, str] = {}


class TracedParameter(Frozen):
    """One parameter tensor of the gradient, at its place in the flattened vector.

    Attributes:
        name: as in ``model.named_parameters()``.
        shape: of the tensor.
    """

    name: str
    shape: tuple[int, ...]


class StoreSettings(Frozen):
    """All that a store is created with."""

    model: ModelSettings
    text: TextSettings = TextSettings()
    projection: ProjectionSettings = ProjectionSettings()
    codec: CodecSettings = CodecSettings()
    traced: tuple[TracedParameter, ...]
    fingerprint: Fingerprint
