"""The bins are exact, merging is addition, and a quantile is within ERROR of the value."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelmeter import sketch
from modelmeter.sketch import (
    BINS_PER_OCTAVE,
    EMPTY,
    ERROR,
    Floats,
    Sketch,
    bin_of,
    decode,
    encode,
    encode_groups,
    merge,
    quantiles,
    sketch_of,
    value_of,
)

many = settings(max_examples=200, deadline=None, derandomize=True, database=None)
LARGEST = 1.7976931348623157e308
SMALLEST = 5e-324
finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-100, 100),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, SMALLEST, -SMALLEST, 2.2250738585072014e-308, LARGEST, -LARGEST]),
    st.integers(-40, 40).map(lambda exponent: 2.0**exponent),
)
lists = st.lists(finite, max_size=60)
positive = st.floats(1e-300, 1e300, exclude_min=True)


def floats(values: list[float]) -> Floats:
    return np.array(values, np.float64)


def exact_bin(value: float) -> int:
    """The i with base^i < v <= base^(i+1), by integers: v^32 against a power of two."""
    power = Fraction(value) ** BINS_PER_OCTAVE
    guess: int = math.ceil(math.log2(value) * BINS_PER_OCTAVE) - 1
    return next(number for number in (guess, guess - 1, guess + 1) if _power(number) < power <= _power(number + 1))


def _power(exponent: int) -> Fraction:
    return Fraction(2**exponent) if exponent >= 0 else Fraction(1, 2**-exponent)


def test_a_value_beside_a_border_falls_into_its_own_bin() -> None:
    borders = [2.0 ** (number / BINS_PER_OCTAVE) for number in range(BINS_PER_OCTAVE + 1)]
    near = [border for border in borders for _ in range(3)]
    for number in range(0, len(near), 3):
        near[number] = math.nextafter(near[number], 0)
        near[number + 2] = math.nextafter(near[number + 2], math.inf)
    for exponent in (-1074 + 52, -1022, -1, 0, 1, 52, 1022):
        values = [math.ldexp(value, exponent) for value in near]
        values = [value for value in values if value < math.inf]
        assert bin_of(floats(values)).tolist() == [exact_bin(value) for value in values]


@many
@given(st.lists(st.floats(SMALLEST, LARGEST), min_size=1, max_size=20))
def test_a_value_lies_above_its_bins_border_and_at_most_at_the_next(values: list[float]) -> None:
    assert bin_of(floats(values)).tolist() == [exact_bin(value) for value in values]


@pytest.mark.parametrize(
    "value", [SMALLEST, 1e-323, 2.225073858507201e-308, 2.2250738585072014e-308, 1e308, LARGEST, 1.0, 2.0, 0.5]
)
def test_extreme_values_have_their_bin(value: float) -> None:
    assert bin_of(floats([value])).tolist() == [exact_bin(value)]


@many
@given(st.lists(positive, min_size=1))
def test_the_value_of_a_bin_is_within_the_error_of_all_in_it(values: list[float]) -> None:
    found = value_of(bin_of(floats(values)))
    assert (np.abs(found - values) <= ERROR * (1 + 1e-9) * floats(values)).all()


@many
@given(lists)
def test_a_sketch_counts_every_value_and_every_zero(values: list[float]) -> None:
    found = sketch_of(floats(values))
    assert found.count == len(values)
    assert found.zeros == sum(value == 0 for value in values)
    assert found.counts.sum() == sum(value > 0 for value in values)
    mirrored = sketch_of(-floats(values))
    assert (mirrored.offset, mirrored.counts.tolist()) == (found.negative_offset, found.negative_counts.tolist())


@many
@given(lists)
def test_a_stored_sketch_comes_back(values: list[float]) -> None:
    found = sketch_of(floats(values))
    back = decode(encode(found))
    assert encode(back) == encode(found)
    for field in Sketch.__slots__:
        assert np.array_equal(getattr(back, field), getattr(found, field))


@pytest.mark.parametrize("count", [255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**40])
def test_a_stored_count_of_any_width_comes_back(count: int) -> None:
    found = Sketch(-7, np.array([1, 0, count]), count, 3, np.array([count]))
    back = decode(encode(found))
    assert (back.offset, back.counts.tolist(), back.zeros) == (-7, [1, 0, count], count)
    assert (back.negative_offset, back.negative_counts.tolist()) == (3, [count])


groups = st.lists(st.one_of(st.lists(finite, min_size=1), st.lists(st.floats(0, 1e3), min_size=1)), min_size=1)


def check_groups(parts: list[Floats]) -> None:
    starts = np.concatenate(([0], np.cumsum([part.size for part in parts])[:-1])).astype(np.int64)
    assert encode_groups(np.concatenate(parts), starts) == [encode(sketch_of(part)) for part in parts]


@many
@given(groups)
def test_groups_are_stored_as_each_of_them_would_be(parts: list[list[float]]) -> None:
    check_groups([floats(part) for part in parts])
    check_groups([np.abs(floats(part)) for part in parts])
    check_groups([np.abs(floats(part)) + 1e-9 for part in parts])


@pytest.mark.parametrize("count", [1, 100, 255, 256, 257, 300, 70_000])
@pytest.mark.parametrize("far", [1.5, 1e-2, 1e-5, 1e-6, 1e-9, 1e-300])
def test_groups_of_many_equal_values_and_a_far_one_are_stored_as_each_of_them_would_be(count: int, far: float) -> None:
    wide = np.append(np.ones(count), far)
    check_groups([wide, wide, floats([0.0]), np.ones(2)])
    check_groups([wide])


@many
@given(st.lists(lists, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_merge_in_any_order_and_grouping_is_the_sketch_of_all(parts: list[list[float]], random: object) -> None:
    whole = encode(sketch_of(floats([value for part in parts for value in part])))
    sketches = [sketch_of(floats(part)) for part in parts]
    assert encode(merge(sketches)) == whole
    while len(sketches) > 1:
        random.shuffle(sketches)  # type: ignore[attr-defined]
        sketches = [merge(sketches[:2]), *sketches[2:]]
    assert encode(sketches[0]) == whole
    assert encode(merge([*sketches, EMPTY])) == whole


qs = st.lists(st.floats(0, 1), min_size=1, max_size=5).map(sorted)


@many
@given(st.lists(positive, min_size=1, max_size=80), qs)
def test_a_quantile_of_positive_values_is_within_the_error_of_numpys(values: list[float], wanted: list[float]) -> None:
    found = quantiles(sketch_of(floats(values)), wanted, min(values), max(values))
    exact = np.quantile(floats(values), wanted)
    assert (np.abs(found - exact) <= 0.011 * exact).all()


@many
@given(st.lists(finite, min_size=1, max_size=80), qs)
@example([-LARGEST, LARGEST], [0.0, 0.3, 0.5, 0.99])
def test_quantiles_rise_between_the_exact_minimum_and_maximum(values: list[float], wanted: list[float]) -> None:
    low, high = min(values), max(values)
    found = quantiles(sketch_of(floats(values)), [0, *wanted, 1], low, high)
    assert found[0] == low
    assert found[-1] == high
    assert found == sorted(found)
    assert all(math.isfinite(value) for value in found)


@many
@given(st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=80), qs)
def test_a_quantile_is_between_its_neighbours_each_within_the_error(values: list[float], wanted: list[float]) -> None:
    found = quantiles(sketch_of(floats(values)), wanted, min(values), max(values))
    ordered = sorted(values)
    for q, value in zip(wanted, found, strict=True):
        rank = q * (len(values) - 1)
        below, above = ordered[math.floor(rank)], ordered[min(math.floor(rank) + 1, len(values) - 1)]
        assert below - 0.011 * abs(below) <= value <= above + 0.011 * abs(above)


def test_the_quantile_of_nothing_is_nan() -> None:
    assert math.isnan(quantiles(EMPTY, [0.5], 0, 0)[0])


def test_the_error_is_that_of_the_design() -> None:
    assert sketch.SCALE == 5
    assert ERROR < 0.011
