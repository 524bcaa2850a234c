"""The source of PromQL's evaluation: series of samples and folded windows out of Postgres.

A metric's name is `__name__`; the labels of the stream are the labels. Windows that stand on the grid of a resolution
come from rollups, as do a few windows that stand anywhere; all others are made from raw samples by the evaluator.
A rollup's window is open on the right and PromQL's on the left: where an event lies on a border to the microsecond,
raw samples decide. Of several events of a series at one time, all count; the last is the largest, the first the least.
"""

import math
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modelmeter import packed, rollup
from modelmeter.batch import Labels
from modelmeter.chunk import unpack_floats, unpack_ints
from modelmeter.distance import value_of
from modelmeter.fold import Connection, Fold, fold_pieces
from modelmeter.matcher import Matcher
from modelmeter.pieces import WHOLE, Retired, cut_windows
from modelmeter.promql.errors import too_many_samples
from modelmeter.promql.labels import METRIC_NAME, make_labels
from modelmeter.promql.labels import value_of as label_value
from modelmeter.promql.source import Floats, Folded, Histograms, Ints, Samples, Statistic
from modelmeter.rollup import Rollups
from modelmeter.store.sql import load
from modelmeter.window import DAY, LATEST, Span, floor, format_duration, to_datetime, to_rfc3339

SQL = load("series.sql")

_COUNT_SECONDS = 10
_CELLS_AT_ONCE = 1 << 23  # of histograms: series by pieces by bins
_SAMPLES_OF_ROW = 16  # a rollup takes as much memory as so many samples
_LEAST_ROWS = 100_000
_NEEDS = {
    "sum": ("sum",),
    "m2": ("sum", "deviation"),
    "min": ("min",),
    "max": ("max",),
    "last": ("last",),
    "quantile": ("min", "max", "sketch"),
}
_WIDENED = "finer data is retired: windows begin and end at whole windows of {}"
_RETIRED = "raw samples before {} are retired, of some streams at least: this is computed from what is left"
_APPROXIMATE = "quantiles are read from histograms: within 1.1 % of the value"


