"""The format of an export, a directory that other programs can read, and that `importing` takes in again.

``store.json``                    `Manifest`: settings of the store, and what else is there
``samples.parquet``               one row for each sample, columns as in `SCHEMA`
``vectors-00000.safetensors`` …   tensor ``vectors``, float32 [rows, K]; or
``vectors.npy``                   all of them, float32 [n, K]

Samples and vectors are in the same order. Vectors have the coordinates and size of RapidGrads, whatever codec they
come from, so an inner product with a query's RapidGrad is its score.

n samples · K numbers in a vector.
"""

from __future__ import annotations

import io
import json
from typing import Annotated, Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from rapidin.settings import ExportFormat, Frozen, StoreSettings

MANIFEST_NAME = "store.json"
SAMPLES_NAME = "samples.parquet"
NUMPY_NAME = "vectors.npy"
TENSOR_NAME = "vectors"
VERSION: Final = 1
SHARD_BYTES = 2**30
"""Of a safetensors file's vectors at most, but at least one."""

SPANS = pa.field("target_spans", pa.string())
SCHEMA = pa.schema(
    [
        *(
            pa.field(name, kind, nullable=False)
            for name, kind in (
                *((name, pa.string()) for name in ("id", "prompt", "response", "metadata", "file")),
                *((name, pa.int64()) for name in ("row", "tokens", "targets")),
                ("truncated", pa.bool_()),
                ("content_hash", pa.string()),
            )
        ),
        SPANS,
    ]
)
"""Columns of the samples, named as in `records.Sample`; metadata is the text of a JSON object.

`SPANS` is the text of a JSON list of pairs, null where there are none. Other programs may leave the column out.
"""


class VectorFile(Frozen):
    """A file of vectors, and how many."""

    name: Annotated[str, Field(pattern=r"^(vectors-[0-9]{5,}\.safetensors|vectors\.npy)$")]
    rows: Annotated[int, Field(ge=1)]


class Manifest(Frozen):
    """``store.json`` of an export.

    Attributes:
        about: a line for whoever finds the directory.
        version: of this form; `importing` refuses a newer one.
        format: of the files of vectors.
        samples: n.
        files: of vectors, in order; none where there are no samples.
        settings: of the store that was exported.
    """

    about: str
    version: Literal[1] = VERSION
    format: ExportFormat
    samples: Annotated[int, Field(ge=0)]
    files: tuple[VectorFile, ...]
    settings: StoreSettings


def shards(samples: int, dimension: int, kind: ExportFormat) -> tuple[VectorFile, ...]:
    """The files that n vectors of K numbers go to."""
    if kind == "numpy":
        return (VectorFile(name=NUMPY_NAME, rows=samples),) if samples else ()
    most = max(1, SHARD_BYTES // (4 * dimension))
    return tuple(
        VectorFile(name=f"vectors-{number:05}.safetensors", rows=min(most, samples - start))
        for number, start in enumerate(range(0, samples, most))
    )


def header(kind: ExportFormat, rows: int, dimension: int) -> bytes:
    """What stands in a file before its vectors, which follow as they lie in memory.

    Written here because both libraries would hold a whole file in memory, or map it, where a full disk kills the
    process. The form of safetensors: https://github.com/huggingface/safetensors#format
    """
    if kind == "numpy":
        buffer = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
        np.lib.format.write_array_header_1_0(buffer, description)
        return buffer.getvalue()
    tensor = {"dtype": "F32", "shape": [rows, dimension], "data_offsets": [0, 4 * rows * dimension]}
    text = json.dumps({TENSOR_NAME: tensor}).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text
