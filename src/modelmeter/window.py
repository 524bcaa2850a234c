"""Windows of time: half-open, aligned, UTC. Instants are int64 microseconds since 1970; durations are too."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

# The instants that every part of the system can hold (datetime, Postgres, JSON's float64 seconds), whole days of them.
EARLIEST = 0
LATEST = 253_402_214_400 * SECOND

RESOLUTIONS: dict[str, int] = {"1m": MINUTE, "1h": HOUR, "1d": DAY}
"""Name to width in microseconds, finest first. Each divides the next."""

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
    "d": DAY,
    "w": WEEK,
    "y": 365 * DAY,
}
_DURATION_PART = re.compile(r"(\d+)(us|ms|[smhdwy])")
_DURATION = re.compile(r"(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?(\d+us)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """`[start, end)` in microseconds."""

    start: int
    end: int


def floor(instant: int, width: int) -> int:
    """The start of the window of `width` that holds `instant`."""
    return instant - instant % width


def ceil(instant: int, width: int) -> int:
    """The first window start at or after `instant`."""
    return -(-instant // width) * width


def parse_duration(text: str) -> int:
    """`1h30m` to microseconds. ValueError when it is not a Prometheus duration (`us` is ours)."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write it like 30s, 5m, 1h30m, 7d")
    return sum(int(count) * _UNITS[unit] for count, unit in _DURATION_PART.findall(text))


def format_duration(duration: int) -> str:
    """The shortest exact Prometheus form: 90 s is `1m30s`."""
    if duration == 0:
        return "0s"
    parts = []
    for unit in ("w", "d", "h", "m", "s", "ms", "us"):
        count, duration = divmod(duration, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def unix_to_micros(value: float) -> int:
    """A Unix time in s, ms, us or ns, told apart by its size, to microseconds.

    Below 1e11 it is seconds (until the year 5138), below 1e14 milliseconds, below 1e17 microseconds,
    else nanoseconds. ValueError outside 1970 to 9999.
    """
    size = abs(value)
    if not size < 1e308:
        raise ValueError(f"{value!r:.60} is outside the years 1970 to 9999")
    if size < 1e11:
        micros = value * SECOND if isinstance(value, int) else round(value * SECOND)
    elif size < 1e14:
        micros = value * 1_000 if isinstance(value, int) else round(value * 1_000)
    elif size < 1e17:
        micros = value if isinstance(value, int) else round(value)
    else:
        micros = value // 1_000 if isinstance(value, int) else round(value / 1_000)
    if not EARLIEST <= micros <= LATEST:
        raise ValueError(f"{value!r} is outside the years 1970 to 9999")
    return int(micros)


def rfc3339_to_micros(text: str) -> int:
    """An RFC 3339 time to microseconds; finer digits are cut off. ValueError when unreadable or without offset."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no RFC 3339 time like 2026-01-31T12:00:00Z") from None
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no offset; end it with Z or +00:00")
    micros = to_micros(instant)
    if not EARLIEST <= micros <= LATEST:
        raise ValueError(f"{text!r} is outside the years 1970 to 9999")
    return micros


def parse_instant(text: str, now: int) -> int:
    """A time in a request: RFC 3339, Unix, `now`, or relative to `now` (`-6h`). Microseconds; ValueError."""
    if text == "now":
        return now
    if text[:1] in "+-" and _DURATION.fullmatch(text[1:]):
        moved = now + (parse_duration(text[1:]) if text[0] == "+" else -parse_duration(text[1:]))
        return min(max(moved, EARLIEST), LATEST)
    if _NUMBER.fullmatch(text):
        return unix_to_micros(int(text) if text.lstrip("+-").isdigit() else float(text))
    try:
        return rfc3339_to_micros(text.replace(" ", "+"))  # a + in a query string arrives as a space
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write RFC 3339 (2026-01-31T12:00:00Z), Unix seconds, or relative (-6h)"
        ) from None


def to_micros(instant: datetime) -> int:
    """An aware datetime to microseconds, exactly."""
    delta = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def to_datetime(micros: int) -> datetime:
    """Microseconds to an aware UTC datetime, exactly."""
    seconds, rest = divmod(micros, SECOND)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def to_rfc3339(micros: int) -> str:
    """`2026-01-31T12:00:00.123456Z`; no fraction when there is none."""
    return to_datetime(micros).isoformat().replace("+00:00", "Z")
