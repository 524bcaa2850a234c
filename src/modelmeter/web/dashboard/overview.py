"""What got worse: each version of each model beside yesterday and beside the version before. Pure arithmetic.

A change counts when Welch's t says that it is no chance, and when it is at least a tenth of a standard deviation:
with many events everything is significant. How bad it is, is told in standard deviations (Cohen's d), so that
metrics of any unit can be ranked beside each other.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelmeter import rollup
from modelmeter.rollup import Rollups

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SURE_T = 4.0  # of many comparisons at once few may be chance: p < 0.0001
_LEAST_EFFECT = 0.1
_LEAST_COUNT = 10
_SINCE_JUMP = 4.0  # times the noise of the trend's points; a steady slope has less
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Sums:
    """Count, mean and squared deviations of each row and metric, shape (rows, metrics); NaN where nothing came."""

    count: Floats
    mean: Floats
    deviation: Floats


@dataclass(frozen=True, slots=True)
class Trend:
    """Count and mean of each row and metric in each step of time, shape (rows, metrics, steps)."""

    count: Floats
    mean: Floats


@dataclass(frozen=True, slots=True)
class Change:
    """From a reference to now. `effect` in standard deviations, above zero for up; `sure` when it is no chance."""

    reference: float
    now: float
    effect: float
    sure: bool

    @property
    def ratio(self) -> float | None:
        """The relative change; None when the reference is (next to) zero."""
        if abs(self.reference) < 1e-12:
            return None
        return (self.now - self.reference) / abs(self.reference)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a partial goes: the row of its stream and the column of its metric; others are passed over."""

    stream_ids: Ints
    rows: Ints
    metric_ids: Ints
    row_count: int

    def moved(self, source_of: Mapping[int, int]) -> "Places":
        """Places in which each row shows the streams of another row, and of none where it names none."""
        shown_in = {source: row for row, source in source_of.items()}
        kept = np.array([row in shown_in for row in self.rows.tolist()], bool)
        rows = np.array([shown_in[row] for row in self.rows[kept].tolist()], np.int64)
        return Places(self.stream_ids[kept], rows, self.metric_ids, self.row_count)

    def find(self, rollups: Rollups) -> tuple[Ints, Ints, NDArray[np.intp]]:
        """Row and column of the partials that have a place, and which those are."""
        if not self.stream_ids.size or not self.metric_ids.size or not len(rollups):
            none = np.zeros(0, np.int64)
            return none, none, none
        stream = np.searchsorted(self.stream_ids, rollups.stream).clip(0, self.stream_ids.size - 1)
        metric = np.searchsorted(self.metric_ids, rollups.metric).clip(0, self.metric_ids.size - 1)
        known = (self.stream_ids[stream] == rollups.stream) & (self.metric_ids[metric] == rollups.metric)
        kept = np.flatnonzero(known)
        return self.rows[stream[kept]], metric[kept].astype(np.int64), kept


def add_up(cells: Ints, weights: NDArray[np.floating[Any]] | Ints, size: int) -> Floats:
    """The sum of the weights of each cell, shape (size,)."""
    return np.asarray(np.bincount(cells, weights, size), np.float64)


def sum_up(rollups: Rollups, places: Places) -> Sums:
    """All partials of a row and metric as one. Chan's formula: no cancellation."""
    row, column, kept = places.find(rollups)
    columns = places.metric_ids.size
    cell, cells = row * columns + column, places.row_count * columns
    counts = rollups.count[kept].astype(np.float64)
    count = add_up(cell, counts, cells)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = add_up(cell, rollups.sum[kept], cells) / count
        shift = rollups.sum[kept] / counts - mean[cell]
        deviation = add_up(cell, rollups.deviation[kept] + counts * shift * shift, cells)
    shape = (places.row_count, columns)
    return Sums(count.reshape(shape), mean.reshape(shape), deviation.reshape(shape))


def newest(rollups: Rollups, places: Places) -> Ints:
    """When the last event of each row was, shape (rows,); 0 where there is none."""
    row, _, kept = places.find(rollups)
    found = np.zeros(places.row_count, np.int64)
    np.maximum.at(found, row, rollups.last_at[kept])
    return found


