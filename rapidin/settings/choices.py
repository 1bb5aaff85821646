"""Values that a setting or a flag may take, in their own module so that the help imports nothing heavy."""

from typing import Literal

DType = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "8bit", "4bit"]
Targets = Literal["response", "all"]
Objective = Literal["loss", "log-odds"]
RowObjective = Literal["both", "loss", "log-odds"]
"""Objective of stored rows; ``both``: a RapidGrad has one half for each."""
OnError = Literal["fail", "skip"]
Shape = Literal["template", "chat", "alpaca", "completion", "text"]
ProjectionKind = Literal["shuffled", "factored"]
Bits = Literal[1, 4, 16]
IndexKind = Literal["ivf", "rabitq"]
IndexChoice = Literal["auto", "exact", "ivf", "rabitq"]
MeasureChoice = Literal["influence", "cosine"]
DampingChoice = float | Literal["default"]
"""Damping of a store's curvature: a number for all questions, or that of `CURVATURE_DAMPING` for each question."""
Answers = Literal["file", "model"]
"""Source of the generations: the file's response if a row has one, or always the model."""
ExportFormat = Literal["safetensors", "numpy"]

MAX_NEW_TOKENS = 256
"""Maximum number of tokens of an answer that the model writes, unless another is given."""
CURVATURE_PROBES = 2_000
"""Number of probes of a store's curvature, unless another is given."""
CURVATURE_DAMPING: dict[Objective, float] = {"loss": 0.1, "log-odds": 3.0}
"""Damping of a store's curvature by the objective of the question, unless another is given.

Less damping predicts better what retraining would do, and more of it finds more of the samples behind a
behaviour; see ``benchmarks/RESULTS.md``.
"""
RERANKED_PER_RESULT = 3
"""Number of samples whose exact influence is computed for each sample that is wanted.

The samples that are best by exact influence are mostly among them.
"""
