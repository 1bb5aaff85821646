"""Markdown tables that are printed row by row, and what is told of the machine above them."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch


def heading(title: str, *columns: str) -> None:
    """Begin a table."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(*cells: object) -> None:
    """Print a row of the table begun last."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def machine(threads: int) -> str:
    """Name the day, torch, the threads and the processor."""
    return f"{date.today()}, torch {torch.__version__}, {threads} threads, {_processor()}"


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    """Write the median with the smallest and the largest value."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def mebibytes(size: int) -> str:
    """Write bytes in MiB."""
    return f"{size / 2**20:,.0f}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
