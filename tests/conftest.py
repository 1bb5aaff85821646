"""Settings of every test: few threads, no network, fixed seeds."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
