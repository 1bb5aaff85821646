"""Blocks: which samples are computed together."""

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from rapidin.attribution import TokenBudget
from rapidin.ingest.blocks import WorkBlock, make_blocks
from rapidin.ingest.planning import make_plan
from rapidin.ingest.spool import SampleSpool
from rapidin.records import IngestListener
from rapidin.settings import TextSettings
from rapidin.text import Encoder
from tests import worlds
from tests.ingest.planned import budget, planned, samples, spooled


def ids(made: list[WorkBlock]) -> list[list[str]]:
    return [[one.sample.id for one in block.samples] for block in made]


def test_blocks_hold_every_sample_once_sorted_within_their_window() -> None:
    with spooled(samples(25)) as spool:
        made = list(make_blocks(spool, 10, budget(30)))
    assert [block.number for block in made] == list(range(len(made)))
    assert all(len(block.samples) * len(block.samples[0].ids) <= 30 for block in made)
    flat = [one for block in made for one in block.samples]
    for first, last in ((0, 10), (10, 20), (20, 25)):
        assert {int(one.sample.id) for one in flat[first:last]} == set(range(first, last))
        lengths = [len(one.ids) for one in flat[first:last]]
        assert lengths == sorted(lengths, reverse=True)
    # No block could have taken the next sample of its window, too.
    for block, following in pairwise(made):
        if int(block.samples[0].sample.id) // 10 == int(following.samples[0].sample.id) // 10:
            assert (len(block.samples) + 1) * len(block.samples[0].ids) > 30


def test_a_sample_longer_than_the_budget_is_a_block_of_its_own() -> None:
    with spooled([planned(0, 9), planned(1, 50), planned(2, 10)]) as spool:
        made = list(make_blocks(spool, 10, budget(20)))
    assert ids(made) == [["1"], ["2", "0"]]
    assert [block.tokens for block in made] == [50, 19]


def test_windows_of_long_samples_are_smaller() -> None:
    with spooled(planned(number, 10) for number in range(5)) as spool:
        made = list(make_blocks(spool, 100, budget(1000), window_tokens=20))
    assert ids(made) == [["0", "1"], ["2", "3"], ["4"]]


def test_a_block_is_named_by_its_samples() -> None:
    made = WorkBlock(0, tuple(samples(1)))
    assert made.names == "sample '0'"
    made = WorkBlock(0, tuple(samples(9)))
    assert made.names == "9 samples ('0', '1', '2', '3', '4', '5', '6', '7', …)"


@pytest.mark.parametrize(
    ("window", "tokens", "count", "digest"),
    [
        (64, 500, 71, "b0be92a2cd584da781a41ff7ee1da9a5807e82374f38b5e0969238d73aa4a32d"),
        (4096, 2048, 16, "dcd6d66d94e718f28fe180d19b784b94dae18bd1ad6ce7bf96c611c8f10b05b9"),
    ],
)
def test_blocks_are_what_they_always_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, tokens: int, count: int, digest: str
) -> None:
    """From rows of a file, some unusable, doubled or cut off: the digest of everything that becomes a segment.

    It was recorded when rows were still read and tokenised a second time for the blocks.
    """
    rows = worlds.rows(300)
    rows[7]["output"] = "very " * 300
    rows[9]["output"] = ""
    rows[20]["id"] = "row-3"
    worlds.write_rows(tmp_path / "data.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    encoder = Encoder(worlds.make_tokenizer(), TextSettings(), 256)
    found = hashlib.sha256()
    with SampleSpool(tmp_path) as spool:
        make_plan([Path("data.jsonl")], None, None, lambda: encoder, spool, True, IngestListener())
        made = list(make_blocks(spool, window, TokenBudget.for_device(tokens, torch.device("cpu"), 1024)))
    for block in made:
        for one in block.samples:
            text = one.sample
            fields = (block.number, text.id, text.row, one.ids, one.targets, text.prompt, text.response)
            more = (text.truncated, text.target_spans, dict(text.metadata), text.content_hash)
            found.update(repr((*fields, *more)).encode())
    assert len(made) == count
    assert found.hexdigest() == digest
