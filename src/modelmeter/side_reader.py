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
from modelmeter.errors import NotFound, Unanswerable
from modelmeter.fold import Connection, cover, fold_span
from modelmeter.promql.errors import QueryTimeout
from modelmeter.reader import Reader
from modelmeter.reader.names import MetricNames, can_be_stored, find_streams
from modelmeter.rollup import Rollups
from modelmeter.selection import Selection
from modelmeter.store.baselines import Baseline, baseline_names, find_baseline, read_baseline
from modelmeter.store.rollups import count_rollups
from modelmeter.store.sql import load
from modelmeter.window import DAY, EARLIEST, HOUR, LATEST, MINUTE, Span, floor, to_datetime

SQL = load("compare.sql")
_HORIZON = floor(LATEST, DAY)


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


class SideReader:
    """Safe to use from many threads; each answer takes one connection of the reader's for its time."""

    def __init__(self, config: Config, reader: Reader) -> None:
        self._reader = reader
        self._stream_limit = config.query_limit_series
        self._rollup_limit = config.stats_limit_rollups
        self._sample_limit = config.stats_limit_samples
        self._timeout_seconds = config.query_timeout_seconds
        self._names = MetricNames()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection in a read-only transaction that sees one state, for as long as a query may take."""
        with self._reader.snapshot() as connection:
            connection.execute(f"SET LOCAL statement_timeout = {max(int(self._timeout_seconds * 1000), 1)}".encode())
            try:
                yield connection
            except psycopg.errors.QueryCanceled:
                raise QueryTimeout(
                    f"it took longer than {self._timeout_seconds:g} s; ask for a shorter span or fewer streams"
                ) from None

    def names(self, connection: Connection, metrics: Sequence[int]) -> dict[int, str]:
        """At least those of `metrics`, by id."""
        return self._names.of(connection, metrics)

    def fold(
        self, connection: Connection, sides: Sequence[Side], names: Sequence[str] | None
    ) -> list[tuple[Told, Rollups]]:
        """Of each side one partial for each metric, and for EVENTS."""
        metrics = self._metric_ids(connection, names)
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

    def windows(
        self, connection: Connection, selection: Selection, span: Span, step: int, metrics: Sequence[str] | None
    ) -> Rollups:
        """Partials of the events in `span` by windows of `step`, whole minutes; those at its ends are cut by it.

        Unanswerable when that is too much to read, or when windows so small are no longer kept.
        """
        ids = self._metric_ids(connection, metrics)
        streams = self.streams(connection, selection)
        width = next(width for width in (DAY, HOUR, MINUTE) if not step % width)
        plan = cover(span, width)
        if count_rollups(connection, plan.ranges, streams, ids, self._rollup_limit + 1) > self._rollup_limit:
            raise Unanswerable(
                f"step: this would read more than {self._rollup_limit:,} rollups; choose a step of whole hours or "
                "days, a shorter span, fewer streams, or name the metrics by metric=",
                field="step",
            )
        if width == MINUTE:
            self._check_slow(connection, streams, span)
        rows = rollup.coarsen(fold_span(connection, streams, ids, span, step), step)
        if step % DAY:
            every = fold_span(connection, streams, [rollup.EVENTS], span)
            missing = int(every.count.sum()) - int(rows.count[rows.metric == rollup.EVENTS].sum())
            if missing:
                raise Unanswerable(
                    f"step: {missing:,} events of this span are no longer kept in windows this small; choose a step "
                    "of whole hours or days, or a later start",
                    field="step",
                )
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
            raise Unanswerable(
                f"step: {row[0]:,} raw events would have to be read, over MODELMETER_STATS_LIMIT_SAMPLES "
                f"({self._sample_limit:,}); choose a step of whole hours",
                field="step",
            )

    def streams(self, connection: Connection, selection: Selection) -> list[int]:
        """Their ids. Of a model and version that exist there may be none with these labels; else NotFound."""
        found = [
            *find_streams(connection, selection.name, selection.version, selection.equal_labels, selection.matchers)
        ]
        if len(found) > self._stream_limit:
            raise Unanswerable(
                f"{selection} are {len(found):,} streams, over MODELMETER_QUERY_LIMIT_SERIES ({self._stream_limit:,}); "
                "name more labels"
            )
        return found

    def _metric_ids(self, connection: Connection, metrics: Sequence[str] | None) -> list[int] | None:
        if metrics is None:
            return None
        return [rollup.EVENTS, *(self._names.find(connection, one) for one in metrics)]

    @staticmethod
    def find_baseline(connection: Connection, name: str) -> Baseline:
        found = find_baseline(connection, name) if can_be_stored(name) else None
        if found is None:
            near = difflib.get_close_matches(name, baseline_names(connection), n=3, cutoff=0.3)
            hint = f"; the nearest are {', '.join(near)}" if near else ""
            raise NotFound(f"there is no baseline {name!r}{hint}", nearest=near, what="baseline")
        return found


def within_calendar(span: Span) -> Span:
    return Span(max(span.start, EARLIEST), min(span.end, _HORIZON))
