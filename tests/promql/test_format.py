"""Numbers and times in Prometheus' own form."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.promql import format as form


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (-1.5e300, "-1.5e+300"),
        (0.0001, "0.0001"),
        (0.00001, "0.00001"),
        (0.000001, "0.000001"),
        (0.0000009, "9e-07"),
        (5e-324, "5e-324"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_a_value_is_written_as_go_writes_it(value: float, text: str) -> None:
    assert form.format_value(value) == text
    assert form.format_values(np.array([value, 7.25])) == [text, "7.25"]


def test_a_fixed_number_never_has_an_exponent() -> None:
    assert form.format_fixed(1e22) == "10000000000000000000000"
    assert form.format_fixed(1e-7) == "0.0000001"


@settings(deadline=None)
@given(st.lists(st.floats()))
def test_many_values_are_written_as_each_alone(values: list[float]) -> None:
    assert form.format_values(np.array(values)) == [form.format_value(value) for value in values]


@settings(deadline=None)
@given(st.floats(allow_nan=False))
def test_a_written_value_reads_back_to_the_same_bits(value: float) -> None:
    assert float(form.format_value(value)).hex() == value.hex()


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (1_435_781_451_781_000, "1435781451.781"),
        (1_435_781_451_000_000, "1435781451"),
        (1_435_781_451_020_000, "1435781451.020"),
        (1_435_781_451_000_007, "1435781451.000007"),
        (-1_500_000, "-1.500"),
    ],
)
def test_an_instant_is_seconds_with_no_more_digits_than_it_needs(instant: int, text: str) -> None:
    assert form.format_instant(instant) == text


def test_points_are_pairs_of_seconds_and_text() -> None:
    prefixes = [form.instant_prefix(second * 1_000_000) for second in (1, 2)]
    points = form.format_points(prefixes, np.array([0.5, math.nan]))
    assert json.loads(f"[{points}]") == [[1, "0.5"], [2, "NaN"]]
    assert form.format_points([], np.zeros(0)) == ""
