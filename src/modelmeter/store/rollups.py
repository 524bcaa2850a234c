"""Rollup rows out of Postgres by binary COPY: no Python object a field."""

from collections.abc import Collection

import psycopg
from psycopg import sql
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from modelmeter import rollup
from modelmeter.rollup import FIELDS, Rollups
from modelmeter.store.copy import NUMBER, numbered_rollups_of, rollups_of
from modelmeter.window import to_datetime

COLUMNS = {
    "stream": "stream_id",
    "metric": "metric_id",
    "window": "window_start",
}
SELECTED = sql.SQL(", ").join([*(sql.Identifier(COLUMNS.get(name, name)) for name in FIELDS), sql.Identifier("sketch")])
KEYS = frozenset(("stream", "metric", "window"))
RESOLUTION_TABLES = {"1m": "rollup_1m", "1h": "rollup_1h", "1d": "rollup_1d"}

_Connection = psycopg.Connection[tuple[object, ...]]


def copy_out(connection: _Connection, query: sql.Composable, columns: tuple[str, ...] = FIELDS) -> Rollups:
    """The rows of a query whose columns are `columns` and the sketch, as SELECTED has them."""
    return rollups_of(_copy(connection, query), columns)


def _copy(connection: _Connection, query: sql.Composable) -> list[memoryview]:
    """The messages of a COPY.

    Straight from libpq: a row costs a third of what it does through psycopg's own copy.
    """
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query).as_bytes(connection)
    with connection.lock:
        pgconn = connection.pgconn
        begun = pgconn.exec_(statement)
        if begun.status != ExecStatus.COPY_OUT:
            raise _error_of(connection, begun)
        blocks: list[memoryview] = []
        next_block = pgconn.get_copy_data
        while True:
            size, block = next_block(0)
            if size <= 0:
                break
            blocks.append(block)
        failed = None
        while (ended := pgconn.get_result()) is not None:
            if ended.status != ExecStatus.COMMAND_OK:
                failed = ended
        if failed is not None:
            raise _error_of(connection, failed)
    return blocks


def _error_of(connection: _Connection, result: PGresult) -> psycopg.Error:
    if result.error_field(DiagnosticField.SQLSTATE) is None:  # libpq says it, not Postgres: the connection is lost
        return psycopg.OperationalError(connection.pgconn.error_message.decode(errors="replace"))
    return psycopg.errors.error_from_result(result)


def read_rollups(
    connection: _Connection,
    ranges: list[tuple[str, int, int]],
    streams: list[int],
    metrics: list[int] | None,
    *,
    needs: Collection[str] | None = None,
) -> Rollups:
    """Rows of several tables at once, in one snapshot: (table, start, end) each, microseconds, by window start.

    `needs` are the columns to read beside the KEYS, `sketch` among them if wanted; None: all. The others are zeros,
    the sketches empty.

    Index: the tables' primary keys, rollup_partial_1m_window, rollup_partial_1h_window.
    """
    if not streams or not ranges:
        return rollup.EMPTY
    columns, selected = _selected(needs)
    return copy_out(connection, _query([selected] * len(ranges), ranges, streams, metrics), columns)


def read_tables(
    connection: _Connection,
    ranges: list[tuple[str, int, int]],
    streams: list[int],
    metrics: list[int] | None,
    *,
    needs: Collection[str] | None = None,
) -> dict[str, Rollups]:
    """As read_rollups, by table."""
    tables = list(dict.fromkeys(table for table, *_ in ranges))
    if not streams or not ranges:
        return dict.fromkeys(tables, rollup.EMPTY)
    columns, selected = _selected(needs)
    numbered = [f"{tables.index(table)}, {selected}" for table, *_ in ranges]
    blocks = _copy(connection, _query(numbered, ranges, streams, metrics))
    rows, numbers = numbered_rollups_of(blocks, (NUMBER, *columns))
    return {table: rollup.select(rows, numbers == number) for number, table in enumerate(tables)}


def _selected(needs: Collection[str] | None) -> tuple[tuple[str, ...], str]:
    """The columns to read, and their SQL."""
    columns = FIELDS if needs is None else tuple(name for name in FIELDS if name in KEYS or name in needs)
    sketches = "sketch" if needs is None or "sketch" in needs else "''::bytea"
    return columns, ", ".join([*(COLUMNS.get(name, name) for name in columns), sketches])


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
        _query(["1"] * len(ranges), ranges, streams, metrics), sql.Literal(limit)
    )
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(str(row[0]))


def _query(
    selected: list[str], ranges: list[tuple[str, int, int]], streams: list[int], metrics: list[int] | None
) -> sql.Composable:
    """Names of ours and numbers: nothing to quote."""
    which = f"stream_id {_one_of(streams)}" + ("" if metrics is None else f" AND metric_id {_one_of(metrics)}")
    parts = [
        f"SELECT {one} FROM modelmeter.{table} WHERE {which}"
        f" AND window_start >= {_instant(start)} AND window_start < {_instant(end)}"
        for one, (table, start, end) in zip(selected, ranges, strict=True)
    ]
    return sql.SQL(" UNION ALL ".join(parts))


def _instant(micros: int) -> str:
    return f"'{to_datetime(micros).isoformat()}'::timestamptz"


def _one_of(ids: list[int]) -> str:
    return f"= {int(ids[0])}" if len(ids) == 1 else "= ANY('{" + ",".join(map(str, map(int, ids))) + "}'::int[])"


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
