"""Compaction: what a user sees stays the same to the last bit, and what is dead goes."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from rapidin.errors import SettingError, StoreCorruptError, StoreError, StoreLockedError, StoreSpaceError
from rapidin.storage import Store
from rapidin.storage.concurrency import reader_generations
from rapidin.storage.maintenance import compaction
from rapidin.storage.vectors import segment_writing
from rapidin.storage.vectors.searched_rows import Rows
from rapidin.storage.vectors.segment_writing import SegmentRecord
from tests.storage.stores import (
    DIMENSION,
    flip_byte,
    new_sample,
    numbered,
    random_vectors,
    run_python,
    segment_files,
    store_settings,
)

QUERIES = random_vectors(3, seed=9)


def seen(store: Store, queries: np.ndarray = QUERIES):
    """All that a user can see, scores bit by bit, samples in the order in which they were stored."""
    with store.snapshot() as snapshot:
        ids, scores = snapshot.scores(queries)
        ends = [
            [[(hit.id, hit.score) for hit in hits] for hits in end]
            for end in snapshot.search_ends(queries, 30).ends
        ]
    return store.list(), ids, scores.tobytes(), ends


def thinned(store: Store) -> None:
    """The 20 samples of `filled` in more segments: two of them replaced, some deleted, one segment all dead."""
    with store.writer() as writer:
        writer.commit([new_sample("s003", content_hash="n"), new_sample("s010")], random_vectors(2, seed=1))
        writer.commit([new_sample("x0"), new_sample("x1"), new_sample("x2")], random_vectors(3, seed=2))
        writer.commit([new_sample("x0", content_hash="n")], random_vectors(1, seed=3))
    store.delete(["s000", "s007", "x1", "x2", *(f"s{i:03}" for i in range(16, 20))])


def test_what_is_seen_stays_and_what_is_dead_goes(filled: Store) -> None:
    thinned(filled)
    before, info = seen(filled), filled.info()
    assert (len(info.segments), info.deleted) == (6, 11)
    progress: list[tuple[int, int]] = []
    report = filled.compact(on_progress=lambda *told: progress.append(told))
    after = filled.info()
    assert seen(filled) == before
    assert (report.segments_before, report.segments_after, report.removed) == (6, 1, 11)
    assert (after.deleted, [(s.rows, s.live) for s in after.segments]) == (0, [(15, 15)])
    assert report.bytes_before - report.bytes_after >= info.bytes_vectors - after.bytes_vectors > 0
    assert [file.name for file in segment_files(filled)] == [s.name for s in after.segments]
    assert progress == [(15, 15)]
    assert filled.verify().ok
    odd = [sample for sample in before[0] if sample.metadata["topic"] == "odd"]
    assert filled.list(["topic=odd"]) == odd and filled.count(["rank>=8", "rank<12"]) == 3


def test_compacting_again_finds_nothing_to_do(filled: Store) -> None:
    thinned(filled)
    filled.compact()
    files = [(file.name, file.stat().st_mtime_ns) for file in segment_files(filled)]
    report = filled.compact()
    assert (report.segments_before, report.segments_after, report.removed) == (1, 1, 0)
    assert [(file.name, file.stat().st_mtime_ns) for file in segment_files(filled)] == files


def test_many_new_segments(filled: Store, monkeypatch) -> None:
    """Of 4 rows at most: old segments are split between new ones."""
    monkeypatch.setattr(compaction, "SEGMENT_BYTES", 4 * 2 * DIMENSION)
    thinned(filled)
    before = seen(filled)
    filled.compact()
    assert seen(filled) == before
    assert [(s.rows, s.live) for s in filled.info().segments] == [(2, 2), (4, 4), (3, 3), (3, 3), (3, 3)]
    assert filled.verify().ok


def test_only_what_wastes_enough_is_rewritten(filled: Store, monkeypatch) -> None:
    monkeypatch.setattr(compaction, "SEGMENT_BYTES", 8 * 2 * DIMENSION)  # so that eight rows are not small
    filled.delete(["s000", "s008", "s009", "s010"])
    first, _, third = segment_files(filled)
    report = filled.compact(fraction=0.3)
    assert (report.removed, report.segments_after) == (3, 3)
    assert segment_files(filled)[:2] == [first, third]
    filled.compact(fraction=0.1)
    assert [(s.rows, s.live) for s in filled.info().segments] == [
        (4, 4),
        (6, 6),
        (6, 6),
    ] or filled.info().deleted == 0
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingError, match="from 0 to 1"):
            filled.compact(fraction=fraction)


def test_stores_without_samples(store: Store) -> None:
    assert store.compact().segments_after == 0
    with store.writer() as writer:
        writer.commit(numbered(0, 3), random_vectors(3))
    store.delete(where=["rank>=0"])
    report = store.compact()
    assert (report.segments_before, report.segments_after, report.removed) == (1, 0, 3)
    assert segment_files(store) == [] and store.info().samples == store.info().deleted == 0
    assert store.verify().ok
    with store.writer() as writer:
        writer.commit(numbered(0, 3), random_vectors(3))
    assert [sample.id for sample in store.list()] == ["s000", "s001", "s002"]


@pytest.mark.parametrize("dimension", [64, 4096])
@pytest.mark.parametrize("bits", [16, 4, 1])
def test_every_codec_keeps_its_scores_to_the_bit(path: Path, bits, dimension: int) -> None:
    """Both ways of scoring: decoded (K = 64) and scanned where the codes lie; replaced samples, too."""
    vectors, queries = random_vectors(12, dimension=dimension), random_vectors(2, 7, dimension)
    with Store.create(path, store_settings(dimension, bits)) as store:
        with store.writer() as writer:
            writer.commit(numbered(0, 6), vectors[:6])
            writer.commit(numbered(6, 9), vectors[6:9] * 100, np.full(3, 100))
            writer.commit([new_sample("s001", content_hash="n"), new_sample("x")], vectors[10:12])
        store.delete(["s002", "s007"])
        before = seen(store, queries)
        assert store.compact().removed == 3
        assert seen(store, queries) == before
        assert store.verify().ok
        with store.snapshot() as snapshot:
            ids, scores = snapshot.scores(queries)
        # The replaced sample is found with its new vector, up to the codec's error.
        errors = np.abs(scores[:, ids.index("s001")] - queries @ vectors[10]) / dimension**0.5
        assert errors.max() < {16: 0.01, 4: 0.6, 1: 4}[bits]
        assert np.abs(scores[:, ids.index("s001")] - queries @ vectors[1]).max() > 3


def test_a_reader_keeps_what_it_reads(filled: Store) -> None:
    """Across two compactions, segments included that it had not opened before the first."""
    with filled.snapshot() as snapshot:
        untouched, files = filled.snapshot(), segment_files(filled)
        expected = snapshot.scores(QUERIES)[1]
        filled.delete(where=["rank<9"])
        filled.compact()
        with Store.open(filled.path) as other:
            other.delete(["s010"])
            assert other.compact().segments_after == 1
        assert set(files) < set(segment_files(filled))
        for reader in (untouched, snapshot):
            ids, scores = reader.scores(QUERIES)
            np.testing.assert_array_equal(scores, expected)
            assert ids == [f"s{i:03}" for i in range(20)]
            assert len(reader.search(QUERIES, 30, ["topic=even"]).largest[0]) == 10
    with filled.writer():
        assert set(files) < set(segment_files(filled))  # the other one still reads
    assert filled.verify().ok
    untouched.close()
    with filled.writer():
        assert len(segment_files(filled)) == 1
    assert filled.count() == 10


@pytest.mark.parametrize("kind", ["rabitq", "ivf"])
def test_indexes_lose_what_moved_and_readers_keep_theirs(filled: Store, monkeypatch, kind) -> None:
    monkeypatch.setattr(compaction, "SEGMENT_BYTES", 8 * 2 * DIMENSION)  # so that the second segment stays
    options = {"nlist": 4, "nprobe": 4} if kind == "ivf" else {}
    filled.build_index(kind, **options)
    filled.delete(["s000", "s017"])
    expected = seen(filled)

    def indexed(snapshot) -> list:
        return [[hit.id for hit in hits] for hits in snapshot.search(QUERIES, 18, index=kind).largest]

    def files() -> set[str]:
        return {path.name for path in (filled.path / "indexes").iterdir() if path.is_file()}

    with filled.snapshot() as snapshot:
        before, named = indexed(snapshot), files()
    with filled.snapshot() as untouched:
        filled.compact()
        assert files() == named
        assert indexed(untouched) == before
    assert seen(filled) == expected and filled.verify().ok
    with filled.snapshot() as snapshot:
        assert indexed(snapshot) == before  # what the index does not know is compared exactly
    index = next(index for index in filled.info().indexes if index.name == kind)
    assert (index.covered, index.uncovered) == (8, 10)
    with filled.writer():
        assert len(files()) == len(named) - 2  # parts of two segments that ended
    assert filled.build_index(kind).covered == 18
    assert filled.verify().ok


def test_a_reader_who_may_not_write_keeps_files_too(filled: Store, monkeypatch) -> None:
    """Where it may only read the lock's file; where not even that, it reads without the lock."""
    real, refused = os.open, [os.O_RDWR]

    def reading_only(path, flags, *rest):
        if Path(path).match("readers*.lock") and any(flags & refuse == refuse for refuse in refused):
            raise PermissionError(errno.EACCES, "as tested", str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", reading_only)
    snapshot = filled.snapshot()
    files = segment_files(filled)
    filled.delete(["s000"])
    filled.compact()
    assert set(files) < set(segment_files(filled))
    assert len(snapshot.search(QUERIES, 30).largest[0]) == 20
    snapshot.close()
    refused.append(os.O_RDONLY)  # 0: any flags
    with filled.snapshot() as unlocked:
        assert reader_generations.removable(filled.path, {"segments/x.faiss": 1}) == set()  # nobody knows
        assert len(unlocked.search(QUERIES, 30).largest[0]) == 19
    refused.clear()
    with filled.snapshot():
        assert reader_generations.removable(filled.path, {"segments/x.faiss": 1}) == set()
    assert reader_generations.removable(filled.path, {"segments/x.faiss": 1}) == {"segments/x.faiss"}


def test_unfinished_files_go_although_there_are_readers(filled: Store) -> None:
    unfinished = filled.path / "segments" / ".0-1.faiss.tmp"
    unfinished.touch()
    with filled.snapshot(), filled.writer():
        assert not unfinished.exists()


def test_a_damaged_segment_is_named_and_nothing_is_lost(filled: Store) -> None:
    filled.delete(["s000", "s009"])
    with filled.snapshot() as snapshot:
        snapshot.search(QUERIES, 1)  # so that this process trusts its files
    damaged = segment_files(filled)[1]
    flip_byte(damaged, damaged.stat().st_size - 5)
    files = segment_files(filled)
    with pytest.raises(StoreCorruptError, match=damaged.name):
        filled.compact()
    assert segment_files(filled) == files and filled.count() == 18
    filled.delete(where=[f"segment={damaged.name}"])
    assert filled.compact().segments_after == 1
    assert filled.verify().ok and filled.count() == 11


def test_an_altered_row_is_not_given_a_right_checksum(filled: Store) -> None:
    import sqlite3

    filled.delete(["s000"])
    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        connection.execute("UPDATE samples SET prompt='altered' WHERE sample_id='s005'")
    connection.close()
    files = segment_files(filled)
    with pytest.raises(StoreCorruptError, match="'s005'"):
        filled.compact()
    assert segment_files(filled) == files
    filled.delete(["s005"])
    assert filled.compact().removed == 2
    assert filled.verify().ok


def test_one_writer_at_a_time(filled: Store) -> None:
    with filled.writer(), Store.open(filled.path) as other, pytest.raises(StoreLockedError):
        other.compact()


def test_too_little_space(filled: Store, monkeypatch) -> None:
    filled.delete(["s000"])
    before, files, usage = seen(filled), segment_files(filled), shutil.disk_usage(filled.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(StoreSpaceError, match="100 bytes are free"):
        filled.compact()
    monkeypatch.undo()
    assert seen(filled) == before and segment_files(filled) == files


@pytest.mark.parametrize("step", ["write_temporary", "sync_file", "publish", "sync_directory", "describe"])
def test_a_failing_disk_leaves_the_store_unharmed(filled: Store, monkeypatch, step: str) -> None:
    thinned(filled)
    filled.delete(["x0"])
    before, original = seen(filled), getattr(segment_writing, step)

    def failing(store, *rest):
        original(store, *rest)
        with segment_writing.file_errors(store):
            raise OSError(errno.EIO, "as tested")

    monkeypatch.setattr(segment_writing, step, failing)
    with pytest.raises(StoreError, match="as tested"):
        filled.compact()
    monkeypatch.undo()
    assert len(segment_files(filled)) == len(filled.info().segments) == 3
    assert seen(filled) == before and filled.verify().ok
    assert filled.compact().segments_after == 1


def test_a_database_that_does_not_shrink_harms_nothing(filled: Store, monkeypatch) -> None:
    from rapidin.storage.catalog.database import Database

    def failing(self):
        raise StoreError("as tested")

    monkeypatch.setattr(Database, "give_back_space", failing)
    filled.delete(["s000"])
    assert filled.compact().removed == 1
    assert filled.verify().ok


def test_the_database_shrinks(store: Store) -> None:
    with store.writer() as writer:
        writer.commit([new_sample(f"{i}", prompt="long " * 2000) for i in range(100)], random_vectors(100))
    store.delete([f"{i}" for i in range(90)])
    report = store.compact()
    assert report.bytes_before > 1_000_000 > 400_000 > report.bytes_after
    assert report.bytes_after == store.info().bytes_vectors + store.info().bytes_metadata


@given(
    counts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8),
    most=st.integers(1, 20),
    fraction=st.sampled_from([0.0, 0.3, 1.0]),
)
@hypothesis_settings(deadline=None, derandomize=True)
def test_plans(counts, most, fraction) -> None:
    """Nothing is left out or moved twice, new segments fit, and a second plan finds nothing to do."""
    if not counts:
        return
    records = [SegmentRecord(n + 1, f"{n}", live + dead, 0, "") for n, (live, dead) in enumerate(counts)]
    live = np.repeat(np.arange(len(counts)) + 1, [live for live, _ in counts])
    positions = np.concatenate([np.arange(live, dtype=np.int64) for live, _ in counts])
    rows = Rows(np.arange(len(live)), live, positions, np.ones(len(live), np.float32))

    def plan(records, rows):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compaction, "SEGMENT_BYTES", most * 10)
            return compaction.make_plan(records, rows, 10, fraction)

    first = plan(records, rows)
    assert first.empty == tuple(record.id for record, (left, _) in zip(records, counts, strict=True) if not left)
    moved = np.concatenate([part.keys for part in first.parts]) if first.parts else np.empty(0, np.int64)
    assert len(set(moved)) == len(moved)
    sources = set(rows.segments[moved].tolist())
    assert set(np.flatnonzero(np.isin(rows.segments, list(sources)))) == set(moved)
    wasteful = {
        record.id
        for record, (left, dead) in zip(records, counts, strict=True)
        if left and dead > fraction * (left + dead)
    }
    assert wasteful <= sources
    assert all(len(part) <= most for part in first.parts)
    kept = [record for record in records if record.id not in sources and record.id not in first.empty]
    new_segments = rows.segments.copy()
    for number, part in enumerate(first.parts):
        new_segments[part.keys] = 100 + number
        kept.append(SegmentRecord(100 + number, "", len(part), 0, ""))
    again = plan(kept, Rows(rows.keys, new_segments, np.arange(len(rows)), rows.scales))
    assert again == compaction.Plan((), ())


