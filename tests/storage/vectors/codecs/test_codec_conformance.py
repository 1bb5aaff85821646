"""What every codec has to keep to; a codec that is added to `CODECS` is tested here by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rapidin.errors import StoreError
from rapidin.storage import Store
from rapidin.storage.vectors import codecs
from rapidin.storage.vectors.codecs import CODECS, Codec, UniformGrid
from rapidin.storage.vectors.codecs.rotation import HADAMARD
from tests.storage.stores import new_sample, random_vectors, store_settings

K = 256
WIDE = UniformGrid("wide-uniform4", HADAMARD, edge=3.5)
"""A second codec of 4 bits: another grid."""


@pytest.fixture(params=[*CODECS.values(), WIDE], ids=lambda codec: codec.name)
def codec(request, monkeypatch) -> Codec:
    monkeypatch.setitem(CODECS, request.param.name, request.param)
    return request.param


def encoded(codec: Codec, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scales and decoded vectors in the codec's coordinates, without the scales."""
    index = codec.new_index(vectors.shape[1])
    codes, scales = codec.encode(index, vectors, np.ones(len(vectors), np.float32))
    return codes, scales, index.sa_decode(codes)


def test_the_round_trip_gives_unbiased_scores(codec: Codec) -> None:
    """Errors of scores have mean zero, also along the vector itself, and the coded size is as promised."""
    vectors, queries = random_vectors(300, dimension=K), random_vectors(60, seed=1, dimension=K)
    queries[:30] += vectors[:30]
    codes, scales, decoded = encoded(codec, vectors)
    assert codes.shape == (300, codec.row_bytes(K)) and codes.dtype == np.uint8 and scales.dtype == np.float32
    true = queries.astype(np.float64) @ vectors.T
    found = codec.turned(queries).astype(np.float64) @ decoded.T * scales
    error = found - true
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(error.size)
    slope = np.polyfit(true.ravel(), found.ravel(), 1)[0]
    assert abs(slope - 1) < 5 * error.std() / (true.std() * np.sqrt(error.size)) + 1e-5
    alone = codec.turned_back(decoded) * scales[:, None]
    np.testing.assert_allclose((alone * vectors).sum(axis=1), (vectors**2).sum(axis=1), rtol=2e-3)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_products_are_those_with_decoded_rows(codec: Codec, count: int) -> None:
    codes, _, decoded = encoded(codec, random_vectors(50, dimension=K))
    queries = codec.turned(random_vectors(count, seed=1, dimension=K))
    scores = codec.prepared(queries).scores(codes)
    expected = queries.astype(np.float64) @ decoded.T
    assert scores.shape == (count, 50) and scores.dtype == np.float32
    spread = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(decoded, axis=1) / np.sqrt(K)
    assert (np.abs(scores - expected) / spread).max() < 0.05


def test_turning_keeps_inner_products_and_can_be_undone(codec: Codec) -> None:
    vectors = random_vectors(9, dimension=K)
    turned = codec.turned(vectors)
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(codec.turned_back(turned), vectors, rtol=1e-5, atol=1e-5)


def test_empty_input_gives_empty_output(codec: Codec) -> None:
    nothing = np.empty((0, K), np.float32)
    codes = encoded(codec, random_vectors(2, dimension=K))[0]
    assert len(codec.encode(codec.new_index(K), nothing, np.empty(0, np.float32))[1]) == 0
    assert codec.turned(nothing).shape == (0, K)
    assert codec.prepared(random_vectors(1, dimension=K)).scores(codes[:0]).shape == (1, 0)


def test_codes_lie_where_the_offset_says(codec: Codec) -> None:
    codes, _, _ = encoded(codec, random_vectors(7, dimension=K))
    index = codec.new_index(K)
    index.add_sa_codes(codes)
    written = codecs.load_faiss().serialize_index(index)
    offset = codec.codes_offset(K)
    np.testing.assert_array_equal(written[offset : offset + codes.size], codes.ravel())


def test_an_index_fits_its_own_codec_and_dimension_only(codec: Codec) -> None:
    faiss = codecs.load_faiss()
    read = faiss.deserialize_index(faiss.serialize_index(codec.new_index(K)))
    assert codec.fits(read, K)
    assert not codec.fits(read, 2 * K)
    assert [other.name for other in [*CODECS.values(), WIDE] if other.fits(read, K)][:1] == [codec.name]
    assert not any(other.fits(read, K) for other in CODECS.values() if other != codec)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf, 1e38])
def test_vectors_that_cannot_be_kept_are_refused(codec: Codec, bad: float, tmp_path: Path) -> None:
    vectors = random_vectors(2, dimension=K)
    vectors[1] = bad
    settings = store_settings(K).model_copy(update={"codec": codec.settings})
    with Store.create(tmp_path / "store", settings) as store:
        with store.writer() as writer, pytest.raises(StoreError, match="'bad'"):
            writer.commit([new_sample("good"), new_sample("bad")], vectors)
        assert store.count() == 0
    assert codec.refusal(random_vectors(1, dimension=K)[0], 1.0) is None


def test_a_store_is_made_searched_verified_and_compacted(codec: Codec, tmp_path: Path) -> None:
    """Its segments record the codec's name, and the store knows no more than that name."""
    settings = store_settings(K).model_copy(update={"codec": codec.settings})
    vectors, queries = random_vectors(60, dimension=K), random_vectors(3, seed=1, dimension=K)
    with Store.create(tmp_path / "store", settings) as store:
        with store.writer() as writer:
            for rows in (range(40), range(40, 60)):
                writer.commit([new_sample(f"{row:02}") for row in rows], vectors[rows])
        store.delete(["00", "41"])
    with Store.open(tmp_path / "store") as store:
        assert store.settings.codec.name == codec.name
        with store.snapshot() as snapshot:
            assert {record.codec for record in snapshot._facts.segments.values()} == {codec.name}
            before = snapshot.search_ends(queries, 58).ends
            ids, scores = snapshot.scores(queries)
        live = [row for row in range(60) if row not in (0, 41)]
        assert ids == [f"{row:02}" for row in live]
        assert np.corrcoef(scores.ravel(), (queries @ vectors[live].T).ravel())[0, 1] > 0.75
        store.compact()
        assert store.verify().ok
        with store.snapshot() as snapshot:
            assert snapshot.search_ends(queries, 58).ends == before
