"""Requests a second and latency of ``rapidin serve`` at 1, 8 and 32 clients, over a tiny store.

    python -m benchmarks.serving

A server in a process of its own, asked over loopback by clients each of which waits for an answer before the next.
What is measured is the service, not the model: that of the tests has 40,000 parameters. Estimates alone (rerank 0)
and with exact influences of the ten best.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

import rapidin
from benchmarks.tables import heading, machine, row
from rapidin.support import processors
from tests import worlds

_CLIENTS = (1, 8, 32)
_KINDS = {
    "sample by id": None,
    "search, estimates": {"rerank": 0},
    "search, 10 exact influences": {"rerank": 10},
}
_ASKED = {"prompt": "Name the colour.", "generation": "It is blue 99, and not red.", "k": 5}


async def _client(client: httpx.AsyncClient, asked: dict[str, int] | None, until: float) -> list[float]:
    seconds = []
    while (began := time.perf_counter()) < until:
        if asked is None:
            answer = await client.get("/v1/samples/row-7")
        else:
            answer = await client.post("/v1/search", json={**_ASKED, **asked})
        answer.raise_for_status()
        seconds.append(time.perf_counter() - began)
    return seconds


async def _measured(address: str, clients: int, asked: dict[str, int] | None, seconds: float) -> tuple[float, ...]:
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits, trust_env=False) as client:
        await _client(client, asked, time.perf_counter() + 0.5)
        began = time.perf_counter()
        each = await asyncio.gather(*(_client(client, asked, began + seconds) for _ in range(clients)))
        whole = time.perf_counter() - began
    latencies = np.array([one for found in each for one in found])
    return len(latencies) / whole, *(1000 * np.percentile(latencies, [50, 95]))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = worlds.save_model(directory / "model")
        data = worlds.write_rows(directory / "data.jsonl", worlds.rows(arguments.samples))
        rapidin.ingest_files(
            directory / "store", [data], model=str(model), projection_dim=worlds.DIMENSION, curvature=False
        )
        command = [
            sys.executable,
            "-m",
            "rapidin",
            "serve",
            str(directory / "store"),
            "--port",
            "0",
            "--queue",
            "32",
        ]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ}
        )
        try:
            address = server.stdout.readline().strip() if server.stdout else ""
            while httpx.get(f"{address}/ready").status_code != 200:
                time.sleep(0.1)
            print(machine(processors()))
            heading("Serving", "requests", "clients", "requests/s", "median ms", "95 % ms")
            for kind, asked in _KINDS.items():
                for clients in _CLIENTS:
                    rate, median, high = asyncio.run(_measured(address, clients, asked, arguments.seconds))
                    row(kind, clients, f"{rate:.1f}", f"{median:.1f}", f"{high:.1f}")
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
