"""The spool keeps planned samples as they were, leaves nothing behind and takes little memory."""

import errno
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from rapidin.errors import StoreError, StoreSpaceError
from rapidin.ingest.blocks import make_blocks
from rapidin.ingest.planning import make_plan
from rapidin.ingest.spool import PlannedSample, SampleSpool
from rapidin.records import IngestListener
from rapidin.settings import TextSettings
from rapidin.storage import NewSample
from rapidin.text import Encoder
from tests import worlds
from tests.ingest.planned import budget, planned, samples, spooled


def rich(number: int) -> PlannedSample:
    """A sample in which every field says something."""
    sample = NewSample(
        id=f"é {number}\n",
        prompt="two\nlines 👍",
        response="\x00\u2028",
        metadata={"text": "ü", "number": 2**60 + 1, "real": 0.1, "none": None, "list": [1, {"a": True}]},
        file="a/b",
        row=7,
        tokens=3,
        targets=2,
        truncated=True,
        content_hash="f" * 32,
        target_spans=((1, 2), (5, 9)),
    )
    return PlannedSample(sample, (1, 2**31 - 1, number), (False, True, True), True)


def test_samples_come_back_as_they_were_in_any_order() -> None:
    those = [rich(0), planned(1, 5), rich(2), planned(3, 1)]
    with spooled(those) as spool:
        assert len(spool) == 4
        assert list(spool.lengths) == [3, 5, 3, 1]
        assert spool.read([2, 0]) == (those[2], those[0])
        assert spool.read(range(4)) == tuple(those)


def test_the_file_has_no_name_and_its_space_is_free_at_the_end(tmp_path: Path) -> None:
    with SampleSpool(tmp_path) as spool:
        spool.add(rich(0))
        spool.finish()
        assert list(tmp_path.iterdir()) == []
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) == before - 1  # noqa: PTH208


def test_without_a_directory_samples_are_only_counted(tmp_path: Path) -> None:
    with SampleSpool(tmp_path) as kept, SampleSpool(None) as counted:
        for one in samples(10):
            kept.add(one)
            counted.add(one)
        assert counted.bytes == kept.bytes > 0
        assert counted.lengths == kept.lengths
        with pytest.raises(RuntimeError, match="keeps no samples"):
            counted.read([0])


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, StoreSpaceError, "no space left to write"),
        (errno.EACCES, StoreError, "check the permissions"),
    ],
)
def test_a_disk_that_takes_no_more_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError], message: str
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with SampleSpool(tmp_path) as spool, pytest.raises(kind, match=message) as raised:
        spool.add(planned(0, 5))
    assert str(tmp_path) in str(raised.value)


def test_a_file_that_was_cut_is_told(tmp_path: Path) -> None:
    with SampleSpool(tmp_path) as spool:
        spool.add(planned(0, 5))  # still in the buffer
        with pytest.raises(StoreError, match="a temporary file became shorter"):
            spool.read([0])


def peak(count: int, directory: Path) -> int:
    """The most memory that planning `count` rows of three kilobytes and reading their blocks takes."""
    rows = [{**row, "output": f"{row['output']} " + "x " * 1_500} for row in worlds.rows(count)]
    data = worlds.write_rows(directory / f"{count}.jsonl", rows)
    del rows
    encoder = Encoder(worlds.make_tokenizer(), TextSettings(), 256)
    tracemalloc.start()
    try:
        with SampleSpool(directory) as spool:
            make_plan([data], None, None, lambda: encoder, spool, False, IngestListener())
            assert sum(len(block.samples) for block in make_blocks(spool, 512, budget(2_000))) == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    """Two thousand more rows take what their ids and hashes take, a tenth of their text."""
    more = peak(3_000, tmp_path) - peak(1_000, tmp_path)
    assert more < 2_000 * 400
