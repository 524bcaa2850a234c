"""The compactor: rollup partials become one row a window at each resolution; small chunks become large ones.

Every step is one small transaction that takes rows out and puts what they amount to back in, so it can be killed
anywhere, run beside the workers and while late events come, and no answer changes by it.
"""

import logging
import time
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from modelmeter import rollup, telemetry
from modelmeter.chunk import pack_chunk, unpack_floats, unpack_ints
from modelmeter.config import Config
from modelmeter.rollup import Rollups
from modelmeter.store.rollups import RESOLUTION_TABLES, SELECTED, copy_out, take_rollups
from modelmeter.store.sql import load
from modelmeter.store.writer import Catalog, write_chunks, write_rollups
from modelmeter.window import MINUTE, RESOLUTIONS, SECOND, floor, to_datetime

log = logging.getLogger(__name__)

SQL = load("compact.sql")
_STEP_PARTIALS = 20_000
_PRESSURE_PARTIALS = 20_000
_SETTLE = 5 * SECOND
_CHUNKS_EVERY_SECONDS = 30
_LEDGER_EVERY_SECONDS = 3600


class Compactor:
    """`run_once` does a step; call it again at once while it returns True. Only the leader among the keepers runs."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._catalog = Catalog(config.database_url)
        self._chunks_due = 0.0
        self._ledger_due = 0.0

    def close(self) -> None:
        self._catalog.close()
        if self._connection is not None:
            self._connection.close()

    def run_once(self, now: int | None = None) -> bool:
        """One step at `now` (microseconds; the clock's when None). Whether there may be more to do."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._config.database_url, connect_timeout=5, application_name="modelmeter compactor"
            )
        now = time.time_ns() // 1000 if now is None else now
        try:
            if self._fold(self._connection, now):
                return True
            monotonic = time.monotonic()
            if monotonic >= self._chunks_due:
                if self._join(self._connection, now):
                    return True
                self._chunks_due = monotonic + _CHUNKS_EVERY_SECONDS
            if monotonic >= self._ledger_due:
                with self._connection.transaction():
                    self._connection.execute(SQL["forget_batches"], (self._config.ledger_days,))
                self._ledger_due = monotonic + _LEDGER_EVERY_SECONDS
        except BaseException:
            self._catalog.forget()
            self._connection.close()
            raise
        return False

    def _fold(self, connection: psycopg.Connection[tuple[Any, ...]], now: int) -> bool:
        """Partials of closed minutes; under pressure, of open ones too."""
        with connection.transaction():
            row = connection.execute(SQL["count_partials"], (_PRESSURE_PARTIALS,)).fetchone()
            waiting = row[0] if row else 0
            if not waiting:
                return False
            before = now + 3600 * SECOND if waiting >= _PRESSURE_PARTIALS else floor(now - _SETTLE, MINUTE)
            query = sql.SQL(SQL["take_partials"].decode().rstrip(";")).format(
                before=sql.Literal(to_datetime(before)), limit=sql.Literal(_STEP_PARTIALS), columns=SELECTED
            )
            partials = copy_out(connection, query)
            if not len(partials):
                return False
            self._catalog.make_partitions(partials.window, *RESOLUTION_TABLES.values())
            folded = rollup.merge(partials)
            for resolution, table in RESOLUTION_TABLES.items():
                folded = rollup.merge(rollup.coarsen(folded, RESOLUTIONS[resolution]))
                standing = take_rollups(connection, table, folded)
                write_rollups(
                    connection, rollup.merge(rollup.concat([standing, folded])) if len(standing) else folded, table
                )
            self._add_totals(connection, folded)
        telemetry.COMPACTED_ROLLUPS.inc(len(partials))
        return len(partials) >= _STEP_PARTIALS

    @staticmethod
    def _add_totals(connection: psycopg.Connection[tuple[Any, ...]], folded: Rollups) -> None:
        rows = np.flatnonzero(folded.metric == rollup.EVENTS)
        streams = folded.stream[rows]
        starts = rollup.group_starts(streams)
        connection.execute(
            SQL["add_totals"],
            (
                streams[starts].tolist(),
                np.add.reduceat(folded.count[rows], starts).tolist(),
                [to_datetime(at) for at in np.minimum.reduceat(folded.first_at[rows], starts).tolist()],
                [to_datetime(at) for at in np.maximum.reduceat(folded.last_at[rows], starts).tolist()],
            ),
        )

    def _join(self, connection: psycopg.Connection[tuple[Any, ...]], now: int) -> bool:
        """Small chunks of one stream, day and size class into larger ones; of a day that is over, all of them."""
        small = self._config.chunk_target_events // 2
        today = to_datetime(floor(now - 3600 * SECOND, RESOLUTIONS["1d"]))
        with connection.transaction():
            groups = connection.execute(SQL["small_chunks"], {"small": small, "today": today}).fetchall()
        for stream, day, metrics, low, high in groups:
            with connection.transaction():
                cursor = connection.execute(
                    SQL["take_chunks"],
                    {"stream": stream, "day": day, "metrics": metrics, "low": low, "high": high, "small": small},
                    binary=True,
                )
                rows = cursor.fetchall()
                write_chunks(connection, join_chunks(stream, rows, self._config.chunk_target_events))
                telemetry.COMPACTED_CHUNKS.inc(len(rows))
        return bool(groups)


def join_chunks(stream_id: int, rows: list[tuple[datetime, int, list[int], list[bytes]]], target: int) -> list[Any]:
    """Chunks of one stream and day, (stored_at, count, metrics, columns) each, as few of about `target` events.

    Events of the same time stay in the order in which they were stored. Chunks of other metrics stay apart.
    """
    shapes: dict[tuple[int, ...], list[tuple[datetime, int, list[int], list[bytes]]]] = {}
    for row in sorted(rows, key=lambda row: row[0]):
        shapes.setdefault(tuple(row[2]), []).append(row)
    joined = []
    for metrics, alike in shapes.items():
        timestamp = np.concatenate([unpack_ints(columns[0], count) for _, count, _, columns in alike])
        order = timestamp.argsort(kind="stable")
        timestamp = timestamp[order]
        values = [
            np.concatenate([unpack_floats(columns[number], count) for _, count, _, columns in alike])[order]
            for number in range(1, len(metrics) + 1)
        ]
        pieces = max(round(timestamp.size / target), 1)
        borders = np.linspace(0, timestamp.size, pieces + 1).astype(int).tolist()
        joined += [
            pack_chunk(stream_id, metrics, timestamp[start:end], [column[start:end] for column in values])
            for start, end in pairwise(borders)
        ]
    return joined
