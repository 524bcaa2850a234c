"""Answers from what is stored: stats of any span, exact to the microsecond, and the raw events.

One snapshot serves a whole answer. Readers never write.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from modelmeter import rollup
from modelmeter.batch import Labels, Refused, check_text
from modelmeter.chunk import unpack_floats, unpack_ints
from modelmeter.errors import NotFound, Unavailable
from modelmeter.fold import fold_span
from modelmeter.rollup import Stats
from modelmeter.store.sql import load
from modelmeter.window import DAY, EARLIEST, LATEST, Span, floor, to_datetime, to_micros

SQL = load("read.sql")
_CONNECTIONS = 8
_MODEL = "model"
_HORIZON = floor(LATEST, DAY)  # no event can be later, and the day after it has no name in a calendar

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model. Times are microseconds."""

    name: str
    version: str
    events: int
    first_at: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Event:
    """A raw event; `timestamp` in microseconds."""

    labels: Labels
    timestamp: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """The stats of some streams in a span, by metric."""

    events: int
    metrics: dict[str, Stats]


def _can_be_stored(*texts: str) -> bool:
    """Whether Postgres can hold these; what it cannot hold, nothing is named."""
    try:
        for text in texts:
            check_text("", text)
    except Refused:
        return False
    return True


def _within_calendar(span: Span) -> Span:
    return Span(max(span.start, EARLIEST), min(span.end, _HORIZON))


