"""Every vector source passes the same checks: snapshots with each way to search, and sources merged of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from rapidin.storage import OpenSource, Store, derived
from tests.storage.derived.third_index import NormKind
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


class TestSnapshotWithAThirdIndex(TestSnapshot):
    """A kind that is in the registry only while these tests run."""

    INDEX = "norms"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def known(cls) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(derived.KINDS, "norms", NormKind())
            yield

    @classmethod
    def prepare(cls, store: Store) -> None:
        store.build_derived("norms", derived.IvfOptions())


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
