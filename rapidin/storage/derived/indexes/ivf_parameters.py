"""The parameters of an ``ivf`` index: numbers that were chosen or measured when it was built, and advice."""

from __future__ import annotations

from dataclasses import dataclass

_SIMILARITY_KEPT = 0.8
"""Share of the held-out rows' similarity below which the lists no longer fit the rows that came later."""
_LEAST_ADDED = 50
_LEAST_ADDED_SHARE = 0.03
"""Minimum share of the store, and minimum number, of later rows from which their similarity tells anything."""
_LEAST_RECALL = 0.9
"""Measured with a number of lists that somebody gave, below which searches do not take an index unasked."""
_GROWTH = 2
"""Times the trained rows that a store may have before its lists are too long."""
MOST_SCANNED = 0.5
"""Maximum share of a store that an index may read; more saves nothing, because its rows lie scattered."""


@dataclass(frozen=True, slots=True)
class IvfParameters:
    """The parameters of an index of kind ``ivf``.

    Its recall and shares are means over stored vectors that served as queries.

    Attributes:
        build: name of this index, of which its files' names are made.
        width: numbers of a folded vector.
        nlist: lists.
        nprobe: lists that a search reads.
        nprobe_opponents: the same at the other end, the smallest scores.
        recall_target: the share of the true ten best that was asked for.
        recall: the share that was found.
        recall_opponents: the same at the other end.
        scanned: share of the rows that a search reads.
        scanned_opponents: the same at the other end.
        queries: stored vectors that were measured with.
        train_rows: vectors that the lists were made from.
        rows: live samples at that time.
        similarity: mean cosine between the measuring vectors and their lists' centroids.
        added_rows: rows that were covered later.
        added_similarity: their mean cosine.
        asked_nlist, asked_nprobe, asked_train_sample: what was asked for, None: nothing was, or an older rapidin
            did not write it down.
    """

    build: str
    width: int
    nlist: int
    nprobe: int
    nprobe_opponents: int
    recall_target: float
    recall: float
    recall_opponents: float
    scanned: float
    scanned_opponents: float
    queries: int
    train_rows: int
    rows: int
    similarity: float
    added_rows: int = 0
    added_similarity: float = 0.0
    asked_nlist: int | None = None
    asked_nprobe: int | None = None
    asked_train_sample: int | None = None

    @property
    def finds_enough(self) -> bool:
        """Whether so much was found, at both ends, that a search may take the index unasked."""
        least = self.recall_target if self.asked_nprobe is None else max(self.recall_target, _LEAST_RECALL)
        return min(self.recall, self.recall_opponents) >= least

    def advice(self, live: int, rabitq_gains: bool) -> str | None:
        """Return advice to the owner of a store that now has `live` samples, or None.

        Args:
            live: samples of the store.
            rabitq_gains: whether an index ``rabitq`` makes sense over the store's codec.
        """
        if not self.finds_enough:
            return (
                f"it misses too much (recall {self.recall:.2f}, of opponents {self.recall_opponents:.2f}), so "
                "searches take it only if told to: build it again with --retrain, and a larger --nprobe or none"
            )
        if self.scanned > MOST_SCANNED:
            better = "exact search or rabitq" if rabitq_gains else "exact search"
            return (
                f"the vectors have hardly any clusters: recall {self.recall:.2f} takes reading "
                f"{100 * self.scanned:.0f} % of them, so {better} is better"
            )
        if live > _GROWTH * self.rows:
            return (
                f"the store has grown from {self.rows:,} to {live:,} samples since training: "
                "build it again with --retrain"
            )
        many = self.added_rows >= max(_LEAST_ADDED, _LEAST_ADDED_SHARE * live)
        if many and self.added_similarity < _SIMILARITY_KEPT * self.similarity:
            return (
                f"the {self.added_rows:,} rows added since training fit its lists badly (mean cosine "
                f"{self.added_similarity:.2f} instead of {self.similarity:.2f}): build it again with --retrain"
            )
        return None
