"""Settings of stores of vectors that no model made."""

from __future__ import annotations

from rapidin.settings.choices import Bits
from rapidin.settings.store_settings import (
    CodecSettings,
    Fingerprint,
    ModelSettings,
    ProjectionSettings,
    StoreSettings,
    TracedParameter,
)


def settings_without_model(dimension: int, bits: Bits) -> StoreSettings:
    """Settings of a store of vectors of so many numbers, kept in so many bits each."""
    return StoreSettings(
        model=ModelSettings(model="/none"),
        projection=ProjectionSettings(dimension=dimension),
        codec=CodecSettings(bits=bits),
        traced=(TracedParameter(name="weight", shape=(dimension, 64)),),
        fingerprint=Fingerprint(model={}),
    )