STEPS = [
    "segments.write_temporary",
    "segments.sync_file",
    "segments.publish",
    "segments.sync_directory",
    "segments.describe",
    "tables.insert_segment",
    "sample_changes.move_samples",
    "sample_changes.remove_segments",
    "Compaction._record",
    "garbage.remove_garbage",
    "Database.give_back_space",
]
MOMENTS = [
    (step, moment, turn)
    for step in STEPS
    for moment in ("before", "after")
    for turn in ((1,) if step == "Database.give_back_space" else (1, 2))
]
"""Step, when, and at which of its calls."""

CHILDREN = """
import json, os, sys
from rapidin.storage import Store
from rapidin.storage.maintenance import garbage
from rapidin.storage.catalog import sample_changes, tables
from rapidin.storage.maintenance import compaction
from rapidin.storage.vectors import segment_writing as segments
from rapidin.storage.catalog.database import Database
import faiss
compaction.SEGMENT_BYTES = int(sys.argv[2])

def die_around(step, moment, turn):
    home, name = step.split(".")
    homes = {"segments": segments, "tables": tables, "sample_changes": sample_changes, "garbage": garbage,
             "Compaction": compaction._Compaction, "Database": Database}
    home, calls = homes[home], []
    original = getattr(home, name)
    def dying(*arguments, **named):
        calls.append(1)
        if len(calls) == turn and moment == "before":
            os._exit(77)
        result = original(*arguments, **named)
        if len(calls) == turn:
            os._exit(77)
        return result
    setattr(home, name, dying)

statuses = []
for path, *case in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        die_around(*case)
        with Store.open(path) as store:
            store.compact()
        os._exit(0)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def killed(filled_template: Path, tmp_path_factory):
    """What was seen before, and by moment a store whose compaction into 3 segments ended then."""
    base = tmp_path_factory.mktemp("killed")
    shutil.copytree(filled_template, base / "thinned")
    with Store.open(base / "thinned") as store:
        thinned(store)
        before = seen(store)
    cases = {moment: base / f"{number}" for number, moment in enumerate(MOMENTS)}
    for path in cases.values():
        shutil.copytree(base / "thinned", path)
    child = run_python(
        CHILDREN, json.dumps([(str(path), *moment) for moment, path in cases.items()]), 6 * 2 * DIMENSION
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == [77] * len(cases)
    return before, cases


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: "-".join(map(str, moment)))
def test_killed_and_run_again(killed, moment, monkeypatch) -> None:
    monkeypatch.setattr(compaction, "SEGMENT_BYTES", 6 * 2 * DIMENSION)
    before, cases = killed
    with Store.open(cases[moment]) as store:
        assert store.verify().ok
        assert seen(store) == before
        store.compact()
        assert seen(store) == before
        assert store.verify().ok
        info = store.info()
        assert info.deleted == 0 and sum(segment.rows for segment in info.segments) == 15
        assert [file.name for file in segment_files(store)] == [segment.name for segment in info.segments]
        # Nothing is left to do.
        store.compact()
        assert [segment.name for segment in store.info().segments] == [s.name for s in info.segments]
