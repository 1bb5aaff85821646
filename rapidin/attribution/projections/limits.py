"""The bounds of a projection dimension for a model."""

from __future__ import annotations

from rapidin.errors import SettingError


def too_large(dimension: int, parameters: int) -> SettingError:
    """Make the error of a projection dimension that is larger than the gradient."""
    fitting = 1 << max(parameters.bit_length() - 1, 0)
    return SettingError(
        f"projection dimension {dimension} is larger than the gradient of {parameters} traced "
        f"parameters: give a power of two up to {fitting} with --projection-dim"
    )
