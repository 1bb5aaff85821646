"""Packages of the extra `eval`, which are imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from rapidin.errors import DependencyError


def package(name: str, distribution: str | None = None, advice: str = "pip install 'rapidin[eval]'") -> Any:
    """Import a package that only evaluations need.

    Args:
        name: name of the module.
        distribution: name of the package in the package index, None if it is the same.
        advice: end of the message, which says how to install it.

    Raises:
        DependencyError: the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"this evaluation needs the package {distribution or name}, which cannot be imported ({error}): "
            f"{advice}"
        ) from error
