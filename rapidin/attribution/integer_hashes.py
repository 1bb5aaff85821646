"""Keyed hashes of integers: the one source of randomness of projections and draws, equal on every machine."""

from __future__ import annotations

from torch import Tensor

WORD = 0xFFFFFFFF


def hash32(values: Tensor, key: int | Tensor) -> Tensor:
    """Hash int64 values below 2^32 to [0, 2^32): MurmurHash3's 32-bit finaliser over the keyed values.

    The constants are those of Austin Appleby's ``fmix32``. Products stay below 2^64 and wrap in int64 the same
    way on every device; only their low 32 bits are used.
    """
    mixed = (values + key) & WORD
    mixed ^= mixed >> 16
    mixed *= 0x85EBCA6B
    mixed &= WORD
    mixed ^= mixed >> 13
    mixed *= 0xC2B2AE35
    mixed &= WORD
    mixed ^= mixed >> 16
    # Without the second key, hashes under different keys would be one sequence, shifted.
    return mixed ^ (key * 0x9E3779B1 & WORD)
