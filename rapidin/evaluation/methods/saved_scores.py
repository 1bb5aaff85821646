"""Scores that are kept from run to run: what was computed once is not computed again.

A file's name is a digest of everything that decides the scores in it: the store's settings, with the fingerprint
of the model, the training samples' ids and texts, the queries' tokens and targets, the method and its settings. So
scores of anything else are never taken for these, and nothing has to be cleared by hand. What a damaged file held
is computed anew.

Shape letters: q queries · n samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.evaluation.methods.scoring import AskedQuery, TrainingSet
from rapidin.settings import StoreSettings
from rapidin.support import write_whole

logger = logging.getLogger(__name__)

SCORES_VERSION = 1
"""Changed where a method gives other scores for the same data than before."""
DIRECTORY_NAME = "evaluation"
"""In a store, where scores are kept unless the user names another place; nothing else looks there."""
_SUFFIX = ".npz"


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores of some queries, and what they took.

    Attributes:
        scores: float32 [q, n].
        seconds: that scoring took.
        preparation: seconds of the work on the training samples that had to be done before, once.
        memory: bytes by which the process grew meanwhile, at most; None: unknown.
        device_memory: the same of the GPU's; None: none was used.
        resumed: whether a former run has computed them.
    """

    scores: NDArray[np.float32]
    seconds: float
    preparation: float
    memory: int | None
    device_memory: int | None
    resumed: bool = False


def digest_of(*parts: object) -> str:
    """Digest of plain JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def data_digest(settings: StoreSettings, training: TrainingSet) -> str:
    """Digest of a store's settings and of training samples; where the model lies does not count."""
    plain = settings.model_dump(mode="json")
    for place in ("model", "adapter"):
        plain["model"].pop(place)
    return digest_of(SCORES_VERSION, plain, [(sample.id, sample.content_hash) for sample in training.samples])


def key_of(data: str, method: str, settings: Mapping[str, Any], queries: Sequence[AskedQuery]) -> str:
    """What scores of these queries are kept under."""
    asked = [
        (query.query.id, query.query.prompt, query.query.generation, query.encoded.ids, query.encoded.targets)
        for query in queries
    ]
    return f"{method}-{digest_of(data, method, dict(settings), asked)}"


class SavedScores:
    """The files of a directory.

    Args:
        directory: made when something is saved; None: nothing is kept.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def load(self, key: str, queries: int, samples: int) -> Measured | None:
        """What is kept under a key; None where there is nothing, or nothing of that size that can be read."""
        if self._directory is None:
            return None
        path = self._directory / (key + _SUFFIX)
        try:
            with np.load(path, allow_pickle=False) as file:
                scores = file["scores"]
                seconds, preparation, memory, device_memory = file["took"].tolist()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            logger.warning("%s is damaged (%s): it is computed anew", path, error)
            return None
        if scores.shape != (queries, samples) or scores.dtype != np.float32 or not np.isfinite(scores).all():
            logger.warning("%s does not hold what its name says: it is computed anew", path)
            return None
        return Measured(scores, seconds, preparation, _known(memory), _known(device_memory), resumed=True)

    def save(self, key: str, measured: Measured) -> None:
        """Keep scores; where that is not possible, say so once and go on."""
        if self._directory is None:
            return
        path = self._directory / (key + _SUFFIX)
        took = [
            float("nan") if value is None else float(value)
            for value in (measured.seconds, measured.preparation, measured.memory, measured.device_memory)
        ]
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(
                path, lambda file: np.savez(file, scores=measured.scores, took=np.array(took)), durable=False
            )
        except OSError as error:
            logger.warning(
                "%s: %s; scores are not kept for the next run: --work names another directory",
                self._directory,
                error.strerror or error,
            )
            self._directory = None


def _known(value: float) -> int | None:
    return None if np.isnan(value) else int(value)
