"""Sides: what comparisons are made of, folded from what is stored. All sides of one answer come from one snapshot.

Sides with the same span are read in one query.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psycopg

from modelmeter import rollup
from modelmeter.config import Config
from modelmeter.errors import NotFound
from modelmeter.fold import Connection, fold_raw, fold_span
from modelmeter.promql.errors import QueryTimeout, TooMuchData
from modelmeter.reader import Reader
from modelmeter.rollup import Rollups
from modelmeter.selection import Selection
from modelmeter.store.baselines import Baseline, baseline_names, find_baseline, read_baseline
from modelmeter.store.rollups import read_rollups
from modelmeter.store.sql import load
from modelmeter.window import DAY, EARLIEST, HOUR, LATEST, MINUTE, Span, floor, format_duration, to_datetime

SQL = load("read.sql") | load("compare.sql")
_HORIZON = floor(LATEST, DAY)
_TABLES = {
    DAY: ("rollup_1d", "rollup_partial_1h", "rollup_partial_1m"),
    HOUR: ("rollup_1h", "rollup_partial_1h", "rollup_partial_1m"),
    MINUTE: ("rollup_1m", "rollup_partial_1m"),
}
PIECE_LIMIT = 500_000


@dataclass(frozen=True, slots=True)
class Side:
    """What to fold: events of a selection in a span, or a baseline by its name."""

    selection: Selection | None
    span: Span | None
    baseline: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What was folded for a side: a selector, its span, and how many events there were."""

    match: str
    span: Span
    events: int
    baseline: str | None = None


class _NoStream(Exception):
    def __init__(self, selection: Selection) -> None:
        super().__init__(str(selection))
        self.selection = selection


