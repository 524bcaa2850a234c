"""Parts of a UTC date from Unix seconds, as whole arrays (days to civil date: Howard Hinnant's algorithm)."""

from collections.abc import Callable

import numpy as np

from modelmeter.promql.source import Floats, Ints

_DAY = 86_400
_FARTHEST = 1e16  # seconds; keeps the arithmetic within int64

_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


def _days(seconds: Ints) -> Ints:
    return seconds // _DAY


def _civil(seconds: Ints) -> tuple[Ints, Ints, Ints]:
    shifted = _days(seconds) + 719_468
    era, of_era = shifted // 146_097, shifted % 146_097
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    part = (5 * of_year + 2) // 153
    day = of_year - (153 * part + 2) // 5 + 1
    month = np.where(part < 10, part + 3, part - 9)
    return year_of_era + era * 400 + (month <= 2), month, day


def _is_leap(year: Ints) -> np.ndarray:
    return np.asarray((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)))


def _month_length(seconds: Ints) -> Ints:
    year, month, _ = _civil(seconds)
    return np.asarray(_MONTH_DAYS[month - 1] + ((month == 2) & _is_leap(year)))


def _day_of_year(seconds: Ints) -> Ints:
    year, month, day = _civil(seconds)
    before = np.concatenate(([0], np.cumsum(_MONTH_DAYS)[:-1]))
    return np.asarray(before[month - 1] + day + ((month > 2) & _is_leap(year)))


DATE_PARTS: dict[str, Callable[[Ints], Ints]] = {
    "days_in_month": _month_length,
    "day_of_month": lambda seconds: _civil(seconds)[2],
    "day_of_week": lambda seconds: (_days(seconds) + 4) % 7,
    "day_of_year": _day_of_year,
    "hour": lambda seconds: seconds % _DAY // 3_600,
    "minute": lambda seconds: seconds % 3_600 // 60,
    "month": lambda seconds: _civil(seconds)[1],
    "year": lambda seconds: _civil(seconds)[0],
}


def date_part(name: str, seconds: Floats) -> Floats:
    """The part of each instant; a fraction is cut off, and what is no instant (NaN, Inf, beyond reason) gives NaN."""
    known = np.abs(seconds) < _FARTHEST
    whole = np.trunc(np.where(known, seconds, 0.0)).astype(np.int64)
    return np.where(known, DATE_PARTS[name](whole).astype(np.float64), np.nan)
