"""What a store is created with and never changes: model, text, gradient, projection, codec.

These models know nothing of torch, transformers, FAISS or SQL, so that every other module may import them.
They are stored as JSON in the store and read back by `StoreSettings.model_validate_json`.

A field that a user may set carries its `Flag`. The command line, the comparison of a request with a store, and
what ``rapidin info`` shows are made from these fields (`setting_table`). So a new setting is a field with a flag
here, its name in `RequestedSettings` and in `StatedSettings` at the end of this file, and the code that uses it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rapidin.errors import SettingError
from rapidin.settings.choices import Bits, DType, Objective, ProjectionKind, Quantization, Shape, Targets
from rapidin.settings.flags import Flag

MINIMUM_PROJECTION_DIM = 64
"""Fewer numbers than this say nothing about a gradient (noise variance 1/64)."""

MAXIMUM_PROJECTION_DIM = 2**28
"""A row of this many numbers takes 512 MiB in half precision; a larger K is surely a slip."""


class Frozen(BaseModel):
    """Base of the settings: they are immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelSettings(Frozen):
    """Where the model comes from and which of its parameters are traced.

    Attributes:
        model: directory or hub id, as it can be loaded again (directories are absolute).
        adapter: PEFT adapter directory or hub id, or None.
        dtype: type of the weights in memory; ``auto`` takes the checkpoint's.
        quantization: quantization of the frozen base under an adapter.
        parameters: regular expression; only parameters whose name it finds are traced. None: the trainable
            matrices, or where there is none (as in adapters that only scale) all that is trainable.
    """

    model: Annotated[
        str, Flag("--model", "Directory or hub id of the fine-tuned model; a new store needs it.", "MODEL")
    ]
    adapter: Annotated[
        str | None, Flag("--adapter", "Directory or hub id of the model's PEFT adapter.", "ADAPTER")
    ] = None
    dtype: Annotated[
        DType,
        Flag("--dtype", "Type of the weights in memory. auto, unless given: the type of the checkpoint."),
    ] = "auto"
    quantization: Annotated[
        Quantization, Flag("--quantization", "Quantization of the base model under an adapter; none unless given.")
    ] = "none"
    parameters: Annotated[
        str | None,
        Flag(
            "--parameters",
            "Trace the parameters in whose name this expression is found, e.g. 'mlp|lm_head'; '.' is found in "
            "all. Unless given, the matrices are traced, but not the vectors of norms and biases, because these "
            "blur the influence.",
            "REGEX",
        ),
    ] = None

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
        prompt_with_input: text used instead of `prompt` where the row's field ``input`` is not empty; None: never.
        response: text whose tokens are the targets.
        add_bos: whether the beginning-of-sequence token is put first. None: it is put first where the tokenizer
            has one that differs from its end-of-sequence token, or puts one first by itself.
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
        template: the user's template, or None for the built-in one of each row shape.
        max_length: maximum tokens of a sample; the rest is cut off. None: the model's context, at most 2,048.
        targets: which tokens are targets, the response's or all but the first.
        shape: shape of the rows that the store was created from; a bare prompt of a search is put into it.
    """

    template: Annotated[
        Template | None,
        Flag(
            "--template",
            'JSON file that says how a row becomes text: {"prompt": "Q: {question}\\nA: ", '
            '"response": "{answer}"}.',
            "FILE",
            takes=Path,
        ),
    ] = None
    max_length: Annotated[
        Annotated[int, Field(ge=2)] | None,
        Flag(
            "--max-length",
            "Cut a sample after this many tokens; unless given, at the model's context, but at most at 2048.",
            takes=int,
        ),
    ] = None
    targets: Annotated[
        Targets,
        Flag("--targets", "Which tokens are targets: the response's, unless given, or all but the first."),
    ] = "response"
    shape: Shape | None = None


class GradientSettings(Frozen):
    """Which gradient of a sample is compressed.

    Attributes:
        objective: quantity of a target token that is differentiated, see `rapidin.attribution.gradients`.
        normalise_layers: whether each parameter tensor's gradient is divided by its L2 norm.
    """

    objective: Annotated[
        Objective,
        Flag(
            "--objective",
            "What of a token is differentiated. loss, unless given: as in training; it tells facts and errors "
            "apart best. log-odds: tokens that the model is sure of count as much as those that it guesses, which "
            "finds far more of the samples behind a behaviour, such as a backdoor.",
        ),
    ] = "loss"
    normalise_layers: Annotated[
        bool,
        Flag("--no-normalisation", "Do not divide each tensor's gradient by its norm.", switches_off=True),
    ] = True


class ProjectionSettings(Frozen):
    """Everything that the map gradient → RapidGrad depends on besides the parameters' shapes.

    Attributes:
        kind: ``shuffled`` shuffles and projects the formed gradient, ``factored`` sketches each layer from the
            factors of its gradient; see `rapidin.attribution.projections`. A store never mixes them.
        dimension: K, the numbers in a RapidGrad; a power of two.
        shuffles: λ, the rounds of random shuffling (Alg. 1); without meaning for ``factored``.
        seed: seed of shuffling and Rademacher signs.
        version: version of the map's definition; a store never mixes versions.
    """

    kind: Annotated[
        ProjectionKind,
        Flag(
            "--projection",
            "How gradients are compressed. factored: from the layers' inputs and outputs, faster than a training "
            "step. shuffled: from the gradients themselves, as in the paper. Unless given, the faster one for "
            "this K and model.",
        ),
    ] = "shuffled"
    dimension: Annotated[
        int,
        Flag(
            "--projection-dim",
            "K, the numbers in a RapidGrad: a power of two, 65536 unless given. More: less noise, more disk.",
        ),
    ] = 65536
    shuffles: Annotated[
        int,
        Field(ge=1, le=10_000),
        Flag("--shuffles", "Rounds of random shuffling of the shuffled projection; 20 unless given."),
    ] = 20
    seed: Annotated[
        int, Field(ge=0, lt=2**63), Flag("--seed", "Seed of shuffling and projection; 0 unless given.")
    ] = 0
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

_BITS: Bits = 4
"""Bits of a number in a new store: a quarter of half precision's bytes, sooner searched, and hardly noisier
(benchmarks/RESULTS.md)."""


class CodecSettings(Frozen):
    """How the numbers of a RapidGrad are kept.

    Attributes:
        bits: bits of a number, which follow from the codec and are kept beside its name for comparisons.
        name: name of the codec; see `rapidin.storage.vectors.codecs`. Without it, `CODEC_OF_BITS` gives the name.
    """

    bits: Annotated[
        Bits,
        Flag(
            "--bits",
            "Bits of each number of a RapidGrad on disk: 16, 4 or 1; 4 unless given. With 1 a store of four times "
            "the --projection-dim is as large as with 4, less noisy, and sooner searched, but takes longer to "
            "make.",
            takes=int,
        ),
    ] = _BITS
    name: str = CODEC_OF_BITS[_BITS]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and "name" not in values and values.get("bits") in CODEC_OF_BITS:
            return {**values, "name": CODEC_OF_BITS[values["bits"]]}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        of_name = {name: bits for bits, name in CODEC_OF_BITS.items()}.get(self.name, self.bits)
        if of_name != self.bits:
            raise SettingError(f"codec {self.name!r} keeps {of_name} bits, not {self.bits}: leave the name out")
        return self


class Fingerprint(Frozen):
    """Digests that tell one model from another.

    Attributes:
        model: digest of each weight tensor of the base model, by name.
        adapter: digest of each weight tensor of the adapter, by name; empty without one.
    """

    model: dict[str, str]
    adapter: dict[str, str] = {}


class TracedParameter(Frozen):
    """One parameter tensor of the gradient, at its place in the flattened vector.

    Attributes:
        name: name in ``model.named_parameters()``.
        shape: shape of the tensor.
    """

    name: str
    shape: tuple[int, ...]


class StoreSettings(Frozen):
    """All that a store is created with."""

    model: ModelSettings
    text: TextSettings = TextSettings()
    gradient: GradientSettings = GradientSettings()
    projection: ProjectionSettings = ProjectionSettings()
    codec: CodecSettings = CodecSettings()
    traced: tuple[TracedParameter, ...]
    fingerprint: Fingerprint


class RequestedSettings(TypedDict, total=False):
    """Settings that a caller asks a store to have, by the names of the command line's options.

    What is left out, or None, is the store's own, or a default. `template` is a file. The fields of this module's
    models say what each one means.
    """

    model: str | None
    adapter: str | None
    dtype: DType | None
    quantization: Quantization | None
    parameters: str | None
    template: str | Path | None
    max_length: int | None
    targets: Targets | None
    objective: Objective | None
    normalise_layers: bool | None
    projection: ProjectionKind | None
    projection_dim: int | None
    shuffles: int | None
    seed: int | None
    bits: Bits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedSettings:
    """Settings that a store has, by the names of the command line's options; see this module's models."""

    model: str
    adapter: str | None
    dtype: DType
    quantization: Quantization
    parameters: str | None
    template: dict[str, Any] | None
    max_length: int | None
    targets: Targets
    objective: Objective
    normalise_layers: bool
    projection: ProjectionKind
    projection_dim: int
    shuffles: int
    seed: int
    bits: Bits


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """The parts of a store's settings that do not depend on the loaded model.

    Attributes:
        kind_given: whether the user, or an existing store, says which projection to take. If not, K and the
            model's size decide.
        dimension_given: whether the user, or an existing store, says what K is. If not, a small adapter may get
            a smaller one than the default.
    """

    model: ModelSettings
    text: TextSettings
    gradient: GradientSettings
    projection: ProjectionSettings
    codec: CodecSettings
    kind_given: bool = True
    dimension_given: bool = True
