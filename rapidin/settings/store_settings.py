"""Settings that a store is created with and never changes: model, text, gradient, projection, codec.

These models know nothing of torch, transformers, FAISS or SQL, so that every other module may import them.
They are stored as JSON in the store and read back by `StoreSettings.model_validate_json`.

A field that a user may set carries its `Flag`. The command line, the comparison of a request with a store, and
what ``rapidin info`` shows are made from these fields (`setting_table`). So a new setting is a field with a flag
here, its name in `RequestedSettings` and in `StatedSettings` at the end of this file, and the code that uses it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from rapidin.errors import SettingError
from rapidin.settings.choices import (
    Bits,
    DType,
    Objective,
    ProjectionKind,
    Quantization,
    RowObjective,
    Shape,
    Targets,
)
from rapidin.settings.flags import Flag

MINIMUM_PROJECTION_DIM = 64
"""Smallest K; with fewer numbers noise hides the gradient (noise variance 1/64)."""

MINIMUM_SECTION = 32
"""Smallest share of K for one of several objectives and checkpoints: two objectives can share the smallest K."""

MAXIMUM_PROJECTION_DIM = 2**28
"""Largest K; a row of this many numbers takes 512 MiB in half precision, so a larger K is surely a mistake."""


class Frozen(BaseModel):
    """Base of the settings: they are immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class _WithCheckpoints(Frozen):
    """Base of the settings about checkpoints; what they say of checkpoints is written only if there are any."""

    @model_serializer(mode="wrap")
    def _without_empty(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value or key not in _OF_CHECKPOINTS}


_OF_CHECKPOINTS = frozenset({"checkpoints", "learning_rates"})


class ModelSettings(_WithCheckpoints):
    """Where the model is, how it is loaded, and which of its parameters are traced.

    Attributes:
        model: directory (an absolute path) or hub id of the model.
        adapter: directory or hub id of a PEFT adapter; None if there is none.
        dtype: type of the weights in memory; ``auto`` takes the checkpoint's type.
        quantization: quantization of the frozen base under an adapter.
        parameters: regular expression; a parameter is traced if its name contains a match. None traces the
            trainable matrices, or, if there are none (as in adapters that only scale), all trainable parameters.
        checkpoints: directories of checkpoints of the training, whose gradients are compared in place of the
            model's; empty if the model's own are.
        learning_rates: learning rate of the optimiser at each checkpoint; empty if it is not known of all of them.
    """

    model: Annotated[
        str,
        Flag(
            "--model",
            "Directory or hub id of the fine-tuned model. A new store needs it and remembers it.",
            "MODEL",
        ),
    ]
    adapter: Annotated[
        str | None, Flag("--adapter", "Directory or hub id of the model's PEFT adapter.", "ADAPTER")
    ] = None
    dtype: Annotated[
        DType,
        Flag("--dtype", "Type of the weights in memory. Default: auto, which is the checkpoint's type."),
    ] = "auto"
    quantization: Annotated[
        Quantization, Flag("--quantization", "Quantization of the base model under an adapter. Default: none.")
    ] = "none"
    parameters: Annotated[
        str | None,
        Flag(
            "--parameters",
            "Trace only parameters whose name contains a match of this regular expression, for example "
            "'mlp|lm_head'; '.' matches all. Default: the matrices, but not the vectors of norms and biases, "
            "because these blur the influence.",
            "REGEX",
        ),
    ] = None
    checkpoints: Annotated[
        tuple[str, ...],
        Flag(
            "--checkpoint",
            "Directory of a checkpoint of the training, such as a Trainer's checkpoint-500: a whole model, or an "
            "adapter if the model has one. Repeat it for 2, 4 or 8 checkpoints, which share the --projection-dim. "
            "Gradients are then compared at the checkpoints, and their scores are added, weighted by the learning "
            "rates in trainer_state.json, or by those given as DIR=RATE. "
            "It helps a model that was trained from scratch, and hardly one that was fine-tuned.",
            "DIR",
            takes=list[Path],
        ),
    ] = ()
    learning_rates: tuple[float, ...] = ()

    @property
    def states(self) -> int:
        """The number of states of the model whose gradients are compared: the checkpoints, or the model itself."""
        return max(1, len(self.checkpoints))

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each checkpoint in a score: its share of the learning rates, or an equal share."""
        return shares_of(self.learning_rates, len(self.checkpoints))

    @field_validator("parameters")
    @classmethod
    def _readable_expression(cls, parameters: str | None) -> str | None:
        if parameters is not None:
            try:
                re.compile(parameters)
            except re.error as error:
                raise SettingError(
                    f"--parameters {parameters!r} is not a regular expression: {error}; write one like "
                    "'mlp|lm_head'"
                ) from error
        return parameters


def shares_of(learning_rates: Sequence[float], checkpoints: int) -> tuple[float, ...]:
    """Divide a weight of 1 among checkpoints by their learning rates; equally if these are not known."""
    rates = learning_rates or (1.0,) * checkpoints
    return tuple(rate / sum(rates) for rate in rates)


class Template(Frozen):
    """How a row of fields becomes prompt and response.

    The strings are Python format strings over the row's fields, for example ``{instruction}``.

    Attributes:
        prompt: text before the response.
        prompt_with_input: text used instead of `prompt` if the row's field ``input`` is not empty; None to use
            `prompt` always.
        response: text whose tokens are the targets.
        add_bos: whether the beginning-of-sequence token is put first. None puts it first if the tokenizer has one
            that differs from its end-of-sequence token, or puts one first by itself.
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
        template: template of the user; None for the built-in template of each row shape.
        max_length: maximum number of tokens of a sample; the rest is cut off. None for the model's context, but at
            most 2,048.
        targets: tokens that are targets: the response's, or all but the first.
        shape: shape of the rows that the store was created from; a bare prompt of a search is put into it.
    """

    template: Annotated[
        Template | None,
        Flag(
            "--template",
            "JSON file that says how a row's fields become text, for example "
            '{"prompt": "Q: {question}\\nA: ", "response": "{answer}"}.',
            "FILE",
            takes=Path,
        ),
    ] = None
    max_length: Annotated[
        Annotated[int, Field(ge=2)] | None,
        Flag(
            "--max-length",
            "Cut a sample after this many tokens. Default: the model's context, but at most 2048.",
            takes=int,
        ),
    ] = None
    targets: Annotated[
        Targets,
        Flag("--targets", "Tokens whose objective counts: response (default), or all but the first token."),
    ] = "response"
    shape: Shape | None = None


class GradientSettings(Frozen):
    """Which gradient of a sample is compressed.

    Attributes:
        objective: quantity of a target token that is differentiated, see `rapidin.attribution.gradients`; with
            ``both``, a RapidGrad has a half for each.
        normalise_layers: whether each parameter tensor's gradient is divided by its L2 norm.
    """

    objective: Annotated[
        RowObjective,
        Flag(
            "--objective",
            "Quantity of each target token that is differentiated. loss: as in training; it tells best what "
            "retraining would change, and finds facts and errors. log-odds: tokens that the model is sure of "
            "count as much as tokens that it guesses, which finds far more of the samples behind a behaviour, "
            "such as a backdoor. both (default): each gets half of the --projection-dim, so that a search can "
            "ask either question; the gradients then take about twice as long.",
        ),
    ] = "both"
    normalise_layers: Annotated[
        bool,
        Flag("--no-normalisation", "Do not divide each tensor's gradient by its norm.", switches_off=True),
    ] = True

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives that rows can be compared by."""
        return ("loss", "log-odds") if self.objective == "both" else (self.objective,)

    @property
    def default_objective(self) -> Objective:
        """The objective of a question that names none: the store's own, or the first if rows have both."""
        return self.objectives[0]


