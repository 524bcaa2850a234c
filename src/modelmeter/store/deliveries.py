"""The outbox of messages in Postgres, and the history of what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from modelmeter.errors import Unavailable
from modelmeter.notification import Message, message_of, payload
from modelmeter.store.sql import load
from modelmeter.window import to_datetime, to_micros

SQL = load("deliveries.sql")

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that this process holds for a time. `attempts` counts this one too."""

    id: int
    key: str
    destination: str
    kind: str
    created_at: int
    attempts: int
    why: str
    message: Message


@dataclass(frozen=True, slots=True)
class Line:
    """One message for those who ask: what waits, or what became of it. Times are microseconds."""

    id: str
    destination: str
    kind: str
    group_key: str
    why: str
    alerts: int
    attempts: int
    reason: str
    created_at: int
    at: int
    status: str


def put(connection: Connection, destination: str, kind: str, group: UUID, message: Message, now: int) -> None:
    connection.execute(
        SQL["put"],
        {
            "destination": destination,
            "kind": kind,
            "group": group,
            "why": message.why,
            "now": to_datetime(now),
            "message": Jsonb(payload(message)),
        },
    )


def refuse(connection: Connection, destination: str, kind: str, message: Message, reason: str, now: int) -> None:
    """Give up a message at once, with a line that says why."""
    connection.execute(
        SQL["refuse"],
        {
            "destination": destination,
            "kind": kind,
            "group_key": message.group_key,
            "why": message.why,
            "alerts": len(message.alerts),
            "reason": reason,
            "now": to_datetime(now),
        },
    )


def pending_counts(connection: Connection) -> dict[tuple[str, UUID], int]:
    return {(row[0], row[1]): row[2] for row in connection.execute(SQL["pending_counts"])}


def due_destinations(connection: Connection, now: int) -> list[str]:
    return [name for (name,) in connection.execute(SQL["due_destinations"], {"now": to_datetime(now)})]


def claim(connection: Connection, destination: str, now: int, until: int, limit: int) -> list[Delivery]:
    """Lease at most so many for one destination: nobody else has them before `until`."""
    rows = connection.execute(
        SQL["claim"],
        {"destination": destination, "now": to_datetime(now), "until": to_datetime(until), "limit": limit},
    )
    return sorted(
        (
            Delivery(row[0], str(row[1]), row[2], row[3], to_micros(row[4]), row[5], row[6], message_of(row[7]))
            for row in rows
        ),
        key=lambda one: one.id,
    )


def delay(connection: Connection, delivery: Delivery, at: int, reason: str) -> None:
    """To be tried again at `at`."""
    connection.execute(
        SQL["delay"], {"id": delivery.id, "attempts": delivery.attempts, "at": to_datetime(at), "reason": reason}
    )


def finish(connection: Connection, delivery_id: int, status: str, reason: str, now: int) -> bool:
    """Into the history; False when it is there already."""
    scope = {"id": delivery_id, "status": status, "reason": reason, "now": to_datetime(now)}
    return connection.execute(SQL["finish"], scope).rowcount > 0


def forget(connection: Connection, delivery_id: int) -> bool:
    return connection.execute(SQL["forget"], {"id": delivery_id}).rowcount > 0


def orphans(connection: Connection, known: Sequence[str], before: int) -> list[tuple[int, str]]:
    """Id and kind of what has waited since before `before` for a destination that is not known."""
    rows = connection.execute(SQL["orphans"], {"known": [*known], "before": to_datetime(before)})
    return [(row[0], row[1]) for row in rows]


def prune(connection: Connection, before: int, limit: int) -> None:
    """Forget lines from before an instant, and those beyond so many."""
    connection.execute(SQL["prune"], {"before": to_datetime(before)})
    connection.execute(SQL["prune_beyond"], {"limit": limit})


class Deliveries:
    """For those who ask. Each call is a connection of its own. Unavailable when the database is away."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def _connect(self) -> Connection:
        try:
            return psycopg.connect(self._conninfo, connect_timeout=5, application_name="modelmeter deliveries")
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database is away: {str(error).strip()}") from None

    def by_destination(self, since: int) -> list[dict[str, Any]]:
        """Counts for each destination; `delivered` and `given_up` since an instant."""
        found: dict[str, dict[str, Any]] = {}

        def entry(name: str, kind: str) -> dict[str, Any]:
            nothing = {"pending": 0, "retrying": 0, "oldest_pending_at": None, "delivered": 0, "given_up": 0}
            return found.setdefault(name, {"destination": name, "kind": kind, **nothing, "last_at": None})

        with self._connect() as connection:
            for name, kind, pending, retrying, oldest in connection.execute(SQL["by_destination"]):
                entry(name, kind).update(pending=pending, retrying=retrying, oldest_pending_at=to_micros(oldest))
            scope = {"since": to_datetime(since)}
            for name, kind, delivered, given_up, last in connection.execute(SQL["history_by_destination"], scope):
                entry(name, kind).update(delivered=delivered, given_up=given_up, last_at=to_micros(last))
        return sorted(found.values(), key=lambda one: one["destination"])

    def waiting(self, limit: int) -> list[Line]:
        """The oldest that wait; `at` is when each is tried next."""
        with self._connect() as connection:
            rows = connection.execute(SQL["waiting"], {"limit": limit}).fetchall()
        return [_line(row, "retrying" if row[7] else "pending") for row in rows]

    def history(self, status: str, limit: int) -> list[Line]:
        """The newest lines, of one status or ("") of all."""
        with self._connect() as connection:
            rows = connection.execute(SQL["history"], {"status": status, "limit": limit}).fetchall()
        return [_line(row, row[10]) for row in rows]


def _line(row: Sequence[Any], status: str) -> Line:
    return Line(
        str(row[0]),
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        to_micros(row[8]),
        to_micros(row[9]),
        status,
    )
