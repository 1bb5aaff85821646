"""Functions that the fresh interpreters of the tests run."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection


def describe(connection: Connection) -> None:
    """Answer with what the process was given."""
    names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "MINE")
    connection.send((sys.path, {name: os.environ.get(name) for name in names}))
    connection.send(
        (signal.getsignal(signal.SIGINT) == signal.SIG_IGN, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    )
    sys.stdout.write("printed\n")


def end_with(connection: Connection) -> None:
    """End as the parent says: with an exit code, or by a signal if it is negative."""
    code = connection.recv()
    if code < 0:
        os.kill(os.getpid(), -code)
        time.sleep(60)
    os._exit(code)


def leave_a_child(connection: Connection) -> None:
    """Start a program that goes on after this process has ended, and tell its number."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], stdout=subprocess.DEVNULL)
    connection.send(child.pid)
    connection.recv()


def never_end(connection: Connection) -> None:
    """Ignore everything."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send("here")
    time.sleep(300)