class ProjectionSettings(Frozen):
    """Everything, besides the parameters' shapes, that the map from a gradient to a RapidGrad depends on.

    Attributes:
        kind: ``shuffled`` shuffles and projects the formed gradient, ``factored`` sketches each layer from the
            factors of its gradient; see `rapidin.attribution.projections`. A store never mixes them.
        dimension: K, how many numbers a RapidGrad has; a power of two.
        shuffles: λ, the number of random shuffles (Alg. 1); ``factored`` ignores it.
        seed: seed of shuffling and Rademacher signs.
        version: version of the map's definition; a store never mixes versions.
        sections: number of such maps that share a row's numbers, which errors count with; it is not stored.
    """

    kind: Annotated[
        ProjectionKind,
        Flag(
            "--projection",
            "How gradients are compressed. factored: computed from the layers' inputs and outputs, faster than a "
            "training step. shuffled: computed from the gradients themselves, as in the paper. Default: the "
            "faster one for this K and model.",
        ),
    ] = "shuffled"
    dimension: Annotated[
        int,
        Flag(
            "--projection-dim",
            "K, how many numbers a RapidGrad has: a power of two. A larger K means less noise and more disk "
            "space. Default: 65536, or less for a small adapter.",
        ),
    ] = 65536
    shuffles: Annotated[
        int,
        Field(ge=1, le=10_000),
        Flag("--shuffles", "Number of random shuffles in the shuffled projection. Default: 20."),
    ] = 20
    seed: Annotated[
        int, Field(ge=0, lt=2**63), Flag("--seed", "Seed of shuffling and projection. Default: 0.")
    ] = 0
    version: Literal[1] = 1
    sections: Annotated[int, Field(exclude=True)] = 1

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
"""Default bits of a number. They take a quarter of half precision's bytes, are searched faster, and add hardly any
noise (benchmarks/RESULTS.md)."""


