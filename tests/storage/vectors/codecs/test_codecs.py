"""Codecs of 16, 4 and 1 bit: unbiased, as noisy as theory says, the same by every way of scoring."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from rapidin.errors import SettingError, StoreError
from rapidin.settings.store_settings import CodecSettings, StoreSettings
from rapidin.storage import Store
from rapidin.storage.scan import cpu_scan
from rapidin.storage.vectors.codecs import CODECS, codec_of_bits, load_faiss
from tests.storage.stores import new_sample, random_vectors, store_settings

BITS = [16, 4, 1]
EXPECTED_ERROR = {16: 0.0005, 4: 0.110, 1: 0.755}
"""Standard deviation of a score's error, times √K, unit vectors. Half precision: 2⁻¹² relative to each coordinate;
4 bits: a uniform grid of 16 steps on a normal variable (Max 1960: 0.0115 of the variance; a little more with this
edge); 1 bit: √(π/2 − 1)."""


def settings_of(bits: int, dimension: int) -> StoreSettings:
    return store_settings(dimension).model_copy(update={"codec": CodecSettings(bits=bits)})


def units(count: int, dimension: int, seed: int = 0, heavy: bool = False) -> np.ndarray:
    vectors = random_vectors(count, seed, dimension)
    if heavy:
        vectors[:, :3] *= np.sqrt(dimension)  # three coordinates hold nearly everything
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def estimates(bits: int, vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    codec = codec_of_bits(bits)
    index = codec.new_index(vectors.shape[1])
    codes, scales = codec.encode(index, vectors, np.ones(len(vectors), np.float32))
    assert codes.shape == (len(vectors), codec.row_bytes(vectors.shape[1]))
    return codec.turned(queries) @ index.sa_decode(codes).T * scales


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_scores_are_unbiased_and_as_noisy_as_theory_says(bits: int, heavy: bool) -> None:
    dimension = 2048
    vectors, queries = units(400, dimension, heavy=heavy), units(40, dimension, seed=1)
    queries[:20] = (queries[:20] + vectors[:20]) / np.sqrt(2)  # some large scores, too
    true = queries @ vectors.T
    error = estimates(bits, vectors, queries) - true
    expected = EXPECTED_ERROR[bits] / np.sqrt(dimension)
    assert abs(error.mean()) < 5 * expected / np.sqrt(error.size)
    slope = np.polyfit(true.ravel(), (true + error).ravel(), 1)[0]
    assert abs(slope - 1) < 5 * expected / (true.std() * np.sqrt(error.size)) + 1e-5
    noise = error[~np.eye(40, 400, dtype=bool)].std()
    # Rounding is relative to each number, so where half precision is not rotated, heavy ones carry all of it.
    assert noise < (5 if bits == 16 and heavy else 1.1) * expected
    if bits < 16:  # of half precision only an upper bound is known
        assert noise > 0.9 * expected


@pytest.mark.parametrize("bits", BITS)
def test_the_score_of_a_vector_with_itself_is_exact(bits: int) -> None:
    vectors = random_vectors(20, dimension=256) * np.geomspace(1e-3, 1e3, 20, dtype=np.float32)[:, None]
    scores = np.diag(estimates(bits, vectors, vectors))
    np.testing.assert_allclose(scores, (vectors**2).sum(axis=1), rtol=2e-3 if bits == 16 else 1e-5)


def test_the_rotation_is_orthogonal_and_turned_back() -> None:
    vectors = random_vectors(5, dimension=128)
    for bits in (4, 1):
        turned = codec_of_bits(bits).turned(vectors)
        np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(codec_of_bits(bits).turned_back(turned), vectors, rtol=1e-5, atol=1e-5)
    assert codec_of_bits(16).turned(vectors) is vectors


def test_the_definition_is_pinned() -> None:
    """A store is read by later versions of rapidin and FAISS: rotation and codes must never change."""
    ramp = np.linspace(-1, 2, 64, dtype=np.float32)[None] ** 3
    digests = {}
    for bits in BITS:
        index = codec_of_bits(bits).new_index(64)
        codes, _ = codec_of_bits(bits).encode(index, ramp, np.ones(1, np.float32))
        kept = codes[0, : 64 * bits // 8]  # without RaBitQ's factors, whose last bits may differ between machines
        digests[bits] = hashlib.sha256(kept.tobytes()).hexdigest()[:12]
    assert digests == {16: "9b26802f9ba6", 4: "f0896e8960af", 1: "77a4cd0eccf5"}


@pytest.fixture(params=BITS)
def bits(request) -> int:
    return request.param


@pytest.fixture
def store(bits: int, tmp_path: Path):
    """300 vectors of 4,096 numbers in two segments; every seventh deleted, two pairs of twins."""
    vectors = units(300, 4096)
    vectors[200], vectors[250] = vectors[100], vectors[101]
    with Store.create(tmp_path / "store", settings_of(bits, 4096)) as store:
        with store.writer() as writer:
            for part in (range(0, 180), range(180, 300)):
                writer.commit([new_sample(f"{i:03}", metadata={"i": i}) for i in part], vectors[part])
        store.delete([f"{i:03}" for i in range(0, 300, 7)])
        yield store


@pytest.mark.parametrize("length", [1, 1e6])
@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("where", [(), ("i~[05]$",)])
def test_every_way_of_scoring_gives_what_the_codes_say(
    store: Store, bits: int, queries: int, where, length: float
) -> None:
    """Few queries are compared with the codes, many halves with decoded slices; dense and sparse rows differ."""
    live = [i for i in range(300) if i % 7 and (not where or i % 5 == 0)]
    vectors = units(300, 4096)
    vectors[200], vectors[250] = vectors[100], vectors[101]
    wanted = units(queries, 4096, seed=1) * np.float32(length)
    truth = estimates(bits, vectors, wanted)[:, live]
    tolerance = length * {16: 2e-6, 4: 6e-5, 1: 1.2e-3}[bits]  # beside few bits the query is rounded, too
    with store.snapshot() as snapshot:
        ids, scores = snapshot.scores(wanted, where)
        high, low = snapshot.search_ends(wanted, 9, where).ends
        assert high == snapshot.search(wanted, 9, where).largest
        assert low == snapshot.search(wanted, 9, where, largest=False).smallest
    assert ids == [f"{i:03}" for i in live]
    np.testing.assert_allclose(scores, truth, atol=tolerance)
    for of_query, best, worst in zip(scores, high, low, strict=True):
        order = sorted(range(len(live)), key=lambda index: (-of_query[index], ids[index]))
        assert [hit.id for hit in best] == [ids[index] for index in order[:9]]
        reverse = sorted(range(len(live)), key=lambda index: (of_query[index], ids[index]))
        assert [hit.id for hit in worst] == [ids[index] for index in reverse[:9]]


def test_twins_tie_and_the_smaller_id_comes_first(store: Store) -> None:
    vectors = units(300, 4096)
    with store.snapshot() as snapshot:
        for count in (1, 12):
            hits = snapshot.search(np.repeat(vectors[100:101], count, axis=0), 2).largest[0]
            assert [hit.id for hit in hits] == ["100", "200"]
            assert hits[0].score == hits[1].score


def test_sizes_are_what_the_bits_say(store: Store, bits: int) -> None:
    info = store.info()
    assert info.bits == bits
    expected = 300 * (4096 * bits // 8 + (8 if bits == 1 else 0))
    assert expected <= info.bytes_vectors < expected + 2 * 200
    assert store.verify().ok


def test_bits_choose_the_codec_and_a_name_overrules_them() -> None:
    for bits in BITS:
        assert CODECS[CodecSettings(bits=bits).name] is codec_of_bits(bits)
        assert codec_of_bits(bits).settings == CodecSettings(bits=bits)
    assert CodecSettings(bits=4, name="other").name == "other"
    with pytest.raises(SettingError, match="16, 4, 1"):
        codec_of_bits(3)


def test_other_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="1, 4 or 16"):
        CodecSettings(bits=2)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 1e38])
def test_vectors_that_cannot_be_coded_are_refused_by_id(store: Store, bits: int, bad: float) -> None:
    vectors = units(2, 4096)
    vectors[1] = bad
    with store.writer() as writer, pytest.raises(StoreError, match="'bad'"):
        writer.commit([new_sample("good"), new_sample("bad")], vectors)
    assert store.count() == 257


def test_blocks_are_bounded_for_scans_too(store: Store, bits: int, monkeypatch) -> None:
    counts: list[int] = []
    codec = codec_of_bits(bits)
    original = type(codec).prepared

    class Counting:
        def __init__(self, codec, queries, query_bits):
            self.queries = original(codec, queries, query_bits)

        def scores(self, codes):
            counts.append(len(codes))
            return self.queries.scores(codes)

    monkeypatch.setattr(type(codec), "prepared", lambda *arguments: Counting(*arguments))
    row = codec.row_bytes(4096)
    monkeypatch.setattr(cpu_scan, "SCANNED_BYTES", 10 * row)
    monkeypatch.setattr(cpu_scan, "SCANNED_ONCE_BYTES", 50 * row)
    monkeypatch.setattr(cpu_scan, "_BLOCKS_PER_THREAD", 1)
    with store.snapshot() as snapshot:
        snapshot.search(units(2, 4096), 3)
        assert max(counts) == 10
        monkeypatch.setattr(cpu_scan, "GATHERED_BYTES", 5 * row)
        counts.clear()
        snapshot.search(units(2, 4096), 3)
        assert max(counts) == 5
        counts.clear()
        snapshot.search(units(1, 4096), 3)
        assert 50 < max(counts) < 60  # with the deleted ones between them


def test_a_faiss_that_is_too_old_is_told(monkeypatch) -> None:
    import faiss

    monkeypatch.delattr(faiss, "HadamardRotation")
    with pytest.raises(Exception, match="too old"):
        load_faiss()


def test_setting_error_of_bits_names_the_flag(tmp_path: Path, model_directory: Path) -> None:
    from rapidin.ingest.resolving import resolve

    with pytest.raises(SettingError, match="--bits"):
        resolve({"model": str(model_directory), "bits": 3}, None, tmp_path)
    assert resolve({"model": str(model_directory)}, None, tmp_path).codec.bits == 4


def test_codes_are_mapped_where_faiss_has_them(store: Store) -> None:
    import faiss

    with store.snapshot() as snapshot:
        for segment_id in snapshot._facts.segments:
            segment = snapshot._segment(segment_id)
            held = faiss.rev_swig_ptr(segment._index.codes.data(), segment._index.codes.size())
            np.testing.assert_array_equal(segment.codes.ravel(), held)
