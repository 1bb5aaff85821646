"""Tiny stores: 64 numbers in a vector, samples named s000, s001, …"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np

from rapidin.records.samples import Sample
from rapidin.settings.choices import Bits
from rapidin.settings.store_settings import (
    CodecSettings,
    Fingerprint,
    GradientSettings,
    ModelSettings,
    ProjectionSettings,
    StoreSettings,
    TracedParameter,
)
from rapidin.storage import NewSample, Store

DIMENSION = 64
ROOT = Path(__file__).parents[2]


def store_settings(dimension: int = DIMENSION, bits: Bits = 16) -> StoreSettings:
    return StoreSettings(
        model=ModelSettings(model="/models/tiny"),
        gradient=GradientSettings(objective="loss"),
        projection=ProjectionSettings(dimension=dimension),
        codec=CodecSettings(bits=bits),
        traced=(
            TracedParameter(name="a.weight", shape=(3, 5)),
            TracedParameter(name="a.bias", shape=(5,)),
        ),
        fingerprint=Fingerprint(model={"a.weight": "00"}),
    )


def new_sample(id: str, **changes) -> NewSample:
    values = {
        "prompt": f"prompt of {id} ",
        "response": f"response of {id}",
        "metadata": {"topic": "even"},
        "file": "data.jsonl",
        "row": 1,
        "tokens": 10,
        "targets": 5,
        "truncated": False,
        "content_hash": f"hash of {id}",
    }
    return NewSample(id=id, **(values | changes))


def plain(sample: Sample) -> dict:
    """The fields of `records.Sample`, so that new samples compare with stored ones."""
    return {field.name: getattr(sample, field.name) for field in fields(Sample)}


def numbered(start: int, stop: int) -> list[NewSample]:
    return [
        new_sample(
            f"s{i:03}",
            row=i,
            tokens=10 + i,
            metadata={"topic": "even" if i % 2 == 0 else "odd", "rank": i, "nested": {"a": [i, None]}},
        )
        for i in range(start, stop)
    ]


def random_vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def halved(vectors: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
    """What half precision keeps of the vectors: the truth that scores are compared with."""
    scales = np.ones(len(vectors), np.float32) if scales is None else scales
    return (vectors / scales[:, None]).astype(np.float16).astype(np.float32) * scales[:, None]


def segment_files(store: Store) -> list[Path]:
    return sorted((store.path / "segments").iterdir())


def fill(store: Store) -> None:
    vectors = random_vectors(20)
    with store.writer() as writer:
        for start in (0, 8, 16):
            stop = min(start + 8, 20)
            writer.commit(numbered(start, stop), vectors[start:stop])


def flip_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(bytes(content))


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, from the root of the repository."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
