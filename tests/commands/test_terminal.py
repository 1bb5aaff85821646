"""Nothing in a store makes a terminal do something, and SIGTERM ends a command as Ctrl-C does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rapidin import cli
from rapidin.storage import Store
from tests.storage.stores import new_sample, random_vectors, store_settings

EVIL = "\x1b]0;pwned\x07\x9b31m\u202eevil\u2066\x85x"
OBEYED = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), 0x2066)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with characters that terminals obey in every text."""
    with Store.create(tmp_path / "store", store_settings()) as store, store.writer() as writer:
        sample = new_sample(
            EVIL, prompt=EVIL, response=EVIL, metadata={EVIL: EVIL, "topic": EVIL}, file=EVIL, content_hash=EVIL
        )
        writer.commit([sample, new_sample("plain")], random_vectors(2))
    return tmp_path / "store"


def run(monkeypatch, capsys, *arguments: object) -> tuple[str, str, int]:
    monkeypatch.setattr(sys, "argv", ["rapidin", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr()
    return told.out, told.err, int(end.value.code or 0)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--json"],
        ["info"],
        ["info", "--json"],
        ["verify"],
        ["show", EVIL],
        ["show", EVIL, "--json"],
        ["list", "--where", f"{EVIL}=1"],
        ["show", f"missing {EVIL}"],
        ["delete", "--yes", EVIL],
    ],
)
def test_no_text_is_obeyed(store: Path, monkeypatch, capsys, command: list[str], color: bool) -> None:
    if color:
        monkeypatch.setenv("FORCE_COLOR", "1")
    name, *rest = command
    out, err, _ = run(monkeypatch, capsys, name, store, *rest)
    for text in (out, err):
        mine = text.replace("\x1b[", "") if color else text  # what rich itself writes
        assert [character for character in OBEYED if character in mine] == []
    if "--json" in command and name != "info":
        lines = out.splitlines() if name == "list" else [out]
        assert json.dumps(EVIL) in "".join(json.dumps(json.loads(line)) for line in lines)


SLEEPS = textwrap.dedent(
    """
    import sys, time
    from rapidin import cli
    from rapidin.commands.output import when_interrupted
    @cli.app.command("sleep")
    @when_interrupted("run the same command to go on")
    def sleep():
        print("asleep", flush=True)
        time.sleep(60)
    sys.argv = ["rapidin", "sleep"]
    cli.main()
    """
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_termination_is_an_interruption(number: int, code: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert child.stdout is not None and child.stdout.readline() == "asleep\n"
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == code
    assert "run the same command to go on" in errors


def test_a_termination_interrupts_a_command_that_a_shell_started_in_the_background() -> None:
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SLEEPS
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert child.stdout is not None and child.stdout.readline() == "asleep\n"
    child.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 143
    assert "run the same command to go on" in errors
