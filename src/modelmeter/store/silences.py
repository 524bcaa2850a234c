"""Silences in Postgres."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from modelmeter.errors import Busy, Unavailable
from modelmeter.matcher import Matcher
from modelmeter.silence import Silence
from modelmeter.store.sql import load
from modelmeter.window import DAY, to_datetime, to_micros

SQL = load("silences.sql")
_SHOWN = 1000

Connection = psycopg.Connection[tuple[Any, ...]]


def _silence(row: Sequence[Any]) -> Silence:
    matchers = tuple(Matcher(one["name"], one["operator"], one["value"]) for one in row[1])
    return Silence(row[0], matchers, row[2], row[3], *map(to_micros, row[4:7]))


def active_silences(connection: Connection, now: int) -> list[Silence]:
    """Those that silence at `now`."""
    return [_silence(row) for row in connection.execute(SQL["active"], {"now": to_datetime(now)})]


class Silences:
    """Each call is a connection and a transaction of its own. Unavailable when the database is away."""

    def __init__(self, conninfo: str, limit: int, history_days: float) -> None:
        self._conninfo = conninfo
        self._limit = limit
        self._history = int(history_days * DAY)

    def _connect(self) -> Connection:
        try:
            return psycopg.connect(self._conninfo, connect_timeout=5, application_name="modelmeter silences")
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database is away: {str(error).strip()}") from None

    def newest(self, now: int) -> list[Silence]:
        """All that are not long over."""
        with self._connect() as connection:
            rows = connection.execute(
                SQL["list"], {"since": to_datetime(now - self._history), "limit": self._limit + _SHOWN}
            )
            return [_silence(row) for row in rows]

    def active(self, now: int) -> list[Silence]:
        with self._connect() as connection:
            return active_silences(connection, now)

    def one(self, silence_id: UUID) -> Silence | None:
        with self._connect() as connection:
            row = connection.execute(SQL["one"], {"id": silence_id}).fetchone()
            return _silence(row) if row else None

    def put(self, silence: Silence, now: int, *, new: bool) -> UUID | None:
        """Store it; None when it is not new and not there. Busy when there are too many."""
        row = {
            "id": silence.id,
            "matchers": Jsonb(
                [{"name": one.name, "operator": one.operator, "value": one.value} for one in silence.matchers]
            ),
            "author": silence.author,
            "comment": silence.comment,
            "starts_at": to_datetime(silence.starts_at),
            "ends_at": to_datetime(silence.ends_at),
            "now": to_datetime(now),
        }
        with self._connect() as connection:
            if new:
                counted = connection.execute(SQL["count"], {"now": to_datetime(now)}).fetchone()
                if counted and counted[0] >= self._limit:
                    raise Busy(f"there are {counted[0]} silences, the limit (MODELMETER_SILENCE_LIMIT); end some first")
            found = connection.execute(SQL["put" if new else "change"], row).fetchone()
            return found[0] if found else None

    def expire(self, silence_id: UUID, now: int) -> bool:
        """End it now; whether there is such a silence."""
        with self._connect() as connection:
            connection.execute(SQL["expire"], {"id": silence_id, "now": to_datetime(now)})
            return connection.execute(SQL["one"], {"id": silence_id}).fetchone() is not None
