"""The choice of the samples that probes are drawn from, which does not depend on the order of the samples.

Every pair of a sample and the number of a draw has a key: a 64-bit hash of the sample's id, its content and the
number. The pairs with the m smallest keys are chosen. So the choice is a uniform random sample of the pairs, it is
the same for any number of workers, and if the store grows, most of what was chosen before is chosen again
(bottom-k sampling, Cohen and Kaplan 2007, doi 10.1145/1281100.1281133).

Shape letters: c samples of a chunk · m chosen pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import xxhash
from numpy.typing import NDArray

MOST_DRAWS = 4
"""Number of probes that may be drawn from one sample.

In measurements, four draws of each of 100 samples were worth as much as one draw of each of 400.
"""

_CHUNK = 2**16


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A probe that is to be computed.

    Attributes:
        key: key of the pair of sample and draw, by which it is known.
        id: id of the sample.
        draw: number of the draw, from 0.
    """

    key: int
    id: str
    draw: int


def choose_probes(samples: Iterable[tuple[str, str]], count: int, seed: int) -> list[ProbeRequest]:
    """Choose pairs of samples and draws, in ascending order of their keys.

    Args:
        samples: id and content hash of every sample.
        count: number of pairs wanted; there may be fewer.
        seed: seed of the keys.
    """
    chosen: list[ProbeRequest] = []
    limit = np.uint64(2**64 - 1)
    for chunk in _chunks(iter(samples)):
        keys = _keys(chunk, seed)
        places = np.flatnonzero(keys.ravel() <= limit)
        candidates = [
            ProbeRequest(int(keys.flat[place]), chunk[place // MOST_DRAWS][0], int(place) % MOST_DRAWS)
            for place in places.tolist()
        ]
        chosen = sorted([*chosen, *candidates], key=lambda one: (one.key, one.id, one.draw))[:count]
        if len(chosen) == count:
            limit = np.uint64(chosen[-1].key)
    return chosen


def located(samples: Iterable[tuple[str, str]], keys: NDArray[np.uint64], seed: int) -> list[ProbeRequest | None]:
    """Find out which sample and draw each key belongs to.

    Args:
        samples: id and content hash of every sample.
        keys: keys of probes.
        seed: seed of the keys.

    Returns:
        What each probe was drawn from, in the order of `keys`; None where no sample has the key.
    """
    found: dict[int, ProbeRequest] = {}
    for chunk in _chunks(iter(samples)):
        own = _keys(chunk, seed)
        for place in np.flatnonzero(np.isin(own.ravel(), keys)).tolist():
            key = int(own.flat[place])
            found[key] = ProbeRequest(key, chunk[place // MOST_DRAWS][0], place % MOST_DRAWS)
    return [found.get(key) for key in keys.tolist()]


def _keys(samples: list[tuple[str, str]], seed: int) -> NDArray[np.uint64]:
    """Compute the keys of every draw of some samples, uint64 [c, draws]."""
    hashes = np.array(
        [
            xxhash.xxh3_64_intdigest(f"{content} {id}".encode(errors="surrogatepass"), seed)
            for id, content in samples
        ],
        np.uint64,
    )
    draws = np.arange(1, MOST_DRAWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mixed(hashes[:, None] + draws)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of numbers as SplitMix64 does (Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _chunks(samples: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    while chunk := list(islice(samples, _CHUNK)):
        yield chunk
