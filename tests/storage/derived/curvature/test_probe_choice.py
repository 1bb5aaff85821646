"""The choice of samples for probes: a uniform sample that knows no order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from rapidin.storage.derived.curvature.probe_choice import MOST_DRAWS, choose_probes

SAMPLES = st.lists(st.text(max_size=5), unique=True, max_size=60).map(
    lambda ids: [(id, f"content of {id}") for id in ids]
)


@given(SAMPLES, st.integers(1, 300), st.randoms())
def test_the_order_of_the_samples_does_not_matter(samples, count, random) -> None:
    chosen = choose_probes(samples, count, 0)
    assert len(chosen) == min(count, MOST_DRAWS * len(samples))
    assert chosen == sorted(chosen, key=lambda one: one.key)
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert choose_probes(shuffled, count, 0) == chosen
    assert choose_probes(samples, max(1, count // 2), 0) == chosen[: max(1, count // 2)]


def test_growth_keeps_most_of_what_was_chosen() -> None:
    samples = [(f"row {number}", "text") for number in range(3_000)]
    before = {one.key for one in choose_probes(samples[:2_000], 500, 0)}
    after = {one.key for one in choose_probes(samples, 500, 0)}
    assert 280 < len(before & after) < 390  # two thirds of the pairs were there before


def test_every_sample_is_as_likely_as_any_other() -> None:
    samples = [(f"row {number}", "text") for number in range(200_000)]  # several chunks
    chosen = choose_probes(samples, 20_000, 0)
    numbers = np.array([int(one.id.split()[1]) for one in chosen])
    counts = np.histogram(numbers, bins=10, range=(0, 200_000))[0]
    assert abs(counts - 2_000).max() < 200
    draws = np.bincount([one.draw for one in chosen], minlength=MOST_DRAWS)
    assert abs(draws - 5_000).max() < 300


def test_another_content_and_another_seed_are_other_pairs() -> None:
    one = {request.key for request in choose_probes([("a", "x")], 4, 0)}
    assert len(one) == 4
    assert not one & {request.key for request in choose_probes([("a", "y")], 4, 0)}
    assert not one & {request.key for request in choose_probes([("a", "x")], 4, 1)}
