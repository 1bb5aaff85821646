"""What a store must hold: samples by id and version, vectors that follow from both, and dense search over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rapidin.storage import MetadataChange, NewSample, Store
from rapidin.storage.maintenance import garbage
from tests.storage.stores import DIMENSION, halved, new_sample, store_settings

State = dict[str, tuple[int, int]]
"""Version of the text and of the metadata of each sample."""


class WrongError(Exception):
    """The store is not what it must be."""


def vector(id: str, version: int) -> np.ndarray:
    return np.random.default_rng([int(id[1:]), version]).standard_normal(DIMENSION).astype(np.float32)


def sample(id: str, version: int, told: int) -> NewSample:
    number = int(id[1:])
    metadata = {"topic": "even" if number % 2 == 0 else "odd", "rank": number, "version": version, "told": told}
    return new_sample(id, metadata=metadata, row=number, content_hash=f"{id} {version}", prompt="x" * (number % 9))


def names(start: int, stop: int) -> list[str]:
    return [f"s{number:04}" for number in range(start, stop)]


class Script:
    """Changes of a store, each with the state that it leads to."""

    def __init__(self) -> None:
        self.states: list[State] = [{}]
        self._steps: list[Callable[[Store], object]] = []

    def commit(self, ids: Sequence[str], version: int = 0) -> None:
        def step(store: Store) -> None:
            with store.writer() as writer:
                writer.commit(
                    [sample(id, version, 0) for id in ids], np.stack([vector(id, version) for id in ids])
                )

        self._add(step, self.states[-1] | dict.fromkeys(ids, (version, 0)))

    def change(self, ids: Sequence[str], told: int) -> None:
        versions = {id: self.states[-1][id][0] for id in ids}

        def step(store: Store) -> None:
            with store.writer() as writer:
                writer.update_metadata([MetadataChange.of(sample(id, versions[id], told)) for id in ids])

        self._add(step, self.states[-1] | {id: (versions[id], told) for id in ids})

    def delete(self, ids: Sequence[str]) -> None:
        left = {id: state for id, state in self.states[-1].items() if id not in set(ids)}
        self._add(lambda store: store.delete(list(ids)), left)

    def compact(self) -> None:
        self._add(lambda store: store.compact(), self.states[-1])

    def index(self) -> None:
        self._add(lambda store: store.build_index("rabitq"), self.states[-1])

    def run(self, store: Store, first: int, done: Callable[[int], object]) -> None:
        """Carry out the changes that follow state number `first`, and tell the number of each state reached."""
        for number in range(first, len(self._steps)):
            self._steps[number](store)
            done(number + 1)

    def _add(self, step: Callable[[Store], object], state: State) -> None:
        self._steps.append(step)
        self.states.append(state)


def script() -> Script:
    """Every kind of change, in a few small commits."""
    made = Script()
    made.commit(names(0, 8))
    made.commit(names(8, 14))
    made.index()
    made.change(names(2, 5), 1)
    made.commit(names(4, 10), 1)
    made.delete(names(0, 3))
    made.compact()
    made.commit(names(20, 23))
    return made


def held(store: Store) -> State:
    return {one.id: (one.metadata["version"], one.metadata["told"]) for one in store.list()}


def check(path: Path, states: Sequence[State], acknowledged: int) -> int:
    """Check that the store is in one of the states from `acknowledged` on, searches right, and can be written to.

    Returns:
        The number of the state.

    Raises:
        WrongError: it is not.
    """
    with Store.open(path) as store:
        report = store.verify()
        if not report.ok:
            raise WrongError(f"verify: {report.problems[:3]}")
        found = held(store)
        fitting = [number for number, state in enumerate(states) if number >= acknowledged and state == found]
        if not fitting:
            raise WrongError(f"{len(found)} samples are none of the states from number {acknowledged} on")
        search(store, found)
        with store.writer() as writer:
            writer.commit([sample("s9999", 0, 0)], vector("s9999", 0)[None])
        if held(store) != found | {"s9999": (0, 0)}:
            raise WrongError("a commit afterwards was not what it should be")
        if left := garbage.unnamed_files(path, store._database):
            raise WrongError(f"garbage stays: {sorted(left)}")
    return fitting[0]


def search(store: Store, state: State) -> None:
    """Compare searches, with filters and without, with dense products."""
    ids = sorted(state)
    if not ids:
        return
    query = np.random.default_rng(1).standard_normal((1, DIMENSION)).astype(np.float32)
    scores = (halved(np.stack([vector(id, state[id][0]) for id in ids])) @ query[0]).astype(float)
    with store.snapshot() as snapshot:
        for where, keep in (
            ([], ids),
            (["topic=even"], [id for id in ids if int(id[1:]) % 2 == 0]),
            (["rank<9", "told=1"], [id for id in ids if int(id[1:]) < 9 and state[id][1] == 1]),
        ):
            truth = sorted((-scores[ids.index(id)], id) for id in keep)
            hits = snapshot.search(query, len(ids), where).largest[0]
            if [hit.id for hit in hits] != [id for _, id in truth]:
                raise WrongError(f"{where}: a search found {[hit.id for hit in hits]}")
            if any(abs(hit.score + score) > 0.02 for hit, (score, _) in zip(hits, truth, strict=True)):
                raise WrongError(f"{where}: a score is wrong")


def new_store(path: Path) -> None:
    Store.create(path, store_settings()).close()
