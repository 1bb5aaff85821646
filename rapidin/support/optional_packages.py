"""Packages of the extra `eval`, imported when they are wanted."""

from __future__ import annotations

import importlib
from typing import Any

from rapidin.errors import DependencyError


def package(name: str, distribution: str | None = None, advice: str = "pip install 'rapidin[eval]'") -> Any:
    """Import a package that only evaluations need.

    Args:
        name: of the module.
        distribution: what it is called where packages come from, if otherwise.
        advice: how it is installed.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"this evaluation needs the package {distribution or name}, which cannot be imported ({error}): "
            f"{advice}"
        ) from error
