"""Keyed hashes of integers: the one source of randomness of every projection, equal on every machine."""

from __future__ import annotations

import hashlib

from torch import Tensor

from rapidin.settings import ProjectionSettings

WORD = 0xFFFFFFFF


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


def hash32(values: Tensor, key: int) -> Tensor:
    """Hash int64 values below 2^32 to [0, 2^32): MurmurHash3's 32-bit finaliser over the keyed values.

    The constants are those of Austin Appleby's ``fmix32``. Products stay below 2^64 and wrap in int64 alike on
    every device; only their low 32 bits are used.
    """
    mixed = (values + key) & WORD
    mixed ^= mixed >> 16
    mixed *= 0x85EBCA6B
    mixed &= WORD
    mixed ^= mixed >> 13
    mixed *= 0xC2B2AE35
    mixed &= WORD
    mixed ^= mixed >> 16
    # Without the second key, hashes under different keys would be one sequence at different offsets.
    return mixed ^ (key * 0x9E3779B1 & WORD)
