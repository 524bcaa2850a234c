"""What the queues outside need of the database: a transaction to store in, dead letters, and a place for parts."""

from typing import Any, TypeAlias

import psycopg

from modelmeter.queue.outside import Part
from modelmeter.store.sql import load
from modelmeter.store.writer import bury

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("outside.sql")


class OutsideDatabase:
    """See modelmeter.queue.outside.Database."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def connect(self) -> Connection:
        return psycopg.connect(self._conninfo, connect_timeout=5, application_name="modelmeter worker")

    def bury(self, connection: Connection, payload: bytes, events: int, reason: str) -> None:
        bury(connection, payload, events, reason)

    def join(self, connection: Connection, part: Part, payload: bytes, events: int) -> tuple[bytes, int] | None:
        """Keep the part; the whole message and its events when this was the last one missing.

        A part that comes again after its message was whole starts a set that is never whole; it is dropped in time.
        """
        connection.execute(SQL["lock_message"], (part.id,))
        connection.execute(SQL["keep_part"], (part.id, part.number, events, payload))
        row = connection.execute(SQL["count_parts"], (part.id,)).fetchone()
        assert row is not None
        if row[0] < part.count:
            return None
        rows = sorted(connection.execute(SQL["take_parts"], (part.id,), binary=True).fetchall())
        return b"".join(piece for _, _, piece in rows), sum(its_events for _, its_events, _ in rows)

    def tidy(self) -> None:
        with psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5) as connection:
            connection.execute(SQL["drop_old_parts"])