def sum_up_alike(
    one: Rollups, other: Rollups, places: Places, apart: int, width: int, other_places: Places | None = None
) -> tuple[Sums, Sums]:
    """Both sides, of each row and metric only those windows of `width` that have events on both, `apart` microseconds
    later on the other: a gap on one side would else be a change, where there is a rhythm of the day.
    """
    other_places = other_places or places
    found = [places.find(one), other_places.find(other)]
    at = [
        (side.window[kept] + shift) // width
        for side, (_, _, kept), shift in zip((one, other), found, (0, apart), strict=True)
    ]
    low = min((int(part.min()) for part in at if part.size), default=0)
    steps = max((int(part.max()) for part in at if part.size), default=0) - low + 1
    cells = [
        (row * places.metric_ids.size + column) * steps + part - low
        for (row, column, _), part in zip(found, at, strict=True)
    ]
    there = [np.zeros(places.row_count * places.metric_ids.size * steps, bool) for _ in cells]
    for mask, cell in zip(there, cells, strict=True):
        mask[cell] = True
    both = there[0] & there[1]
    kept_rows = []
    for side, (_, _, kept), cell in zip((one, other), found, cells, strict=True):
        mask = np.zeros(len(side), bool)
        mask[kept[both[cell]]] = True
        kept_rows.append(rollup.select(side, mask))
    return sum_up(kept_rows[0], places), sum_up(kept_rows[1], other_places)


def trend_of(rollups: Rollups, places: Places, start: int, step: int, steps: int) -> Trend:
    """By steps of time from `start` on; microseconds."""
    row, column, kept = places.find(rollups)
    at = (rollups.window[kept] - start) // step
    inside = (at >= 0) & (at < steps)
    row, column, kept, at = row[inside], column[inside], kept[inside], at[inside]
    shape = (places.row_count, places.metric_ids.size, steps)
    cell, cells = (row * shape[1] + column) * steps + at, shape[0] * shape[1] * steps
    count = add_up(cell, rollups.count[kept], cells)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = add_up(cell, rollups.sum[kept], cells) / count
    return Trend(count.reshape(shape), mean.reshape(shape))


