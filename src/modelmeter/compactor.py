"""The compactor: rollup partials become one row a window at each resolution; small chunks become large ones.

Every step is one small transaction that takes rows out and puts what they amount to back in, so it can be killed
anywhere, run beside the workers and while late events come, and no answer changes by it.
"""

import logging
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import psycopg
from psycopg import sql

from modelmeter import rollup, telemetry
from modelmeter.chunk import Chunk, pack_chunk, unpack_floats, unpack_ints
from modelmeter.config import Config
from modelmeter.rollup import Rollups
from modelmeter.store.corrections import is_pending, share
from modelmeter.store.rollups import RESOLUTION_TABLES, SELECTED, copy_out, take_rollups
from modelmeter.store.sql import load
from modelmeter.store.writer import Catalog, write_chunks, write_rollups
from modelmeter.window import LATEST, RESOLUTIONS, SECOND, floor, to_datetime, to_micros

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

log = logging.getLogger(__name__)

SQL = load("compact.sql")
_FOLDS = {"rollup_partial_1m": ("1m", "1h", "1d"), "rollup_partial_1h": ("1h", "1d")}
_BEGINNING, _END = (0, 0), (2**31 - 1, LATEST)
"""Before and after every stream and window."""

_STEP_PARTIALS = 20_000
_PRESSURE_PARTIALS = 20_000
_SETTLE = 5 * SECOND
_CHUNKS_EVERY_SECONDS = 30
_LEDGER_EVERY_SECONDS = 3600


class Compactor:
    """`run_once` does a step; call it again at once while it returns True. Only the leader among the keepers runs."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection: Connection | None = None
        self._catalog = Catalog(config.database_url)
        self._after = dict.fromkeys(_FOLDS, _BEGINNING)
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
            self._catalog.look()
            more = [self._fold(self._connection, now, table, resolutions) for table, resolutions in _FOLDS.items()]
            if any(more):
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

    def _fold(self, connection: Connection, now: int, partial_table: str, resolutions: Sequence[str]) -> bool:
        """Partials of closed windows into each of `resolutions`; under pressure, those of open windows too."""

        def statement(name: str, **parts: object) -> sql.Composed:
            literals = {
                key: part if isinstance(part, sql.Composable) else sql.Literal(part) for key, part in parts.items()
            }
            return sql.SQL(SQL[name].decode()).format(table=sql.Identifier(partial_table), **literals)

        width = RESOLUTIONS[resolutions[0]]
        with connection.transaction():
            share(connection)
            if is_pending(connection):  # it tells by the rows as they are what was there before it
                return False
            row = connection.execute(statement("count_partials", limit=_PRESSURE_PARTIALS)).fetchone()
            waiting = row[0] if row else 0
            if not waiting:
                return False
            before = LATEST if waiting >= _PRESSURE_PARTIALS else floor(now - _SETTLE, width)
            # One stream after the other: the partials of one window are folded together, and each stream has its turn.
            after, until = self._after[partial_table], _END
            scope: dict[str, object] = {
                "before": to_datetime(before), "after_stream": after[0], "after_window": to_datetime(after[1]),
            }  # fmt: skip
            row = connection.execute(statement("find_partials_end", limit=_STEP_PARTIALS - 1, **scope)).fetchone()
            if row:
                until = row[0], to_micros(row[1])
            scope |= {"until_stream": until[0], "until_window": to_datetime(until[1]), "columns": SELECTED}
            partials = copy_out(connection, statement("take_partials", **scope))
            self._after[partial_table] = _BEGINNING if until == _END else until
            more = until != _END or after != _BEGINNING
            if not len(partials):
                return more
            folded = partials
            for resolution in resolutions:
                folded = rollup.merge(rollup.coarsen(folded, RESOLUTIONS[resolution]))
                self._put(connection, folded, RESOLUTION_TABLES[resolution])
            self._add_totals(connection, folded)
        telemetry.COMPACTED_ROLLUPS.inc(len(partials))
        return more

    def _put(self, connection: Connection, folded: Rollups, table: str) -> None:
        """Merged with what stands there, one row a series and window; what is retired there is left out."""
        classes = self._catalog.class_ids(folded.stream)
        for class_id in [0] if classes is None else np.unique(classes).tolist():
            rows = folded if classes is None else rollup.select(folded, classes == class_id)
            self._catalog.make_partitions(rows.window, table, class_id=class_id)
            border = self._catalog.retired_until(table, class_id)
            if border:
                rows = rollup.select(rows, rows.window >= border)
            if not len(rows):
                continue
            standing = take_rollups(connection, table, rows)
            if len(standing):
                rows = rollup.merge(rollup.concat([standing, rows]))
            write_rollups(connection, rows, table, class_id)

    @staticmethod
    def _add_totals(connection: Connection, folded: Rollups) -> None:
        rows = np.flatnonzero(folded.metric == rollup.EVENTS)
        if not rows.size:  # a step may hold partials of metrics only
            return
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

    def _join(self, connection: Connection, now: int) -> bool:
        """Small chunks of one stream, day and size class into larger ones; of a day that is over, all of them."""
        small = self._config.chunk_target_events // 2
        today = to_datetime(floor(now - 3600 * SECOND, RESOLUTIONS["1d"]))
        with connection.transaction():
            groups = connection.execute(SQL["small_chunks"], {"small": small, "today": today}).fetchall()
        done = False
        for stream, metrics, day, minutely, low, high in groups:
            class_id = self._class_of(stream)
            if to_micros(day) < self._catalog.retired_until("chunk", class_id):
                continue  # about to be dropped
            scope = {"stream": stream, "metrics": metrics, "day": day, "minutely": minutely, "low": low, "high": high}
            with connection.transaction():
                share(connection)
                if is_pending(connection):
                    return False
                done = True
                cursor = connection.execute(
                    SQL["take_chunks"],
                    scope | {"small": small},
                    binary=True,
                )
                rows = cursor.fetchall()
                joined = join_chunks(stream, rows, self._config.chunk_target_events, minutely=minutely)
                write_chunks(connection, joined, [class_id] * len(joined))
                telemetry.COMPACTED_CHUNKS.inc(len(rows))
        return done

    def _class_of(self, stream: int) -> int:
        classes = self._catalog.class_ids(np.array([stream], np.int32))
        return 0 if classes is None else int(classes[0])


def join_chunks(
    stream_id: int, rows: list[tuple[datetime, int, list[int], list[bytes]]], target: int, *, minutely: bool
) -> list[Chunk]:
    """Chunks of one stream and day, (stored_at, count, metrics, columns) each, as few of about `target` events.

    Events of the same time stay in the order in which they were stored. Chunks of other metrics stay apart.
    """
    shapes: dict[tuple[int, ...], list[tuple[datetime, int, list[int], list[bytes]]]] = {}
    for row in sorted(rows, key=lambda row: row[0]):
        shapes.setdefault(tuple(row[2]), []).append(row)
    joined: list[Chunk] = []
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
            pack_chunk(
                stream_id, metrics, timestamp[start:end], [column[start:end] for column in values], minutely=minutely
            )
            for start, end in pairwise(borders)
        ]
    return joined
