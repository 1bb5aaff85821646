"""bergson (EleutherAI) on the benchmark's model and tokens, through its command line in an environment of its own.

It gets what rapidin gets: the same token ids and labels, the same budget of padded tokens (it forms its batches in
the same way, the longest first), float32, the same threads. It hooks the linear layers but the output head,
projects each gradient from both sides to 16 × 16 and writes float32; no preconditioner, no normalisation.

    python -m venv bergson-env
    bergson-env/bin/pip install bergson==2.5.1
    bergson-env/bin/pip uninstall -y torchvision torchaudio  # the newest three need not fit together
    bergson-env/bin/pip install --no-deps torch==2.13.0
    python -m benchmarks.caching speed --bergson bergson-env/bin/bergson
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import nn

from benchmarks.workload import Sample, save, slices, tokens_of

_LAUNCHER = """
import resource, subprocess, sys
with open(sys.argv[1], "wb") as log:
    code = subprocess.run(sys.argv[2:], stdout=log, stderr=log).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Starts bergson from a small process: what `ru_maxrss` says of a child begins with its parent's memory."""


@dataclass(frozen=True, slots=True)
class BergsonRun:
    """One call of bergson.

    Attributes:
        seconds: of going over the batches, as its progress bar says; without its start.
        peak: bytes of the whole process.
        bytes_per_sample: of its index.
    """

    seconds: float
    peak: int
    bytes_per_sample: int


class Bergson:
    """Calls of bergson on one model.

    Args:
        program: its command line.
        work: directory for model, data and indices.
        model: saved there.
        tokens: padded tokens of a batch.
        threads: that it may take.
    """

    def __init__(self, program: Path, work: Path, model: nn.Module, tokens: int, threads: int) -> None:
        self._program = program
        self._work = work
        self._tokens = tokens
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
        }
        save(model, work / "model")

    def tokens_per_second(self, samples: Sequence[Sample]) -> tuple[float, BergsonRun]:
        """Time all samples and a few, and divide the difference of tokens by that of seconds.

        So the making of its projection matrices in the first batch does not count.

        Returns:
            Tokens per second, and the run with all samples.
        """
        datasets.disable_progress_bars()
        few = slices(samples, self._tokens, 6)[-1]  # whole batches, so that the difference is whole batches, too
        short, long = self._run(few), self._run(samples)
        return (tokens_of(samples) - tokens_of(few)) / (long.seconds - short.seconds), long

    def _run(self, samples: Sequence[Sample]) -> BergsonRun:
        data, index, log = self._work / "data", self._work / "index", self._work / "log.txt"
        rows = {
            "input_ids": [list(sample.ids) for sample in samples],
            "labels": [
                [id if target else -100 for id, target in zip(sample.ids, sample.targets, strict=True)]
                for sample in samples
            ],
            "length": [len(sample.ids) for sample in samples],
        }
        datasets.Dataset.from_dict(rows).save_to_disk(data)
        options = {
            "model": self._work / "model",
            "dataset": data,
            "precision": "fp32",
            "projection_dim": 16,
            "token_batch_size": self._tokens,
            "overwrite": True,
        }
        command = [self._program, "build", index]
        for name, value in options.items():
            command += [f"--{name}", value]
        done = subprocess.run(
            [sys.executable, "-c", _LAUNCHER, log, *map(str, command)],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"bergson failed:\n{log.read_text()[-2000:]}")
        return BergsonRun(_seconds(log), int(done.stdout) * 1024, _bytes_per_sample(index, samples))


def _seconds(log: Path) -> float:
    """Read how long it went over its batches from the last state of its progress bar, to three digits."""
    states = re.findall(
        r"(\d+)/(\d+) \[[^]]*?([\d.]+)(it/s|s/it)\]", log.read_text().split("Collecting gradients")[-1]
    )
    if not states or states[0][0] != states[0][1]:
        raise RuntimeError(f"bergson's progress cannot be read:\n{log.read_text()[-2000:]}")
    done, _, rate, unit = states[0]
    return int(done) / float(rate) if unit == "it/s" else int(done) * float(rate)


def _bytes_per_sample(index: Path, samples: Sequence[Sample]) -> int:
    """Check that the index holds every sample and that as many tokens were computed as rapidin gets."""
    information = json.loads((index / "info.json").read_text())
    shape = information["num_grads"], sum(information["grad_sizes"].values())
    vectors = np.memmap(index / "gradients.bin", dtype=information["base_dtype"], mode="r", shape=shape)
    rows = int((vectors != 0).any(axis=1).sum())  # those never written are zero
    # It counts the positions that have a next token.
    tokens = int(torch.load(index / "total_processed.pt", weights_only=True)) + len(samples)
    if rows != len(samples) or tokens != tokens_of(samples):
        raise RuntimeError(
            f"bergson stored {rows} of {len(samples)} samples and saw {tokens} of {tokens_of(samples)} tokens"
        )
    return vectors.nbytes // rows
