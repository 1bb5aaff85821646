"""The checks that every `VectorSource` has to pass; see `VectorSourceConformance` for how a new source runs them.

Vectors and queries are small integers, so that scores are exact and many are equal.
Hence results are compared with ``==``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from rapidin.errors import FilterError, SettingError, StoreError, StoreMismatchError
from rapidin.records import Hit
from rapidin.storage import OpenSource, Store, VectorSource
from tests.storage.stores import DIMENSION, new_sample, segment_files, store_settings

COUNT = 60
DELETED = (7, 8, 30)
MAJORITY = 42
"""Number of samples whose vectors are among four, so that most of the best are equal."""

Scored = list[tuple[str, float]]


def _integers(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2, 3, (rows, DIMENSION)).astype(np.float32)


VECTORS = _integers(COUNT, seed=1)
VECTORS[:MAJORITY] = VECTORS[np.random.default_rng(2).integers(MAJORITY, MAJORITY + 4, MAJORITY)]
QUERIES = _integers(5, seed=3)
IDS = [f"s{number:03}" for number in np.random.default_rng(4).permutation(COUNT)]


def oracle(query: np.ndarray, k: int, largest: bool, chosen: Callable[[int], bool]) -> Scored:
    """Sort all samples by score, then by id, in plain Python; the first k of those that are chosen by number."""
    scored = [(IDS[i], float(query @ VECTORS[i])) for i in range(COUNT) if i not in DELETED and chosen(i)]
    return sorted(scored, key=lambda pair: (-pair[1] if largest else pair[1], pair[0]))[:k]


def expected(
    k: int, largest: bool, queries: np.ndarray = QUERIES, chosen: Callable[[int], bool] = lambda _: True
) -> list[Scored]:
    return [oracle(query, k, largest, chosen) for query in queries]


def scored(found: Sequence[Sequence[Hit]]) -> list[Scored]:
    return [[(hit.id, hit.estimate) for hit in hits] for hits in found]


class VectorSourceConformance:
    """Everything that a vector source promises.

    A test module derives a class from this one whose name begins with ``Test``, and overrides `open_source`, and
    `prepare` if its stores need more than samples.

    Attributes:
        SHARES: number of stores that the samples are dealt to in turn.
        INDEX, NPROBE: arguments of every search; the index must find everything among so few samples.
    """

    SHARES = 1
    INDEX = "exact"
    NPROBE: int | None = None

    def open_source(self, stores: Sequence[Store]) -> OpenSource:
        """Return a function that opens the newest state of some stores."""
        raise NotImplementedError("override this method with what opens the source to check")

    @classmethod
    def prepare(cls, store: Store) -> None:
        """Add what searches need to a store that holds its share of the samples."""

    @pytest.fixture(scope="class")
    @classmethod
    def templates(cls, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
        paths = []
        for share in range(cls.SHARES):
            paths.append(tmp_path_factory.mktemp("share") / "store")
            mine = np.arange(share, COUNT, cls.SHARES)
            with Store.create(paths[-1], store_settings()) as store:
                for numbers in np.array_split(mine, 2):
                    samples = [
                        new_sample(IDS[i], metadata={"third": int(i) % 3, "number": int(i)}) for i in numbers
                    ]
                    with store.writer() as writer:
                        writer.commit(samples, VECTORS[numbers])
                store.delete([IDS[i] for i in DELETED if i in mine])
                cls.prepare(store)
        return paths

    @pytest.fixture
    def stores(self, templates: Sequence[Path], tmp_path: Path) -> Iterator[list[Store]]:
        with ExitStack() as stack:
            copies = [shutil.copytree(path, tmp_path / str(share)) for share, path in enumerate(templates)]
            yield [stack.enter_context(Store.open(copy)) for copy in copies]

    @pytest.fixture
    def source(self, stores: Sequence[Store]) -> Iterator[VectorSource]:
        with self.open_source(stores)() as source:
            yield source

    def best(
        self,
        source: VectorSource,
        k: int,
        largest: bool = True,
        where: Sequence[str] = (),
        queries: np.ndarray = QUERIES,
    ) -> list[Scored]:
        found = source.search(queries, k, where, largest, self.INDEX, self.NPROBE)
        wanted, other = (found.largest, found.smallest) if largest else (found.smallest, found.largest)
        assert all(not hits for hits in other)
        assert found.index == ("exact" if where else self.INDEX)
        return scored(wanted)

    @pytest.mark.parametrize("largest", [True, False])
    @pytest.mark.parametrize("k", [1, 7, COUNT, 1000])
    def test_the_best_at_one_end_are_those_of_numpy(self, source: VectorSource, k: int, largest: bool) -> None:
        assert self.best(source, k, largest) == expected(k, largest)

    @pytest.mark.parametrize("k", [1, 7, COUNT, 1000])
    def test_both_ends_are_those_of_two_searches(self, source: VectorSource, k: int) -> None:
        found = source.search_ends(QUERIES, k, (), self.INDEX, self.NPROBE)
        assert found.index == self.INDEX
        assert scored(found.largest) == expected(k, largest=True)
        assert scored(found.smallest) == expected(k, largest=False)

    @pytest.mark.parametrize("largest", [True, False])
    def test_equal_scores_come_by_ascending_id(self, source: VectorSource, largest: bool) -> None:
        query = (1 if largest else -1) * VECTORS[:1]
        (found,) = self.best(source, 5, largest, queries=query)
        assert len({score for _, score in found}) == 1
        assert [id for id, _ in found] == sorted(id for id, _ in found)
        assert [found] == expected(5, largest, query)

    @pytest.mark.parametrize("largest", [True, False])
    def test_filters_leave_only_samples_that_meet_all(self, source: VectorSource, largest: bool) -> None:
        found = self.best(source, 20, largest, ("third=1", "number<40"))
        assert found == expected(20, largest, chosen=lambda i: i % 3 == 1 and i < 40)

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_filter_may_leave_a_single_sample(self, source: VectorSource, number: int) -> None:
        found = self.best(source, 3, where=(f"number={number}",))
        assert found == expected(3, largest=True, chosen=lambda i: i == number)

    def test_a_filter_may_leave_nothing(self, source: VectorSource) -> None:
        assert self.best(source, 3, where=("number<0",)) == [[] for _ in QUERIES]
        assert source.search_ends(QUERIES, 3, ("number<0",)).ends == ([[]] * len(QUERIES), [[]] * len(QUERIES))

    def test_a_query_finds_the_same_alone(self, source: VectorSource) -> None:
        together = self.best(source, 9)
        assert [self.best(source, 9, queries=query[None])[0] for query in QUERIES] == together

    def test_without_queries_nothing_is_found(self, source: VectorSource) -> None:
        assert self.best(source, 3, queries=QUERIES[:0]) == []
        assert source.search_ends(QUERIES[:0], 3, (), self.INDEX, self.NPROBE).ends == ([], [])

    def test_a_score_of_zero_has_no_sign(self, source: VectorSource) -> None:
        zero = np.zeros((1, DIMENSION), np.float32)
        for end in source.search_ends(zero, 3, (), self.INDEX, self.NPROBE).ends:
            assert [np.copysign(1, hit.estimate) for hit in end[0]] == [1, 1, 1]

    def test_hits_are_whole_samples_with_their_ranks(self, stores: Sequence[Store], source: VectorSource) -> None:
        for end in source.search_ends(QUERIES, 12, (), self.INDEX, self.NPROBE).ends:
            for hits in end:
                assert [hit.rank for hit in hits] == list(range(1, 13))
                for hit in hits:
                    (sample,) = [
                        one for store in stores for one in store.list([f"number={hit.metadata['number']}"])
                    ]
                    assert hit == Hit.of(sample, hit.rank, hit.estimate)

    def test_it_serves_several_threads(self, source: VectorSource) -> None:
        with ThreadPoolExecutor(4) as executor:
            found = list(executor.map(lambda k: self.best(source, k), range(1, 9)))
        assert found == [expected(k, largest=True) for k in range(1, 9)]

    def test_it_does_not_change_while_it_is_open(self, stores: Sequence[Store]) -> None:
        open_source = self.open_source(stores)
        with open_source() as source:
            best = [of_query[0][0] for of_query in expected(1, largest=True)]
            for store in stores:
                if mine := list(store.content_hashes(best)):
                    store.delete(mine)
            assert self.best(source, 7) == expected(7, largest=True)
        with open_source() as source:
            kept = expected(7, largest=True, chosen=lambda i: IDS[i] not in best)
            assert self.best(source, 7) == kept

    def test_what_cannot_be_read_is_an_error_and_no_smaller_answer(self, stores: Sequence[Store]) -> None:
        segment_files(stores[-1])[-1].unlink()
        with pytest.raises(StoreError), self.open_source(stores)() as source:
            self.best(source, 3)

    @pytest.mark.parametrize("both", [True, False])
    def test_what_it_cannot_search_for_is_refused(self, source: VectorSource, both: bool) -> None:
        search = source.search_ends if both else source.search
        infinite = QUERIES.copy()
        infinite[3, 0] = np.inf
        with pytest.raises(SettingError, match="k is 0"):
            search(QUERIES, 0, (), index=self.INDEX, nprobe=self.NPROBE)
        with pytest.raises(SettingError, match="query 3"):
            search(infinite, 3, (), index=self.INDEX, nprobe=self.NPROBE)
        with pytest.raises(StoreMismatchError, match="do not fit"):
            search(QUERIES[:, 1:], 3, (), index=self.INDEX, nprobe=self.NPROBE)
        with pytest.raises(SettingError, match="index 'fast' is unknown"):
            search(QUERIES, 3, (), index="fast")
        with pytest.raises(FilterError, match="nothing"):
            search(QUERIES, 3, ("nothing=1",), index=self.INDEX, nprobe=self.NPROBE)
