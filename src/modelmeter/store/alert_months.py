"""The partitions of the history of alerts, one a month; what comes without one waits in the default partition."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import psycopg
from psycopg.errors import LockNotAvailable

from modelmeter.store.sql import load

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("retention.sql")

_TABLE = "modelmeter.alert_history"
_HASTE = "50ms"  # a default partition allows no way that locks nobody out


def make_months(connection: Connection, now: datetime) -> int:
    """This month's and the next, and those of what lies in the default partition; how many were made."""
    standing = {name for (name,) in connection.execute(SQL["months"])}
    this = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    wanted = {this, _next(this)} | {month for (month,) in connection.execute(SQL["months_without_partition"])}
    made = 0
    for month in sorted(wanted):
        name = f"alert_history_{month:%Y%m}"
        if name in standing:
            continue
        start, end = month.isoformat(), _next(month).isoformat()
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{_HASTE}'".encode())
                connection.execute(f"LOCK TABLE {_TABLE}_default IN ACCESS EXCLUSIVE MODE".encode())
                connection.execute(
                    f"CREATE TABLE modelmeter.{name} (LIKE {_TABLE} INCLUDING ALL EXCLUDING IDENTITY)".encode()
                )
                connection.execute(
                    f"WITH moved AS (DELETE FROM {_TABLE}_default WHERE at >= '{start}' AND at < '{end}' RETURNING *)"
                    f" INSERT INTO modelmeter.{name} SELECT * FROM moved".encode()
                )
                attach = f"ALTER TABLE {_TABLE} ATTACH PARTITION modelmeter.{name}"
                connection.execute(f"{attach} FOR VALUES FROM ('{start}') TO ('{end}')".encode())
        except LockNotAvailable:
            continue  # it stays in the default partition until the next time
        made += 1
    return made


def drop_months(connection: Connection, before: datetime) -> list[str]:
    """Drop the months that end before this; their names."""
    gone = []
    for (name,) in connection.execute(SQL["months"]).fetchall():
        month = datetime.strptime(name[-6:], "%Y%m").replace(tzinfo=UTC)
        if _next(month) > before:
            continue
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{_HASTE}'".encode())
                connection.execute(f"ALTER TABLE {_TABLE} DETACH PARTITION modelmeter.{name}".encode())
                connection.execute(f"DROP TABLE modelmeter.{name}".encode())
        except LockNotAvailable:
            continue
        gone.append(name)
    return gone


def _next(month: datetime) -> datetime:
    return (month + timedelta(days=31)).replace(day=1)
