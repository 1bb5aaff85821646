"""Failures of samples: whether a row is to blame for them, or something that no row can mend.

A model that fails on every sample in one way (a package is missing, a kernel has no backward step) would make
``--on-error skip`` leave out all rows, one by one, and blame each of them.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence

from rapidin.errors import GradientError, ModelError
from rapidin.ingest.blocks import WorkBlock

_ENOUGH = 5
"""Number of samples that must have failed in one way, with none that did not, to blame the model."""
_OF_THE_MODEL = re.compile(r"^the model failed on it: (NotImplementedError|ImportError|ModuleNotFoundError)\b")
"""Failures that cannot come from a row."""


class Failures:
    """Decides what is to blame for samples that failed.

    Args:
        lengths: number of tokens of every sample of the ingest.
        skip_errors: whether samples that fail are left out.
        usable: number of samples of the same data that are known to be usable, because the store holds them.
    """

    def __init__(self, lengths: Sequence[int], skip_errors: bool, usable: int = 0) -> None:
        self._total = len(lengths)
        self._middle = statistics.median(lengths) if lengths else 0
        self._skip_errors = skip_errors
        self._usable = usable
        self._failed = 0
        self._shortest: float = float("inf")
        self._kinds: set[str] = set()
        # An error waits as long as the model may be to blame.
        self._waiting: GradientError | None = None

    def look_at(self, block: WorkBlock, problems: Mapping[int, str]) -> None:
        """Look at the results of a block.

        Args:
            block: the block.
            problems: position of a sample in the block → clause that says what is wrong with its gradient.

        Raises:
            ModelError: all samples so far failed in the same way.
            GradientError: a sample failed, and failures are not to be skipped.
        """
        self._usable += len(block.samples) - len(problems)
        for position, problem in problems.items():
            self._failed += 1
            self._shortest = min(self._shortest, len(block.samples[position].ids))
            self._kinds.add(_kind(problem))
        if problems:
            first = min(problems)
            sample, problem = block.samples[first].sample, problems[first]
            if self._model_is_to_blame(problem):
                raise ModelError(
                    f"the first {self._failed} of {self._total} samples all failed in one way, so no row can mend "
                    f"it: {problem} (sample {sample.id!r}, {sample.file}, row {sample.row}); look at the model, "
                    "its config.json and the packages that it needs"
                )
            if self._waiting is None and not self._skip_errors:
                remedy = "repair the row, or leave it out with --on-error skip"
                self._waiting = GradientError(sample.id, f"{problem} ({sample.file}, row {sample.row}); {remedy}")
        if self._usable or len(self._kinds) > 1:
            self.finish()

    def finish(self) -> None:
        """Say that no block follows, or that the model is not to blame.

        Raises:
            GradientError: a sample failed, and failures are not to be skipped.
        """
        if self._waiting is not None:
            raise self._waiting

    def _model_is_to_blame(self, problem: str) -> bool:
        """Tell whether all samples fail in one way, short ones among them, because long ones may be too long."""
        if self._usable or len(self._kinds) > 1:
            return False
        if _OF_THE_MODEL.match(problem):
            return self._failed >= min(_ENOUGH, self._total)
        return self._total > 1 and self._failed >= min(_ENOUGH, self._total) and self._shortest <= self._middle


def _kind(problem: str) -> str:
    """Return what equal failures have in common: the words without the numbers."""
    return re.sub(r"\d+", "#", problem)
