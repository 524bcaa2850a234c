"""Partitions by time: made when they are needed, however old the events are. Only this module names them."""

from collections.abc import Iterable

import numpy as np
import psycopg
from numpy.typing import NDArray

from modelmeter.window import DAY, floor, to_datetime

WIDTHS = {"chunk": DAY, "rollup_1m": 7 * DAY, "rollup_1h": 28 * DAY, "rollup_1d": 364 * DAY}
"""The width of a partition in microseconds, for each table."""

OLD = 54 * 364 * DAY
OLD_WIDTH = 364 * DAY
"""Before OLD (2023-10-26) every partition is this wide: an archive of decades makes dozens of them, not thousands."""

_AT_ONCE = 50  # partitions made in one transaction: each takes locks, of which Postgres has a limited number

# Postgres' own lock: only one session makes partitions at a time, the others find them made.
_LOCK = 0x6D6D_0002


class Partitions:
    """Remembers which partitions stand, so that looking costs nothing."""

    def __init__(self) -> None:
        self._standing: dict[str, set[int]] = {table: set() for table in WIDTHS}

    def missing(self, instants: NDArray[np.int64], tables: Iterable[str]) -> list[tuple[str, int]]:
        """(table, start) of each partition that `instants` need and that is not known to stand."""
        low, high = int(instants.min()), int(instants.max())
        wanted = []
        for table in tables:
            starts = [_start(table, low)]
            if starts[0] != _start(table, high):
                widths = np.where(instants < OLD, OLD_WIDTH, WIDTHS[table])
                starts = np.unique(instants - instants % widths).tolist()
            wanted += [(table, start) for start in starts if start not in self._standing[table]]
        return wanted

    def make(self, connection: psycopg.Connection[tuple[object, ...]], wanted: list[tuple[str, int]]) -> None:
        """Make them, in transactions of their own; `connection` must be in autocommit mode and idle."""
        for at in range(0, len(wanted), _AT_ONCE):
            some = wanted[at : at + _AT_ONCE]
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '10s'")
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                for table, start in some:
                    connection.execute(_create(table, start).encode())
            self.remember(some)

    def remember(self, standing: list[tuple[str, int]]) -> None:
        for table, start in standing:
            self._standing[table].add(start)

    def forget(self) -> None:
        """After an error: look again."""
        for starts in self._standing.values():
            starts.clear()


def _start(table: str, instant: int) -> int:
    return floor(instant, OLD_WIDTH if instant < OLD else WIDTHS[table])


def _create(table: str, start: int) -> str:
    """SQL that makes one partition. ATTACH, unlike CREATE ... PARTITION OF, waits for no writer of the table."""
    start = _start(table, start)
    end = start + (OLD_WIDTH if start < OLD else WIDTHS[table])
    name = f"modelmeter.{table}_{to_datetime(start):%Y%m%d}"
    return f"""
        DO $$ BEGIN
            IF to_regclass('{name}') IS NULL THEN
                CREATE TABLE {name} (LIKE modelmeter.{table} INCLUDING ALL);
                ALTER TABLE modelmeter.{table} ATTACH PARTITION {name}
                    FOR VALUES FROM ('{to_datetime(start).isoformat()}')
                    TO ('{to_datetime(end).isoformat()}');
            END IF;
        END $$"""