class CodecSettings(Frozen):
    """How the numbers of a RapidGrad are kept.

    Attributes:
        bits: bits of a number, which follow from the codec and are kept beside its name for comparisons.
        name: name of the codec, see `rapidin.storage.vectors.codecs`; it is taken from `CODEC_OF_BITS` if it is
            not given.
    """

    bits: Annotated[
        Bits,
        Flag(
            "--bits",
            "Bits of each number of a RapidGrad on disk: 16, 4 or 1. Default: 4. With 1 bit and four times the "
            "--projection-dim a store is as large as with 4 bits, less noisy and faster to search, but takes "
            "longer to make.",
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


class Fingerprint(_WithCheckpoints):
    """Digests that tell one model from another.

    Attributes:
        model: digest of each weight tensor of the base model, by name.
        adapter: digest of each weight tensor of the adapter, by name; empty without one.
        checkpoints: digest of each weight tensor of every checkpoint, by name.
    """

    model: dict[str, str]
    adapter: dict[str, str] = {}
    checkpoints: tuple[dict[str, str], ...] = ()


class TracedParameter(Frozen):
    """One parameter tensor of the gradient, at its place in the flattened vector.

    Attributes:
        name: name in ``model.named_parameters()``.
        shape: shape of the tensor.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProbeShape:
    """Shape of a probe of the curvature, and of a query before its objective's place in a row is known.

    Attributes:
        dimension: number of numbers: K, or half of it if rows have two objectives.
        sections: number of sections that they are divided among, one for each checkpoint.
    """

    dimension: int
    sections: int


class StoreSettings(Frozen):
    """All settings that a store is created with."""

    model: ModelSettings
    text: TextSettings = TextSettings()
    gradient: GradientSettings = GradientSettings()
    projection: ProjectionSettings = ProjectionSettings()
    codec: CodecSettings = CodecSettings()
    traced: tuple[TracedParameter, ...]
    fingerprint: Fingerprint

    @property
    def section(self) -> ProjectionSettings:
        """The projection to one section of a RapidGrad."""
        return section_of(self.projection, self.model, self.gradient)

    @property
    def probe_shape(self) -> ProbeShape:
        """Shape of a probe of the store's curvature."""
        return probe_shape_of(self.projection, self.model, self.gradient)


def probe_shape_of(projection: ProjectionSettings, model: ModelSettings, gradient: GradientSettings) -> ProbeShape:
    """Return the shape of a probe of a store with some settings."""
    return ProbeShape(projection.dimension // len(gradient.objectives), model.states)


def section_of(
    projection: ProjectionSettings, model: ModelSettings, gradient: GradientSettings
) -> ProjectionSettings:
    """Divide a projection to K numbers among sections: one for each objective and checkpoint.

    Args:
        projection: the projection to all K numbers.
        model: settings of the model, which name the checkpoints.
        gradient: settings of the gradient, which name the objectives.

    Raises:
        SettingError: K cannot be divided equally, or leaves too few numbers to a section.
    """
    states, objectives = model.states, len(gradient.objectives)
    sections = states * objectives
    if sections == 1:
        return projection
    if states & (states - 1):
        raise SettingError(
            f"{states} checkpoints cannot share --projection-dim {projection.dimension} equally: give 2, 4 or 8 "
            "of them"
        )
    if projection.dimension < sections * MINIMUM_SECTION:
        asked = [f"{states} checkpoints"] * (states > 1) + ["two objectives"] * (objectives > 1)
        fewer = ", or --objective loss" if objectives > 1 else ""
        raise SettingError(
            f"--projection-dim {projection.dimension} is too small for {' with '.join(asked)}: give at least "
            f"{sections * MINIMUM_SECTION}{fewer}"
        )
    return projection.model_copy(update={"dimension": projection.dimension // sections, "sections": sections})


class RequestedSettings(TypedDict, total=False):
    """Settings that a caller asks a store to have, by the names of the command line's options.

    A setting that is missing or None is taken from the store, or has its default if the store is new. `template`
    is a file. The fields of this module's models say what each setting means.
    """

    model: str | None
    adapter: str | None
    dtype: DType | None
    quantization: Quantization | None
    parameters: str | None
    checkpoints: Sequence[str | Path] | None
    template: str | Path | None
    max_length: int | None
    targets: Targets | None
    objective: RowObjective | None
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
    checkpoints: tuple[str, ...]
    template: dict[str, Any] | None
    max_length: int | None
    targets: Targets
    objective: RowObjective
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
        kind_given: whether the user, or an existing store, has chosen the projection. If not, K and the model's
            size decide.
        dimension_given: whether the user, or an existing store, has chosen K. If not, a small adapter may get a
            smaller K than the default.
    """

    model: ModelSettings
    text: TextSettings
    gradient: GradientSettings
    projection: ProjectionSettings
    codec: CodecSettings
    kind_given: bool = True
    dimension_given: bool = True

    @property
    def probe_shape(self) -> ProbeShape:
        """Shape of a probe of the store's curvature."""
        return probe_shape_of(self.projection, self.model, self.gradient)
