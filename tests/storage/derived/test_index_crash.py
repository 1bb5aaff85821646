"""A process killed before or after any step of building an index leaves a store that is as it was, or finished.

As in `test_crash`, a child patches the product's step functions to kill itself. And readers beside a builder.
"""

from __future__ import annotations

import errno
import json
import shutil
import signal
import threading
from pathlib import Path

import pytest

from rapidin.errors import StoreError, StoreSpaceError
from rapidin.storage import Store
from rapidin.storage.vectors import segment_writing
from tests.storage.derived.clusters import COUNT, KINDS, clustered, clustered_store, commit, ids
from tests.storage.stores import run_python

pytestmark = pytest.mark.slow  # a hundred processes that are killed, one for each step and what was there before

QUERIES = clustered(4, seed=2)
STEPS = {
    "ivf": ["write_arrays", "sync_file", "publish", "sync_directory", "file_checksum"],
    "rabitq": ["write_temporary", "sync_file", "publish", "sync_directory", "file_checksum"],
}
ROWS = ["insert_derived", "insert_parts", "delete_derived", "record_step", "remove_garbage"]
MOMENTS = [
    (start, kind, step, moment)
    for start in ("nothing", "an older one", "a part")
    for kind in KINDS
    for step in [*STEPS[kind], *ROWS]
    for moment in ("before", "after")
    if not (start == "a part" and step in ("insert_derived", "delete_derived"))
    # After one step is before the next.
    if start == "nothing" or moment == "before" or step in ("insert_parts", "record_step")
]

CHILDREN = """
import json, os, signal, sys
from rapidin.storage import Store
from rapidin.storage.derived import derived_building, derived_records, derived_files
from rapidin.storage.derived.indexes import clustering
from rapidin.storage.maintenance import garbage
from rapidin.storage.vectors import segment_writing
from tests.storage.derived.test_index_crash import build
import faiss, torch

def die_around(step, moment):
    homes = (derived_files, segment_writing, derived_records, garbage, derived_building)
    home = next(home for home in homes if step in vars(home))
    original = getattr(home, step)
    def dying(*arguments, **named):
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(home, step, dying)

statuses = []
for path, start, kind, step, moment in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        with Store.open(path) as store:
            die_around(step, moment)
            build(store, start, kind)
        os._exit(0)
    statuses.append(os.waitpid(child, 0)[1])
print(json.dumps(statuses))
"""


def build(store: Store, start: str, kind: str) -> None:
    quick = {"nlist": 6, "nprobe": 3, "train_sample": 100} if kind == "ivf" and start != "a part" else {}
    store.build_index(kind, retrain=start == "an older one", **quick)


def covered(store: Store) -> list[tuple[str, int]]:
    return [(index.name, index.covered) for index in store.info().indexes[1:]]


def answers(store: Store, index: str) -> list[list[str]]:
    with store.snapshot() as snapshot:
        return ids(snapshot.search(QUERIES, 1, index=index).largest)


def files(path: Path) -> set[str]:
    return {file.name for file in (path / "indexes").iterdir()} if (path / "indexes").is_dir() else set()


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[tuple[str, ...], tuple[Path, set[str]]]:
    """By moment, a store in which a process was killed then, and the files of indexes in it."""
    base = tmp_path_factory.mktemp("killed")
    clustered_store(base / "nothing").close()
    for kind in KINDS:
        with clustered_store(base / f"an older one {kind}", kinds=(kind,)):
            pass
        shutil.copytree(base / f"an older one {kind}", base / f"a part {kind}")
        with Store.open(base / f"a part {kind}") as store:
            commit(store, COUNT, clustered(100, seed=5))
    cases = {}
    for number, (start, kind, step, moment) in enumerate(MOMENTS):
        path = cases[start, kind, step, moment] = base / f"{number}"
        shutil.copytree(base / ("nothing" if start == "nothing" else f"{start} {kind}"), path)
    child = run_python(CHILDREN, json.dumps([(str(path), *moment) for moment, path in cases.items()]))
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == [signal.SIGKILL] * len(cases)
    return {moment: (path, files(path)) for moment, path in cases.items()}