class Catalog:
    """The streams and metrics of the database, remembered; new ones are read as they come. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[int, Labels] = {}
        self._metrics: dict[int, str] = {}
        self._counted_at = -math.inf
        self.retired = WHOLE

    def refresh(self, connection: Connection) -> tuple[dict[int, Labels], dict[int, str]]:
        """All streams and all metric names by id."""
        with self._lock:
            last = max(self._streams, default=0)
            if time.monotonic() > self._counted_at + _COUNT_SECONDS:
                # An id can be committed after a higher one: those are seen by their number.
                row = connection.execute(SQL["count_streams_until"], (last,), prepare=True).fetchone()
                if row is not None and row[0] != len(self._streams):
                    self._streams, last = {}, 0
                self._counted_at = time.monotonic()
            row = connection.execute(SQL["newest"], prepare=True).fetchone()
            assert row is not None
            newest, metrics, retired = row
            # Others may be reading the old ones.
            if newest is not None and newest > last:
                rows = connection.execute(SQL["streams_after"], (last,), prepare=True).fetchall()
                new = {stream_id: tuple(sorted(labels.items())) for stream_id, labels in rows}
                self._streams = {**self._streams, **new}
            if metrics > len(self._metrics):
                self._metrics = dict(connection.execute(SQL["metrics"], prepare=True).fetchall())
            if retired:
                self.retired = Retired(retired.get("raw", 0), retired.get("1m", 0), retired.get("1h", 0))
            return self._streams, self._metrics


@dataclass(slots=True)
class SeriesSource:
    """The series in one snapshot. `exact_limit` is the most raw samples that a quantile is read from exactly.

    `sample_limit` bounds what folds hold in memory: series by windows and pieces of time, and raw samples.
    """

    connection: Connection
    catalog: Catalog
    exact_limit: int
    sample_limit: int = 50_000_000
    _found: dict[tuple[Matcher, ...], tuple[dict[int, Labels], dict[int, str]]] = field(default_factory=dict)

    def find(self, matchers: Sequence[Matcher]) -> tuple[dict[int, Labels], dict[int, str]]:
        """The streams and the metrics that match; not each stream has each metric."""
        key = tuple(matchers)
        if key not in self._found:
            streams, metrics = self.catalog.refresh(self.connection)
            stream_ids, metric_ids = list(streams), list(metrics)
            for matcher in matchers:
                if matcher.name == METRIC_NAME:
                    kept = matcher.matches([metrics[one] for one in metric_ids])
                    metric_ids = [one for one, keep in zip(metric_ids, kept.tolist(), strict=True) if keep]
                else:
                    kept = matcher.matches([label_value(streams[one], matcher.name) for one in stream_ids])
                    stream_ids = [one for one, keep in zip(stream_ids, kept.tolist(), strict=True) if keep]
            self._found[key] = ({one: streams[one] for one in stream_ids}, {one: metrics[one] for one in metric_ids})
        return self._found[key]

    def series(self, selectors: Sequence[Sequence[Matcher]], span: Span) -> list[Labels]:
        """The labels of all series that match one of the selectors and have events in `span`, whole days; sorted."""
        scope = {"start": to_datetime(floor(span.start, DAY)), "end": to_datetime(min(span.end, LATEST))}
        pairs = self.connection.execute(SQL["series_between"], scope).fetchall()
        found: set[Labels] = set()
        for matchers in selectors:
            streams, metrics = self.find(matchers)
            found |= {
                _series_labels(streams[stream], metrics[metric])
                for stream, metric in pairs
                if stream in streams and metric in metrics
            }
        return sorted(found)

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        """The raw samples in `(start, end]`, by series, in order of time."""
        streams, metrics = self.find(matchers)
        times: dict[tuple[int, int], list[Ints]] = {}
        values: dict[tuple[int, int], list[Floats]] = {}
        span = _between(start, end)
        taken, retired = 0, self.catalog.retired.raw
        if streams and metrics and span.start < span.end:
            scope = {**_scope(list(streams), span), "metrics": list(metrics), "minutely": None}
            row = self.connection.execute(SQL["count_samples"], scope).fetchone()
            # Chunks at the edges hold more than the span: they may not be what refuses a query.
            if row is not None and row[0] > 2 * sample_limit + 1_000_000:
                raise too_many_samples()
            for stream, count, its_metrics, columns in self.connection.execute(SQL["chunks"], scope, binary=True):
                timestamp = unpack_ints(columns[0], count)
                low, high = np.searchsorted(timestamp, [span.start, span.end]).tolist()
                for metric, column in zip(its_metrics, columns[1:], strict=True):
                    if low < high and metric in metrics:
                        taken += high - low
                        if taken > sample_limit:
                            raise too_many_samples()
                        found = unpack_floats(column, count)[low:high]
                        present = ~np.isnan(found)
                        whole = bool(present.all())
                        times.setdefault((stream, metric), []).append(
                            timestamp[low:high] if whole else timestamp[low:high][present]
                        )
                        values.setdefault((stream, metric), []).append(found if whole else found[present])
        labels, flat_times, flat_values, sizes = [], [], [], []
        named = sorted((_series_labels(streams[stream], metrics[metric]), stream, metric) for stream, metric in times)
        for its_labels, stream, metric in named:
            parts = times[stream, metric]
            when, what = np.concatenate(parts), np.concatenate(values[stream, metric])
            if (np.diff(when) <= 0).any():
                order = np.lexsort((what, when))
                when, what = when[order], what[order]
            labels.append(its_labels)
            flat_times.append(when)
            flat_values.append(what)
            sizes.append(when.size)
        return Samples(
            labels,
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.concatenate([*flat_times, np.zeros(0, np.int64)]),
            np.concatenate([*flat_values, np.zeros(0)]),
            infos=(_RETIRED.format(to_rfc3339(retired)),) if span.start < retired and span.start < span.end else (),
        )

    def fold(
        self,
        matchers: Sequence[Matcher],
        range_: int,
        ends: Ints,
        statistics: frozenset[Statistic],
        quantile: Floats | None,
    ) -> Folded | None:
        if "first" in statistics:
            return None  # rollups do not keep it
        needs = {column for one in statistics for column in _NEEDS.get(one, ())}
        windows = self._windows(matchers, range_, ends, needs)
        whole = not windows.infos and int(ends.min()) - range_ >= self.catalog.retired.raw
        if quantile is not None and whole and int(windows.count.sum()) <= self.exact_limit:
            return None
        return windows.folded(statistics, quantile)

    def histograms(self, matchers: Sequence[Matcher], range_: int, ends: Ints) -> Histograms | None:
        windows = self._windows(matchers, range_, ends, _NEEDS["quantile"])
        bins = windows.bins
        if windows.cells * max(bins.size, 1) > self.sample_limit:
            raise too_many_samples()
        counts = windows.histograms(bins, 0, len(windows.labels))
        return Histograms(windows.labels, bins, counts, infos=windows.infos)

    def _windows(self, matchers: Sequence[Matcher], range_: int, ends: Ints, needs: Collection[str]) -> "_Windows":
        """The folded windows; `needs` are the columns of their rollups beside counts and times."""
        streams, metrics = self.find(matchers)
        starts = np.clip(ends - range_ + 1, 0, LATEST)
        pieces, since, until = cut_windows(starts, np.clip(ends + 1, 0, LATEST))
        folded = fold_pieces(
            self.connection,
            list(streams),
            list(metrics),
            pieces,
            needs=needs,
            retired=self.catalog.retired,
            event_limit=self._event_limit,
            row_limit=max(self.sample_limit // _SAMPLES_OF_ROW, _LEAST_ROWS),
        )
        empty = since == until
        count = len(pieces)
        windows = _Windows.make(
            folded, np.where(empty, count, since), np.where(empty, count, until), count, streams, metrics
        )
        if windows.cells > self.sample_limit:
            raise too_many_samples()
        return windows

    @property
    def _event_limit(self) -> int:
        return 2 * self.sample_limit + 1_000_000  # chunks at the edges hold more than the span


def _between(start: int, end: int) -> Span:
    """`(start, end]`, within what a database can name."""
    return Span(min(max(start + 1, 0), LATEST), min(max(end + 1, 0), LATEST))


def _scope(streams: list[int], span: Span) -> dict[str, object]:
    return {
        "streams": streams,
        "start": to_datetime(span.start),
        "end": to_datetime(span.end),
        "day": to_datetime(floor(span.start, DAY)),
    }


def _series_labels(stream: Labels, metric: str) -> Labels:
    return make_labels({**dict(stream), METRIC_NAME: metric})


def _concat_windows(parts: Sequence[Rollups]) -> Rollups:
    numbered = [rollup.renumber(part, np.full(len(part), number)) for number, part in enumerate(parts)]
    return rollup.concat(numbered) if numbered else rollup.EMPTY


@dataclass(frozen=True, slots=True)
class _Windows:
    """Pieces of time that rollups stand for, and the run of pieces `[since, until)` of each window.

    Tables are (series, pieces + 1): the last piece is empty, so that a run can end there; an empty run lies there.
    """

    labels: list[Labels]
    rows: Rollups
    row: Ints
    piece: Ints
    pieces: int
    since: Ints
    until: Ints
    infos: tuple[str, ...]
    _decoded: list[tuple[Ints, Ints, Ints]] = field(default_factory=list)

    @staticmethod
    def make(
        folded: Fold, since: Ints, until: Ints, pieces: int, streams: dict[int, Labels], metrics: dict[int, str]
    ) -> "_Windows":
        """The series in order of their labels."""
        rows = folded.rows
        rows = rollup.merge(rows if rows.metric.all() else rollup.select(rows, rows.metric != rollup.EVENTS))
        key = rows.stream.astype(np.int64) << 32 | rows.metric
        series, row = np.unique(key, return_inverse=True)
        labels = [_series_labels(streams[one >> 32], metrics[one & 0xFFFFFFFF]) for one in series.tolist()]
        order = sorted(range(len(labels)), key=labels.__getitem__)
        place = np.empty(len(labels), np.int64)
        place[order] = np.arange(len(labels))
        infos = (_WIDENED.format(format_duration(folded.widened)),) if folded.widened else ()
        return _Windows([labels[one] for one in order], rows, place[row], rows.window, pieces, since, until, infos)

    @property
    def cells(self) -> int:
        return len(self.labels) * max(self.pieces + 2, self.since.size)

    def _spread(self, column: NDArray[np.generic], empty: float) -> NDArray[np.generic]:
        table = np.full((len(self.labels), self.pieces + 1), empty, column.dtype)
        table[self.row, self.piece] = column
        return table

    def _reduce(self, ufunc: np.ufunc, column: NDArray[np.generic], empty: float) -> NDArray[np.generic]:
        """Over the run of each window: (series, windows)."""
        table = self._spread(column, empty)
        if (self.until - self.since <= 1).all():
            return table[:, self.since]
        borders = np.column_stack((self.since, self.until)).ravel()
        reduced: NDArray[np.generic] = ufunc.reduceat(table, borders, axis=1)[:, ::2]
        return reduced

    @property
    def count(self) -> Ints:
        return self._reduce(np.add, self.rows.count, 0).astype(np.int64)

    def folded(self, statistics: frozenset[Statistic], quantile: Floats | None = None) -> Folded:
        """Those that are asked for."""
        rows, count = self.rows, self.count
        found: dict[str, NDArray[np.generic]] = {}
        with np.errstate(all="ignore"):
            if "sum" in statistics:
                found["sum"] = self._reduce(np.add, rows.sum, 0)
            if "m2" in statistics:
                found["m2"] = self._deviation(count)
        if {"last", "last_at"} & statistics:
            newest = self._reduce(np.maximum, self.piece, -1).astype(np.int64)
            for name, column in (("last", rows.last), ("last_at", rows.last_at)):
                found[name] = np.take_along_axis(self._spread(column, 0), newest, axis=1)
        if "first_at" in statistics:
            found["first_at"] = self._reduce(np.minimum, rows.first_at, np.iinfo(np.int64).max)
        if {"min", "max"} & statistics or quantile is not None:
            low = self._reduce(np.minimum, rows.min, np.inf).astype(np.float64)
            high = self._reduce(np.maximum, rows.max, -np.inf).astype(np.float64)
            found |= {"min": low, "max": high}
            if quantile is not None:
                found["quantile"] = self._quantiles(quantile, low, high)
        infos = self.infos if quantile is None else (*self.infos, _APPROXIMATE)
        return Folded(self.labels, count, **found, infos=infos)  # type: ignore[arg-type]

    def _deviation(self, count: Ints) -> Floats:
        """Chan's formula around the mean of each window, so that nothing cancels."""
        rows = self.rows
        deviation = self._reduce(np.add, rows.deviation, 0).astype(np.float64)
        length = int((self.until - self.since).max(initial=0))
        if length <= 1:
            return deviation
        weights, means = self._spread(rows.count, 0), self._spread(rows.sum / rows.count, 0.0)
        mean = self._reduce(np.add, rows.sum, 0) / np.maximum(count, 1)
        if length <= self.since.size:
            for number in range(length):
                place = np.where(self.since + number < self.until, self.since + number, self.pieces)
                shift = means[:, place] - mean
                deviation += weights[:, place] * shift * shift
        else:
            for number, (since, until) in enumerate(zip(self.since.tolist(), self.until.tolist(), strict=True)):
                shift = means[:, since:until] - mean[:, number, None]
                deviation[:, number] += (weights[:, since:until] * shift * shift).sum(axis=1)
        return deviation

    @property
    def _bins(self) -> tuple[Ints, Ints, Ints]:
        """The row of each count in a sketch, its bin and the count; decoded once."""
        if not self._decoded:
            self._decoded.append(packed.decode_many(self.rows.sketch))
        return self._decoded[0]

    @property
    def bins(self) -> Ints:
        """The bins in use, ascending."""
        signed = self._bins[1]
        if not signed.size:
            return signed
        low = int(signed.min())
        used: Ints = np.flatnonzero(np.bincount(signed - low)).astype(np.int64) + low
        return used

    def histograms(self, bins: Ints, first: int, end: int) -> Ints:
        """Counts (series, windows, bins) of the series `[first, end)`."""
        owner, signed, its_counts = self._bins
        rows = self.row[owner]
        if first > 0 or end < len(self.labels):
            mine = np.flatnonzero((rows >= first) & (rows < end))
            owner, signed, its_counts, rows = owner[mine], signed[mine], its_counts[mine], rows[mine]
        shape = (end - first, self.pieces + 1, bins.size)
        number = np.zeros(
            int(bins[-1] - bins[0]) + 1 if bins.size else 0, np.int64
        )  # of each bin, faster than a search
        number[bins - bins[:1]] = np.arange(bins.size)
        place = ((rows - first) * shape[1] + self.piece[owner]) * shape[2] + number[signed - bins[:1]]
        table = np.bincount(place, its_counts, minlength=math.prod(shape)).astype(np.int64).reshape(shape)
        if (self.until - self.since <= 1).all():
            return table[:, self.since]
        before = np.zeros((shape[0], self.pieces + 2, bins.size), np.int64)
        np.cumsum(table, axis=1, out=before[:, 1:])
        counted: Ints = before[:, self.until] - before[:, self.since]
        return counted

    def _quantiles(self, quantile: Floats, low: Floats, high: Floats) -> Floats:
        """As sketch.quantiles, for all windows: interpolated between ranks, bounded by the exact extremes."""
        if (self.until - self.since <= 1).all():
            return self._quantiles_of_rows(quantile, low, high)
        bins = self.bins
        found = np.full(low.shape, np.nan)
        if not bins.size:
            return found
        step = max(1, _CELLS_AT_ONCE // (max(self.pieces + 2, self.since.size) * bins.size))
        for first in range(0, len(self.labels), step):
            end = min(first + step, len(self.labels))
            counts = self.histograms(bins, first, end)
            its_bounds = low[first:end], high[first:end]
            found[first:end] = _quantiles(bins, counts, np.broadcast_to(quantile, its_bounds[0].shape), *its_bounds)
        return found

    def _quantiles_of_rows(self, quantile: Floats, low: Floats, high: Floats) -> Floats:
        """Each window is one row, or empty: nothing has to be added up."""
        table = np.full((len(self.labels), self.pieces + 1), -1)
        table[self.row, self.piece] = np.arange(len(self.rows))
        place = table[:, self.since]
        some = place >= 0
        rows = place[some]
        count, q = self.rows.count[rows], np.broadcast_to(quantile, place.shape)[some]
        rank, below, above = _ranks(q, count)
        left, right = packed.values_at(packed.take(self.rows.sketch, rows), np.column_stack((below, above))).T
        found = np.full(place.shape, np.nan)
        found[some] = _between_ranks(left, right, rank, count, low[some], high[some])
        return found


def _ranks(q: Floats, count: Ints) -> tuple[Floats, Ints, Ints]:
    """Where a quantile lies among so many values in order, and the places of its neighbours."""
    rank = q * (count - 1)
    below = np.floor(rank).astype(np.int64)
    return rank, below, np.minimum(below + 1, count - 1)


def _quantiles(bins: Ints, counts: Ints, quantile: Floats, low: Floats, high: Floats) -> Floats:
    """Of counts (series, windows, bins), one search over all of them."""
    flat = np.cumsum(counts, dtype=np.int64).reshape(-1, bins.size)
    total = flat[:, -1] - np.concatenate(([0], flat[:-1, -1]))
    before = flat[:, -1] - total
    rank, below, above = _ranks(quantile.ravel(), total)
    some = total > 0
    places = np.searchsorted(flat.ravel(), (before + np.stack((below, above)))[:, some], "right") % bins.size
    values = np.zeros((2, total.size))
    values[:, some] = value_of(bins)[places]
    return _between_ranks(values[0], values[1], rank, total, low.ravel(), high.ravel()).reshape(low.shape)


def _between_ranks(left: Floats, right: Floats, rank: Floats, count: Ints, low: Floats, high: Floats) -> Floats:
    """The value at `rank` from those of its neighbours' bins; the exact extremes bound them, and are the ends."""
    below = np.floor(rank).astype(np.int64)
    last = count - 1

    def bounded(values: Floats, place: Ints) -> Floats:
        inside = np.where(place <= 0, low, np.clip(values, low, high))
        found: Floats = np.where(place >= last, high, inside)
        return found

    left, right = bounded(left, below), bounded(right, np.minimum(below + 1, last))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(left == right, left, left + (right - left) * (rank - below))
