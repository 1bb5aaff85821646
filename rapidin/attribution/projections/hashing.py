"""The keys of a projection's random choices."""

from __future__ import annotations

import hashlib

from rapidin.settings import ProjectionSettings


def make_keys(settings: ProjectionSettings, part: str, count: int, *own: int) -> list[int]:
    """Derive 32-bit keys from the seed and K; SHA-256 keeps nearby seeds unrelated.

    Args:
        settings: settings with version, seed and K.
        part: name of the part of the map that the keys are for.
        count: number of keys.
        own: settings of this kind of projection that the keys depend on, such as λ.
    """
    numbers = " ".join(map(str, (settings.version, settings.seed, settings.dimension, *own)))
    prefix = f"rapidin projection {numbers} {part}"
    return [
        int.from_bytes(hashlib.sha256(f"{prefix} {number}".encode()).digest()[:4], "little")
        for number in range(count)
    ]
