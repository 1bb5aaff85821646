"""The parameters of an ``ivf`` index: numbers that were chosen or measured when it was built, and advice."""

from __future__ import annotations

from dataclasses import dataclass

_SIMILARITY_KEPT = 0.8
"""Share of the held-out rows' similarity below which the lists no longer fit the rows that came later."""
_LEAST_ADDED = 50
"""Minimum number of later rows before their similarity tells anything."""
_LEAST_ADDED_SHARE = 0.03
"""Minimum share of the store that later rows must have before their similarity tells anything."""
_LEAST_RECALL = 0.9
"""Minimum recall with a number of lists that somebody gave for which searches use the index unasked."""
_GROWTH = 2
"""Maximum ratio of the samples of a store to those at training; above it, lists are too long."""
MOST_SCANNED = 0.5
"""Maximum share of a store that an index may read; more saves nothing, because its rows lie scattered."""


@dataclass(frozen=True, slots=True)
class IvfParameters:
    """The parameters of an index of kind ``ivf``.

    Recall and shares are means over stored vectors that served as queries.

    Attributes:
        build: name of the index, with which the names of its files begin.
        width: number of numbers in a folded vector.
        nlist: number of lists.
        nprobe: number of lists that a search for the largest scores reads.
        nprobe_opponents: number of lists that a search for the smallest scores reads.
        recall_target: share of the true ten best that was asked for.
        recall: share of the ten largest scores that was found.
        recall_opponents: share of the ten smallest scores that was found.
        scanned: share of the rows that a search for the largest scores reads.
        scanned_opponents: share of the rows that a search for the smallest scores reads.
        queries: number of stored vectors that served as queries.
        train_rows: number of vectors that the lists were made from.
        rows: number of live samples at that time.
        similarity: mean cosine between the vectors that served as queries and the centroids of their lists.
        added_rows: number of rows that were covered later.
        added_similarity: mean cosine between these rows and the centroids of their lists.
        asked_nlist, asked_nprobe, asked_train_sample: numbers that were asked for; None: none was, or an older
            rapidin did not write it down.
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
        """Whether enough was found at both ends for searches to use the index unasked."""
        least = self.recall_target if self.asked_nprobe is None else max(self.recall_target, _LEAST_RECALL)
        return min(self.recall, self.recall_opponents) >= least

    def advice(self, live: int, rabitq_gains: bool) -> str | None:
        """Return advice to the owner of a store that now has `live` samples, or None.

        Args:
            live: number of live samples of the store.
            rabitq_gains: whether an index ``rabitq`` saves time with the store's codec.
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
