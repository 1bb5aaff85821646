"""Fresh Python interpreters that run one function of rapidin and talk to their parent through a pipe.

They are not children of `multiprocessing`, which would run the user's script a second time, nor forks, which do
not work once CUDA or a thread pool has started.

Messages are pickled by `multiprocessing.connection`. That is safe here, because both ends are processes of one
program on one machine, the pipe has no name that a stranger could open, and no message is ever written to disk.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO

from rapidin.support.environment import VARIABLES
from rapidin.support.interruptions import interruptions_wait

_SECONDS_TO_DIE = 10.0

_PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
import json
sys.path[:] = json.loads(sys.argv[1])
from importlib import import_module
from multiprocessing.connection import Connection
module, _, function = sys.argv[2].partition(":")
getattr(import_module(module), function)(Connection(int(sys.argv[3])))
"""
"""Its arguments are sys.path as JSON, the function to call, and the number of the pipe's file descriptor."""


class FreshInterpreter:
    """A new Python process that calls one function with its end of a pipe, and ends when that returns.

    The process has this one's `sys.path`, and the environment variables of `rapidin.support.environment`. It
    ignores SIGINT, because the terminal sends an interruption to all processes and the parent decides what it
    means.

    Args:
        function: ``package.module:name`` of a function that takes a `Connection`.
        threads: number of OpenMP threads of the process; None leaves the number to the environment.
        own_session: whether the process leads a session of its own, so that `end` also ends all that it started.
        output: file for what the process prints to stdout and stderr; None for this process's stderr.
        environment: further environment variables.

    Raises:
        OSError: the system starts no further process.

    Attributes:
        connection: this process's end of the pipe.
        pid: number of the process.
    """

    def __init__(
        self,
        function: str,
        *,
        threads: int | None = None,
        own_session: bool = False,
        output: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._own_session = own_session
        variables = VARIABLES | os.environ | dict(environment or {})
        if threads is not None:
            variables["OMP_NUM_THREADS"] = str(threads)
        path = json.dumps([str(place) for place in sys.path])
        ours, theirs = Pipe()
        process: subprocess.Popen[bytes] | None = None
        try:
            # An interruption of the terminal goes to all of its processes; it must not reach the new one before
            # that one ignores it, nor this one before it has recorded the new one.
            with interruptions_wait():
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM, path, function, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    # output of a model's code does not belong to the results
                    stdout=2 if output is None else output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    start_new_session=own_session,
                    env=variables,
                )
        except BaseException:
            ours.close()
            if process is not None:
                process.kill()
                process.wait()
            raise
        finally:
            theirs.close()
        self.connection: Connection = ours
        self._process = process
        self.pid = process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def hang_up(self) -> None:
        """Close the pipe; a function that reads from it gets `EOFError` and should return."""
        self.connection.close()

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM), and its session if it leads one."""
        self._signal(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Wait for the process's end until a deadline of `time.monotonic`, then kill it.

        With a session of its own, everything that the process started and left behind is killed, too.
        """
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
        else:
            if self._own_session:
                self._signal(signal.SIGKILL)
        self._process.wait()
        self.connection.close()

    def how_it_ended(self) -> str:
        """Say in words how the process ended; one that still runs is given some seconds and then killed."""
        self.end(time.monotonic() + _SECONDS_TO_DIE)
        return exit_in_words(self._process.returncode)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self._own_session:
                os.killpg(self.pid, number)
            else:
                self._process.send_signal(number)


def exit_in_words(code: int) -> str:
    """Say how a process ended, for example ``was killed by SIGKILL, probably for lack of memory``.

    Args:
        code: return code as `subprocess` gives it, negative for a signal.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}{', probably for lack of memory' if name == 'SIGKILL' else ''}"
