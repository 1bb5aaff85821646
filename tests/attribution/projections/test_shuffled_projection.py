"""The shuffled map gradient → RapidGrad: its definition element by element, determinism, mean and variance."""

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from rapidin.attribution.projections import ShuffledProjection, shuffled
from rapidin.errors import SettingError
from rapidin.settings.store_settings import ProjectionSettings

MASK = 0xFFFFFFFF


def slow_hash(value: int, key: int) -> int:
    mixed = (value + key) & MASK
    mixed ^= mixed >> 16
    mixed = mixed * 0x85EBCA6B & MASK
    mixed ^= mixed >> 13
    mixed = mixed * 0xC2B2AE35 & MASK
    mixed ^= mixed >> 16
    return mixed ^ (key * 0x9E3779B1 & MASK)


def slow_place(
    index: int, dimension: int, stripes: int, shuffles: int, seed: int, part: str = "matrices"
) -> tuple[int, int]:
    """The oracle: bucket and sign of one coordinate, in plain integers, from the definition."""

    def key(number: int) -> int:
        digest = hashlib.sha256(
            f"rapidin projection 1 {seed} {dimension} {shuffles} {part} {number}".encode()
        ).digest()
        return int.from_bytes(digest[:4], "little")

    chunk_length = min(64, dimension // 64) if part == "matrices" else 1
    blocks = dimension // chunk_length
    chunk, element = divmod(index, chunk_length)
    stripe, row = divmod(chunk, blocks)
    for number in range(shuffles):
        if number % 2 == 0:
            row = (row + slow_hash(stripe, key(number))) % blocks
        else:
            stripe = (stripe + (slow_hash(row, key(number)) * stripes >> 32)) % stripes
    shift = slow_hash(stripe, key(shuffles)) % chunk_length
    word, bit = divmod(element, 32)
    bits = slow_hash(
        slow_hash(chunk & MASK, key(shuffles + 1 + 2 * word)) ^ (chunk >> 32), key(shuffles + 2 + 2 * word)
    )
    return (row * chunk_length + element + shift) % dimension, 2 * (bits >> bit & 1) - 1


def project(projection: ShuffledProjection, vector: Tensor) -> Tensor:
    """Project [b, |v|] whole."""
    (tensor,) = projection.tensors
    chunked = vector.view(len(vector), -1, tensor.part.chunk)
    sketch = projection.new_sketch(len(vector), "cpu")
    tensor.part.add(sketch, torch.arange(chunked.shape[1]), chunked.clone())
    return projection.finish(sketch)


def places(projection: ShuffledProjection) -> tuple[Tensor, Tensor]:
    """Bucket and sign of every coordinate."""
    (tensor,) = projection.tensors
    block, shift, signs = tensor.part.places(torch.arange(projection.length // tensor.part.chunk))
    element = torch.arange(tensor.part.chunk)
    buckets = (block[:, None] * tensor.part.chunk + element + shift[:, None]) % projection.dimension
    return buckets.flatten(), signs.flatten()


@pytest.mark.parametrize("dimension", [64, 256, 1024, 4096])
@pytest.mark.parametrize("shuffles", [1, 2, 20])
def test_definition(dimension: int, shuffles: int) -> None:
    projection = ShuffledProjection(
        ProjectionSettings(dimension=dimension, shuffles=shuffles, seed=7), [(1, 3 * dimension - 5)]
    )
    stripes = projection.length // dimension
    assert stripes == 3
    buckets, signs = places(projection)
    for index in range(0, projection.length, 13):
        assert (buckets[index], signs[index]) == slow_place(index, dimension, stripes, shuffles, 7)


def test_vectors_are_placed_one_by_one_and_never_meet_where_they_fit() -> None:
    """A few thousand coordinates of norms hold much of a gradient: alone in a stripe they make no noise."""
    projection = ShuffledProjection(ProjectionSettings(dimension=1024, seed=7), [(300,), (4, 1024), (), (500,)])
    one, matrix, scalar, other = projection.tensors
    assert one.part is scalar.part is other.part is not matrix.part
    assert (one.first, scalar.first, other.first, one.part.chunk, one.part.stripes) == (0, 300, 301, 1, 1)
    block, shift, signs = one.part.places(torch.arange(801))
    assert len(block.unique()) == 801
    assert not shift.any()
    for index in range(0, 801, 50):
        assert (block[index], signs[index, 0]) == slow_place(index, 1024, 1, 20, 7, part="vectors")


@pytest.mark.parametrize("most_tabulated", [shuffled._MOST_TABULATED, 0])
def test_far_chunks_of_a_huge_gradient(monkeypatch: pytest.MonkeyPatch, most_tabulated: int) -> None:
    """Seventy billion parameters: places are computed for any chunk, from a few hashes or from none."""
    monkeypatch.setattr(shuffled, "_MOST_TABULATED", most_tabulated)
    size = 70_000_000_000
    projection = ShuffledProjection(ProjectionSettings(), [(1, size)])
    stripes = projection.length // 65536
    chunk = size // 64 - 1
    block, shift, signs = projection.tensors[0].part.places(torch.tensor([chunk]))
    for element in (0, 31, 32, 63):
        bucket, sign = slow_place(chunk * 64 + element, 65536, stripes, 20, 0)
        assert ((block[0] * 64 + element + shift[0]) % 65536, signs[0, element]) == (bucket, sign)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([64, 256, 4096]),
    st.integers(1, 40),
    st.integers(0, 2**63 - 1),
    st.integers(0, 9),
    st.booleans(),
)
def test_every_bucket_gets_equally_many_coordinates(
    dimension: int, shuffles: int, seed: int, extra: int, matrix: bool
) -> None:
    size = dimension * (1 + extra) + extra * 31
    shape = (1, size) if matrix else (size,)
    projection = ShuffledProjection(ProjectionSettings(dimension=dimension, shuffles=shuffles, seed=seed), [shape])
    counts = torch.bincount(places(projection)[0], minlength=dimension)
    assert projection.length - dimension < size + 64
    assert (counts == projection.length // dimension).all()


def test_add_is_the_signed_sum_of_the_places() -> None:
    projection = ShuffledProjection(ProjectionSettings(dimension=1024, seed=3), [(5, 1024)])
    vectors = torch.randn(3, projection.length)
    buckets, signs = places(projection)
    expected = torch.zeros(3, 1024).index_add_(1, buckets, vectors * signs)
    torch.testing.assert_close(project(projection, vectors), expected, rtol=1e-5, atol=1e-5)


def test_the_way_for_gpus_adds_the_same() -> None:
    projection = ShuffledProjection(ProjectionSettings(dimension=1024, seed=3), [(5, 1024), (300,)])
    for tensor, count in zip(projection.tensors, (5 * 1024, 300), strict=True):
        values = torch.randn(3, count // tensor.part.chunk, tensor.part.chunk)
        chunks = tensor.first + torch.arange(values.shape[1])
        one, other = projection.new_sketch(3, "cpu"), projection.new_sketch(3, "cpu")
        tensor.part._add_by_shift(one, chunks, values.clone())
        tensor.part._add_by_element(other, chunks, values.clone())
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dimension", [64, 1024, 4096])
def test_in_pieces_and_without_tables_it_is_the_same(monkeypatch: pytest.MonkeyPatch, dimension: int) -> None:
    shapes = [(7, 1000), (3, 500), (900,)]
    whole = ShuffledProjection(ProjectionSettings(dimension=dimension, shuffles=5), shapes)
    expected, found = whole.new_sketch(3, "cpu"), whole.new_sketch(3, "cpu")
    parts = []
    for tensor, size in zip(whole.tensors, (7000, 1500, 900), strict=True):
        values = torch.randn(3, 2 * -(-size // tensor.part.chunk), tensor.part.chunk)[:, ::2]
        chunks = tensor.first + torch.arange(values.shape[1])
        parts.append((values, chunks))
        tensor.part._add_by_shift(expected, chunks, values.clone())
    monkeypatch.setattr(shuffled, "_ELEMENTS_AT_ONCE", 1000)
    monkeypatch.setattr(shuffled, "_MOST_TABULATED", 0)
    again = ShuffledProjection(ProjectionSettings(dimension=dimension, shuffles=5), shapes)
    for tensor, (values, chunks) in zip(again.tensors, parts, strict=True):
        tensor.part._add_by_shift(found, chunks, values)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_script_with_another_default_type_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    projection = ShuffledProjection(ProjectionSettings(dimension=256), [(10_000, 1)])
    vector = torch.randn(2, projection.length)
    expected = project(projection, vector)
    torch.set_default_dtype(torch.float64)
    try:
        again = ShuffledProjection(ProjectionSettings(dimension=256), [(10_000, 1)])
        assert torch.equal(project(again, vector), expected)
        assert places(again)[1].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_linear_and_independent_of_the_batch() -> None:
    projection = ShuffledProjection(ProjectionSettings(dimension=256), [(10_000, 1)])
    one, other = torch.randn(2, projection.length).double().float()
    both = project(projection, torch.stack([one, other, 2 * one - 3 * other]))
    torch.testing.assert_close(both[2], 2 * both[0] - 3 * both[1], rtol=1e-4, atol=1e-4)
    assert torch.equal(project(projection, one[None])[0], both[0])


def test_other_seeds_and_other_shuffle_counts_are_other_maps() -> None:
    maps = {
        (seed, shuffles): places(
            ShuffledProjection(ProjectionSettings(dimension=256, seed=seed, shuffles=shuffles), [(80, 100)])
        )
        for seed in (0, 1)
        for shuffles in (19, 20, 100)
    }
    keys = list(maps)
    for number, key in enumerate(keys):
        for other in keys[:number]:
            same_bucket = (maps[key][0] == maps[other][0]).float().mean()
            same_sign = (maps[key][1] == maps[other][1]).float().mean()
            assert same_bucket < 0.02, (key, other)
            assert abs(same_sign - 0.5) < 0.05, (key, other)


def test_the_same_in_another_process() -> None:
    program = (
        "import torch, hashlib; from rapidin.attribution.projections import ShuffledProjection;"
        "from rapidin.settings import ProjectionSettings;"
        "p = ShuffledProjection(ProjectionSettings(dimension=4096, seed=5), [(100, 1000)]).tensors[0].part;"
        "b, s, g = p.places(torch.arange(p.length // p.chunk));"
        "print(hashlib.sha256(b.numpy().tobytes() + s.numpy().tobytes() + g.numpy().tobytes()).hexdigest())"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
        for _ in range(2)
    }
    # Pinned: a store written today must be readable by every later version.
    assert outputs == {"b92a13f73c1175293f285901f640479a3273abaefd4f39ca1dd4ccadfd9a16f3"}


PAIRS, ROWS, COLUMNS = 8, 64, 512


def structured(kind: str) -> tuple[Tensor, Tensor]:
    """Pairs of gradients of a 64 × 512 matrix, flattened to [pairs, |v|], that share their heavy part."""
    generator = torch.Generator().manual_seed(4)
    u, v = torch.randn(2, PAIRS, ROWS, COLUMNS, generator=generator)
    heavy = torch.ones(ROWS, COLUMNS)
    if kind == "one heavy row":
        heavy[17] = 100
    elif kind == "one heavy column":
        heavy[:, 41] = 100
    elif kind == "few huge channels":
        heavy[:, [3, 64, 65, 300, 511]] = 50
    elif kind == "low rank":
        left, right = (
            torch.randn(PAIRS, ROWS, 1, generator=generator),
            torch.randn(1, COLUMNS, generator=generator),
        )
        u, v = left * right, left * right + 0.1 * v
    u, v = (u * heavy).flatten(1).double(), (v * heavy).flatten(1).double()
    return u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["gaussian", "one heavy row", "one heavy column", "few huge channels", "low rank"]
)
def test_unbiased_and_as_noisy_as_theory_says(kind: str) -> None:
    """Over 800 seeds and 8 pairs: the mean within 4 standard errors, the variance within 10 % of OPORP's."""
    dimension, seeds = 1024, 800
    u, v = structured(kind)
    both = torch.cat([u, v]).float()
    estimates = torch.empty(seeds, PAIRS, dtype=torch.float64)
    for seed in range(seeds):
        projection = ShuffledProjection(ProjectionSettings(dimension=dimension, seed=seed), [(ROWS, COLUMNS)])
        one, other = project(projection, both).double().split(PAIRS)
        estimates[seed] = (one * other).sum(dim=1)
    exact = (u * v).sum(dim=1)
    fixed_bins = (u.shape[1] - dimension) / (u.shape[1] - 1)
    theory = fixed_bins * (1 + exact**2 - 2 * (u**2 * v**2).sum(dim=1)) / dimension
    assert ((estimates.mean(dim=0) - exact).abs() < 4 * (theory / seeds).sqrt()).all()
    # The pairs' ratios have a standard error of 5 % each, their mean one of about 2 %.
    ratio = float((estimates.var(dim=0) / theory).mean())
    assert 0.9 < ratio < 1.1, ratio


def test_a_dimension_larger_than_the_gradient_is_refused() -> None:
    with pytest.raises(SettingError, match=r"65536 is larger than the gradient of 50000 .* up to 32768"):
        ShuffledProjection(ProjectionSettings(), [(20, 1_000), (30_000,)])


@pytest.mark.parametrize("dimension", [0, -4, 32, 100, 65537, 2**29])
def test_a_dimension_that_is_no_power_of_two_is_refused(dimension: int) -> None:
    with pytest.raises(SettingError, match="power of two"):
        ProjectionSettings(dimension=dimension)
