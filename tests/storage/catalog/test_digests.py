"""Searches and filters answer what was written, or refuse, whatever byte of ``store.db`` is altered."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
import xxhash

from rapidin.errors import RapidinError, StoreCorruptError
from rapidin.storage import MetadataChange, NewSample, Store
from rapidin.storage.catalog import digests
from rapidin.storage.catalog.schema import DigestRow
from tests.storage.stores import new_sample, numbered, random_vectors

FILTERS = [
    *([], ["topic=even"], ["topic!=even"], ["rank<7"], ["rank>=3", "topic=odd"], ["nested~null"], ["long~xxx1"]),
    *(["tokens>15"], ["file=data.jsonl"], ["row!=3"], ["id<s010"], ["prompt~s00"], ["truncated=false"]),
    ["odd=null"],
]


def answers(store: Store) -> list:
    """What searches find, with filters and without."""
    with store.snapshot() as snapshot:
        return [
            [
                (hit.id, hit.score, repr(hit.metadata))
                for hit in snapshot.search(random_vectors(1, 5), 30, where).largest[0]
            ]
            for where in FILTERS
        ]


@pytest.fixture(scope="module")
def template(filled_template: Path, tmp_path_factory) -> Path:
    """A store in which samples were deleted, replaced and changed, and which was compacted in between."""
    path = tmp_path_factory.mktemp("digests") / "store"
    shutil.copytree(filled_template, path)
    with Store.open(path) as store:
        store.delete(["s001", "s009"])
        store.compact()
        with store.writer() as writer:
            changed = [NewSample.of(s, metadata=dict(s.metadata) | {"odd": 2**70}) for s in store.list()[:3]]
            writer.update_metadata([MetadataChange.of(sample) for sample in changed])
            more = [
                new_sample(f"t{i:03}", metadata={"long": "x" * 300 + str(i), "topic": "long"}) for i in range(4)
            ]
            writer.commit([*more, *numbered(5, 7)], random_vectors(6, 3))
        store.delete(where=["rank>17"])
    return path


def test_the_sums_follow_every_change(template: Path) -> None:
    with Store.open(template) as store, store._database.reading() as session:
        assert digests.wrong(session) == []
        before = {row.name: row.value for row in session.query(DigestRow)}
    with Store.open(template) as store, store._database.writing() as session:
        digests.fill(session)
        assert {row.name: row.value for row in session.query(DigestRow)}.items() <= before.items()


@pytest.mark.parametrize(
    "row", [(1, 'é"\n\x00🦀', None), (2**62, -1, 1.5, -0.0, 1e300), (True, ""), (), (5, "x" * 10_000)], ids=repr
)
def test_a_row_is_hashed_as_its_json(row: tuple) -> None:
    """However it is written, because stores keep the hashes."""
    digest = digests.RowsDigest()
    digest.step(*row)
    text = json.dumps(row, separators=(",", ":"), ensure_ascii=False)
    assert digest.finalize() % 2**64 == xxhash.xxh3_64_intdigest(text.encode())


def test_any_altered_byte_is_refused_or_changes_nothing(template: Path, path: Path) -> None:
    """Pages of tables and indexes alike; the file has no checksum of its own."""
    shutil.copytree(template, path)
    with Store.open(path) as store:
        expected = answers(store)
    content = (path / "store.db").read_bytes()
    chosen = random.Random(1)
    refused = 0
    for _ in range(100):
        altered = bytearray(content)
        offset = chosen.randrange(100, len(content))
        altered[offset] ^= 1 << chosen.randrange(8)
        (path / "store.db").write_bytes(altered)
        try:
            with Store.open(path) as store:
                assert answers(store) == expected, f"byte {offset} was altered"
        except RapidinError:
            refused += 1
    assert refused > 5


STATEMENTS = {
    "rank<7": "UPDATE sample_metadata SET number = 99 WHERE number = 5",
    "topic=odd": "DELETE FROM sample_metadata WHERE text = 'odd' AND sample_key = 8",
    "tokens>15": "UPDATE samples SET tokens = 1 WHERE sample_id = 's012'",
    "prompt~s00": "UPDATE samples SET prompt = 'x' WHERE sample_id = 's004'",
    "long~xxx1": "UPDATE samples SET metadata = '{}' WHERE sample_id = 't001'",
    "id=s004": "UPDATE samples SET sample_id = 's404' WHERE sample_id = 's004'",
}


@pytest.mark.parametrize("where", STATEMENTS)
def test_everything_that_filters_refuses(template: Path, path: Path, tmp_path: Path, where: str) -> None:
    shutil.copytree(template, path)
    connection = sqlite3.connect(path / "store.db")
    with connection:
        connection.execute(STATEMENTS[where])
    connection.close()
    with Store.open(path) as store:
        with store.snapshot() as snapshot:
            for attempt in (
                lambda: snapshot.search(random_vectors(1), 1, [where]),
                lambda: snapshot.scores(random_vectors(1), [where]),
                lambda: snapshot.count([where]),
                lambda: store.list([where]),
                lambda: store.delete(where=[where]),
            ):
                with pytest.raises(StoreCorruptError, match=r"store\.db: .*restore"):
                    attempt()
        assert not store.verify().ok


def test_the_place_of_a_vector_that_an_index_alone_has_wrong(template: Path, path: Path) -> None:
    """A search would compare another vector, and miss the sample without a word."""
    shutil.copytree(template, path)
    connection = sqlite3.connect(path / "store.db")
    with connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'position', '\"row\"') "
            "WHERE name = 'ix_samples_live_search'"
        )
    connection.close()
    connection = sqlite3.connect(path / "store.db")
    with connection:
        connection.execute("REINDEX")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, '\"row\"', 'position') "
            "WHERE name = 'ix_samples_live_search'"
        )
    connection.close()
    with Store.open(path) as store:
        with pytest.raises(StoreCorruptError, match=r"the places of vectors.*compact"):
            store.snapshot()
        store.compact()
        with store.snapshot() as snapshot:
            assert snapshot.samples == store.count()
        assert store.verify().ok


def test_compaction_makes_again_what_filters_read(template: Path, path: Path, caplog) -> None:
    shutil.copytree(template, path)
    with Store.open(path) as store:
        expected = answers(store)
    connection = sqlite3.connect(path / "store.db")
    with connection:
        connection.execute("DELETE FROM sample_metadata WHERE number > 4")
        connection.execute("UPDATE digests SET value = value + 1 WHERE name = 'columns'")
    connection.close()
    with Store.open(path) as store:
        store.compact()
        assert "made again" in caplog.text
        assert answers(store) == expected
        assert store.verify().ok


def test_a_store_of_format_1_gets_its_sums(template: Path, path: Path) -> None:
    shutil.copytree(template, path)
    connection = sqlite3.connect(path / "store.db")
    with connection:
        connection.execute("DROP TABLE digests")
        connection.execute("UPDATE settings SET format_version = 1")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    with Store.open(template) as before, Store.open(path) as store:
        assert answers(store) == answers(before)
        assert store.format_version == 2 and store.verify().ok
