"""All codecs by name."""

from __future__ import annotations

from rapidin.errors import SettingError, StoreFormatError
from rapidin.settings import CODEC_OF_BITS
from rapidin.storage.vectors.codecs.codec import Codec
from rapidin.storage.vectors.codecs.four_bit import UniformGrid
from rapidin.storage.vectors.codecs.half_precision import HalfPrecision
from rapidin.storage.vectors.codecs.one_bit import OneBit
from rapidin.storage.vectors.codecs.rotation import HADAMARD, IDENTITY

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        HalfPrecision("fp16", IDENTITY),
        UniformGrid("hadamard-uniform4", HADAMARD, edge=2.73),
        OneBit("hadamard-rabitq1", HADAMARD),
    )
}
"""Codecs by name. A name never changes its meaning, because stores record it."""


def codec_named(name: str) -> Codec:
    """Return the codec with a name.

    Raises:
        StoreFormatError: no codec has the name.
    """
    codec = CODECS.get(name)
    if codec is None:
        raise StoreFormatError(f"vectors coded as {name!r} are unknown here; upgrade rapidin")
    return codec


def codec_of_bits(bits: int) -> Codec:
    """Return the default codec for a number of bits, which ``--bits`` chooses.

    Raises:
        SettingError: no codec has this number of bits.
    """
    name = CODEC_OF_BITS.get(bits)
    if name is None:
        raise SettingError(f"--bits {bits} cannot be used: give one of {', '.join(map(str, CODEC_OF_BITS))}")
    return CODECS[name]
