"""Fingerprints cover what a model's weights are loaded from, and nothing else."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from rapidin.model.identity import fingerprint
from rapidin.settings import ModelSettings


def test_what_a_training_leaves_beside_the_weights_is_not_in_the_fingerprint(
    model_directory: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(model_directory, directory)
    for form in ("safetensors", "bin"):
        if form == "bin":
            tensors = load_file(directory / "model.safetensors")
            (directory / "model.safetensors").unlink()
            torch.save(tensors, directory / "pytorch_model.bin")
        before = fingerprint(ModelSettings(model=str(directory)))
        for name in ("training_args.bin", "optimizer.bin", "scheduler.bin", "adapter_model.safetensors"):
            (directory / name).write_bytes(b"anything")
        assert fingerprint(ModelSettings(model=str(directory))) == before
        for name in ("training_args.bin", "optimizer.bin", "scheduler.bin", "adapter_model.safetensors"):
            (directory / name).unlink()