def _chunks_of_day(connection: Connection, scope: dict[str, Any]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Those that end last first: the end of each, and the chunk. Read one by one, since the first may do."""
    for place in connection.execute(SQL["chunks_of_day"], scope).fetchall():
        for row in connection.execute(SQL["chunks_at"], place, binary=True).fetchall():
            yield to_micros(place[0]), row


class Reader:
    """Safe to use from many threads; each answer takes one connection for its time."""

    def __init__(self, conninfo: str) -> None:
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            conninfo,
            min_size=0,
            max_size=_CONNECTIONS,
            open=False,
            timeout=5,
            reconnect_timeout=1,  # then the next question tries anew; backing off, it would miss the database's return
            max_idle=300,
            kwargs={"autocommit": True, "connect_timeout": 5, "application_name": "modelmeter reader"},
        )
        self._metric_names: dict[int, str] = {}

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection in a read-only transaction that sees one state."""
        if self._pool.closed:
            self._pool.open()
        try:
            connection = self._begin()
            try:
                yield connection
            finally:
                try:
                    if not connection.closed:
                        connection.execute("ROLLBACK")
                finally:
                    self._pool.putconn(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            lines = str(error).strip().splitlines()
            raise Unavailable(f"the database is away: {lines[0] if lines else error!r}") from error
        except psycopg.errors.UndefinedTable:
            raise Unavailable("the schema is not there yet; run: modelmeter migrate") from None

    def _begin(self) -> Connection:
        """A connection with a transaction open; those that died while they waited in the pool are passed over."""
        for _ in range(_CONNECTIONS):
            connection = self._pool.getconn()
            try:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return connection
            except BaseException as error:
                self._pool.putconn(connection)
                if not isinstance(error, psycopg.OperationalError):
                    raise
        raise psycopg.OperationalError("no connection lasts")

    def models(self, name: str | None = None) -> list[Model]:
        """All models and versions; of one model, NotFound when there is none."""
        with self.snapshot() as connection:
            if name is not None and not _can_be_stored(name):
                raise self._no_model(connection, name, None)
            rows = connection.execute(SQL["models"], {"name": name}).fetchall()
            if name is not None and not rows:
                raise self._no_model(connection, name, None)
        return [
            Model(found, version, events, to_micros(first), to_micros(last))
            for found, version, events, first, last in rows
        ]

    def stats(
        self,
        name: str,
        version: str | None,
        span: Span,
        labels: dict[str, str],
        metric: str | None,
        quantiles: Sequence[float],
    ) -> Summary:
        """Stats of the events in `span` with these labels, by metric. NotFound for an unknown model or metric."""
        span = _within_calendar(span)
        with self.snapshot() as connection:
            streams = list(self._streams(connection, name, version, labels))
            metrics = None
            if metric is not None:
                metrics = [rollup.EVENTS, self._metric_id(connection, metric)]
            merged = rollup.merge(fold_span(connection, streams, metrics, span), by_stream=False, by_window=False)
            names = self._names(connection, merged.metric.tolist())
        summary = Summary(0, {})
        for row, metric_id in enumerate(merged.metric.tolist()):
            if metric_id == rollup.EVENTS:
                summary = Summary(int(merged.count[row]), summary.metrics)
            else:
                summary.metrics[names[metric_id]] = rollup.stats(merged, row, quantiles)
        return Summary(summary.events, dict(sorted(summary.metrics.items())))

    def events(self, name: str, version: str | None, span: Span, labels: dict[str, str], limit: int) -> list[Event]:
        """The newest `limit` raw events in `span`, newest first; those of one time by labels and metrics."""
        span = _within_calendar(span)
        with self.snapshot() as connection:
            streams = self._streams(connection, name, version, labels)
            found: list[Event] = []
            scope: dict[str, Any] = {"streams": list(streams), "start": to_datetime(span.start)}
            end = span.end
            while streams and len(found) < limit:
                scope |= {"day": to_datetime(floor(span.start, DAY)), "end": to_datetime(end)}
                row = connection.execute(SQL["newest_day"], scope).fetchone()
                if row is None or row[0] is None:
                    break
                day = floor(to_micros(row[0]), DAY)
                scope["day"] = to_datetime(day)
                found += self._events_of_day(connection, scope, streams, span, limit - len(found))
                end = day
            return found

    def _events_of_day(
        self, connection: Connection, scope: dict[str, Any], streams: dict[int, Labels], span: Span, limit: int
    ) -> list[Event]:
        found: list[Event] = []
        for chunk_end, (stream, count, metrics, columns) in _chunks_of_day(connection, scope):
            if len(found) >= limit and chunk_end <= found[limit - 1].timestamp:
                break
            timestamp = unpack_ints(columns[0], count)
            low, high = np.searchsorted(timestamp, [span.start, span.end]).tolist()
            if high - low > limit:  # never between events of the same time: which of them come is settled below
                low = max(low, int(np.searchsorted(timestamp, timestamp[high - limit])))
            names = self._names(connection, metrics)
            values = [unpack_floats(column, count)[low:high].tolist() for column in columns[1:]]
            for offset, instant in enumerate(timestamp[low:high].tolist()):
                event = {
                    names[metric]: column[offset]
                    for metric, column in zip(metrics, values, strict=True)
                    if column[offset] == column[offset]
                }
                found.append(Event(streams[stream], instant, event))
            found.sort(key=lambda event: -event.timestamp)
            if len(found) > limit:
                least = found[limit - 1].timestamp
                found = [event for event in found if event.timestamp >= least]
        # In which chunk and row an event lies changes with compaction; its place among its like must not.
        found.sort(key=lambda event: (-event.timestamp, event.labels, sorted(event.metrics.items())))
        return found[:limit]

    def _streams(
        self, connection: Connection, name: str, version: str | None, labels: dict[str, str]
    ) -> dict[int, Labels]:
        if not _can_be_stored(name, version or ""):
            raise self._no_model(connection, name, version)
        if not _can_be_stored(*labels, *labels.values()):
            return {}
        scope = {"name": name, "version": version, "labels": json.dumps(labels)}
        found = {
            stream: tuple(sorted(its_labels.items()))
            for stream, _, its_labels in connection.execute(SQL["streams"], scope, prepare=True)
        }
        if not found and not (
            labels and connection.execute(SQL["streams"], scope | {"labels": "{}"}).fetchone() is not None
        ):
            raise self._no_model(connection, name, version)
        return found

    @staticmethod
    def _no_model(connection: Connection, name: str, version: str | None) -> NotFound:
        names = [row[0] for row in connection.execute(SQL["model_names"])]
        if name in names and version is not None:
            versions = [row[0] for row in connection.execute(SQL["versions"], (name,))]
            near = difflib.get_close_matches(version, versions, n=3, cutoff=0) or sorted(versions)[:3]
            return NotFound(
                f"{name} has no version {version!r}; there is {', '.join(near)}", nearest=near, what="version"
            )
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
        hint = f"; the nearest are {', '.join(near)}" if near else ("" if names else "; no event has come yet")
        return NotFound(f"there is no model {name!r}{hint}", nearest=near, what=_MODEL)

    def _metric_id(self, connection: Connection, metric: str) -> int:
        for _ in range(2):
            for metric_id, name in [*self._metric_names.items()]:
                if name == metric:
                    return metric_id
            self._learn_metrics(connection)
        near = difflib.get_close_matches(metric, [*self._metric_names.values()], n=3, cutoff=0.3)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise NotFound(f"there is no metric {metric!r}{hint}", nearest=near, what="metric")

    def _names(self, connection: Connection, metrics: Sequence[int]) -> dict[int, str]:
        if any(metric != rollup.EVENTS and metric not in self._metric_names for metric in metrics):
            self._learn_metrics(connection)
        return self._metric_names

    def _learn_metrics(self, connection: Connection) -> None:
        # Only ever more: another thread's snapshot may be older than what this one counts on.
        self._metric_names.update(connection.execute(SQL["metrics"]).fetchall())
