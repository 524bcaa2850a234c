"""The least that any server on Python and Postgres must do: decode the bodies, COPY the finished rows.

Nothing else is in it: no HTTP, no queue, no sort, no packing, no rollups.
"""

import datetime as dt
import io
import time
from collections.abc import Callable

import numpy as np
import polars as pl
import psycopg

from bench.data import ARROW, JSON, METRICS, NDJSON
from bench.launch import postgres, scratch
from bench.usage import read_usage

# Packed bytes of an event with three metrics, as DESIGN.md's prototype stored it: 3 samples of 2.04 bytes.
_ROW_BYTES_PER_EVENT = 6.12
_EVENTS_PER_COPY = 100_000
_STREAMS = 12
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

_SCHEMA = pl.Schema({"name": pl.String, "version": pl.String, **dict.fromkeys(METRICS, pl.Float64)})

_DECODERS: dict[str, Callable[[bytes], pl.DataFrame]] = {
    JSON: lambda body: pl.read_json(io.BytesIO(body), schema=_SCHEMA),
    NDJSON: lambda body: pl.read_ndjson(io.BytesIO(body), schema=_SCHEMA),
    ARROW: lambda body: pl.read_ipc_stream(io.BytesIO(body)),
}


def measure_floor(bodies: list[bytes], content_type: str, *, seconds: float) -> float:
    """CPU microseconds per event, the Postgres backend included."""
    decode = _DECODERS[content_type]
    payload = np.random.default_rng(1).bytes(int(_ROW_BYTES_PER_EVENT * _EVENTS_PER_COPY / _STREAMS))
    with (
        scratch() as folder,
        postgres(folder) as (conninfo, postmaster),
        psycopg.connect(conninfo) as connection,
    ):
        connection.execute(
            "CREATE TABLE floor (stream bigint, start_at timestamptz, end_at timestamptz, count int, packed bytea)"
        )
        connection.commit()
        decode(bodies[0])
        _copy(connection, payload)
        roots = {postmaster: "postgres"}
        server = read_usage(roots)
        own = time.process_time()
        limit = time.monotonic() + seconds
        events = pending = number = 0
        while time.monotonic() < limit or pending:
            count = decode(bodies[number % len(bodies)]).height
            number += 1
            events += count
            pending += count
            if pending >= _EVENTS_PER_COPY:
                _copy(connection, payload)
                pending = 0
        own = time.process_time() - own
        backend = sum(read_usage(roots).since(server).values())
    return (own + backend) / events * 1e6


def _copy(connection: psycopg.Connection, payload: bytes) -> None:
    rows = [(stream, _START, _START, 1, payload) for stream in range(_STREAMS)]
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY floor (stream, start_at, end_at, count, packed) FROM STDIN (FORMAT binary)") as copy,
    ):
        copy.set_types(["int8", "timestamptz", "timestamptz", "int4", "bytea"])
        for row in rows:
            copy.write_row(row)
    connection.commit()
