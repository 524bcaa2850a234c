"""Raw events out of their chunks: folded under a condition, and the exact quantiles of their values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelmeter import rollup
from modelmeter.bins import between
from modelmeter.chunk import unpack_floats, unpack_ints
from modelmeter.condition import Condition
from modelmeter.errors import Unanswerable
from modelmeter.reader.names import SQL, Connection
from modelmeter.rollup import Rollups
from modelmeter.store.rollups import read_rollups
from modelmeter.window import DAY, LATEST, Span, ceil, floor, to_datetime, to_micros, to_rfc3339

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNKS_AT_ONCE = 64


@dataclass(slots=True)
class Piece:
    """The events of one chunk that lie in the span and for which the condition holds; `metrics` by id, NaN absent.

    No event of the pieces that follow is earlier than `begin`.
    """

    stream: int
    begin: int
    timestamp: Ints
    metrics: dict[int, Floats]


def read_pieces(
    connection: Connection,
    streams: Sequence[int],
    metrics: Sequence[int] | None,
    span: Span,
    where: Condition | None,
    ids: Mapping[str, int],
) -> Iterator[Piece]:
    """Chunk by chunk, a few of them in memory. `metrics` None: all; `ids` has the metrics of the condition."""
    if not streams or span.start >= span.end:
        return
    scope = {
        "streams": list(streams),
        "start": to_datetime(span.start),
        "end": to_datetime(span.end),
        "day": to_datetime(floor(span.start, DAY)),
    }
    with connection.cursor("raw_chunks") as cursor:
        cursor.itersize = _CHUNKS_AT_ONCE
        cursor.execute(SQL["raw_chunks"], scope, binary=True)
        for stream, count, its_metrics, columns in cursor:
            packed = dict(zip(its_metrics, columns[1:], strict=True))
            timestamp = unpack_ints(columns[0], count)
            begin = int(timestamp[0])
            low, high = np.searchsorted(timestamp, [span.start, span.end]).tolist()
            if low == high:
                continue
            rows: slice | NDArray[np.intp] = slice(low, high)
            unpacked: dict[int, Floats] = {}
            if where is not None:
                wanted = [ids[one.metric] for one in where.comparisons]
                if not all(metric in packed for metric in wanted):
                    continue
                unpacked = {metric: unpack_floats(packed[metric], count) for metric in set(wanted)}
                held = np.ones(high - low, np.bool_)
                for metric, one in zip(wanted, where.comparisons, strict=True):
                    held &= one.holds(unpacked[metric][low:high])
                if not held.any():
                    continue
                rows = np.flatnonzero(held) + low
            chosen = packed if metrics is None else [metric for metric in metrics if metric in packed]
            yield Piece(
                stream,
                begin,
                timestamp[rows],
                {
                    metric: (unpacked[metric] if metric in unpacked else unpack_floats(packed[metric], count))[rows]
                    for metric in chosen
                },
            )


def fold_piece(piece: Piece, step: int) -> list[Rollups]:
    """Partials of windows of `step`."""
    windows = piece.timestamp - piece.timestamp % step
    starts = rollup.group_starts(windows)
    stream = np.full(piece.timestamp.size, piece.stream, np.int32)
    return [
        rollup.fold_events(stream, windows, piece.timestamp, starts),
        *(
            rollup.fold_metric(stream, metric, windows, piece.timestamp, values, starts)
            for metric, values in piece.metrics.items()
        ),
    ]


def check_raw(connection: Connection, streams: Sequence[int], span: Span, sample_limit: int) -> dict[int, int]:
    """How many raw events there are, by day: of whole days, all that `span` touches.

    Unanswerable when they are too many, or no longer kept for some of its days.
    """
    days = Span(floor(span.start, DAY), min(ceil(span.end, DAY), LATEST))
    if not streams or days.start >= days.end:
        return {}
    scope = {"streams": list(streams), "start": to_datetime(days.start), "end": to_datetime(days.end)}
    kept: dict[int, int] = {}
    samples = 0
    for day, count, its_samples in connection.execute(SQL["raw_days"], scope):
        kept[to_micros(day)] = count
        samples += its_samples
    tables = ("rollup_1d", "rollup_partial_1h", "rollup_partial_1m")
    rows = read_rollups(connection, [(table, days.start, days.end) for table in tables], list(streams), [rollup.EVENTS])
    every, place = np.unique(rows.window - rows.window % DAY, return_inverse=True)
    counted = np.bincount(place, rows.count, minlength=every.size).astype(np.int64)
    lacking = [day for day, count in zip(every.tolist(), counted.tolist(), strict=True) if kept.get(day, 0) < count]
    if lacking:
        raise Unanswerable(
            f"the raw events of {len(lacking)} of {every.size} days are no longer kept (the last is "
            f"{to_rfc3339(lacking[-1])}); choose a start from {to_rfc3339(lacking[-1] + DAY)} on, or ask "
            "without where= and exact=, in steps of whole hours",
            field="start",
            raw_from=to_rfc3339(lacking[-1] + DAY),
        )
    if samples > sample_limit:
        share = (span.end - span.start) * sample_limit // samples
        raise Unanswerable(
            f"this would read {samples:,} raw samples, over the limit of {sample_limit:,}; choose a span about "
            f"{max(samples // sample_limit + 1, 2)} times shorter, or fewer streams by match=",
            field="start",
            limit_samples=sample_limit,
            span_seconds=share // 1_000_000,
        )
    return kept


class Values:
    """The raw values of cells, gathered metric by metric; a cell is (group, window)."""

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[Ints, Ints, Floats]]] = {}

    def add(self, piece: Piece, group: int, step: int) -> None:
        windows = piece.timestamp - piece.timestamp % step
        for metric, values in piece.metrics.items():
            present = ~np.isnan(values)
            part = (np.full(int(present.sum()), group), windows[present], values[present])
            self._parts.setdefault(metric, []).append(part)

    def quantiles(self, qs: Sequence[float]) -> dict[tuple[int, int, int], Floats]:
        """By (group, metric, window), shape (qs,): np.quantile's "linear" of all values, to the last bit."""
        found: dict[tuple[int, int, int], Floats] = {}
        for metric, parts in self._parts.items():
            groups, windows, values = (np.concatenate(column) for column in zip(*parts, strict=True))
            if not values.size:
                continue
            order = np.lexsort((values, windows, groups))
            groups, windows, values = groups[order], windows[order], values[order]
            starts = rollup.group_starts(groups, windows)
            sizes = np.diff(np.append(starts, values.size))[:, None]
            rank = np.asarray(qs, np.float64)[None, :] * (sizes - 1)
            below = rank.astype(np.int64)
            left = values[starts[:, None] + below]
            right = values[starts[:, None] + np.minimum(below + 1, sizes - 1)]
            answers = _lerp(left, right, rank - below)
            for group, window, row in zip(groups[starts].tolist(), windows[starts].tolist(), answers, strict=True):
                found[group, metric, window] = row
        return found


def _lerp(left: Floats, right: Floats, share: Floats) -> Floats:
    """As NumPy does: from the nearer end."""
    with np.errstate(over="ignore", invalid="ignore"):
        way = right - left
        near = np.where(share >= 0.5, right - way * (1 - share), left + way * share)
        return np.where(np.isinf(way), between(left, right, share), near)
