"""Products with codes against plain products with what the codes decode to."""

from __future__ import annotations

import numpy as np
import pytest

from rapidin.storage.vectors.codecs import Codec, codec_of_bits, load_faiss
from rapidin.storage.vectors.codecs.decoded_slices import SlicedQueries
from tests.storage.stores import random_vectors

ERRORS = {16: 5e-6, 4: 3e-3, 1: 5e-2}
"""Of a score, in ‖query‖‖row‖/√K, the deviation of scores of unrelated vectors.

Processors add half-precision products up in different widths, each to single precision: up to 2.4e-6 was seen.
"""


@pytest.fixture(params=[16, 4, 1])
def codec(request) -> Codec:
    return codec_of_bits(request.param)


def coded(codec: Codec, rows: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of random vectors, and what they decode to in double precision."""
    index = codec.new_index(dimension)
    vectors = random_vectors(rows, seed=3, dimension=dimension)
    codes, _ = codec.encode(index, vectors, np.ones(rows, np.float32))
    if codec.bits > 1:
        return codes, index.sa_decode(codes).astype(np.float64)
    signs = np.unpackbits(codes[:, : dimension // 8], axis=1, bitorder="little") * 2.0 - 1
    factors = np.ascontiguousarray(codes[:, dimension // 8 :]).view(np.float32)
    return codes, signs / np.sqrt(dimension) * factors[:, 1:]


def errors(scores: np.ndarray, queries: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    expected = queries.astype(np.float64) @ decoded.T
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)[:, None] * np.linalg.norm(decoded, axis=1)
    return np.abs(scores - expected) / norms * np.sqrt(decoded.shape[1])


@pytest.mark.parametrize("dimension", [64, 1024, 8192])
@pytest.mark.parametrize("count", [1, 2, 5, 33])
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_products_are_those_with_decoded_rows(codec: Codec, dimension: int, count: int, rows: int) -> None:
    codes, decoded = coded(codec, rows, dimension)
    queries = random_vectors(count, seed=4, dimension=dimension)
    scores = codec.prepared(queries).scores(codes)
    assert isinstance(codec.prepared(queries), SlicedQueries) == (codec.bits == 16 and count == 33)
    assert scores.shape == (count, rows)
    assert errors(scores, queries, decoded).max() < ERRORS[codec.bits]
    if codec.bits == 16:
        every = [codec.prepared(query[None]).scores(codes) for query in queries]
        assert errors(np.concatenate(every), queries, decoded).max() < ERRORS[16]
        assert errors(SlicedQueries(queries).scores(codes), queries, decoded).max() < ERRORS[16]


def test_the_roundings_of_a_query_do_not_add_up(codec: Codec) -> None:
    """The mean error over rows is far below that of one row, also where all of a query's numbers are alike."""
    codes, decoded = coded(codec, 400, 4096)
    queries = np.abs(random_vectors(3, seed=4, dimension=4096)) + 1
    expected = queries.astype(np.float64) @ decoded.T
    difference = codec.prepared(queries).scores(codes) - expected
    spread = np.linalg.norm(queries, axis=1) * np.linalg.norm(decoded, axis=1).mean() / 64
    assert (np.abs(difference.mean(axis=1)) / spread < ERRORS[codec.bits] / 5).all()


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-8, 1e8, 1e30])
def test_queries_of_any_size(codec: Codec, size: float) -> None:
    codes, decoded = coded(codec, 9, 256)
    queries = (random_vectors(2, seed=4, dimension=256).astype(np.float64) * size).astype(np.float32)
    found = errors(codec.prepared(queries).scores(codes), queries, decoded)
    least = np.finfo(np.float32).smallest_subnormal / size  # of which scores are multiples
    assert found.max() < ERRORS[codec.bits] + 64 * least


def test_a_query_of_zeros_scores_zero(codec: Codec) -> None:
    codes, _ = coded(codec, 9, 256)
    queries = random_vectors(3, seed=4, dimension=256)
    queries[1] = 0
    scores = codec.prepared(queries).scores(codes)
    assert (scores[1] == 0).all()
    assert scores[[0, 2]].all()


def test_the_largest_and_smallest_numbers_of_half_precision() -> None:
    codec = codec_of_bits(16)
    vectors = np.array([[65504.0, 2.0**-24, -32752.0, 0.0] * 16, [2.0**-24] * 64], np.float32)
    codes = codec.new_index(64).sa_encode(vectors)
    queries = np.array([[1.0, 3.0, 0.5, 7.0] * 16, [65504.0] * 64], np.float32)
    scores = codec.prepared(queries).scores(codes)
    np.testing.assert_allclose(scores, queries.astype(np.float64) @ vectors.T.astype(np.float64), rtol=1e-6)


def test_rows_with_something_between_them(codec: Codec) -> None:
    """A part of wider rows, at an odd address, such as a mapped file may have."""
    codes, _ = coded(codec, 12, 256)
    queries = codec.prepared(random_vectors(3, seed=4, dimension=256))
    wide = np.zeros((12, codes.shape[1] + 7), np.uint8)
    part = wide[:, 3 : 3 + codes.shape[1]]
    part[:] = codes
    np.testing.assert_array_equal(queries.scores(part), queries.scores(codes))
    np.testing.assert_array_equal(queries.scores(part[::3]), queries.scores(codes)[:, ::3])


def test_one_bit_scores_are_those_of_faiss() -> None:
    """Both round the query to 8 bits, differently."""
    faiss, codec = load_faiss(), codec_of_bits(1)
    codes, decoded = coded(codec, 50, 4096)
    queries = random_vectors(4, seed=4, dimension=4096)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    index = codec.new_index(4096)
    index.add_sa_codes(codes)
    found, rows = index.search(queries, 50, params=faiss.RaBitQSearchParameters(qb=8, centered=True))
    of_faiss = np.take_along_axis(found, np.argsort(rows, axis=1), axis=1)
    spread = np.linalg.norm(decoded, axis=1) / 64
    assert (np.abs(codec.prepared(queries).scores(codes) - of_faiss) / spread).max() < 2 * ERRORS[1]
