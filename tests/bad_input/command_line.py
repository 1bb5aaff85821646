"""The command line run in this process, and what every failure of it must look like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rapidin import cli
from rapidin.storage import Store

ROOT = Path(__file__).parents[2]
FAILED, USAGE = 1, 2


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)

    def error(self, code: int, *expected: object) -> str:
        """Check that it failed as commands do, and that its message has the expected parts; the message."""
        assert self.code == code, (self.code, self.stdout, self.stderr)
        assert self.stdout == ""
        assert "Traceback" not in self.stderr, self.stderr
        lines = self.stderr.rstrip("\n").split("\n")
        assert [line.startswith("Error:") for line in lines] == [False] * (len(lines) - 1) + [True], self.stderr
        message = lines[-1].removeprefix("Error: ")
        if code == FAILED:
            for line in lines[:-1]:
                # Nothing but what an ingest tells of its progress, and no warnings of libraries.
                assert "samples to ingest" in line or line.startswith(("loading ", "INFO: ")), self.stderr
        for part in expected:
            assert str(part) in message, message
        return message


class CommandLine:
    """Calls `rapidin.cli.main` as the installed command does.

    An ingest gets ``--no-curvature``, which saves time, unless a test is about the curvature and sets `curvature`.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], curvature: bool = False
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._curvature = curvature

    def __call__(self, *arguments: object) -> Outcome:
        if arguments[:1] == ("ingest",) and not self._curvature:
            arguments = (*arguments, "--no-curvature")
        self._monkeypatch.setattr(sys, "argv", ["rapidin", *map(str, arguments)])
        # Wide, so that a line of progress is one line.
        self._monkeypatch.setenv("COLUMNS", "10000")
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = self._capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Outcome(stopped.value.code, captured.out, captured.err)


def run_process(*arguments: object, **options: Any) -> Outcome:
    """The command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "rapidin", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "10000"},
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


class MadeStore:
    """A store to be maltreated, and what it held before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = contents(path)

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def segment_files(self) -> list[Path]:
        return sorted((self.path / "segments").iterdir())

    def check_unharmed(self) -> None:
        with Store.open(self.path) as store:
            report = store.verify()
        assert report.ok, report.problems
        assert contents(self.path) == self._before


def contents(path: Path) -> list[Any]:
    """All that a store says it holds."""
    with Store.open(path) as store:
        return store.list()


def copied(directory: Path, to: Path, change: Callable[[Path], object] | None = None) -> Path:
    """A copy of a model's directory with one thing changed."""
    shutil.copytree(directory, to)
    if change is not None:
        change(to)
    return to
