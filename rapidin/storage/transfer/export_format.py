"""The format of an export: a directory that other programs can read, and that `importing` reads again.

``store.json``                    `Manifest`: settings of the store, and a list of the files of vectors
``samples.parquet``               one row for each sample, with the columns of `SCHEMA`
``vectors-00000.safetensors`` …   tensor ``vectors``, float32 [rows, K]; or
``vectors.npy``                   all vectors, float32 [n, K]
``curvature/``                    one file: the curvature, if all samples of a store with one were exported

Samples and vectors are in the same order. Vectors have the coordinates and scale of RapidGrads, whatever codec
they come from, so an inner product with a query's RapidGrad is a score.

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
"""Maximum number of bytes of vectors in a safetensors file, which holds at least one vector."""

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

`SPANS` is the text of a JSON list of pairs, or null without spans. Other programs may leave the column out.
"""


class VectorFile(Frozen):
    """A file of vectors, and the number of its rows."""

    name: Annotated[str, Field(pattern=r"^(vectors-[0-9]{5,}\.safetensors|vectors\.npy)$")]
    rows: Annotated[int, Field(ge=1)]


class CurvatureFile(Frozen):
    """The curvature of the store that was exported.

    Attributes:
        name: name of its file in the folder ``curvature``.
        bytes: size of the file.
        checksum: XXH3-128 of the file.
        parameters: text of a JSON object, which a store keeps beside the file.
    """

    name: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.safetensors$")]
    bytes: Annotated[int, Field(ge=1)]
    checksum: str
    parameters: str


class Manifest(Frozen):
    """``store.json`` of an export.

    Attributes:
        about: one line that explains the directory to people.
        version: version of this format; `importing` refuses newer ones.
        format: format of the files of vectors.
        samples: number of samples n.
        files: files of vectors, in order; there are none without samples.
        settings: settings of the store that was exported.
        curvature: curvature of the store; None if the export has none.
    """

    about: str
    version: Literal[1] = VERSION
    format: ExportFormat
    samples: Annotated[int, Field(ge=0)]
    files: tuple[VectorFile, ...]
    settings: StoreSettings
    curvature: CurvatureFile | None = None


def shards(samples: int, dimension: int, kind: ExportFormat) -> tuple[VectorFile, ...]:
    """Divide n vectors of K numbers among files."""
    if kind == "numpy":
        return (VectorFile(name=NUMPY_NAME, rows=samples),) if samples else ()
    most = max(1, SHARD_BYTES // (4 * dimension))
    return tuple(
        VectorFile(name=f"vectors-{number:05}.safetensors", rows=min(most, samples - start))
        for number, start in enumerate(range(0, samples, most))
    )


def header(kind: ExportFormat, rows: int, dimension: int) -> bytes:
    """Return the beginning of a file; its vectors follow as they lie in memory.

    Both libraries could write the file, but would hold it in memory or map it, and a full disk kills a process
    that writes to a mapped file. Format of safetensors: https://github.com/huggingface/safetensors#format
    """
    if kind == "numpy":
        buffer = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
        np.lib.format.write_array_header_1_0(buffer, description)
        return buffer.getvalue()
    tensor = {"dtype": "F32", "shape": [rows, dimension], "data_offsets": [0, 4 * rows * dimension]}
    text = json.dumps({TENSOR_NAME: tensor}).encode()
    text += b" " * (-len(text) % 8)  # padding aligns the numbers
    return len(text).to_bytes(8, "little") + text
