"""Mute times: each field holds or not, in the interval's own time zone; amtool accepts what we accept."""

import json
import random
import secrets
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.notify.file import read_notifications
from modelmeter.routing import Route
from modelmeter.time_interval import (
    TimeInterval,
    parse_days_of_month,
    parse_months,
    parse_times,
    parse_weekdays,
    parse_years,
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


OFFICE = TimeInterval(times=(parse_times("09:00", "17:00"),), weekdays=(parse_weekdays("monday:friday"),))


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (TimeInterval(), ["2026-03-01T00:00"], []),
        (
            OFFICE,
            ["2026-03-02T09:00", "2026-03-06T16:59"],
            ["2026-03-02T08:59", "2026-03-02T17:00", "2026-03-01T12:00"],
        ),
        (
            TimeInterval(times=(parse_times("22:00", "24:00"), parse_times("00:00", "06:00"))),
            ["2026-03-01T23:59:59", "2026-03-01T05:59"],
            ["2026-03-01T06:00", "2026-03-01T21:59"],
        ),
        (
            TimeInterval(days_of_month=(parse_days_of_month("-3:-1"),)),
            ["2026-02-26T00:00", "2026-02-28T23:00", "2028-02-29T00:00"],
            ["2026-02-25T00:00", "2026-03-01T00:00", "2028-02-26T00:00"],
        ),
        (
            TimeInterval(days_of_month=(parse_days_of_month("30:31"),), months=(parse_months("february"),)),
            [],
            ["2026-02-28T00:00", "2026-02-01T00:00"],
        ),
        (
            TimeInterval(days_of_month=(parse_days_of_month("1:-1"),), months=(parse_months("april:june"),)),
            ["2026-04-01T00:00", "2026-06-30T23:59"],
            ["2026-03-31T23:59", "2026-07-01T00:00"],
        ),
        (TimeInterval(years=((2026, 2027),)), ["2026-01-01T00:00", "2027-12-31T23:59"], ["2025-12-31T23:59"]),
        (
            TimeInterval(times=OFFICE.times, weekdays=OFFICE.weekdays, location=ZoneInfo("Australia/Sydney")),
            ["2026-03-01T22:00"],  # Monday 9:00 in Sydney, in summer time
            ["2026-03-02T09:00", "2026-03-01T21:59"],
        ),
        (
            # Europe/Berlin changes its clocks on 2026-03-29: 9 o'clock is 8 UTC before and 7 UTC after.
            TimeInterval(times=((540, 1020),), location=ZoneInfo("Europe/Berlin")),
            ["2026-03-28T08:00", "2026-03-29T07:00"],
            ["2026-03-28T07:59", "2026-03-29T06:59"],
        ),
    ],
)
def test_an_interval_holds_what_it_says(interval: TimeInterval, inside: list[str], outside: list[str]) -> None:
    assert [text for text in inside if not interval.holds(at(text))] == []
    assert [text for text in outside if interval.holds(at(text))] == []


@given(
    day=st.integers(0, 20_000),
    minute=st.integers(0, 1439),
    first=st.integers(-31, 31).filter(bool),
    last=st.integers(-31, 31).filter(bool),
)
def test_a_range_of_days_is_what_counting_days_says(day: int, minute: int, first: int, last: int) -> None:
    instant = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=day, minutes=minute)
    try:
        days = parse_days_of_month(f"{first}:{last}")
    except ValueError:
        return
    start_of_next = (instant.replace(day=28) + timedelta(days=4)).replace(day=1)
    length = (start_of_next - timedelta(days=1)).day
    count = range(1, length + 1)
    chosen = [one for one in count if one >= (first if first > 0 else length + 1 + first)]
    chosen = [one for one in chosen if one <= (last if last > 0 else length + 1 + last)]
    assert TimeInterval(days_of_month=(days,)).holds(instant) == (instant.day in chosen)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_weekdays, "friday:monday"), (parse_weekdays, "1:3"), (parse_weekdays, "someday"),
        (parse_days_of_month, "0"), (parse_days_of_month, "32"), (parse_days_of_month, "-15:5"),
        (parse_days_of_month, "10:-25"), (parse_days_of_month, "1:2:3"), (parse_days_of_month, "x"),
        (parse_months, "december:january"), (parse_months, "13"), (parse_months, "mai"), (parse_years, "2028:2026"),
        (parse_years, "later"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@pytest.mark.parametrize(
    ("start", "end"), [("17:31", "17:31"), ("09:00", "24:01"), ("9:00", "10:00"), ("12:00", "07:00")]
)
def test_times_are_hours_and_minutes_in_order(start: str, end: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_times(start, end)


WORDS = {
    "weekdays": [
        "monday",
        "Sunday",
        "friday:sunday",
        "sunday:tuesday",
        "tuesday : friday",
        "1",
        "fri",
        "monday:monday",
    ],
    "days_of_month": ["1", "-1", "5:10", "10:5", "-5:-10", "-10:-5", "1:-1", "31:-31", "10:-25", "0", "32", "15:-5"],
    "months": ["january", "1", "march:5", "12:1", "December", "mar"],  # amtool takes month 13
    "years": ["2026", "2026:2028", "2028:2026", "x"],
    "location": ["Europe/Berlin", "UTC", "Nowhere/Town", "Australia/Sydney"],
}


def test_amtool_takes_and_refuses_the_same_intervals(tmp_path: Path) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    file = tmp_path / "n.yml"
    for _ in range(60):
        interval: dict[str, object] = {}
        for name in dice.sample([*WORDS], dice.randint(1, 2)):
            interval[name] = (
                dice.choice(WORDS[name]) if name == "location" else dice.sample(WORDS[name], dice.randint(1, 2))
            )
        if dice.random() < 0.3:
            start, end = dice.sample(["00:00", "09:30", "24:00", "17:61", "9:00", "12:00"], 2)
            interval["times"] = [{"start_time": start, "end_time": end}]
        file.write_text(
            json.dumps(
                {
                    "route": {"receiver": "r"},
                    "receivers": [{"name": "r"}],
                    "time_intervals": [{"name": "t", "time_intervals": [interval]}],
                }
            )
        )
        said = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, check=False).returncode == 0
        try:
            read_notifications(Config(notifications=file))
            ours = True
        except WrongSetting:
            ours = False
        assert ours == said, f"seed {seed}: {interval}"


def test_a_route_is_muted_within_its_mute_times_and_outside_of_its_active_ones() -> None:
    intervals = {"office": (OFFICE,), "march": (TimeInterval(months=((3, 3),)),)}
    monday, sunday = at("2026-03-02T12:00"), at("2026-03-01T12:00")
    assert Route("{}", "r", mute=("office",)).is_muted(intervals, monday)
    assert not Route("{}", "r", mute=("office",)).is_muted(intervals, sunday)
    assert Route("{}", "r", active=("office",)).is_muted(intervals, sunday)
    assert not Route("{}", "r", active=("office",)).is_muted(intervals, monday)
    assert Route("{}", "r", mute=("march",), active=("office",)).is_muted(intervals, monday)
    assert not Route("{}", "r").is_muted(intervals, monday)
