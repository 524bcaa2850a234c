"""Numbers, times and changes as people read them. All pure; nothing here makes HTML."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from modelmeter.web.dashboard.overview import Cell, Change, Row
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, to_datetime

MINUS, NARROW = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"
_SUFFIXES = {
    "seconds": "s",
    "ms": "ms",
    "milliseconds": "ms",
    "bytes": "B",
    "tokens": "tokens",
    "percent": "%",
    "usd": "USD",
}
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_PAD = 100, 24, 2

_REASONS = {
    "condition": "the condition holds",
    "held": "the condition has held long enough",
    "not_recovered": "not recovered yet",
    "keep_firing_for": "kept firing",
    "min_samples": "too few samples to tell",
    "no_data": "no data",
    "no_data_kept": "no data; it stays as it was",
}


def reason(code: str) -> str:
    """Why an alert is as it is."""
    return _REASONS.get(code, code.replace("_", " "))


def unit_of(metric: str, units: Mapping[str, str]) -> str:
    """The unit from the settings, else from the name as Prometheus has it (`latency_seconds`), else none."""
    return units.get(metric) or _SUFFIXES.get(metric.rsplit("_", 1)[-1], "")


def number(value: float | None, digits: int = 3) -> str:
    """Three digits that matter, thousands by letter: 0.861, 12.8, 1.2k; an en dash when there is none."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    size = abs(value)
    if size >= 1e15 or (0 < size < 1e-4):
        text = f"{value:.2e}"
    elif size >= 10_000:
        scale, letter = next(one for one in _LARGE if size >= one[0])
        text = f"{value / scale:#.{digits}g}".removesuffix(".") + letter
        if "e" in text:
            text = f"{value / scale:.0f}{letter}"
    elif size >= 999.5:
        text = f"{value:.0f}"
    else:
        text = f"{value:#.{digits}g}".removesuffix(".") if value else "0"
    return text.replace("-", MINUS)


def with_unit(value: float | None, unit: str) -> str:
    text = number(value)
    return f"{text}{NARROW}{unit}" if unit and value is not None and math.isfinite(value) else text


def count(value: int) -> str:
    """1 204, 38.2k, 1.2M"""
    return f"{value:,}".replace(",", NARROW) if value < 10_000 else number(float(value))


def change(one: Change) -> str:
    """+4.2 %; the plain difference where a relative one says nothing."""
    ratio = one.ratio
    if ratio is None or abs(ratio) >= 10:
        return signed(number(one.now - one.reference), one.now - one.reference)
    if abs(ratio) < 0.0005:
        return f"0{NARROW}%"
    percent = ratio * 100
    text = f"{percent:.0f}" if abs(percent) >= 10 else f"{percent:.1f}"
    return signed(text.replace("-", MINUS), ratio) + f"{NARROW}%"


def signed(text: str, value: float) -> str:
    return f"+{text}" if value > 0 else text


def verdict(one: Change | None, direction: int) -> str:
    """none, same, worse, better, or changed when nobody said which way is good."""
    if one is None:
        return "none"
    if not one.sure:
        return "same"
    if not direction:
        return "changed"
    return "better" if (one.effect > 0) == (direction > 0) else "worse"


def worst_change(cell: Cell) -> tuple[Change, str] | None:
    """The change that makes a cell worse, and against what: yesterday or previous."""
    found = [
        (one, against)
        for one, against in ((cell.yesterday, "yesterday"), (cell.previous, "previous"))
        if one is not None and verdict(one, cell.direction) == "worse"
    ]
    return max(found, key=lambda pair: abs(pair[0].effect), default=None)


def headline(row: Row, now: int) -> tuple[str, str] | None:
    """What got worse most, and since when against what: ("accuracy down 77 %", "since 09:40, against yesterday")."""
    cell = row.worst
    found = worst_change(cell) if cell is not None else None
    if cell is None or found is None:
        return None
    one, against = found
    way = "up" if one.effect > 0 else "down"
    what = f"{cell.metric} {way} {change(one).lstrip('+' + MINUS)}"
    when = f"since {clock(cell.since_at, now)}, " if cell.since_at is not None and against == "yesterday" else ""
    return what, f"{when}against {'yesterday' if against == 'yesterday' else row.previous_version}"


def clock(at: int, now: int) -> str:
    """A time in the past, in UTC: 09:40, 21 Nov 09:40 when it is not within a day."""
    instant = to_datetime(at)
    return f"{instant:%H:%M}" if abs(now - at) < DAY else f"{instant:%-d %b %H:%M}"


def ago(at: int, now: int) -> str:
    """Just now, 40 s, 12 min, 3 h, 5 d"""
    age = max(now - at, 0)
    for width, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        if age >= width * (2 if width == DAY else 1):
            return f"{age // width}{NARROW}{unit} ago"
    return "just now"


def duration(micros: int) -> str:
    """24 h, 7 days, 90 min"""
    for width, unit in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        if micros % width == 0 and micros >= width * (2 if width == DAY else 1):
            return f"{micros // width}{NARROW}{unit}"
    return f"{micros / MINUTE:.0f}{NARROW}min"


def rough(micros: int) -> str:
    """About how long: 40 s, 12 min, 3.5 h, 2.1 d"""
    for width, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if micros >= width * 2:
            return f"{float(f'{micros / width:.2g}'):g}{NARROW}{unit}"
    return f"{micros // SECOND}{NARROW}s"


def sparkline(values: NDArray[np.float64]) -> Sequence[str]:
    """The `d` of SVG paths, one for each unbroken run, in a box of 100 by 24.

    The scale is at least a tenth of the level, so that noise does not look like news.
    """
    known = np.isfinite(values)
    if not known.any():
        return []
    low, high = float(values[known].min()), float(values[known].max())
    least = 0.1 * max(abs(low), abs(high))
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    scale = (_SPARK_HEIGHT - 2 * _SPARK_PAD) / (high - low) if high > low else 0.0
    step = (_SPARK_WIDTH - 2 * _SPARK_PAD) / max(values.size - 1, 1)
    paths = []
    edges = np.flatnonzero(np.diff(np.concatenate(([False], known, [False])).astype(np.int8)))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        points = [
            (_SPARK_PAD + place * step, _SPARK_HEIGHT - _SPARK_PAD - (float(values[place]) - low) * scale)
            for place in range(begin, end)
        ]
        if len(points) == 1:
            points.append((points[0][0] + 0.5, points[0][1]))
        x, y = points[0]
        paths.append(f"M{x:.4g} {y:.3g}L" + " ".join(f"{x:.4g} {y:.3g}" for x, y in points[1:]))
    return paths


def spark_place(values: NDArray[np.float64], place: int) -> float:
    """Where a step stands on the x axis of such a box."""
    return round(_SPARK_PAD + place * (_SPARK_WIDTH - 2 * _SPARK_PAD) / max(values.size - 1, 1), 2)


def bars(values: NDArray[np.float64]) -> str:
    """The `d` of one SVG path of bars, in the same box; the highest fills it."""
    top = float(values.max(initial=0.0))
    if top <= 0:
        return ""
    width = (_SPARK_WIDTH - 2 * _SPARK_PAD) / values.size
    parts = []
    for place, value in enumerate(values.tolist()):
        if value > 0:
            height = max((_SPARK_HEIGHT - 2) * value / top, 1)
            x = _SPARK_PAD + place * width
            parts.append(f"M{x:.4g} {_SPARK_HEIGHT}v-{height:.3g}h{width * 0.8:.3g}v{height:.3g}z")
    return "".join(parts)
