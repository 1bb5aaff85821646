"""Tiny models whose own code does something bad at a certain token, and a look at processes."""

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tests import worlds

CODE = """
import os, pathlib, signal, time
import torch
from transformers import LlamaForCausalLM


class TrapForCausalLM(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        if config.trap == "load":
            raise KeyError("no such layer")
        if config.trap == "die-loading":
            os.kill(os.getpid(), signal.SIGKILL)

    def forward(self, input_ids=None, **arguments):
        if self.config.pace:
            time.sleep(self.config.pace)
        if (input_ids == self.config.trap_token).any():
            if self.config.trap == "raise":
                raise IndexError("index out of range\\nin this model")
            flag = pathlib.Path(self.config.trap_flag)
            if self.config.trap == "die" or (self.config.trap == "die-once" and not flag.exists()):
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(input_ids=input_ids, **arguments)
"""

SPRINGS = "§"
"""Its token springs the trap; no other row has it."""


def trap_model(directory: Path, model: Path, trap: str, pace: float = 0.0) -> Path:
    """A copy of a tiny model with a trap of one kind, that sleeps `pace` seconds in each forward pass."""
    shutil.copytree(model, directory)
    (directory / "modeling_trap.py").write_text(CODE)
    token = AutoTokenizer.from_pretrained(model)(SPRINGS)["input_ids"][0]
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "modeling_trap.TrapForCausalLM"}}
    config |= {"trap": trap, "trap_token": token, "trap_flag": str(directory / "sprung"), "pace": pace}
    path.write_text(json.dumps(config))
    return directory


def rows_with_trap(count: int, at: int) -> list[dict[str, Any]]:
    rows = worlds.rows(count)
    rows[at]["output"] += SPRINGS
    return rows


def children(pid: int | None = None) -> set[int]:
    """Processes that a process started, without those that they started; this process's own if none is named."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found |= set(map(int, task.read_text().split()))
    return found


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and those that they started."""
    found: set[int] = set()
    for child in children(pid):
        found |= {child} | descendants(child)
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that run; a dead one that nobody has waited for does not."""
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue
        if state != "Z":
            running.add(pid)
    return running


def wait_until_gone(pids: set[int], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(pids) == set()


def no_children_but(before: set[int]) -> bool:
    """Whether this process has no running children but those that it had before, such as a browser's."""
    return not alive(children() - before)
