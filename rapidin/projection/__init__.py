"""The linear maps from a gradient to its RapidGrad.

`shuffled` is the paper's, random shuffling and Rademacher projection of the formed gradient; `factored` sketches a
layer's gradient from its factors. A store is made with one of them and never mixes.
"""

from rapidin.projection.factored import Copied, FactoredProjection, TensorSketch, TransformedColumns
from rapidin.projection.shuffled import ShuffledProjection

__all__ = ["Copied", "FactoredProjection", "ShuffledProjection", "TensorSketch", "TransformedColumns"]
