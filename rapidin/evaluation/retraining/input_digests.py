"""Digests of the files that a retraining reads. Saved losses are used again only if the digests are equal."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from rapidin.errors import DataFileError
from rapidin.evaluation.retraining.trainer import Training
from rapidin.model import fingerprint
from rapidin.settings import ModelSettings


def inputs_digest(training: Training, data: Sequence[Path]) -> dict[str, object]:
    """Digests of everything outside the store that a retraining reads, as plain JSON.

    These are the weights of an initial checkpoint, the data files, and the files that a command names, such as its
    script. Modules that a script imports are not read.

    Args:
        training: settings of the training.
        data: data files whose rows a command gets.

    Raises:
        DataFileError: a file cannot be read.
        ModelError: the initial checkpoint holds no weights.
    """
    initial = None if training.initial is None else fingerprint(ModelSettings(model=training.initial))
    words = sorted(set(shlex.split(training.command or "")))
    return {
        "initial": None if initial is None else initial.model,
        "data": [_digest(file) for file in data],
        "command": {word: _digest(Path(word)) for word in words if Path(word).is_file()},
    }


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataFileError(f"{file} cannot be read: {error.strerror or error}; make it readable") from error
