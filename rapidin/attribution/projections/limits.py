"""The bounds of a projection dimension for a model."""

from __future__ import annotations

from rapidin.errors import SettingError
from rapidin.settings import ProjectionSettings


def too_large(settings: ProjectionSettings, parameters: int) -> SettingError:
    """Make the error of a projection dimension that is larger than the gradient."""
    fitting = settings.sections << max(parameters.bit_length() - 1, 0)
    return SettingError(
        f"projection dimension {asked(settings)} is larger than the gradient of {parameters} traced "
        f"parameters: give a power of two up to {fitting} with --projection-dim"
    )


def asked(settings: ProjectionSettings) -> str:
    """Describe a projection dimension as the user knows it."""
    if settings.sections == 1:
        return str(settings.dimension)
    whole = settings.dimension * settings.sections
    return f"{whole}, of which {settings.dimension} are for each objective and checkpoint,"
