"""What a search is asked for besides the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from rapidin.errors import SettingError
from rapidin.settings.choices import IndexChoice

Part = str | tuple[int, int]
"""Of a generation: its text, or its first character and the one behind the last."""


class Options(TypedDict, total=False):
    """Keyword arguments of a search.

    Keys:
        k: samples wanted at each end; 10.
        opponents: find the most negative influences too.
        where: filter expressions that a sample must all meet, for example ``source=gsm8k``.
        max_new_tokens: longest answer that the model may write; 256.
        index: ``exact``, ``ivf``, ``rabitq``, or ``auto``: an index of the store where one serves, see
            `Snapshot.chosen_index`. With filters every search is exact.
        nprobe: lists that index ``ivf`` reads, instead of its own number.
        rerank: of so many samples at each end the exact influence is computed, which orders them, and of the best
            the influences of their tokens; 0: none. `RERANKED_PER_RESULT` times k is a good
            number. Each takes some three training steps' time.
        by_token: find what every target token of the generation goes back to by itself.
        spans: parts of the generation that alone are asked about: texts, or offsets of their first character and
            of the one behind the last. A text stands for every place where it occurs.
        matrices: of the best, also the influence of each token on each of the generation; goes with `rerank`.
    """

    k: int
    opponents: bool
    where: Sequence[str]
    max_new_tokens: int
    index: IndexChoice
    nprobe: int | None
    rerank: int
    by_token: bool
    spans: Sequence[Part]
    matrices: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What a search is asked for; see `Options`.

    Raises:
        SettingError: on creation, a number is out of range.
    """

    k: int = 10
    opponents: bool = False
    where: Sequence[str] = ()
    max_new_tokens: int = 256
    index: IndexChoice = "auto"
    nprobe: int | None = None
    rerank: int = 0
    by_token: bool = False
    spans: Sequence[Part] = ()
    matrices: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingError(f"k is {self.k}: ask for at least 1 sample")
        if self.max_new_tokens < 1:
            raise SettingError(f"--max-new-tokens {self.max_new_tokens} cannot be used: give at least 1")
        if self.rerank < 0:
            raise SettingError(f"--rerank {self.rerank} cannot be used: give 0, or a number of samples")
        if 0 < self.rerank < self.k:
            raise SettingError(f"--rerank {self.rerank} is less than the {self.k} samples wanted: give more, or 0")
        if isinstance(self.spans, str):
            raise SettingError(f"spans is the text {self.spans!r}: give a list of texts, such as [{self.spans!r}]")
        for part in self.spans:
            pair = isinstance(part, tuple) and len(part) == 2 and all(isinstance(place, int) for place in part)
            if not (isinstance(part, str) or pair):
                raise SettingError(f"{part!r} is no part of a generation: give a text, or a tuple of two offsets")
            if isinstance(part, str) and not part.strip():
                raise SettingError("a part of the generation is blank: give a text that occurs in it")
        if self.matrices and not self.rerank:
            raise SettingError("matrices of tokens go with exact influences: give --rerank")

    @property
    def candidates(self) -> int:
        """Samples to find at each end before they are ordered exactly."""
        return max(self.k, self.rerank)
