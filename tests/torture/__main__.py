"""``make torture``: all of it for some minutes, and a table of trials and failures on stdout."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.torture.bytes_and_readers import altered_bytes, soak
from tests.torture.faults import armed, faults, preloaded
from tests.torture.power import power_failures

_MEMORY = Path("/dev/shm")
"""A file system in memory, where many trials fit into a minute; a kill does not care where files are."""
_SHARES = {"faults": 0.5, "power": 0.2, "bytes": 0.2, "soak": 0.1}


def main() -> int:
    """Run the parts that were asked for; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="tests.torture")
    parser.add_argument("--minutes", type=float, default=20.0, help="time for all parts together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=("faults", "power", "bytes", "soak"), help="one part only")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if armed() is None and not os.environ.get("RAPIDIN_TORTURED"):
        os.environ["RAPIDIN_TORTURED"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            done = preloaded(Path(folder), *sys.argv[1:])
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode
    import faiss
    import torch  # noqa: F401 - before the forks

    faiss.omp_set_num_threads(1)
    parts = {"faults": faults, "power": power_failures, "bytes": altered_bytes, "soak": soak}
    if armed() is None:
        del parts["power"]
    chosen = [given.part] if given.part else list(parts)
    results: dict[str, tuple[int, list[str]]] = {}
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        for name in chosen:
            minutes = given.minutes * (1 if given.part else _SHARES[name])
            results |= parts[name](Path(folder), 60 * minutes, seed=given.seed)
    if given.json:
        json.dump(results, sys.stdout)
    else:
        lines = [f"{'kind':<24} {'trials':>8} {'failures':>9}"]
        for kind, (trials, failures) in results.items():
            lines.append(f"{kind:<24} {trials:>8,} {len(failures):>9,}")
            lines += [f"    {failure}" for failure in failures[:10]]
        sys.stdout.write("\n".join(lines) + "\n")
    return int(any(failures for _, failures in results.values()))


if __name__ == "__main__":
    sys.exit(main())
