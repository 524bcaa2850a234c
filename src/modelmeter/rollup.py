"""Rollups: what is kept of one series in one window. Folding events and merging partials give the same.

A partial holds count, sum, squared deviations from the mean, minimum, maximum, first and last time, the last
value and a sketch. Any number of partials may stand for a window; merge() of them is the truth, in any order and
any grouping; so of several values at the last time, the largest is the last one.
Deviations are merged by Chan's formula (Chan, Golub, LeVeque 1979: no cancellation).
Metric id 0 (EVENTS) counts the events themselves: an event need not have every metric.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modelmeter import packed, sketch

EVENTS = 0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rollups:
    """Partials as columns, shape (n,). Times are UTC microseconds; `window` is the start of the window."""

    stream: NDArray[np.int32]
    metric: NDArray[np.int32]
    window: Ints
    count: Ints
    sum: Floats
    deviation: Floats
    min: Floats
    max: Floats
    first_at: Ints
    last_at: Ints
    last: Floats
    sketch: Sequence[bytes]

    def __len__(self) -> int:
        return self.stream.size


FIELDS = (
    "stream",
    "metric",
    "window",
    "count",
    "sum",
    "deviation",
    "min",
    "max",
    "first_at",
    "last_at",
    "last",
)


def concat(parts: Sequence[Rollups]) -> Rollups:
    """All partials of several, in their order."""
    if len(parts) == 1:
        return parts[0]
    return Rollups(
        **{field: np.concatenate([getattr(part, field) for part in parts]) for field in FIELDS},
        sketch=packed.join([part.sketch for part in parts]),
    )


def select(rollups: Rollups, rows: NDArray[np.bool_]) -> Rollups:
    """The partials at `rows`, a mask of shape (n,)."""
    kept = np.flatnonzero(rows)
    return Rollups(
        **{field: getattr(rollups, field)[kept] for field in FIELDS},
        sketch=packed.take(rollups.sketch, kept),
    )


def fold_events(stream: NDArray[np.int32], window: Ints, timestamp: Ints, starts: Ints) -> Rollups:
    """One EVENTS partial a group: how many events, the first and the last time.

    Arrays of shape (n,), sorted by stream, then time; group g is `[starts[g], starts[g + 1])`.
    """
    ends = np.append(starts[1:], timestamp.size)
    zeros = np.zeros(starts.size)
    return Rollups(
        stream[starts],
        np.full(starts.size, EVENTS, np.int32),
        window[starts],
        ends - starts,
        zeros,
        zeros,
        zeros,
        zeros,
        timestamp[starts],
        timestamp[ends - 1],
        zeros,
        [b""] * starts.size,
    )


def fold_metric(
    stream: NDArray[np.int32],
    metric: int,
    window: Ints,
    timestamp: Ints,
    values: Floats,
    starts: Ints,
    needs: Collection[str] | None = None,
) -> Rollups:
    """One partial of `metric` for each group that has a value; shapes as in fold_events, NaN is absent.

    `needs` None: whole ones; else, of all that is neither a count nor a sum nor a time, what is named.
    """
    absent = np.isnan(values)
    if absent.any():
        present = np.flatnonzero(~absent)
        kept = np.searchsorted(present, starts)
        starts = kept[np.append(kept[1:], present.size) > kept]
        stream, window, timestamp, values = (
            stream[present],
            window[present],
            timestamp[present],
            values[present],
        )
    if not starts.size:
        return EMPTY
    ends = np.append(starts[1:], values.size)
    counts = ends - starts
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduceat(values, starts)
        deviations = np.zeros(starts.size)
        if needs is None or "deviation" in needs:
            distances = values - np.repeat(sums / counts, counts)
            deviations = np.add.reduceat(distances * distances, starts)
    unasked = np.zeros(starts.size)
    with_last = needs is None or "last" in needs
    highs = np.maximum.reduceat(values, starts) if needs is None or "max" in needs or with_last else unasked
    return Rollups(
        stream[starts],
        np.full(starts.size, metric, np.int32),
        window[starts],
        counts,
        sums,
        deviations,
        np.minimum.reduceat(values, starts) if needs is None or "min" in needs else unasked,
        highs,
        timestamp[starts],
        timestamp[ends - 1],
        _lasts(timestamp, values, starts, ends, highs) if with_last else unasked,
        sketch.encode_groups(values, starts) if needs is None or "sketch" in needs else [b""] * starts.size,
    )


def _lasts(timestamp: Ints, values: Floats, starts: Ints, ends: Ints, highs: Floats) -> Floats:
    """The value at the last time of each group; of several then, the greatest, so that no order matters."""
    last_at = timestamp[ends - 1]
    alone = timestamp[np.maximum(ends - 2, starts)] < last_at
    alone |= ends - starts == 1
    if alone.all():
        return values[ends - 1]
    if (timestamp[starts] == last_at).all():
        return highs
    newest = timestamp == np.repeat(last_at, ends - starts)
    return np.maximum.reduceat(np.where(newest, values, -np.inf), starts)


_NO_IDS, _NO_INTS, _NO_FLOATS = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
EMPTY = Rollups(
    stream=_NO_IDS,
    metric=_NO_IDS,
    window=_NO_INTS,
    count=_NO_INTS,
    sum=_NO_FLOATS,
    deviation=_NO_FLOATS,
    min=_NO_FLOATS,
    max=_NO_FLOATS,
    first_at=_NO_INTS,
    last_at=_NO_INTS,
    last=_NO_FLOATS,
    sketch=[],
)


def renumber(rollups: Rollups, window: Ints) -> Rollups:
    """The same partials with other windows, shape (n,)."""
    return replace(rollups, window=window)


def coarsen(rollups: Rollups, width: int) -> Rollups:
    """The same partials, their windows widened to `width` microseconds."""
    return replace(rollups, window=rollups.window - rollups.window % width)


def merge(rollups: Rollups, *, by_stream: bool = True, by_window: bool = True) -> Rollups:
    """One partial for each stream, metric and window; sorted by them.

    Without `by_stream` all streams are one (stream 0), without `by_window` all windows are (window 0).
    The last value is that of the latest time; of several at that time, the largest.
    """
    if not len(rollups):
        return rollups
    stream = rollups.stream if by_stream else np.zeros_like(rollups.stream)
    window = rollups.window if by_window else np.zeros_like(rollups.window)
    order = np.lexsort((rollups.last, rollups.last_at, window, rollups.metric, stream))
    stream, metric, window = stream[order], rollups.metric[order], window[order]
    changed = (np.diff(stream) != 0) | (np.diff(metric) != 0) | (np.diff(window) != 0)
    starts = np.concatenate(([0], np.flatnonzero(changed) + 1))
    sizes = np.diff(np.append(starts, stream.size))
    lasts = starts + sizes - 1
    counts = rollups.count[order]
    sums = rollups.sum[order]
    with np.errstate(over="ignore", invalid="ignore"):
        total_counts = np.add.reduceat(counts, starts)
        total_sums = np.add.reduceat(sums, starts)
        shifts = sums / counts - np.repeat(total_sums / total_counts, sizes)
        deviations = np.add.reduceat(rollups.deviation[order] + counts * shifts * shifts, starts)
    return Rollups(
        stream[starts],
        metric[starts],
        window[starts],
        total_counts,
        total_sums,
        deviations,
        np.minimum.reduceat(rollups.min[order], starts),
        np.maximum.reduceat(rollups.max[order], starts),
        np.minimum.reduceat(rollups.first_at[order], starts),
        rollups.last_at[order][lasts],
        rollups.last[order][lasts],
        _merge_sketches(packed.take(rollups.sketch, order), starts, sizes),
    )


def _merge_sketches(sketches: Sequence[bytes], starts: Ints, sizes: Ints) -> Sequence[bytes]:
    """Those that are alone in their group stay as they are."""
    together = np.flatnonzero(sizes > 1)
    if not together.size:
        return sketches
    lengths = sizes[together]
    firsts = np.cumsum(lengths) - lengths
    rows = np.arange(int(lengths.sum())) + np.repeat(starts[together] - firsts, lengths)
    merged = packed.merge_groups(packed.take(sketches, rows), firsts)
    if together.size == starts.size:
        return merged
    found = list(packed.take(sketches, starts))
    for group, data in zip(together.tolist(), merged, strict=True):
        found[group] = data
    return found


@dataclass(frozen=True, slots=True)
class Stats:
    """What people ask of a series in a span. `stddev` is that of the population; NaN never occurs: None does."""

    count: int
    mean: float | None
    stddev: float | None
    min: float
    max: float
    last: float
    quantiles: dict[str, float]


def stats(rollups: Rollups, row: int, quantiles: Sequence[float]) -> Stats:
    """The stats of one (merged) partial."""
    count = int(rollups.count[row])
    low, high = float(rollups.min[row]), float(rollups.max[row])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rollups.sum[row] / count
        stddev = np.sqrt(rollups.deviation[row] / count)
    if np.isfinite(mean):
        mean = min(max(mean, low), high)  # rounding may have carried it an ulp outside
    values = sketch.quantiles(sketch.decode(rollups.sketch[row]), quantiles, low, high) if quantiles else []
    return Stats(
        count,
        float(mean) if np.isfinite(mean) else None,
        float(stddev) if np.isfinite(stddev) else None,
        low,
        high,
        float(rollups.last[row]),
        {repr(q).removesuffix(".0"): value for q, value in zip(quantiles, values, strict=True)},
    )


def group_starts(*keys: NDArray[np.integer]) -> Ints:
    """Where a new group begins in arrays sorted by these keys; the first at 0. Shape (groups,)."""
    changed = np.diff(keys[0]) != 0
    for key in keys[1:]:
        changed |= np.diff(key) != 0
    return np.concatenate(([0], np.flatnonzero(changed) + 1))