@pytest.mark.parametrize("moment", MOMENTS, ids="-".join)
def test_killed_while_building(killed, moment) -> None:
    path, _ = killed[moment]
    start, kind, step, when = moment
    before = {"nothing": [], "an older one": [(kind, COUNT)], "a part": [(kind, COUNT)]}[start]
    everything = COUNT + (100 if start == "a part" else 0)
    with Store.open(path) as store:
        assert store.verify().ok
        if (step, when) == ("record_step", "after"):
            part = 200 if kind == "rabitq" and start != "a part" else everything  # it is recorded part by part
            assert covered(store) == [(kind, part)]
        else:
            assert covered(store) == before
        exact = answers(store, "exact")
        assert answers(store, "auto") == exact
        build(store, "nothing" if not covered(store) else "a part", kind)
        assert covered(store) == [(kind, everything)]
        assert answers(store, kind) == exact
        assert store.verify().ok
        with store.writer():
            assert len(files(path)) == len(store.info().segments) + (kind == "ivf"), "no garbage"


@pytest.mark.parametrize(
    ("moment", "temporary", "final"),
    [
        (("nothing", "ivf", "write_arrays", "before"), 0, 0),
        (("nothing", "ivf", "sync_file", "before"), 1, 0),
        (("nothing", "ivf", "publish", "after"), 0, 1),
        (("nothing", "ivf", "record_step", "before"), 0, 4),
        (("an older one", "ivf", "insert_parts", "after"), 0, 8),
        (("a part", "ivf", "insert_parts", "after"), 0, 5),
        (("nothing", "rabitq", "write_temporary", "before"), 0, 0),
        (("nothing", "rabitq", "publish", "before"), 1, 0),
        (("nothing", "rabitq", "record_step", "after"), 0, 1),
        (("an older one", "rabitq", "delete_derived", "before"), 0, 4),
        (("a part", "rabitq", "publish", "before"), 1, 3),
    ],
)
def test_the_kills_happen_where_they_should(killed, moment, temporary, final) -> None:
    """Or the test above would prove little: files that a kill leaves behind."""
    _, names = killed[moment]
    assert len([name for name in names if name.endswith(".tmp")]) == temporary
    assert len([name for name in names if not name.endswith(".tmp")]) == final


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["sync_file", "publish", "sync_directory"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk(path: Path, monkeypatch, kind: str, step: str, number: int) -> None:
    with clustered_store(path) as store:

        def failing(store, *rest):
            with segment_writing.file_errors(store):
                raise OSError(number, "as tested")

        monkeypatch.setattr(segment_writing, step, failing)
        with pytest.raises(StoreSpaceError if number == errno.ENOSPC else StoreError, match="as tested"):
            store.build_index(kind)
        monkeypatch.undo()
        assert covered(store) == []
        assert store.verify().ok
        store.build_index(kind)
        assert covered(store) == [(kind, COUNT)]


@pytest.mark.parametrize("kind", KINDS)
def test_too_little_space(path: Path, monkeypatch, kind: str) -> None:
    with clustered_store(path) as store:
        usage = shutil.disk_usage(path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        with pytest.raises(StoreSpaceError, match="100 bytes are free"):
            store.build_index(kind)
        monkeypatch.undo()
        assert not files(path)


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_before_the_transaction_ends(path: Path, monkeypatch, kind: str) -> None:
    from rapidin.storage.derived import derived_records

    with clustered_store(path, kinds=(kind,)) as store:
        before = store.info()

        def interrupt(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(derived_records, "insert_parts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.build_index(kind, retrain=True)
        monkeypatch.undo()
        assert store.info().indexes == before.indexes
        with store.snapshot() as snapshot:
            assert snapshot.chosen_index(kind) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_readers_beside_a_builder(path: Path, kind: str) -> None:
    """At every step of a build, and all the time from another thread, searches find what is nearest."""
    with clustered_store(path) as store:
        exact = answers(store, "exact")
        wrong: list[object] = []
        ways: set[str] = set()
        finished = threading.Event()

        def read() -> None:
            with Store.open(path) as reader:
                while not finished.is_set():
                    with reader.snapshot() as snapshot:
                        ways.add(snapshot.chosen_index(queries=len(QUERIES)))
                        found = ids(snapshot.search(QUERIES, 1, index="auto").largest)
                    if found != exact:
                        wrong.append(found)

        thread = threading.Thread(target=read)
        thread.start()
        steps = []

        def at_each_step(*step: object) -> None:
            steps.append(step)
            with Store.open(path) as reader:
                if answers(reader, "auto") != exact:
                    wrong.append(step)

        try:
            for _ in range(3):
                store.build_index(kind, retrain=True, on_progress=at_each_step)
            store.drop_index(kind)
            store.build_index(kind)
        finally:
            finished.set()
            thread.join()
        assert not wrong
        assert steps
        assert ways >= {"exact"}
        assert answers(store, kind) == exact