def compare(now: Sums, reference: Sums) -> tuple[Floats, NDArray[np.bool_]]:
    """Cohen's d from the reference to now, and whether it is no chance; NaN and False where a side is missing."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        n, m = now.count, reference.count
        difference = now.mean - reference.mean
        pooled = np.sqrt((now.deviation + reference.deviation) / (n + m - 2))
        error = np.sqrt(now.deviation / n / (n - 1) + reference.deviation / m / (m - 1))
        effect = np.where(difference == 0, 0.0, difference / pooled)
        t = np.where(difference == 0, 0.0, np.abs(difference) / error)
    effect = np.clip(np.where((n > 0) & (m > 0), effect, np.nan), -99, 99)
    sure = (t > _SURE_T) & (np.abs(effect) > _LEAST_EFFECT) & (n >= _LEAST_COUNT) & (m >= _LEAST_COUNT)
    return effect, sure


def since(trend: Trend) -> Ints:
    """The step in which the mean of each row and metric changed most (CUSUM, weighted by count); -1: not clearly.

    Shape (rows, metrics).
    """
    count = np.nan_to_num(trend.count)
    value = np.nan_to_num(trend.mean)
    steps = count.shape[2]
    if steps < 4:
        return np.full(count.shape[:2], -1, np.int64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        seen = (count > 0).astype(np.float64)  # each step weighs the same: what is busy by day must not drown the night
        total = seen.sum(axis=2, keepdims=True)
        level = (value * seen).sum(axis=2, keepdims=True) / total
        path = np.cumsum((value - level) * seen, axis=2)[:, :, :-1]
        at = np.abs(path).argmax(axis=2)
        before = np.cumsum(seen, axis=2)
        n = np.take_along_axis(before, at[:, :, None], axis=2)
        sums = np.cumsum(value * seen, axis=2)
        left_sum = np.take_along_axis(sums, at[:, :, None], axis=2)
        left = left_sum / n
        right = (sums[:, :, -1:] - left_sum) / (total - n)
        is_left = np.arange(steps)[None, None, :] <= at[:, :, None]
        rest = (value - np.where(is_left, left, right)) * seen
        noise = np.sqrt((rest * rest).sum(axis=2) / np.maximum(total[:, :, 0] - 2, 1))
        jump = np.abs(right - left)[:, :, 0]
        clear = (jump > _SINCE_JUMP * noise) & (jump > 0)
    clear &= (n[:, :, 0] >= 2) & ((total - n)[:, :, 0] >= 1)
    return np.where(clear, at + 1, -1)


def badness(effect: Floats, sure: NDArray[np.bool_], direction: Floats) -> Floats:
    """How much worse, in standard deviations, at least 0; `direction` (metrics,) is 1 where higher is better,
    -1 where lower is, 0 where nobody knows.
    """
    return np.where(sure, np.maximum(-np.nan_to_num(effect) * direction, 0.0), 0.0)


def previous_versions(versions: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Version to the one before it. (version, when its first event was) each.

    In the order of their numbers (v2, v10) when all are numbered alike, else in the order in which they came.
    """
    shapes = {_NUMBER.sub("0", version) for version, _ in versions}
    if len(shapes) == 1 and all(_NUMBER.search(version) for version, _ in versions):
        ordered = sorted(version for version, _ in versions)
        ordered.sort(key=natural)
    else:
        ordered = [version for version, _ in sorted(versions, key=lambda one: (one[1], natural(one[0])))]
    return dict(zip(ordered[1:], ordered, strict=False))


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A sort key by which v2 comes before v10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in _NUMBER.split(text) if part)


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric of a version: its mean now, how it went, and the two changes. `worse` in standard deviations."""

    metric: str
    mean: float | None
    trend: Floats
    yesterday: Change | None
    previous: Change | None
    direction: int
    worse: float
    since_at: int | None


@dataclass(slots=True)
class Row:
    """A version of a model. `events` and `trend` are those of the span; times are microseconds."""

    name: str
    version: str
    events: int
    trend: Floats
    last_at: int
    previous_version: str | None
    cells: dict[str, Cell]
    states: list[str] = field(default_factory=list)

    @property
    def worst(self) -> Cell | None:
        """What got worse most, if anything did."""
        worst = max(self.cells.values(), key=lambda cell: cell.worse, default=None)
        return worst if worst is not None and worst.worse > 0 else None

    @property
    def state(self) -> str:
        """firing, pending, silent or ok."""
        for state in ("firing", "pending"):
            if state in self.states:
                return state
        return "ok" if self.events else "silent"


_SEVERITY = {"firing": 0, "pending": 1, "silent": 2, "ok": 2}


def rank(row: Row) -> tuple[object, ...]:
    """The sort key: what fires, what is about to, then by how much worse; busy before quiet."""
    worst = row.worst
    return (_SEVERITY[row.state], -(worst.worse if worst else 0.0), not row.events, row.name, natural(row.version))


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of all versions, by row and metric; column 0 counts the events. Pairs are (now, reference)."""

    keys: list[tuple[str, str]]
    metrics: list[str]
    trend: Trend
    start: int
    step: int
    now: Sums
    by_day: tuple[Sums, Sums]
    by_version: tuple[Sums, Sums]
    previous_row: dict[int, int]
    last_at: list[int]


def make_rows(measured: Measured, direction_of: Callable[[str], int]) -> list[Row]:
    """A row for each version, in the order of their names."""
    direction = np.array([float(direction_of(metric)) for metric in measured.metrics])
    by_day, by_version = compare(*measured.by_day), compare(*measured.by_version)
    worse = np.maximum(badness(*by_day, direction), badness(*by_version, direction))
    moved = since(measured.trend)
    total = np.nan_to_num(measured.trend.count).sum(axis=2)

    def change(
        sides: tuple[Sums, Sums], found: tuple[Floats, NDArray[np.bool_]], row: int, column: int
    ) -> Change | None:
        if not np.isfinite(found[0][row, column]):
            return None
        now, reference = sides
        return Change(
            float(reference.mean[row, column]),
            float(now.mean[row, column]),
            float(found[0][row, column]),
            bool(found[1][row, column]),
        )

    rows = []
    for row, key in enumerate(measured.keys):
        cells = {}
        for column in np.flatnonzero(total[row, 1:]) + 1:
            mean, at = float(measured.now.mean[row, column]), int(moved[row, column])
            cells[measured.metrics[column]] = Cell(
                measured.metrics[column],
                mean if np.isfinite(mean) else None,
                measured.trend.mean[row, column],
                change(measured.by_day, by_day, row, int(column)),
                change(measured.by_version, by_version, row, int(column)),
                int(direction[column]),
                float(worse[row, column]),
                measured.start + at * measured.step if at >= 0 else None,
            )
        older = measured.previous_row.get(row)
        rows.append(
            Row(
                *key,
                int(total[row, 0]),
                np.nan_to_num(measured.trend.count[row, 0]),
                measured.last_at[row],
                measured.keys[older][1] if older is not None else None,
                cells,
            )
        )
    return rows
