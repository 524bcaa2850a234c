"""Chunks out of Postgres, unpacked: the raw events of some streams in some stretches of time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import psycopg
from numpy.typing import NDArray

from modelmeter.chunk import unpack_floats, unpack_ints
from modelmeter.store.sql import load
from modelmeter.window import DAY, Span, floor, to_datetime

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("chunks.sql")

_FEW = 8  # so many stretches of time are named in the text of a query


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one chunk, in order of time; NaN is absent."""

    stream: int
    timestamp: NDArray[np.int64]
    metrics: dict[int, NDArray[np.float64]]


def count_events(connection: Connection, streams: Sequence[int], spans: Sequence[Span], minutely: bool | None) -> int:
    """How many events the chunks hold that `read_events` reads."""
    if not streams or not spans:
        return 0
    row = connection.execute(SQL["count"], _scope(streams, _joined(spans), minutely)).fetchone()
    return int(row[0]) if row else 0


def read_events(
    connection: Connection,
    streams: Sequence[int],
    metrics: Sequence[int] | None,
    spans: Sequence[Span],
    minutely: bool | None,
) -> Iterator[Events]:
    """The chunks that touch the spans, which are in order and free of overlaps, each chunk once and whole.

    `metrics` None: all. `minutely` None: whether the events are in rollups of a minute or not.
    """
    if not streams or not spans:
        return
    joined = _joined(spans)
    if len(joined) <= _FEW:
        # Instants that the planner sees name the partitions; as parameters each is planned and opened.
        found = connection.execute(_few_query(streams, joined, minutely), prepare=False, binary=True)
    else:
        found = connection.execute(SQL["read"], _scope(streams, joined, minutely), binary=True)
    for stream, count, its_metrics, columns in found:
        yield Events(
            stream,
            unpack_ints(columns[0], count),
            {
                metric: unpack_floats(column, count)
                for metric, column in zip(its_metrics, columns[1:], strict=True)
                if metrics is None or metric in metrics
            },
        )


def _few_query(streams: Sequence[int], joined: Sequence[Span], minutely: bool | None) -> bytes:
    """`read` with all values in its text: numbers and instants, nothing to quote."""
    touching = " OR ".join(
        f"start_at >= {_instant(floor(one.start, DAY))} AND start_at < {_instant(one.end)}"
        f" AND end_at > {_instant(one.start)}"
        for one in joined
    )
    ids = ",".join(map(str, map(int, streams)))
    kind = "" if minutely is None else f" AND minutely = {minutely}"
    return SQL["read_few"] % {
        b"streams": f"'{{{ids}}}'::int[]".encode(),
        b"touching": f"({touching}){kind}".encode(),
    }


def _instant(micros: int) -> str:
    return f"'{to_datetime(micros).isoformat()}'::timestamptz"


def _joined(spans: Sequence[Span]) -> list[Span]:
    """A chunk lies within a day: so each is in one stretch only, when those of one day are taken as one."""
    joined: list[Span] = []
    for span in spans:
        if joined and floor(span.start, DAY) < joined[-1].end:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    return joined


def _scope(streams: Sequence[int], joined: Sequence[Span], minutely: bool | None) -> dict[str, object]:
    return {
        "streams": list(streams),
        "days": [to_datetime(floor(one.start, DAY)) for one in joined],
        "starts": [to_datetime(one.start) for one in joined],
        "ends": [to_datetime(one.end) for one in joined],
        "minutely": minutely,
    }
