"""Rollup rows out of Postgres by binary COPY: no Python object a field."""

import psycopg
from psycopg import sql

from modelmeter import rollup
from modelmeter.rollup import FIELDS, Rollups
from modelmeter.store.copy import HEADER, rollups_of
from modelmeter.window import to_datetime

COLUMNS = {
    "stream": "stream_id",
    "metric": "metric_id",
    "window": "window_start",
}
SELECTED = sql.SQL(", ").join([*(sql.Identifier(COLUMNS.get(name, name)) for name in FIELDS), sql.Identifier("sketch")])
_WITHOUT_SKETCH = sql.SQL(", ").join(
    [*(sql.Identifier(COLUMNS.get(name, name)) for name in FIELDS), sql.SQL("''::bytea AS sketch")]
)
RESOLUTION_TABLES = {"1m": "rollup_1m", "1h": "rollup_1h", "1d": "rollup_1d"}

_Connection = psycopg.Connection[tuple[object, ...]]


def copy_out(connection: _Connection, query: sql.Composable) -> Rollups:
    """The rows of a query whose columns are SELECTED."""
    with connection.cursor().copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)) as copy:
        data = b"".join(copy)
    return rollups_of(data) if len(data) > len(HEADER) + 2 else rollup.EMPTY


def read_rollups(
    connection: _Connection,
    ranges: list[tuple[str, int, int]],
    streams: list[int],
    metrics: list[int] | None,
    *,
    with_sketch: bool = True,
) -> Rollups:
    """Rows of several tables at once, in one snapshot: (table, start, end) each, microseconds, by window start.

    Without sketches there are fewer bytes to read.

    Index: the tables' primary keys, rollup_partial_1m_window, rollup_partial_1h_window.
    """
    if not streams or not ranges:
        return rollup.EMPTY
    return copy_out(connection, _query(SELECTED if with_sketch else _WITHOUT_SKETCH, ranges, streams, metrics))


def count_rollups(
    connection: _Connection,
    ranges: list[tuple[str, int, int]],
    streams: list[int],
    metrics: list[int] | None,
    limit: int,
) -> int:
    """How many rows read_rollups would read, up to `limit`. Index: as there."""
    if not streams or not ranges:
        return 0
    query = sql.SQL("SELECT count(*) FROM ({} LIMIT {}) AS found").format(
        _query(sql.SQL("1"), ranges, streams, metrics), sql.Literal(limit)
    )
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(str(row[0]))


def _query(
    selected: sql.Composable, ranges: list[tuple[str, int, int]], streams: list[int], metrics: list[int] | None
) -> sql.Composable:
    parts = []
    for table, start, end in ranges:
        wanted = sql.SQL(
            "SELECT {} FROM modelmeter.{} WHERE stream_id {} AND window_start >= {} AND window_start < {}"
        ).format(
            selected,
            sql.Identifier(table),
            _one_of(streams),
            sql.Literal(to_datetime(start)),
            sql.Literal(to_datetime(end)),
        )
        if metrics is not None:
            wanted += sql.SQL(" AND metric_id {}").format(_one_of(metrics))
        parts.append(wanted)
    return sql.SQL(" UNION ALL ").join(parts)


def _one_of(ids: list[int]) -> sql.Composable:
    if len(ids) == 1:
        return sql.SQL("= {}").format(sql.Literal(ids[0]))
    return sql.SQL("= ANY({}::int[])").format(sql.Literal("{" + ",".join(map(str, ids)) + "}"))


def take_rollups(connection: _Connection, table: str, keys: Rollups) -> Rollups:
    """The rows of the same series and windows as `keys`, out of their table. Index: its primary key."""
    arrays = [
        sql.Literal("{" + ",".join(map(str, keys.stream.tolist())) + "}"),
        sql.Literal("{" + ",".join(map(str, keys.metric.tolist())) + "}"),
        sql.Literal("{" + ",".join(f'"{to_datetime(window).isoformat()}"' for window in keys.window.tolist()) + "}"),
    ]
    returned = sql.SQL(", ").join(
        sql.SQL("t.") + sql.Identifier(COLUMNS.get(name, name)) for name in (*FIELDS, "sketch")
    )
    low, high = int(keys.window.min()), int(keys.window.max())
    return copy_out(
        connection,
        sql.SQL(
            "DELETE FROM modelmeter.{} t USING unnest({}::int[], {}::int[], {}::timestamptz[]) AS k (s, m, w) "
            "WHERE t.stream_id = k.s AND t.metric_id = k.m AND t.window_start = k.w "
            "AND t.window_start BETWEEN {} AND {} RETURNING {}"
        ).format(
            sql.Identifier(table), *arrays, sql.Literal(to_datetime(low)), sql.Literal(to_datetime(high)), returned
        ),
    )
