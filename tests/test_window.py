"""Windows are half-open, aligned and UTC; instants and durations are read exactly or refused."""

import datetime as dt
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter import window
from modelmeter.window import (
    DAY,
    EARLIEST,
    HOUR,
    LATEST,
    MINUTE,
    RESOLUTIONS,
    SECOND,
    format_duration,
    parse_duration,
    parse_instant,
    rfc3339_to_micros,
    to_datetime,
    to_micros,
    to_rfc3339,
    unix_to_micros,
)

many = settings(max_examples=200, deadline=None, derandomize=True, database=None)
instants = st.integers(EARLIEST, LATEST)
widths = st.sampled_from([*RESOLUTIONS.values(), 1, SECOND, 7 * SECOND])
NOW = 1_760_000_000_000_000


@many
@given(instants, widths)
def test_an_instant_lies_in_one_half_open_aligned_window(instant: int, width: int) -> None:
    start = window.floor(instant, width)
    assert start <= instant < start + width
    assert start % width == 0
    assert window.ceil(instant, width) == (start if instant == start else start + width)


def test_each_resolution_divides_the_next_and_days_are_utc_days() -> None:
    widths = list(RESOLUTIONS.values())
    assert all(coarse % fine == 0 for fine, coarse in pairwise(widths))
    midnight = to_micros(dt.datetime(2026, 1, 31, tzinfo=dt.UTC))
    assert window.floor(midnight, DAY) == midnight
    assert window.floor(midnight - 1, DAY) == midnight - DAY


def test_the_latest_instant_can_be_rounded_up_to_any_resolution() -> None:
    assert all(to_datetime(window.ceil(LATEST, width)) for width in RESOLUTIONS.values())


@many
@given(instants)
def test_an_instant_comes_back_from_datetime_and_rfc3339(instant: int) -> None:
    assert to_micros(to_datetime(instant)) == instant
    assert rfc3339_to_micros(to_rfc3339(instant)) == instant
    assert parse_instant(to_rfc3339(instant), NOW) == instant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.0000019Z", 1),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T19:00:00-05:00", 0),
        ("2026-01-31T12:00:00.5Z", 1_769_860_800_500_000),
        ("9999-12-31T00:00:00Z", LATEST),
    ],
)
def test_rfc3339_is_read_to_the_microsecond(text: str, expected: int) -> None:
    assert rfc3339_to_micros(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z", "2026-01-31T25:00:00Z"),
        *("0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59.999999Z", "9999-12-31T00:00:00.000001Z"),
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_what_is_no_rfc3339_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|offset|1970 to 9999"):
        rfc3339_to_micros(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (0.5, 500_000),
        (1_700_000_000, 1_700_000_000 * SECOND),
        (1_700_000_000.000001, 1_700_000_000_000_001),
        (10**11 - 1, (10**11 - 1) * SECOND),
        (10**11, 10**11 * 1000),
        (1_700_000_000_123, 1_700_000_000_123_000),
        (10**14 - 1, (10**14 - 1) * 1000),
        (10**14, 10**14),
        (1_700_000_000_123_456, 1_700_000_000_123_456),
        (10**17 - 1, 10**17 - 1),
        (10**17, 10**14),
        (1_700_000_000_123_456_789, 1_700_000_000_123_456),
        (1e11, 10**14),
        (99_999_999_999.5, 99_999_999_999_500_000),
        (1e14, 10**14),
        (1e17, 10**14),
    ],
)
def test_a_unix_time_is_told_apart_by_its_size(value: float, expected: int) -> None:
    assert unix_to_micros(value) == expected


@pytest.mark.parametrize("value", [-1, -0.5, -(10**12), 10**21, 1e300, 10**400, math.inf, -math.inf, math.nan])
def test_a_unix_time_outside_1970_to_9999_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="1970 to 9999"):
        unix_to_micros(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("-6h", NOW - 6 * HOUR),
        ("+1h30m", NOW + 90 * MINUTE),
        ("-9999y", EARLIEST),
        ("+99999999y", LATEST),
        ("1700000000", 1_700_000_000 * SECOND),
        ("1700000000.5", 1_700_000_000 * SECOND + 500_000),
        ("1.7e9", 1_700_000_000 * SECOND),
        ("2026-01-31T12:00:00 00:00", 1_769_860_800 * SECOND),
    ],
)
def test_an_instant_of_a_request_is_read(text: str, expected: int) -> None:
    assert parse_instant(text, NOW) == expected


@many
@given(
    st.one_of(st.text(max_size=20), st.text("0123456789+-.eTZ:smhdwy", max_size=20), st.just("1e400"), st.just("-1"))
)
def test_any_other_text_is_an_instant_in_range_or_a_value_error(text: str) -> None:
    try:
        instant = parse_instant(text, NOW)
    except ValueError:
        return
    assert EARLIEST <= instant <= LATEST


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", 0),
        ("90s", 90 * SECOND),
        ("1h30m", 90 * MINUTE),
        ("7d", 7 * DAY),
        ("5ms", 5000),
        ("5us", 5),
        ("1y", 365 * DAY),
    ],
)
def test_a_duration_is_read(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "-5m", "5m5m", "1m1h", "1.5h", "5 m", "5M", "1h ", "\u0665m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@many
@given(st.integers(0, LATEST))
def test_a_duration_comes_back_from_its_text(duration: int) -> None:
    assert parse_duration(format_duration(duration)) == duration


def test_a_duration_is_written_short() -> None:
    assert format_duration(90 * SECOND) == "1m30s"
    assert format_duration(10 * MINUTE) == "10m"
