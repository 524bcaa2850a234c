"""Alertmanager's time intervals: when a route is muted, or active only.

An interval holds an instant when each of its fields that is there holds it: one of the ranges is enough for a field.
Times of day end before `end_time`; ranges of days, months and years include both ends; all in the interval's location.
"""

import calendar
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_TIME = re.compile(r"(([01]\d|2[0-3]):[0-5]\d|24:00)", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,4}", re.ASCII)
_LONGEST_MONTH = 31

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TimeInterval:
    """A field that is None holds every instant. `times` are minutes of the day, `weekdays` count from Sunday, 0."""

    times: tuple[Range, ...] | None = None
    weekdays: tuple[Range, ...] | None = None
    days_of_month: tuple[Range, ...] | None = None
    months: tuple[Range, ...] | None = None
    years: tuple[Range, ...] | None = None
    location: ZoneInfo | None = None

    def holds(self, instant: datetime) -> bool:
        """Whether this aware instant is within."""
        local = instant.astimezone(self.location or ZoneInfo("UTC"))
        minute = local.hour * 60 + local.minute
        if self.times is not None and not any(start <= minute < end for start, end in self.times):
            return False
        length = calendar.monthrange(local.year, local.month)[1]
        return (
            _within(self.weekdays, (local.weekday() + 1) % 7)
            and (self.days_of_month is None or any(_has_day(one, local.day, length) for one in self.days_of_month))
            and _within(self.months, local.month)
            and _within(self.years, local.year)
        )


def _within(ranges: Sequence[Range] | None, value: int) -> bool:
    return ranges is None or any(first <= value <= last for first, last in ranges)


def _has_day(days: Range, day: int, length: int) -> bool:
    """Negative days count from the end of the month, -1 is its last one."""
    first, last = (one if one > 0 else length + one + 1 for one in days)
    return first <= day <= last


def parse_times(start: str, end: str) -> Range:
    """`09:00` and `17:00`. ValueError."""
    for text in (start, end):
        if not _TIME.fullmatch(text):
            raise ValueError(f"{text!r} is no time of day; write it like 09:00, up to 24:00")
    first, last = (int(text[:2]) * 60 + int(text[3:]) for text in (start, end))
    if first >= last:
        raise ValueError(f"start_time {start} is not before end_time {end}; for a night write two ranges")
    return first, last


def _parse_range(text: str, parse: Callable[[str], int], what: str) -> Range:
    parts = text.split(":")
    if len(parts) > 2:
        raise ValueError(f"{text!r} is no range of {what}; write it like first:last")
    found = [parse(part.lower()) for part in parts]
    return found[0], found[-1]


def parse_weekdays(text: str) -> Range:
    """`monday:friday` or `sunday`. ValueError."""

    def parse(word: str) -> int:
        if word not in WEEKDAYS:
            raise ValueError(f"{word!r} is no weekday; write it like monday")
        return WEEKDAYS.index(word)

    return _ordered(_parse_range(text, parse, "weekdays"), f"{text!r}: the week begins on sunday; write two ranges")


def parse_days_of_month(text: str) -> Range:
    """`1:5`, `-3:-1`, `15`. ValueError."""

    def parse(word: str) -> int:
        day = int(word) if _INTEGER.fullmatch(word) else 0
        if not 1 <= abs(day) <= _LONGEST_MONTH:
            raise ValueError(f"{word!r} is no day of a month; write 1 to 31, or -1 for the last to -31")
        return day

    first, last = _parse_range(text, parse, "days")
    if first < 0 < last:
        raise ValueError(f"{text!r}: a range that begins at the end of the month must end there too")
    at = [one if one > 0 else _LONGEST_MONTH + one + 1 for one in (first, last)]
    if at[0] > at[1]:
        raise ValueError(f"{text!r}: the last day is before the first")
    return first, last


def parse_months(text: str) -> Range:
    """`march:may`, `1:3`, `december`. ValueError."""

    def parse(word: str) -> int:
        month = MONTHS.index(word) + 1 if word in MONTHS else int(word) if _INTEGER.fullmatch(word) else 0
        if not 1 <= month <= 12:
            raise ValueError(f"{word!r} is no month; write it like march, or 3")
        return month

    return _ordered(_parse_range(text, parse, "months"), f"{text!r}: the last month is before the first")


def parse_years(text: str) -> Range:
    """`2026:2028` or `2026`. ValueError."""

    def parse(word: str) -> int:
        if not _INTEGER.fullmatch(word):
            raise ValueError(f"{word!r} is no year; write it like 2026")
        return int(word)

    return _ordered(_parse_range(text, parse, "years"), f"{text!r}: the last year is before the first")


def _ordered(found: Range, problem: str) -> Range:
    if found[0] > found[1]:
        raise ValueError(problem)
    return found
