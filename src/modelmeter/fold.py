"""The fold of the events of some streams in pieces of time, exact to the microsecond, from as few rows as will do.

Days, then hours, then minutes are read from the folded rollups and the partials together; what a border really cuts
is read again, finer, down to the raw events, each time for all pieces at once. Where the finer form is retired, the
coarser one stands for it: whole windows then, as if the border lay at the beginning of its window.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import psycopg
from numpy.typing import NDArray

from modelmeter import packed, rollup
from modelmeter.pieces import Pieces, Plan, Retired, one_piece, plan, runs
from modelmeter.promql.errors import too_many_samples
from modelmeter.rollup import Rollups
from modelmeter.store.chunks import Events, count_events, read_events
from modelmeter.store.retirement import read_retired
from modelmeter.store.rollups import count_rollups, read_rollups, read_tables
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, Span, ceil

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Ints = NDArray[np.int64]

_TABLES = {
    DAY: ("rollup_1d",),
    HOUR: ("rollup_1h", "rollup_partial_1h"),
    MINUTE: ("rollup_1m", "rollup_partial_1m"),
}
_ALWAYS = frozenset(("count", "first_at", "last_at"))
_COUNTED_FROM = 64 * DAY  # so many days of streams are counted before they are read
_LIKELY_METRICS = 16
_COUNTED_EVENTS = 1_000_000  # and always under such a limit


@dataclass(frozen=True, slots=True)
class Fold:
    """Partials; `window` is the number of their piece. `widened`: the width of the widest windows that stand, whole,
    for finer ones that are retired; 0 when all is exact.
    """

    rows: Rollups
    widened: int


def fold_pieces(
    connection: Connection,
    streams: Sequence[int],
    metrics: Sequence[int] | None,
    pieces: Pieces,
    *,
    needs: Collection[str] | None = None,
    coarsest: int = DAY,
    retired: Retired | None = None,
    event_limit: int = LATEST,
    row_limit: int = LATEST,
) -> Fold:
    """Partials whose merge by piece is the fold of its events; `metrics` None: of all.

    `needs` are the columns that must be filled beside the keys, the counts and the times; None: all. `retired` None:
    looked up where it matters.
    TooMuchData when chunks of more than `event_limit` events, or more than `row_limit` rollups, would have to be read.
    """
    if not len(streams) or not pieces.wanted.any() or (metrics is not None and not len(metrics)):
        return Fold(rollup.EMPTY, 0)
    source = _Source(
        connection, list(streams), None if metrics is None else list(metrics), needs, event_limit, row_limit
    )
    if retired is None:
        retired = read_borders(connection)
    chosen = plan(pieces, coarsest, retired)
    levels = source.read(chosen)
    done = []
    for spans, minutely in ((chosen.slow, False), (chosen.raw, None)):
        if spans:
            some = source.fold_raw(source.streams, spans, pieces.borders, minutely)
            done.append(_wanted(rollup.renumber(some, pieces.of(some.first_at)), pieces))
    widened = 0
    for width in (DAY, HOUR, MINUTE):
        rows = rollup.concat(levels[width]) if levels[width] else rollup.EMPTY
        low, high = pieces.of(rows.first_at), pieces.of(rows.last_at)
        cut = (low != high) & pieces.wants(low, high)
        if cut.any():
            its_streams, windows = np.unique(rows.stream[cut]), np.unique(rows.window[cut])
            mine = np.isin(rows.stream, its_streams) & np.isin(rows.window, windows)
            cut_rows = rollup.select(rows, mine)
            finer = source.read_finer(its_streams.tolist(), windows, width, pieces.borders)
            cut_rows, finer = _whole_or_finer(cut_rows, finer, width)
            if len(cut_rows):
                widened = max(widened, width)
                place = pieces.of(cut_rows.window + (width - 1))
                done.append(_wanted(rollup.renumber(cut_rows, place), pieces))
            for finer_width, some in finer.items():
                if finer_width:
                    levels[finer_width].append(some)
                else:
                    done.append(_wanted(rollup.renumber(some, pieces.of(some.first_at)), pieces))
            rows, low = rollup.select(rows, ~mine), low[~mine]
        done.append(_wanted(rollup.renumber(rows, low), pieces))
    return Fold(rollup.concat(done), widened)


def read_borders(connection: Connection) -> Retired:
    """Until when any class of streams has lost what is finer than days."""
    found: dict[str, int] = {}
    for (_, kind), until in read_retired(connection).items():
        found[kind] = max(found.get(kind, 0), until)
    return Retired(found.get("raw", 0), found.get("1m", 0), found.get("1h", 0))


def _wanted(rows: Rollups, pieces: Pieces) -> Rollups:
    """Those of the wanted pieces; `window` is the number of the piece."""
    kept = np.append(pieces.wanted, False)[rows.window]  # -1 is the last, too
    return rows if kept.all() else rollup.select(rows, kept)


def _whole_or_finer(rows: Rollups, finer: dict[int, Rollups], width: int) -> tuple[Rollups, dict[int, Rollups]]:
    """For each series and window: what is finer, if it holds as many events, else the window as it is."""
    parts = list(finer.values())
    streams, metrics, windows, counts, signs = (
        np.concatenate(columns)
        for columns in zip(
            *(
                (one.stream, one.metric, one.first_at - one.first_at % width, one.count, np.full(len(one), sign))
                for one, sign in ((rows, -1), *((part, 1) for part in parts))
            ),
            strict=True,
        )
    )
    order = np.lexsort((windows, metrics, streams))
    changed = (np.diff(streams[order]) != 0) | (np.diff(metrics[order]) != 0) | (np.diff(windows[order]) != 0)
    key = np.empty(order.size, np.int64)
    key[order] = np.concatenate(([0], np.cumsum(changed)))
    lacking = np.bincount(key, counts * signs)[key] < 0
    ends = np.cumsum([len(rows), *map(len, parts)])
    kept = {
        finer_width: rollup.select(part, ~lacking[start:end])
        for (finer_width, part), start, end in zip(finer.items(), ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    }
    return rollup.select(rows, lacking[: len(rows)]), kept


@dataclass(frozen=True, slots=True)
class _Source:
    connection: Connection
    streams: list[int]
    metrics: list[int] | None
    needs: Collection[str] | None
    event_limit: int
    row_limit: int

    def read(self, chosen: Plan) -> dict[int, list[Rollups]]:
        """The rollups of a plan by the width of their table's windows."""
        widths = {tables[0]: width for width, tables in _TABLES.items()}  # of partials there are never many
        windows = sum((end - start) // widths[table] for table, start, end in chosen.ranges if table in widths)
        series = len(self.streams) * (_LIKELY_METRICS if self.metrics is None else len(self.metrics))
        if windows * series > self.row_limit:
            scope = self.connection, chosen.ranges, self.streams, self.metrics
            if count_rollups(*scope, self.row_limit + 1) > self.row_limit:
                raise too_many_samples()
        found = read_tables(self.connection, chosen.ranges, self.streams, self.metrics, needs=self._columns)
        return {width: [found[table] for table in tables if table in found] for width, tables in _TABLES.items()}

    def read_finer(self, streams: list[int], windows: Ints, width: int, borders: Ints) -> dict[int, Rollups]:
        """What is finer than some windows, by its width (0: raw events, folded between the borders)."""
        spans = runs(windows, width)
        found = {}
        if width > MINUTE:
            table, finer = ("rollup_1h", HOUR) if width == DAY else ("rollup_1m", MINUTE)
            ranges = [(table, one.start, one.end) for one in spans]
            rows = read_rollups(self.connection, ranges, streams, self.metrics, needs=self._columns)
            found[finer] = rollup.select(rows, np.isin(rows.window - rows.window % width, windows))
        if width < DAY:
            edges = np.union1d(borders, np.concatenate((windows, windows + width)))
            found[0] = self.fold_raw(streams, spans, edges, width == MINUTE)
        return found

    @property
    def _columns(self) -> Collection[str] | None:
        return None if self.needs is None else {*self.needs, *_ALWAYS}

    def fold_raw(self, streams: list[int], spans: list[Span], borders: Ints, minutely: bool | None) -> Rollups:
        """The raw events of the spans, folded between the borders."""
        long = sum(one.end - one.start for one in spans) * len(streams) > _COUNTED_FROM
        if (long or self.event_limit < _COUNTED_EVENTS) and (
            count_events(self.connection, streams, spans, minutely) > self.event_limit
        ):
            raise too_many_samples()
        events = list(read_events(self.connection, streams, self.metrics, spans, minutely))
        return fold_events(events, spans, borders, self.metrics, self.needs)


def fold_events(
    events: Sequence[Events],
    spans: Sequence[Span],
    borders: Ints,
    metrics: Sequence[int] | None,
    needs: Collection[str] | None,
) -> Rollups:
    """The events that lie in the spans, as partials that reach over no border; `window` is their first time."""
    edges = np.union1d(borders, [edge for span in spans for edge in (span.start, span.end)])
    starts_of = np.array([span.start for span in spans], np.int64)
    ends_of = np.array([0, *(span.end for span in spans)], np.int64)
    events = [one for event in events if (one := _near(event, starts_of, ends_of)) is not None]
    found = [rollup.EMPTY]
    wanted = {metric for one in events for metric in one.metrics} if metrics is None else {*metrics}
    for metric in sorted({rollup.EVENTS, *wanted} if metrics is None else wanted):
        having = [one for one in events if metric == rollup.EVENTS or metric in one.metrics]
        if not having:
            continue
        starts, at = [], 0
        for one in having:
            low, high = np.searchsorted(edges, one.timestamp[[0, -1]], "right").tolist()
            places = np.searchsorted(one.timestamp, edges[low:high])
            starts.append(np.unique(np.concatenate(([0], places))) + at)
            at += one.timestamp.size
        groups = np.concatenate(starts)
        timestamp = np.concatenate([one.timestamp for one in having])
        stream = np.repeat(np.array([one.stream for one in having], np.int32), [one.timestamp.size for one in having])
        if metric == rollup.EVENTS:
            rows = rollup.fold_events(stream, timestamp, timestamp, groups)
        else:
            values = np.concatenate([one.metrics[metric] for one in having])
            rows = rollup.fold_metric(stream, metric, timestamp, timestamp, values, groups, needs)
        with_sketch = metric != rollup.EVENTS and (needs is None or "sketch" in needs)
        rows = replace(rows, sketch=packed.pack(rows.sketch) if with_sketch else packed.blank(len(rows)))
        inside = rows.first_at < ends_of[np.searchsorted(starts_of, rows.first_at, "right")]
        found.append(rows if inside.all() else rollup.select(rows, inside))
    return rollup.concat(found)


def _near(events: Events, starts_of: Ints, ends_of: Ints) -> Events | None:
    """Without the events before the first and after the last of the spans that the chunk touches."""
    timestamp = events.timestamp
    first = int(np.searchsorted(ends_of[1:], timestamp[0], "right"))
    last = int(np.searchsorted(starts_of, timestamp[-1], "right")) - 1
    if first > last:
        return None
    low, high = np.searchsorted(timestamp, [starts_of[first], ends_of[last + 1]]).tolist()
    if low == high:
        return None
    if high - low == timestamp.size:
        return events
    return Events(events.stream, timestamp[low:high], {one: values[low:high] for one, values in events.metrics.items()})


def cover(span: Span, coarsest: int = DAY) -> Plan:
    """What a span is folded from, the coarsest windows that fit, but none coarser than `coarsest`."""
    return plan(one_piece(span), coarsest, few=0)


def fold_span(
    connection: Connection, streams: Sequence[int], metrics: Sequence[int] | None, span: Span, step: int = LATEST
) -> Rollups:
    """Partials whose merge is the fold of exactly the events in `span`; `metrics` None: of all.

    None of them reaches over a border of a window of `step` (whole minutes): coarsened to it, they are its fold.
    Where finer data is retired, whole windows are taken: `fold_windows` says which.
    """
    return fold_windows(connection, streams, metrics, span, step).rows


def fold_windows(
    connection: Connection, streams: Sequence[int], metrics: Sequence[int] | None, span: Span, step: int = LATEST
) -> Fold:
    """The same, `window` being the start of the window of `step` within `span`; and by how much ends were widened."""
    if span.start >= span.end:
        return Fold(rollup.EMPTY, 0)
    grid = np.arange(ceil(span.start + 1, step), span.end, step, dtype=np.int64)
    borders = np.concatenate(([span.start], grid, [span.end]))
    pieces = Pieces(borders, np.ones(borders.size - 1, np.bool_))
    coarsest = next(width for width in (DAY, HOUR, MINUTE) if step % width == 0)
    found = fold_pieces(connection, streams, metrics, pieces, coarsest=coarsest)
    return Fold(rollup.renumber(found.rows, borders[found.rows.window]), found.widened)


def fold_raw(
    connection: Connection,
    streams: Sequence[int],
    metrics: Sequence[int] | None,
    span: Span,
    *,
    minutely: bool,
    width: int = LATEST,
) -> Rollups:
    """The raw events in `span` of minutely chunks, or of the others, folded into windows of `width`."""
    if span.start >= span.end:
        return rollup.EMPTY
    grid = np.arange(ceil(span.start + 1, width), span.end, width, dtype=np.int64)
    events = list(read_events(connection, streams, metrics, [span], minutely))
    return rollup.coarsen(fold_events(events, [span], grid, metrics, None), width)
