"""The fold of the events of some streams in a span, exact to the microsecond, from as few rows as will do.

A span is covered by days, then hours, then minutes, from the folded rollups and the partials together; the minutes
that the span cuts through, and the hours of slow streams, which have no minutes, are folded from raw chunks.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import psycopg

from modelmeter import rollup
from modelmeter.chunk import unpack_floats, unpack_ints
from modelmeter.rollup import Rollups
from modelmeter.store.rollups import read_rollups
from modelmeter.store.sql import load
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, Span, ceil, floor, to_datetime

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("read.sql")


@dataclass(frozen=True, slots=True)
class Cover:
    """What tiles a span: rows of tables by window, and the raw events of slow streams where no whole hour fits."""

    ranges: list[tuple[str, int, int]]
    raw: list[Span]


def cover(span: Span, coarsest: int = DAY) -> Cover:
    """(table, start, end) of whole windows, the coarsest that fit, but none coarser than `coarsest`.

    The minutes that `span` cuts are included whole.
    """
    start, end = floor(span.start, MINUTE), ceil(span.end, MINUTE)
    ranges = [("rollup_partial_1m", start, end)]
    hours = (min(ceil(span.start, HOUR), end), floor(span.end, HOUR))
    if coarsest < HOUR or hours[0] >= hours[1]:
        ranges.append(("rollup_1m", start, end))
        return Cover(ranges, [span])
    ranges += [("rollup_1m", start, hours[0]), ("rollup_1m", hours[1], end), ("rollup_partial_1h", *hours)]
    days = (ceil(hours[0], DAY), floor(hours[1], DAY))
    if coarsest < DAY or days[0] >= days[1]:
        ranges.append(("rollup_1h", *hours))
    else:
        ranges += [("rollup_1h", hours[0], days[0]), ("rollup_1h", days[1], hours[1]), ("rollup_1d", *days)]
    edges = [Span(span.start, hours[0]), Span(hours[1], span.end)]
    return Cover([one for one in ranges if one[1] < one[2]], [edge for edge in edges if edge.start < edge.end])


def fold_span(
    connection: Connection, streams: list[int], metrics: list[int] | None, span: Span, step: int = LATEST
) -> Rollups:
    """Partials whose merge is the fold of exactly the events in `span`; `metrics` None: of all.

    None of them reaches over a border of a window of `step` (whole minutes): coarsened to it, they are its fold.
    """
    if span.start >= span.end:
        return rollup.EMPTY
    plan = cover(span, next(width for width in (DAY, HOUR, MINUTE) if step % width == 0))
    rows = read_rollups(connection, plan.ranges, streams, metrics)
    parts = [fold_raw(connection, streams, metrics, edge, minutely=False, width=step) for edge in plan.raw]
    for minute in sorted({floor(edge, MINUTE) for edge in (span.start, span.end) if edge % MINUTE}):
        # Partials that lie inside the span as a whole need no raw data; those that it cuts through do.
        here = (rows.window == minute) & (rows.last_at < minute + MINUTE)
        inside = (rows.first_at >= span.start) & (rows.last_at < span.end)
        if (here & ~inside).any():
            part = Span(max(minute, span.start), min(minute + MINUTE, span.end))
            parts.append(fold_raw(connection, streams, metrics, part, minutely=True, width=step))
            rows = rollup.select(rows, ~here)
    return rollup.concat([rows, *parts])


def fold_raw(
    connection: Connection,
    streams: list[int],
    metrics: list[int] | None,
    span: Span,
    *,
    minutely: bool,
    width: int = LATEST,
) -> Rollups:
    """The raw events in `span` of minutely chunks, or of the others, folded into windows of `width`."""
    scope = {
        "streams": streams,
        "start": to_datetime(span.start),
        "end": to_datetime(span.end),
        "day": to_datetime(floor(span.start, DAY)),
        "minutely": minutely,
    }
    parts = [rollup.EMPTY]
    for stream, count, its_metrics, columns in connection.execute(SQL["chunks"], scope, binary=True):
        timestamp = unpack_ints(columns[0], count)
        low, high = np.searchsorted(timestamp, [span.start, span.end]).tolist()
        if low == high:
            continue
        timestamp = timestamp[low:high]
        ids = np.full(timestamp.size, stream, np.int32)
        windows = timestamp - timestamp % width
        starts = rollup.group_starts(windows)
        parts.append(rollup.fold_events(ids, windows, timestamp, starts))
        for metric, column in zip(its_metrics, columns[1:], strict=True):
            if metrics is None or metric in metrics:
                values = unpack_floats(column, count)[low:high]
                parts.append(rollup.fold_metric(ids, metric, windows, timestamp, values, starts))
    return rollup.concat(parts)
