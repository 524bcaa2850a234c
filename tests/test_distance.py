"""The distances agree with SciPy on the same binned data."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from modelmeter import distance

counts = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=40).filter(
    lambda pairs: any(a for a, _ in pairs) and any(b for _, b in pairs)
)


def sides(pairs: list[tuple[int, int]]) -> tuple[distance.Ints, distance.Ints, distance.Floats]:
    table = np.array(pairs, dtype=np.int64)
    return table[:, 0], table[:, 1], distance.value_of(np.arange(len(pairs)) + (1 << 17))


@settings(max_examples=50, deadline=None)
@given(counts)
def test_jensen_shannon_is_scipys_distance_in_base_2(pairs: list[tuple[int, int]]) -> None:
    a, b, _ = sides(pairs)
    assert distance.jensen_shannon(a, b) == pytest.approx(jensenshannon(a, b, base=2), abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(counts)
def test_wasserstein_is_scipys_on_the_bins_values(pairs: list[tuple[int, int]]) -> None:
    a, b, values = sides(pairs)
    assert distance.wasserstein(a, b, values) == pytest.approx(
        stats.wasserstein_distance(values, values, a, b), abs=1e-9
    )


@settings(max_examples=50, deadline=None)
@given(counts)
def test_ks_is_scipys_statistic_on_the_bins_values(pairs: list[tuple[int, int]]) -> None:
    a, b, values = sides(pairs)
    expected = stats.ks_2samp(np.repeat(values, a), np.repeat(values, b), method="asymp").statistic
    assert distance.ks(a, b) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(counts)
def test_psi_is_symmetric_entropy_of_the_groups(pairs: list[tuple[int, int]]) -> None:
    a, b, _ = sides(pairs)
    group = np.minimum((2 * np.cumsum(b) - b) * 10 // (2 * b.sum()), 9)
    x, y = np.bincount(group, a, 10), np.bincount(group, b, 10)
    used = (x + y) > 0
    p, q = x[used] + 0.5, y[used] + 0.5
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert distance.psi(a, b) == pytest.approx(expected, abs=1e-9)


def test_equal_histograms_are_at_distance_zero() -> None:
    a = np.array([3, 0, 5, 2])
    values = distance.value_of(np.array([-(1 << 17), 0, 1 << 17, (1 << 17) + 1]))
    assert distance.psi(a, a) == distance.ks(a, a) == distance.jensen_shannon(a, a) == 0
    assert distance.wasserstein(a, a, values) == 0


def test_an_empty_side_has_no_distance() -> None:
    a, nothing = np.array([1, 2]), np.array([0, 0])
    for found in (
        distance.psi(a, nothing),
        distance.ks(nothing, a),
        distance.jensen_shannon(a, nothing),
        distance.wasserstein(nothing, a, np.array([1.0, 2.0])),
    ):
        assert math.isnan(found)


def test_many_histograms_are_compared_at_once() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.integers(0, 9, (2, 3, 20)), rng.integers(0, 9, (2, 3, 20))
    together = distance.psi(a, b)
    assert together.shape == (2, 3)
    assert together[1, 2] == distance.psi(a[1, 2], b[1, 2])


def test_psi_of_two_samples_of_one_distribution_is_small_and_of_a_shifted_one_large() -> None:
    rng = np.random.default_rng(1)
    bins = [distance.bin_of(rng.normal(mean, 1, 2000)) for mean in (10.0, 10.0, 11.0)]
    line = np.unique(np.concatenate(bins))
    now, before, shifted = (np.bincount(np.searchsorted(line, one), minlength=line.size) for one in bins)
    assert distance.psi(now, before) < 0.1
    assert distance.psi(shifted, before) > 0.25


@settings(deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1))
def test_a_bins_value_stands_for_every_value_in_it(values: list[float]) -> None:
    given_values = np.array(values)
    given_values = given_values[(np.abs(given_values) > 1e-300) | (given_values == 0)]
    found = distance.value_of(distance.bin_of(given_values))
    assert np.all(np.abs(found - given_values) <= 0.011 * np.abs(given_values))


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2))
def test_bins_are_in_order_of_their_values(values: list[float]) -> None:
    assert np.all(np.diff(distance.bin_of(np.sort(np.array(values)))) >= 0)