class SideReader:
    """Safe to use from many threads; each answer takes one connection of the reader's for its time."""

    def __init__(self, config: Config, reader: Reader) -> None:
        self._reader = reader
        self._series_limit = config.query_limit_series
        self._sample_limit = config.query_limit_samples
        self._timeout_seconds = config.query_timeout_seconds
        self._metric_names: dict[int, str] = {}

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        try:
            with self._reader.snapshot() as connection:
                connection.execute(f"SET LOCAL statement_timeout = {int(self._timeout_seconds * 1000)}".encode())
                try:
                    yield connection
                except psycopg.errors.QueryCanceled:
                    raise QueryTimeout(
                        f"it took longer than {self._timeout_seconds:g} s; ask for a shorter span or fewer streams"
                    ) from None
        except _NoStream as none:
            raise self._unknown(none.selection) from None

    def _unknown(self, selection: Selection) -> NotFound:
        name, version = selection.name, selection.version or ""
        versions = [model.version for model in self._reader.models(name)]  # NotFound when the model is what is unknown
        near = difflib.get_close_matches(version, versions, n=3, cutoff=0) or versions[:3]
        return NotFound(f"{name} has no version {version!r}; there is {', '.join(near)}", nearest=near, what="version")

    def fold(self, connection: Connection, sides: Sequence[Side], metric: str | None) -> list[tuple[Told, Rollups]]:
        """Of each side one partial for each metric, and for EVENTS."""
        metrics = None if metric is None else [rollup.EVENTS, self.metric_id(connection, metric)]
        streams = [[] if side.selection is None else self.streams(connection, side.selection) for side in sides]
        rows: dict[Span, Rollups] = {}
        for span in dict.fromkeys(within_calendar(side.span) for side in sides if side.span is not None):
            wanted = {
                stream
                for side, its_streams in zip(sides, streams, strict=True)
                if side.span is not None and within_calendar(side.span) == span
                for stream in its_streams
            }
            rows[span] = fold_span(connection, sorted(wanted), metrics, span)
        folded = []
        for side, its_streams in zip(sides, streams, strict=True):
            if side.baseline is not None:
                found = self.find_baseline(connection, side.baseline)
                told = Told(found.match, found.span, found.events, found.name)
                folded.append((told, read_baseline(connection, side.baseline, metrics)))
                continue
            assert side.selection is not None
            assert side.span is not None
            its_rows = rows[within_calendar(side.span)]
            mine = np.isin(its_rows.stream, its_streams)
            if not mine.all():
                its_rows = rollup.select(its_rows, mine)
            merged = rollup.merge(its_rows, by_stream=False, by_window=False)
            events = int(merged.count[merged.metric == rollup.EVENTS].sum())
            folded.append((Told(str(side.selection), side.span, events), merged))
        return folded

    def windows(self, connection: Connection, side: Side, step: int, metric: str | None) -> Rollups:
        """Partials of the windows of a side; its span begins and ends at multiples of `step`, whole minutes.

        The rollups are those of the widest resolution that divides the step.
        """
        assert side.selection is not None
        assert side.span is not None
        width = next(width for width in _TABLES if not step % width)
        streams = self.streams(connection, side.selection)
        pieces = len(streams) * ((side.span.end - side.span.start) // width)
        if pieces > PIECE_LIMIT:
            raise TooMuchData(
                f"{len(streams):,} streams have {pieces:,} windows of {format_duration(width)}, over {PIECE_LIMIT:,}; "
                "take a step of whole days or hours, a shorter span or fewer streams"
            )
        if not streams or side.span.start >= side.span.end:
            return rollup.EMPTY
        metrics = None if metric is None else [rollup.EVENTS, self.metric_id(connection, metric)]
        rows = read_rollups(
            connection, [(table, side.span.start, side.span.end) for table in _TABLES[width]], streams, metrics
        )
        if width == MINUTE:
            self._check_slow(connection, streams, side.span)
            raw = fold_raw(connection, streams, metrics, side.span, minutely=False, width=MINUTE)
            rows = rollup.concat([rows, raw])
        return rows

    def _check_slow(self, connection: Connection, streams: list[int], span: Span) -> None:
        scope = {
            "streams": streams,
            "start": to_datetime(span.start),
            "end": to_datetime(span.end),
            "day": to_datetime(floor(span.start, DAY)),
        }
        row = connection.execute(SQL["count_slow_events"], scope).fetchone()
        if row is not None and row[0] > self._sample_limit:
            raise TooMuchData(
                f"{row[0]:,} raw events would have to be read, over MODELMETER_QUERY_LIMIT_SAMPLES "
                f"({self._sample_limit:,}); take a step of whole hours"
            )

    def streams(self, connection: Connection, selection: Selection) -> list[int]:
        """Their ids. Of a model and version that exist there may be none with these labels."""
        if not selection.can_be_stored():
            if Selection(selection.name, selection.version).can_be_stored():
                return []
            raise _NoStream(selection)
        scope = {"name": selection.name, "version": selection.version, "labels": selection.equal_labels}
        found = connection.execute(SQL["streams"], scope, prepare=True).fetchall()
        if not found:
            if connection.execute(SQL["streams"], scope | {"labels": "{}"}).fetchone() is None:
                raise _NoStream(selection)
            return []
        kept = np.ones(len(found), bool)
        for matcher in selection.matchers:
            kept &= matcher.matches([labels.get(matcher.name, "") for _, _, labels in found])
        ids = [stream for (stream, _, _), keep in zip(found, kept.tolist(), strict=True) if keep]
        if len(ids) > self._series_limit:
            raise TooMuchData(
                f"{selection} are {len(ids):,} streams, over MODELMETER_QUERY_LIMIT_SERIES ({self._series_limit:,}); "
                "name more labels"
            )
        return ids

    @staticmethod
    def find_baseline(connection: Connection, name: str) -> Baseline:
        found = find_baseline(connection, name) if Selection(name, None).can_be_stored() else None
        if found is None:
            near = difflib.get_close_matches(name, baseline_names(connection), n=3, cutoff=0.3)
            hint = f"; the nearest are {', '.join(near)}" if near else ""
            raise NotFound(f"there is no baseline {name!r}{hint}", nearest=near, what="baseline")
        return found

    def metric_id(self, connection: Connection, metric: str) -> int:
        for _ in range(2):
            for metric_id, name in [*self._metric_names.items()]:
                if name == metric:
                    return metric_id
            self._learn_metrics(connection)
        near = difflib.get_close_matches(metric, [*self._metric_names.values()], n=3, cutoff=0.3)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise NotFound(f"there is no metric {metric!r}{hint}", nearest=near, what="metric")

    def names(self, connection: Connection, metrics: Sequence[int]) -> dict[int, str]:
        if any(metric != rollup.EVENTS and metric not in self._metric_names for metric in metrics):
            self._learn_metrics(connection)
        return self._metric_names

    def _learn_metrics(self, connection: Connection) -> None:
        # Only ever more: another thread's snapshot may be older than what this one counts on.
        self._metric_names.update(connection.execute(SQL["metrics"]).fetchall())


def within_calendar(span: Span) -> Span:
    return Span(max(span.start, EARLIEST), min(span.end, _HORIZON))
