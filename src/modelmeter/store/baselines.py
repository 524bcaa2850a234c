"""The baselines: folded rollups under a name, copied, so that no retention takes what drift is measured against."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import psycopg

from modelmeter import rollup
from modelmeter.errors import Unavailable, Unprocessable
from modelmeter.rollup import Rollups
from modelmeter.sketch import Sketch, decode
from modelmeter.store.sql import load
from modelmeter.window import Span, to_datetime, to_micros

SQL = load("baseline.sql")
_LOCK = 0x6D6D_0050

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """`match` is a selector; times are microseconds; `events` are those that were copied."""

    name: str
    match: str
    span: Span
    created_at: int
    created_by: str
    events: int


def _baseline(row: tuple[Any, ...]) -> Baseline:
    name, match, start, end, created_at, created_by, events = row
    return Baseline(name, match, Span(to_micros(start), to_micros(end)), to_micros(created_at), created_by, events)


def list_baselines(connection: Connection) -> list[Baseline]:
    """All of them, by name."""
    return [_baseline(row) for row in connection.execute(SQL["list"])]


def find_baseline(connection: Connection, name: str) -> Baseline | None:
    row = connection.execute(SQL["find"], (name,), prepare=True).fetchone()
    return None if row is None else _baseline(row)


def baseline_names(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute(SQL["names"])]


def read_baseline(connection: Connection, name: str, metrics: Sequence[int] | None = None) -> Rollups:
    """One partial for each metric (stream 0, window 0), also for EVENTS; empty when there is no such baseline."""
    scope = {"name": name, "metrics": None if metrics is None else [*metrics]}
    rows = connection.execute(SQL["rollups"], scope, prepare=True, binary=True).fetchall()
    if not rows:
        return rollup.EMPTY
    metric, count, total, deviation, low, high, first_at, last_at, last, sketch = zip(*rows, strict=True)
    return Rollups(
        stream=np.zeros(len(rows), np.int32),
        metric=np.array(metric, np.int32),
        window=np.zeros(len(rows), np.int64),
        count=np.array(count, np.int64),
        sum=np.array(total, np.float64),
        deviation=np.array(deviation, np.float64),
        min=np.array(low, np.float64),
        max=np.array(high, np.float64),
        first_at=np.array([to_micros(one) for one in first_at], np.int64),
        last_at=np.array([to_micros(one) for one in last_at], np.int64),
        last=np.array(last, np.float64),
        sketch=[*sketch],
    )


def read_baseline_sketch(connection: Connection, name: str, metric: int) -> Sketch | None:
    """The histogram of one metric of a baseline; None when it has none, or when there is no such baseline."""
    rows = read_baseline(connection, name, [metric])
    return decode(rows.sketch[0]) if len(rows) else None


class Baselines:
    """Writes them. Each call is a connection and a transaction of its own."""

    def __init__(self, conninfo: str, limit: int) -> None:
        self._conninfo, self._limit = conninfo, limit

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with psycopg.connect(
                self._conninfo, connect_timeout=5, application_name="modelmeter baselines"
            ) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database is away: {str(error).strip()}") from None
        except psycopg.errors.UndefinedTable:
            raise Unavailable("the schema is older than this release; run: modelmeter migrate") from None

    def put(self, baseline: Baseline, rollups: Rollups) -> tuple[bool, int]:
        """Keep `rollups`, one partial for each metric and EVENTS, under the name; whether the name is new, and how
        many baselines there are now.

        What stood under the name is replaced, whole. Unprocessable when there are as many as there may be.
        """
        with self._transaction() as connection:
            connection.execute(SQL["lock"], (_LOCK,))
            others = _count_others(connection, baseline.name)
            if others >= self._limit:
                raise Unprocessable(
                    f"there are {others} baselines, and no more may be; delete one or raise MODELMETER_BASELINE_LIMIT",
                    limit=self._limit,
                )
            replaced = connection.execute(SQL["drop"], (baseline.name,)).rowcount
            connection.execute(
                SQL["put"],
                {
                    "name": baseline.name,
                    "match": baseline.match,
                    "start": to_datetime(baseline.span.start),
                    "end": to_datetime(baseline.span.end),
                    "created_at": to_datetime(baseline.created_at),
                    "created_by": baseline.created_by,
                },
            )
            with connection.cursor() as cursor:
                cursor.executemany(SQL["put_rollup"], [(baseline.name, *row) for row in _rows(rollups)])
            return not replaced, others + 1

    def drop(self, name: str) -> tuple[bool, int]:
        """Whether there was one, and how many there are now."""
        with self._transaction() as connection:
            dropped = connection.execute(SQL["drop"], (name,)).rowcount > 0
            return dropped, _count_others(connection, name)


def _count_others(connection: Connection, name: str) -> int:
    row = connection.execute(SQL["count_others"], (name,)).fetchone()
    assert row is not None
    return int(row[0])


def _rows(rollups: Rollups) -> list[tuple[object, ...]]:
    return [
        (metric, count, total, deviation, low, high, to_datetime(first_at), to_datetime(last_at), last, sketch)
        for metric, count, total, deviation, low, high, first_at, last_at, last, sketch in zip(
            rollups.metric.tolist(),
            rollups.count.tolist(),
            rollups.sum.tolist(),
            rollups.deviation.tolist(),
            rollups.min.tolist(),
            rollups.max.tolist(),
            rollups.first_at.tolist(),
            rollups.last_at.tolist(),
            rollups.last.tolist(),
            rollups.sketch,
            strict=True,
        )
    ]
