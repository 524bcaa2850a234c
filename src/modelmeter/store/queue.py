"""The queue in Postgres: a message is a row, claim and store commit together.

The table has four slots; the clock decides which is written. Claimed rows are deleted, and a slot that is empty is
truncated in its turn: vacuum has nothing to do, and a long transaction elsewhere makes nothing grow.
"""

import asyncio
import contextlib
from typing import Any, TypeAlias

import psycopg
from psycopg import AsyncConnection

from modelmeter.errors import Unavailable
from modelmeter.queue import Backlog
from modelmeter.store.sql import load
from modelmeter.store.writer import bury

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("queue.sql")


class PostgresProducer:
    """Inserts, each a commit of its own, on a few connections; reconnects by itself."""

    def __init__(self, conninfo: str, connections: int = 2) -> None:
        self._conninfo = conninfo
        self._idle: asyncio.LifoQueue[AsyncConnection[tuple[Any, ...]] | None] = asyncio.LifoQueue()
        for _ in range(connections):
            self._idle.put_nowait(None)

    async def _run(self, sql: bytes, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        connection = await self._idle.get()
        try:
            if connection is None or connection.closed:
                connection = await AsyncConnection.connect(
                    self._conninfo, autocommit=True, connect_timeout=5, application_name="modelmeter queue"
                )
            cursor = await connection.execute(sql, parameters, prepare=True, binary=True)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if connection is not None:
                with contextlib.suppress(psycopg.Error):
                    await connection.close()
            connection = None
            if isinstance(error, psycopg.errors.UndefinedTable):
                raise Unavailable("the schema is not there yet; run: modelmeter migrate") from None
            raise Unavailable(f"the database is away: {_reason(error)}", retry_after_seconds=1) from error
        except BaseException:
            if connection is not None:  # cancelled in the middle: the connection's state is unknown
                with contextlib.suppress(psycopg.Error):
                    await connection.close()
            connection = None
            raise
        finally:
            self._idle.put_nowait(connection)

    @property
    def limit_bytes(self) -> int:
        """Postgres' largest value, and some room."""
        return 1_000_000_000

    async def enqueue(self, payload: bytes, events: int) -> None:
        await self._run(SQL["enqueue"], (events, len(payload), payload))

    async def backlog(self) -> Backlog:
        return Backlog(*(await self._run(SQL["backlog"], ()))[0])

    async def close(self) -> None:
        while not self._idle.empty():
            connection = self._idle.get_nowait()
            if connection is not None:
                await connection.close()


class PostgresClaim:
    """Messages taken in an open transaction."""

    def __init__(self, connection: Connection, rows: list[tuple[int, bytes]]) -> None:
        self.connection = connection
        self.payloads = [payload for _, payload in rows]
        self._events = [events for events, _ in rows]

    def fail(self, index: int, reason: str) -> None:
        bury(self.connection, self.payloads[index], self._events[index], reason)

    def complete(self) -> None:
        self.connection.commit()

    def release(self) -> None:
        self.connection.rollback()


class PostgresConsumer:
    """Claims on one connection, one claim at a time."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Connection | None = None

    def _connect(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._conninfo, connect_timeout=5, application_name="modelmeter worker")
        return self._connection

    def claim(self, limit_events: int, limit_bytes: int, limit_messages: int) -> PostgresClaim | None:
        """Some messages within the limits (at least one, if there is one); None when there are none."""
        connection = self._connect()
        picked = connection.execute(SQL["pick"], (limit_messages,), prepare=True).fetchall()
        while (fitting := _fitting(picked, limit_events, limit_bytes)) < len(picked):
            connection.rollback()  # what does not fit is for the others
            picked = connection.execute(SQL["pick"], (fitting,), prepare=True).fetchall()
        if not picked:
            connection.rollback()
            return None
        ids = [message_id for message_id, *_ in picked]
        slots = {slot for _, slot, *_ in picked}
        rows = connection.execute(SQL["take"], (ids, list(slots)), prepare=True, binary=True).fetchall()
        return PostgresClaim(connection, rows)

    def backlog(self) -> Backlog:
        connection = self._connect()
        row = connection.execute(SQL["backlog"]).fetchone()
        connection.rollback()
        assert row is not None
        return Backlog(*row)

    def tidy(self) -> None:
        """Truncate the slots whose turn it is and that are empty; never waits for a lock."""
        with psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5) as connection:
            for (slot,) in connection.execute(SQL["idle_slots"]).fetchall():
                with contextlib.suppress(psycopg.errors.LockNotAvailable), connection.transaction():
                    table = f"modelmeter.queue_{int(slot)}"
                    connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT".encode())
                    row = connection.execute(f"SELECT EXISTS (SELECT FROM {table})".encode()).fetchone()
                    if row == (False,):
                        connection.execute(f"TRUNCATE {table}".encode())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresSteward:
    """Looks at and empties the table: `modelmeter queue ...`."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def create(self, *, dry_run: bool) -> list[str]:  # noqa: ARG002  the contract's
        """Nothing: the table comes with `modelmeter migrate`."""
        return []

    def status(self) -> dict[str, object]:
        with self._connect() as connection:
            row = connection.execute(SQL["table_bytes"]).fetchone()
        assert row is not None
        return {"queue": "Postgres, the same database", "bytes on disk": row[0]}

    def purge(self, *, dry_run: bool) -> int:
        """How many messages were dropped, or would be; those in the hands of workers are not."""
        with self._connect() as connection:
            count = connection.execute(SQL["purge"]).rowcount
            if dry_run:
                connection.rollback()
        return count

    def _connect(self) -> Connection:
        try:
            return psycopg.connect(self._conninfo, connect_timeout=5, application_name="modelmeter queue")
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database is away: {_reason(error)}") from None


def _fitting(picked: list[tuple[int, int, int, int]], limit_events: int, limit_bytes: int) -> int:
    """How many of these, from the first on, are within the limits; one at least."""
    events = size = 0
    for number, (_, _, its_events, its_bytes) in enumerate(picked):
        events += its_events
        size += its_bytes
        if number and (events > limit_events or size > limit_bytes):
            return number
    return len(picked)


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
