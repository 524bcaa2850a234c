"""Partitions by time: made when they are needed, however old the events are. Only this module names them.

Where classes of retention are known, a partition is itself partitioned, by class, with a leaf for each class that is
used; else it is one table, which saves the planner's time. What is retired is never made again.
"""

import re
import time
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import psycopg
from numpy.typing import NDArray

from modelmeter.store.retirement import read_retired
from modelmeter.window import DAY, floor, to_datetime, to_micros

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

WIDTHS = {"chunk": DAY, "rollup_1m": 7 * DAY, "rollup_1h": 28 * DAY, "rollup_1d": 364 * DAY}
"""The width of a partition in microseconds, for each table."""

HELD = {"chunk": "raw", "rollup_1m": "1m", "rollup_1h": "1h", "rollup_1d": "1d"}
"""What each table holds, as the retention names it."""

OLD = 54 * 364 * DAY
OLD_WIDTH = 364 * DAY
"""Before OLD (2023-10-26) every partition is this wide: an archive of decades makes dozens of them, not thousands."""

PARTITION_NAME = re.compile(r"(?P<table>chunk|rollup_1[mhd])_(?P<day>\d{8})(?:_c(?P<class>\d+))?")

_AT_ONCE = 50  # partitions made in one transaction: each takes locks, of which Postgres has a limited number
_LOOK_SECONDS = 60

# Postgres' own lock: only one session makes partitions at a time, the others find them made.
_LOCK = 0x6D6D_0002

Wanted: TypeAlias = tuple[str, int, int]
"""A table, the start of one of its partitions, a class."""


class Partitions:
    """Remembers which partitions stand and what is retired, so that looking costs nothing."""

    def __init__(self) -> None:
        self._standing: set[Wanted] = set()
        self._retired: dict[tuple[int, str], int] = {}
        self._looked_at = float("-inf")

    def missing(self, instants: NDArray[np.int64], tables: Iterable[str], class_id: int = 0) -> list[Wanted]:
        """Each partition that `instants` of the class need, that is not known to stand, and not retired."""
        if not instants.size:
            return []
        low, high = int(instants.min()), int(instants.max())
        wanted: list[Wanted] = []
        for table in tables:
            starts = [start_of(table, low)]
            if starts[0] != start_of(table, high):
                widths = np.where(instants < OLD, OLD_WIDTH, WIDTHS[table])
                starts = np.unique(instants - instants % widths).tolist()
            retired_until = self.retired_until(table, class_id)
            wanted += [
                (table, start, class_id)
                for start in starts
                if start >= retired_until and (table, start, class_id) not in self._standing
            ]
        return wanted

    def retired_until(self, table: str, class_id: int = 0) -> int:
        """Nothing that is before this (microseconds) is written to the table; 0: all is. By the last look."""
        return self._retired.get((class_id, HELD[table]), 0)

    def needs_look(self) -> bool:
        """Whether the last look is so old that something may have been retired since."""
        return time.monotonic() > self._looked_at + _LOOK_SECONDS

    def look(self, connection: Connection) -> None:
        """What is retired by now."""
        self._retired = read_retired(connection)
        self._looked_at = time.monotonic()

    def make(self, connection: Connection, wanted: list[Wanted]) -> None:
        """Make those that are not retired, in transactions of their own; `connection` in autocommit mode and idle."""
        for at in range(0, len(wanted), _AT_ONCE):
            some = wanted[at : at + _AT_ONCE]
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '10s'")
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                self.look(connection)
                for table, instant, class_id in some:
                    start = start_of(table, instant)
                    if start >= self.retired_until(table, class_id):
                        leaves = {class_id} | ({0} if start >= self.retired_until(table) else set())
                        connection.execute(_create(table, start, class_id, sorted(leaves)).encode())
            self._standing.update(some)

    def forget(self) -> None:
        """After an error: look again."""
        self._standing.clear()
        self._looked_at = float("-inf")


def start_of(table: str, instant: int) -> int:
    """The start of the partition that holds the instant."""
    return floor(instant, OLD_WIDTH if instant < OLD else WIDTHS[table])


def end_of(table: str, start: int) -> int:
    """The end of the partition that begins at `start`."""
    return start + (OLD_WIDTH if start < OLD else WIDTHS[table])


def span_of(name: str) -> tuple[str, int, int | None]:
    """The table, the start, and the class of the partition with this name (None: of no single class)."""
    found = PARTITION_NAME.fullmatch(name)
    assert found is not None, name
    day = found["day"]
    start = to_micros(to_datetime(0).replace(year=int(day[:4]), month=int(day[4:6]), day=int(day[6:])))
    return found["table"], start, None if found["class"] is None else int(found["class"])


def attach(name: str, table: str, start: int) -> str:
    """SQL that makes the table `name` the partition that begins at `start`."""
    bounds = [to_datetime(at).isoformat() for at in (start, end_of(table, start))]
    return (
        f"ALTER TABLE modelmeter.{table} ATTACH PARTITION modelmeter.{name} "
        f"FOR VALUES FROM ('{bounds[0]}') TO ('{bounds[1]}')"
    )


def _create(table: str, start: int, class_id: int, leaves: list[int]) -> str:
    """SQL that makes one partition. ATTACH, unlike CREATE ... PARTITION OF, waits for no writer of the table."""
    name = f"modelmeter.{table}_{to_datetime(start):%Y%m%d}"

    def leaf(number: int) -> str:
        return f"""
            CREATE TABLE {name}_c{number} (LIKE modelmeter.{table} INCLUDING ALL);
            ALTER TABLE {name} ATTACH PARTITION {name}_c{number} FOR VALUES IN ({number});"""

    return f"""
        DO $$ BEGIN
            IF to_regclass('{name}') IS NULL THEN
                IF EXISTS (SELECT FROM modelmeter.retention_class) THEN
                    CREATE TABLE {name} (LIKE modelmeter.{table} INCLUDING ALL) PARTITION BY LIST (class);
                    {"".join(leaf(number) for number in leaves)}
                ELSE
                    CREATE TABLE {name} (LIKE modelmeter.{table} INCLUDING ALL);
                END IF;
                {attach(name.removeprefix("modelmeter."), table, start)};
            ELSIF (SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('{name}'))
                AND to_regclass('{name}_c{class_id}') IS NULL THEN
                {leaf(class_id)}
            END IF;
        END $$"""
