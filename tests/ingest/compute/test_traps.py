"""The look at processes tells a worker that was left behind from a child that was there before."""

import subprocess
import sys

from tests.ingest.compute import traps


def test_only_children_that_were_not_there_before_count() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep) as first:
        before = traps.children()
        assert first.pid in before
        assert traps.no_children_but(before)
        with subprocess.Popen(sleep) as second:
            assert not traps.no_children_but(before)
            second.kill()
        assert traps.no_children_but(before)
        first.kill()
