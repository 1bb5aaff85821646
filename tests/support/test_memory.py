"""What follows when memory runs out."""

from __future__ import annotations

import weakref

import pytest
import torch

from rapidin.support.memory import unless_memory_runs_out

ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_failed_is_gone_before_the_cache_is_emptied(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def fail() -> int:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise type(error)(*error.args)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[0]() is not None))
    assert unless_memory_runs_out(fail) is None
    assert alive == [False]


def test_other_errors_pass_and_results_come_back() -> None:
    def fail() -> int:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        unless_memory_runs_out(fail)
    assert unless_memory_runs_out(lambda: 0) == 0
