"""Blocks and the thread that makes them ahead of the computing."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rapidin.attribution.rapidgrads import TokenBudget
from rapidin.errors import DataFileError
from rapidin.ingest import blocks
from rapidin.ingest.blocks import Block, BlocksAhead, make_blocks
from rapidin.ingest.planning import Plan, PlannedRow, encoded_samples, text_samples
from rapidin.text import EncodedSample, TextSample


def sample(number: int, length: int) -> tuple[TextSample, EncodedSample]:
    text = TextSample(
        id=str(number),
        prompt="p",
        response="r",
        metadata={},
        file="f",
        row=number + 1,
        shape="completion",
        turns=(),
        has_response=True,
        content_hash="h",
    )
    return text, EncodedSample(str(number), (5,) * length, (False,) + (True,) * (length - 1), False, "p", "r")


def samples(count: int) -> Iterator[tuple[TextSample, EncodedSample]]:
    return (sample(number, 2 + number * 7 % 11) for number in range(count))


def budget(tokens: int) -> TokenBudget:
    return TokenBudget.for_device(tokens, torch.device("cpu"), 64)


def ids(made: list[Block]) -> list[list[str]]:
    return [[text.id for text, _ in block.samples] for block in made]


def test_blocks_hold_every_sample_once_sorted_within_their_window() -> None:
    made = list(make_blocks(samples(25), 10, budget(30)))
    assert [block.number for block in made] == list(range(len(made)))
    assert all(len(block.samples) * len(block.samples[0][1].ids) <= 30 for block in made)
    flat = [sample for block in made for sample in block.samples]
    for first, last in ((0, 10), (10, 20), (20, 25)):
        assert {int(text.id) for text, _ in flat[first:last]} == set(range(first, last))
        lengths = [len(encoded.ids) for _, encoded in flat[first:last]]
        assert lengths == sorted(lengths, reverse=True)
    # No block could have taken the next sample of its window, too.
    for block, following in pairwise(made):
        if int(block.samples[0][0].id) // 10 == int(following.samples[0][0].id) // 10:
            assert (len(block.samples) + 1) * len(block.samples[0][1].ids) > 30


def test_a_sample_longer_than_the_budget_is_a_block_of_its_own() -> None:
    made = list(make_blocks(iter([sample(0, 9), sample(1, 50), sample(2, 10)]), 10, budget(20)))
    assert ids(made) == [["1"], ["2", "0"]]
    assert [block.tokens for block in made] == [50, 19]


def test_windows_of_long_samples_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_WINDOW_TOKENS", 20)
    made = list(make_blocks(iter([sample(number, 10) for number in range(5)]), 100, budget(1000)))
    assert ids(made) == [["0", "1"], ["2", "3"], ["4"]]


def test_ahead_keeps_the_order() -> None:
    expected = list(make_blocks(samples(50), 10, budget(30)))
    with BlocksAhead(samples(50), 10, budget(30), size=2) as ahead:
        assert list(ahead) == expected
        assert ahead.ended
        assert ahead.take() is None


def test_the_thread_works_while_nobody_takes_but_not_without_bound() -> None:
    read = []

    def reading() -> Iterator[tuple[TextSample, EncodedSample]]:
        for one in samples(1000):
            read.append(one)
            yield one

    with BlocksAhead(reading(), 10, budget(30), size=3) as ahead:
        deadline = time.monotonic() + 5
        while len(read) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert 10 <= len(read) <= 20  # three blocks wait, and the window that they came from
        assert ahead.take() is not None


def test_errors_come_after_the_blocks_before_them() -> None:
    def failing() -> Iterator[tuple[TextSample, EncodedSample]]:
        yield from samples(25)
        raise DataFileError("the file has changed")

    taken = []
    with (
        pytest.raises(DataFileError, match="has changed"),
        BlocksAhead(failing(), 10, budget(30), size=2) as ahead,
    ):
        for block in ahead:
            taken.append(block)
    assert ids(taken) == ids(list(make_blocks(samples(20), 10, budget(30))))


def test_the_thread_ends_when_the_consumer_stops() -> None:
    def endless() -> Iterator[tuple[TextSample, EncodedSample]]:
        while True:
            yield sample(0, 5)

    for window in (10, 10**9):  # while a block waits for its place; while a window is being read
        with BlocksAhead(endless(), window, budget(30), size=2) as ahead:
            ahead.take(timeout=0.05)
        assert not [thread for thread in threading.enumerate() if thread.name == "rapidin-tokenise"]


@pytest.mark.parametrize("error", [SystemExit(3), BaseException("a panic")])
def test_what_is_no_exception_is_raised_too(error: BaseException) -> None:
    def failing() -> Iterator[tuple[TextSample, EncodedSample]]:
        yield from samples(10)
        raise error

    with BlocksAhead(failing(), 10, budget(30), size=20) as ahead:
        while ahead.take(timeout=30) is not None:
            pass
        assert ahead.ended
        with pytest.raises(type(error)):
            ahead.check()


def test_the_thread_stops_at_rows_that_are_passed_over() -> None:
    read = threading.Event()

    def stored() -> Iterator[None]:
        while True:
            read.set()
            yield None

    with BlocksAhead(stored(), 10, budget(30), size=2):
        assert read.wait(30)
    assert not [thread for thread in threading.enumerate() if thread.name == "rapidin-tokenise"]


def test_rows_that_are_not_wanted_are_no_samples_but_seen(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(f'{{"id": "{number}", "prompt": "p", "completion": "r"}}\n' for number in range(3)))
    (_, wanted, _) = text_samples([file], None, pytest.fail)
    plan = Plan(new={(wanted.file, wanted.row): PlannedRow(wanted.content_hash, replaces=False)})
    encoder = SimpleNamespace(encode=lambda text: text.id)
    encoded = list(encoded_samples([file], None, plan, encoder))  # type: ignore[arg-type]
    assert encoded == [None, (wanted, "1"), None]


def test_taking_does_not_wait_longer_than_asked() -> None:
    release = threading.Event()

    def slow() -> Iterator[tuple[TextSample, EncodedSample]]:
        release.wait()
        yield sample(0, 5)

    with BlocksAhead(slow(), 10, budget(30), size=2) as ahead:
        assert ahead.take(timeout=0) is None
        assert not ahead.ended
        release.set()
        assert ahead.take(timeout=10) is not None
