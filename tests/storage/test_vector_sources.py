"""Every vector source passes the same checks: snapshots with each way to search, and sources merged of two."""

from __future__ import annotations

from collections.abc import Sequence

from rapidin.storage import OpenSource, Store
from tests.storage.half_sources import merged_source
from tests.storage.vector_source_conformance import VectorSourceConformance


class TestSnapshot(VectorSourceConformance):
    def open_source(self, stores: Sequence[Store]) -> OpenSource:
        return stores[0].snapshot


class TestSnapshotWithIvf(TestSnapshot):
    INDEX, NPROBE = "ivf", 10**6

    @classmethod
    def prepare(cls, store: Store) -> None:
        store.build_index("ivf", nlist=5)


class TestSnapshotWithRabitq(TestSnapshot):
    INDEX = "rabitq"

    @classmethod
    def prepare(cls, store: Store) -> None:
        store.build_index("rabitq")


class TestTwoStores(VectorSourceConformance):
    SHARES = 2

    def open_source(self, stores: Sequence[Store]) -> OpenSource:
        return merged_source([store.snapshot for store in stores])


class TestTwoStoresWithIvf(TestTwoStores):
    INDEX, NPROBE = "ivf", 10**6

    @classmethod
    def prepare(cls, store: Store) -> None:
        store.build_index("ivf", nlist=3)


class TestThreeStoresWithRabitq(TestTwoStores):
    SHARES, INDEX = 3, "rabitq"

    @classmethod
    def prepare(cls, store: Store) -> None:
        store.build_index("rabitq")
