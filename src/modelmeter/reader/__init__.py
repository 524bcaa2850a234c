"""Answers from what is stored: stats of any span, exact to the microsecond, and the raw events.

One snapshot serves a whole answer. Readers never write.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Self

import numpy as np
import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from modelmeter.batch import Labels
from modelmeter.chunk import unpack_floats, unpack_ints
from modelmeter.condition import Condition
from modelmeter.errors import Unavailable
from modelmeter.matcher import Matcher
from modelmeter.reader.answer import Answer
from modelmeter.reader.ask import ask, streams_of
from modelmeter.reader.export import Export
from modelmeter.reader.histogram import Histogram, ask_histogram
from modelmeter.reader.names import SQL, Connection, MetricNames, can_be_stored, find_streams, no_model
from modelmeter.reader.question import Limits, Question
from modelmeter.reader.state import catalog_state, state_of
from modelmeter.rollup import Stats
from modelmeter.window import DAY, EARLIEST, LATEST, Span, floor, to_datetime, to_micros

__all__ = [
    "Answer",
    "Asked",
    "Connection",
    "Event",
    "Export",
    "Histogram",
    "Limits",
    "Model",
    "Question",
    "Reader",
    "Summary",
]

_CONNECTIONS = 8
_HORIZON = floor(LATEST, DAY)  # no event can be later, and the day after it has no name in a calendar


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


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in a snapshot. `state` is the same only if the answers are."""

    state: str
    _connection: Connection
    _names: MetricNames
    _question: Question
    _limits: Limits
    _streams: dict[int, Labels]

    def answer(self) -> Answer:
        return ask(self._connection, self._names, self._question, self._limits, self._streams)

    def histogram(self, bin_limit: int) -> Histogram:
        """Of the one metric that is asked for."""
        return ask_histogram(self._connection, self._names, self._question, bin_limit, self._limits, self._streams)


def summary_of(answer: Answer, quantiles: Sequence[float]) -> Summary:
    """Of an answer with one row at most."""
    if not len(answer):
        return Summary(0, {})
    keys = [repr(float(q)).removesuffix(".0") for q in quantiles]
    cells = answer.cells
    return Summary(
        int(answer.events[0]),
        {
            answer.metrics[metric]: Stats(
                int(cells.count[row]),
                _finite(cells.mean[row]),
                _finite(cells.stddev[row]),
                float(cells.min[row]),
                float(cells.max[row]),
                float(cells.last[row]),
                dict(zip(keys, cells.quantiles[row].tolist(), strict=True)),
            )
            for row, metric in enumerate(cells.metric.tolist())
        },
    )


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None


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
        self._metric_names = MetricNames()

    def close(self) -> None:
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
                        connection.execute("COMMIT")  # after a ROLLBACK psycopg forgets all prepared statements
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
            if name is not None and not can_be_stored(name):
                raise no_model(connection, name, None)
            rows = connection.execute(SQL["models"], {"name": name}).fetchall()
            if name is not None and not rows:
                raise no_model(connection, name, None)
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
        metrics = None if metric is None else (metric,)
        answer = self.ask(Question(name, version, span, labels, metrics=metrics, quantiles=tuple(quantiles)))
        return summary_of(answer, quantiles)

    def ask(self, question: Question, limits: Limits | None = None) -> Answer:
        """The answer, in one snapshot. NotFound for what is unknown; Unanswerable over a limit."""
        question = replace(question, span=_within_calendar(question.span))
        with self.snapshot() as connection:
            streams = streams_of(connection, question)
            return ask(connection, self._metric_names, question, limits or Limits(), streams)

    @contextmanager
    def asking(self, question: Question, limits: Limits) -> Iterator["Asked"]:
        """The state of what the question is about, and its answer if it is wanted; both of one snapshot."""
        question = replace(question, span=_within_calendar(question.span))
        with self.snapshot() as connection:
            streams = streams_of(connection, question)
            state = state_of(connection, self._metric_names, question, streams)
            yield Asked(state, connection, self._metric_names, question, limits, streams)

    def catalog_state(self) -> str:
        """The state of what models() tells, no newer than what it tells afterwards."""
        with self.snapshot() as connection:
            return catalog_state(connection)

    @contextmanager
    def exporting(self, question: Question) -> Iterator[Export]:
        """All raw events that the question is about, in one snapshot that lasts as long as the block."""
        question = replace(question, span=_within_calendar(question.span))
        with self.snapshot() as connection:
            yield Export.begin(connection, self._metric_names, question)

    def events(
        self,
        name: str,
        version: str | None,
        span: Span,
        labels: dict[str, str],
        limit: int,
        matchers: Sequence[Matcher] = (),
        where: Condition | None = None,
    ) -> list[Event]:
        """The newest `limit` raw events in `span`, newest first; those of one time by labels and metrics."""
        span = _within_calendar(span)
        with self.snapshot() as connection:
            streams = find_streams(connection, name, version, labels, matchers)
            for metric in where.metrics if where else ():
                self._metric_names.find(connection, metric)
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
                found += self._events_of_day(connection, scope, streams, span, limit - len(found), where)
                end = day
            return found

    def _events_of_day(
        self,
        connection: Connection,
        scope: dict[str, Any],
        streams: dict[int, Labels],
        span: Span,
        limit: int,
        where: Condition | None,
    ) -> list[Event]:
        found: list[Event] = []
        for chunk_end, (stream, count, metrics, columns) in _chunks_of_day(connection, scope):
            if len(found) >= limit and chunk_end <= found[limit - 1].timestamp:
                break
            timestamp = unpack_ints(columns[0], count)
            low, high = np.searchsorted(timestamp, [span.start, span.end]).tolist()
            if (
                where is None and high - low > limit
            ):  # never between events of the same time: which of them come is settled below
                low = max(low, int(np.searchsorted(timestamp, timestamp[high - limit])))
            names = self._metric_names.of(connection, metrics)
            values = [unpack_floats(column, count)[low:high].tolist() for column in columns[1:]]
            for offset, instant in enumerate(timestamp[low:high].tolist()):
                event = {
                    names[metric]: column[offset]
                    for metric, column in zip(metrics, values, strict=True)
                    if column[offset] == column[offset]
                }
                if where is None or where.holds_for(event):
                    found.append(Event(streams[stream], instant, event))
            found.sort(key=lambda event: -event.timestamp)
            if len(found) > limit:
                least = found[limit - 1].timestamp
                found = [event for event in found if event.timestamp >= least]
        # In which chunk and row an event lies changes with compaction; its place among its like must not.
        found.sort(key=lambda event: (-event.timestamp, event.labels, sorted(event.metrics.items())))
        return found[:limit]
