"""Planned samples and blocks for tests that need no data file."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rapidin.attribution import TokenBudget
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.spool import PlannedSample, SampleSpool
from rapidin.storage import NewSample


def planned(number: int, length: int, replaces: bool = False) -> PlannedSample:
    """A sample whose id is its number."""
    sample = NewSample(
        id=str(number),
        prompt="p",
        response="r",
        metadata={},
        file="f",
        row=number + 1,
        tokens=length,
        targets=length - 1,
        truncated=False,
        content_hash="h",
    )
    return PlannedSample(sample, (5,) * length, (False,) + (True,) * (length - 1), replaces)


def samples(count: int) -> Iterator[PlannedSample]:
    """Samples of 2 to 12 tokens."""
    return (planned(number, 2 + number * 7 % 11) for number in range(count))


@contextmanager
def spooled(those: Iterable[PlannedSample]) -> Iterator[SampleSpool]:
    """A spool that holds some samples."""
    with SampleSpool(Path(tempfile.gettempdir())) as spool:
        for one in those:
            spool.add(one)
        spool.finish()
        yield spool


def single_blocks(count: int) -> Iterator[WorkBlock]:
    """Blocks of one sample each, whose id is the block's number."""
    return (WorkBlock(number, (planned(number, 20),)) for number in range(count))


def budget(tokens: int) -> TokenBudget:
    """A budget of padded tokens on the CPU."""
    return TokenBudget.for_device(tokens, torch.device("cpu"), 64)
