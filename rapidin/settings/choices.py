"""Values that a setting or a flag may take, in their own module so that the help imports nothing heavy."""

from typing import Literal

DType = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "8bit", "4bit"]
Targets = Literal["response", "all"]
Objective = Literal["loss", "log-odds"]
OnError = Literal["fail", "skip"]
Shape = Literal["template", "chat", "alpaca", "completion", "text"]
ProjectionKind = Literal["shuffled", "factored"]
Bits = Literal[1, 4, 16]
IndexKind = Literal["ivf", "rabitq"]
IndexChoice = Literal["auto", "exact", "ivf", "rabitq"]
MeasureChoice = Literal["influence", "cosine"]
ExportFormat = Literal["safetensors", "numpy"]

RERANKED_PER_RESULT = 3
"""Number of samples whose exact influence is computed for each sample that is wanted.

The samples that are best by exact influence are mostly among them.
"""
