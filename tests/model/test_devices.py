"""Which device each worker gets, on a machine with pretended GPUs."""

import logging
import sys
from pathlib import Path

import pytest
import torch

from rapidin.errors import SettingError
from rapidin.model import devices
from rapidin.model.devices import check_device, worker_devices


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs with 1,000 bytes each, none of which may be opened: whatever does so calls `_lazy_init`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("opens the GPU"))
    monkeypatch.setattr(devices, "_smallest_memory", lambda: 1000)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize(
    ("device", "workers", "expected"),
    [
        ("cpu", None, ["cpu"]),
        ("cpu", 3, ["cpu"] * 3),
        ("cuda", None, ["cuda:0"]),
        ("cuda", 1, ["cuda:0"]),
        ("cuda:2", None, ["cuda:2"]),
        ("cuda:0,1,3", None, ["cuda:0", "cuda:1", "cuda:3"]),
        ("cuda:0,1,3", 3, ["cuda:0", "cuda:1", "cuda:3"]),
        ("cuda:0,1,3", 1, ["cuda:0,1,3"]),
        ("cuda:0,1,2,3", 2, ["cuda:0,1", "cuda:2,3"]),
        ("cuda:1,1", None, ["cuda:1", "cuda:1"]),
        ("auto", None, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("auto", 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("auto", 2, ["cuda:0,1", "cuda:2,3"]),
        ("auto", 1, ["auto"]),
    ],
)
def test_with_gpus(gpus: None, device: str, workers: int | None, expected: list[str]) -> None:
    assert list(worker_devices(device, workers, None)) == expected


def test_auto_spreads_a_model_that_is_too_large_for_one(gpus: None, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(590))
    assert len(worker_devices("auto", None, tmp_path)) == 4
    (tmp_path / "optimizer.safetensors").write_bytes(bytes(20))  # a training's, which nobody loads
    assert len(worker_devices("auto", None, tmp_path)) == 4
    (tmp_path / "model.safetensors").write_bytes(bytes(610))
    assert worker_devices("auto", None, tmp_path) == ("auto",)
    assert worker_devices("auto", 2, tmp_path) == ("cuda:0,1", "cuda:2,3")


def test_the_stand_in_sees_when_a_gpu_is_opened(gpus: None) -> None:
    for opens in (torch.cuda.init, lambda: torch.cuda.get_device_properties(0)):
        with pytest.raises(pytest.fail.Exception, match="opens the GPU"):
            opens()


TORCH = """
from types import SimpleNamespace

print("a greeting")
memory = [3000, 2000, 4000]
cuda = SimpleNamespace(
    device_count=lambda: len(memory),
    get_device_properties=lambda number: SimpleNamespace(total_memory=memory[number]),
)
"""


def test_another_process_asks_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert devices._smallest_memory() == 2000


def test_memory_that_cannot_be_found_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no driver')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with caplog.at_level(logging.WARNING, "rapidin"):
        assert devices._smallest_memory() == 0
    assert "cannot be found out (the process that asked ended with exit code 1)" in caplog.text


@pytest.mark.parametrize(("workers", "expected"), [(None, ["cpu"]), (1, ["cpu"]), (3, ["cpu"] * 3)])
def test_auto_without_a_gpu(no_gpu: None, workers: int | None, expected: list[str]) -> None:
    assert list(worker_devices("auto", workers, None)) == expected


@pytest.mark.parametrize(
    ("device", "workers", "message"),
    [
        ("cpu", 0, "--workers 0 cannot be used: give at least 1"),
        ("cuda:0,1,2", 2, "--workers 2 cannot share the 3 GPUs of --device cuda:0,1,2 evenly"),
        ("cuda", 2, "--workers 2 cannot share the 1 GPU of --device cuda evenly"),
    ],
)
def test_what_cannot_be_shared_is_told_without_torch(device: str, workers: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_device(device, workers)


def test_gpus_that_do_not_suffice(gpus: None) -> None:
    with pytest.raises(SettingError, match="--workers 3 cannot share the 4 GPUs of --device auto evenly"):
        worker_devices("auto", 3, None)
    with pytest.raises(SettingError, match="--device cuda:0,4: there are 4 CUDA devices, numbered from 0"):
        worker_devices("cuda:0,4", None, None)


def test_gpus_that_are_not_there(no_gpu: None) -> None:
    with pytest.raises(SettingError, match="--device cuda:0,1: torch sees no CUDA device here"):
        worker_devices("cuda:0,1", None, None)
