"""How long work on a store tells what it has done."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Told how many samples are done, and of how many."""
