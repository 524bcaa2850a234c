"""The partitioner: partitions are made ahead of time, what is over its retention is retired, and then dropped.

The borders move in one run, their partitions go in a later one: by then every worker has seen the border. Killed
anywhere, the next run goes on. Nothing that reads or writes waits for it.
"""

import logging
import time
from typing import Any, TypeAlias

import numpy as np
import psycopg

from modelmeter import telemetry
from modelmeter.config import Config
from modelmeter.retention import Keep, Retention, read_retention
from modelmeter.store.alert_months import drop_months, make_months
from modelmeter.store.expiry import Expiry, drop
from modelmeter.store.partitions import HELD, Partitions, start_of
from modelmeter.store.retirement import declare_classes, read_keeps, retire
from modelmeter.window import DAY, to_datetime

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

log = logging.getLogger(__name__)

_AHEAD_DAYS = 3
_DROPS_AT_ONCE = 16


class Partitioner:
    """`run_once` does what is due; call it again soon while it returns True. Only one keeper's runs."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._retention = read_retention(config)
        self._connection: Connection | None = None
        self._partitions = Partitions()
        self._expiry = Expiry()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def run_once(self, now: int | None = None) -> bool:
        """At `now` (microseconds; the clock's when None). Whether there is more to drop."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._config.database_url,
                autocommit=True,
                connect_timeout=5,
                application_name="modelmeter partitioner",
            )
        now = time.time_ns() // 1000 if now is None else now
        connection = self._connection
        try:
            dropped, left = self._drop(connection)
            moved = retire_over(connection, self._retention, now)
            self._make_ahead(connection, now)
            make_months(connection, to_datetime(now))
            if self._retention.history is not None and now > self._retention.history:
                for name in drop_months(connection, to_datetime(now - self._retention.history)):
                    log.info("dropped %s, over its retention", name)
        except BaseException:
            self._partitions.forget()
            connection.close()
            raise
        return moved or (left and dropped > 0)

    def _make_ahead(self, connection: Connection, now: int) -> None:
        days = now + DAY * np.arange(_AHEAD_DAYS + 1)
        for class_id in read_keeps(connection, self._retention):
            wanted = self._partitions.missing(days, HELD, class_id)
            if wanted:
                self._partitions.make(connection, wanted)

    def _drop(self, connection: Connection) -> tuple[int, bool]:
        """How many were dropped, and whether some are left."""
        found = self._expiry.find(connection)
        count = 0
        for one in found[:_DROPS_AT_ONCE]:
            began = time.monotonic()
            if drop(connection, one):
                count += 1
                telemetry.PARTITIONS_DROPPED.labels(HELD[one.table]).inc()
                log.info("dropped %s, over its retention, in %.3f s", one.name, time.monotonic() - began)
            else:
                log.warning("%s is over its retention and in use; trying again", one.name)
                break  # only one partition of a table can be between attached and detached
        return count, count < len(found)


def retire_over(connection: Connection, retention: Retention, now: int) -> bool:
    """Declare the classes and move every border to where the retention has it at `now`. Whether one moved."""
    declare_classes(connection, retention)
    borders = {}
    for class_id, keep in read_keeps(connection, retention).items():
        for kind, border in borders_of(keep, now).items():
            borders[class_id, kind] = border
    return retire(connection, borders)


def retire_now(conninfo: str, retention: Retention) -> None:
    """The same at this moment, on a connection of its own."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
        retire_over(connection, retention, time.time_ns() // 1000)


def borders_of(keep: Keep, now: int) -> dict[str, int]:
    """For each kind that is not kept for ever, the start of the partition that reaches back as far as it is kept."""
    borders: dict[str, int] = {}
    for table, kind in HELD.items():
        span = keep[kind]
        if span is not None and now > span:
            borders[kind] = start_of(table, now - span)
    return borders
