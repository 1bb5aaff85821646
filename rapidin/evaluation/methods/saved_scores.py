"""Scores that are kept from run to run, so that nothing is computed twice.

A file's name is a digest of everything that decides the scores in it: the store's settings with the fingerprint of
the model, the training samples' ids and texts, the queries' tokens and targets, the method and its settings. So
scores are never used for other data by mistake, and nothing has to be deleted by hand. The scores of a damaged
file are computed again.

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

from rapidin.evaluation.methods.scorer import AskedQuery, TrainingSet
from rapidin.settings import StoreSettings
from rapidin.support import write_whole

logger = logging.getLogger(__name__)

SCORES_VERSION = 1
"""Version of the methods; it is raised when a method begins to give other scores for the same data."""
SCORES_DIRECTORY = "evaluation"
"""Name of the directory in a store where scores are kept unless the user names another; nothing else reads it."""
_SUFFIX = ".npz"


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores of some queries, with the time and memory that they took.

    Attributes:
        scores: scores, float32 [q, n].
        seconds: seconds that scoring took.
        preparation: seconds of the work on the training samples that is done once, beforehand.
        memory: maximum number of bytes by which the process grew; None if unknown.
        device_memory: maximum number of bytes taken on GPUs; None if none was used.
        resumed: whether an earlier run has computed the scores.
    """

    scores: NDArray[np.float32]
    seconds: float
    preparation: float
    memory: int | None
    device_memory: int | None
    resumed: bool = False


def digest_of(*parts: object) -> str:
    """Compute the digest of plain JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def data_digest(settings: StoreSettings, training: TrainingSet) -> str:
    """Compute the digest of a store's settings and training samples; it does not matter where the model is."""
    plain = settings.model_dump(mode="json")
    for place in ("model", "adapter", "checkpoints"):
        plain["model"].pop(place, None)
    return digest_of(SCORES_VERSION, plain, [(sample.id, sample.content_hash) for sample in training.samples])


def key_of(data: str, method: str, settings: Mapping[str, Any], queries: Sequence[AskedQuery]) -> str:
    """Make the name under which a method's scores of these queries are kept."""
    asked = [
        (query.query.id, query.query.prompt, query.query.generation, query.encoded.ids, query.encoded.targets)
        for query in queries
    ]
    return f"{method}-{digest_of(data, method, dict(settings), asked)}"


class SavedScores:
    """The files of scores in a directory.

    Args:
        directory: directory that is made when something is saved; None to keep nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def load(self, key: str, queries: int, samples: int) -> Measured | None:
        """Read the scores that are kept under a key; None if none of that size can be read."""
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
            logger.warning("%s is damaged (%s): its scores are computed again", path, error)
            return None
        if scores.shape != (queries, samples) or scores.dtype != np.float32 or not np.isfinite(scores).all():
            logger.warning("%s does not hold what its name says: its scores are computed again", path)
            return None
        return Measured(scores, seconds, preparation, _known(memory), _known(device_memory), resumed=True)

    def save(self, key: str, measured: Measured) -> None:
        """Keep scores; if that is not possible, warn once and go on."""
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
                path,
                lambda file: np.savez(file, scores=measured.scores, took=np.array(took)),
                durable=False,
                follow=False,
            )
        except OSError as error:
            logger.warning(
                "%s: %s; scores are not kept for the next run; give another directory with --work",
                self._directory,
                error.strerror or error,
            )
            self._directory = None


def _known(value: float) -> int | None:
    return None if np.isnan(value) else int(value)
