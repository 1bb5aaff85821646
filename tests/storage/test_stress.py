"""A writer that does everything at random, and readers who check every answer against what they see themselves.

A sample's vector is a function of its id and content hash, so a reader can compute what the very snapshot that it
has must answer: with NumPy, from the samples in it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xxhash

from rapidin.errors import IndexNotFoundError
from rapidin.storage import Store
from rapidin.storage.maintenance import compaction
from tests.storage.stores import DIMENSION, ROOT, new_sample

SECONDS_MORE = 120
"""Until a process that does not end is taken for one that hangs."""


def vector_of(id: str, content_hash: str) -> np.ndarray:
    seed = xxhash.xxh3_64_intdigest(f"{id} {content_hash}".encode())
    # In half precision from the start: FAISS rounds what lies in the middle away from zero, NumPy to even numbers.
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float16).astype(np.float32)


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def write(path: str, seconds: str, seed: str) -> None:
    """Work at random until the time is over; at the end the store holds what this process thinks it does."""
    compaction.SEGMENT_BYTES = 40 * 2 * DIMENSION  # so that there are several segments
    choose, truth, done = (
        random.Random(int(seed)),
        dict[str, str](),
        dict.fromkeys(["commit", "delete", "compact", "ivf", "rabitq"], 0),
    )
    first = ["commit", "ivf", "rabitq"]  # so that readers have indexes all the time
    end = time.monotonic() + float(seconds)
    with Store.open(path) as store:
        while time.monotonic() < end or not all(done.values()):
            action = first.pop(0) if first else choose.choices(list(done), weights=[6, 2, 2, 1, 1])[0]
            done[action] += 1
            if action == "commit":
                ids = choose.sample([f"s{i:03}" for i in range(200)], choose.randint(1, 15))
                samples = [new_sample(id, content_hash=f"{choose.random()}", row=done["commit"]) for id in ids]
                with store.writer() as writer:
                    writer.commit(samples, np.array([vector_of(s.id, s.content_hash) for s in samples]))
                truth |= {sample.id: sample.content_hash for sample in samples}
            elif action == "delete" and truth:
                gone = choose.sample(sorted(truth), choose.randint(1, min(10, len(truth))))
                assert store.delete(gone) == len(gone)
                truth = {id: content for id, content in truth.items() if id not in gone}
            elif action == "compact":
                store.compact(fraction=choose.choice([0.0, 0.0, 0.3]))
            elif truth and action in ("ivf", "rabitq"):
                store.build_index(action, retrain=choose.random() < 0.3)
        assert {sample.id: sample.content_hash for sample in store.list()} == truth
        store.compact()
        info = store.info()
        assert (info.samples, info.deleted) == (len(truth), 0)
        assert len(list((store.path / "segments").iterdir())) >= len(info.segments)
    tell(*done.values())


def read(path: str, seed: str, stop: str) -> None:
    """Check snapshots until the file `stop` is there.

    Prints how many, under how many files were replaced, and how many searches each kind of index answered.
    """
    choose, rounds, replaced, ways = random.Random(int(seed)), 0, 0, Counter[str]()
    with Store.open(path) as store:
        tell("ready")
        while not Path(stop).exists():
            with store.snapshot() as snapshot:
                time.sleep(choose.random() * 0.1)  # so that a compaction may come between
                before = [record.name for record in snapshot._facts.segments.values()]
                indexes = [file.name for record in snapshot._indexes._records.values() for file in record.files]
                ways += check(snapshot, choose)
                time.sleep(choose.random() * 0.1)
                now = {segment.name for segment in store.info().segments}
                ways += check(snapshot, choose)
                assert all((Path(path) / "segments" / name).exists() for name in before)
                assert all((Path(path) / "indexes" / name).exists() for name in indexes)
            rounds += 1
            replaced += not set(before) <= now
    tell(rounds, replaced, ways["ivf"], ways["rabitq"])


def check(snapshot, choose: random.Random) -> Counter[str]:
    """Compare all that a snapshot answers with what it must; how many searches took which way."""
    blocks = list(snapshot.blocks(block_bytes=choose.choice([4 * DIMENSION * 7, 2**20])))
    samples = [sample for block in blocks for sample in block.samples]
    vectors = np.array([vector_of(s.id, s.content_hash) for s in samples], np.float32).reshape(-1, DIMENSION)
    assert len(samples) == snapshot.samples
    for block, start in zip(blocks, np.cumsum([0] + [len(block.samples) for block in blocks]), strict=False):
        np.testing.assert_array_equal(block.vectors, vectors[start : start + len(block.samples)])
    queries = np.random.default_rng(choose.randrange(2**32)).standard_normal((2, DIMENSION)).astype(np.float32)
    order = sorted(range(len(samples)), key=lambda number: samples[number].id)
    ids, scores = snapshot.scores(queries)
    assert ids == [samples[number].id for number in order]
    np.testing.assert_allclose(scores, queries @ vectors[order].T, rtol=0, atol=1e-4)
    for hits, of_query in zip(snapshot.search(queries, 5).largest, scores, strict=True):
        best = sorted(zip(-of_query, ids, strict=True))[:5]
        assert [(hit.id, hit.score) for hit in hits] == [(id, -score) for score, id in best]
    odd = max(sample.row for sample in samples) if samples else 0
    hits = snapshot.search(queries[:1], 1000, [f"row={odd}"]).largest[0] if samples else []
    assert sorted(hit.id for hit in hits) == sorted(sample.id for sample in samples if sample.row == odd)
    ways = Counter[str]()
    for index in ("auto", "ivf", "rabitq"):
        try:
            way = snapshot.chosen_index(index, queries=len(queries))
        except IndexNotFoundError:  # this snapshot has none
            continue
        ways[way] += 1
        result = snapshot.search(queries, 5, index=index)
        assert result.index == way
        for hits, of_query in zip(result.largest, scores, strict=True):
            exact = dict(zip(ids, of_query, strict=True))
            found = [(hit.id, hit.score) for hit in hits]
            # Candidates of one query after the other: the sum may be rounded otherwise.
            expected = [exact[id] for id, _ in found]
            np.testing.assert_allclose([score for _, score in found], expected, rtol=0, atol=1e-4)
            assert found == sorted(dict(found).items(), key=lambda pair: (-pair[1], pair[0]))
    return ways


def start(function: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; from tests.storage.test_stress import *; {function}(*sys.argv[1:])"]
        + [str(argument) for argument in arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    ("seconds", "readers"), [(4, 2), pytest.param(60, 3, marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_readers_are_right_whatever_the_writer_does(
    store: Store, tmp_path: Path, seconds: int, readers: int
) -> None:
    stop = tmp_path / "stop"
    processes = [start("read", store.path, seed, stop) for seed in range(readers)]
    try:
        for reader in processes:
            assert reader.stdout.readline() == "ready\n", reader.communicate()
        writer = start("write", store.path, seconds, 0)
        processes.append(writer)
        done, errors = writer.communicate(timeout=seconds + SECONDS_MORE)
        assert writer.returncode == 0, errors
        stop.touch()
        counts = []
        for reader in processes[:-1]:
            output, errors = reader.communicate(timeout=SECONDS_MORE)
            assert reader.returncode == 0, errors
            counts.append([int(number) for number in output.split()])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert min(int(number) for number in done.split()) > 0
    assert min(rounds for rounds, *_ in counts) > 0
    assert np.min(np.sum(counts, axis=0)) > 0, counts  # or it would prove little
    report = store.verify()
    assert report.ok, report.problems
    with store.writer():
        assert len(list((store.path / "segments").iterdir())) == len(store.info().segments)
    assert store.info().bytes_unnamed == 0
