"""Partitions that no retention reaches back to: detached first, beside readers and writers, then dropped.

DETACH ... CONCURRENTLY locks nobody out: it waits for those who were there. Where it broke off, the next one goes on.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.errors import FeatureNotSupported, InternalError_, LockNotAvailable

from modelmeter.store.partitions import HELD, attach, end_of, span_of
from modelmeter.store.retirement import read_classes, read_retired
from modelmeter.store.sql import load

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("retention.sql")

_PATIENCE = "2s"  # for locks that stand in nobody's way while they are waited for
_HASTE = "50ms"  # for locks behind which others queue


@dataclass(frozen=True, slots=True)
class Expired:
    """A partition to be dropped; `parent` None: it is detached already.

    `foreign` are classes that are kept longer, of which it was seen to hold nothing.
    """

    name: str
    parent: str | None
    is_pending: bool
    table: str
    start: int
    foreign: frozenset[int] = frozenset()


class Expiry:
    """Remembers which partitions from before the classes hold events of a class that is kept longer."""

    def __init__(self) -> None:
        self._held: set[tuple[str, frozenset[int]]] = set()

    def find(self, connection: Connection) -> list[Expired]:
        """What may go, by the borders as they stand; detachments that broke off come first."""
        retired = read_retired(connection)
        classes = {0, *read_classes(connection).values()}
        rows = connection.execute(SQL["partitions"]).fetchall()
        leaves: dict[str, set[int]] = {}
        for name, _, parent, _ in rows:
            number = span_of(name)[2]
            if number is not None and parent is not None:
                leaves.setdefault(parent, set()).add(number)
        found: list[Expired] = []
        whole: set[str] = set()
        for name, has_leaves, parent, is_pending in rows:
            table, start, number = span_of(name)
            end = end_of(table, start)
            inside = {number} if number is not None else leaves.get(name, set()) if has_leaves else classes
            kept = frozenset(one for one in inside if end > retired.get((one, HELD[table]), 0))
            foreign: frozenset[int] = frozenset()
            if has_leaves and not inside and end > retired.get((0, HELD[table]), 0):
                continue
            if number is None and not has_leaves and kept and 0 not in kept:
                kept, foreign = (kept, foreign) if self._holds(connection, name, kept) else (foreign, kept)
            if not kept and parent not in whole:
                found.append(Expired(name, parent, is_pending, table, start, foreign))
                whole.add(name)
        return sorted(found, key=lambda one: (not one.is_pending, one.start, one.name))

    def _holds(self, connection: Connection, name: str, classes: frozenset[int]) -> bool:
        if (name, classes) not in self._held:
            if not _holds(connection, name, classes):
                return False
            self._held.add((name, classes))
        return True


def _holds(connection: Connection, name: str, classes: frozenset[int]) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM modelmeter.{} WHERE class = ANY(%s))").format(sql.Identifier(name))
    return connection.execute(query, (list(classes),)).fetchone() == (True,)


def drop(connection: Connection, expired: Expired) -> bool:
    """Detach and drop it; False when somebody is in the way: try again. `connection` is in autocommit mode."""
    name = sql.Identifier(expired.name)
    try:
        if expired.parent is not None:
            detach = sql.SQL("ALTER TABLE modelmeter.{} DETACH PARTITION modelmeter.{} {}")
            parent = sql.Identifier(expired.parent)
            connection.execute(f"SET lock_timeout = '{_PATIENCE}'".encode())
            try:
                how = sql.SQL("FINALIZE" if expired.is_pending else "CONCURRENTLY")
                connection.execute(detach.format(parent, name, how))
            except (FeatureNotSupported, InternalError_):  # Citus cannot do it concurrently
                connection.execute(f"SET lock_timeout = '{_HASTE}'".encode())
                connection.execute(detach.format(parent, name, sql.SQL("")))
        if expired.foreign and _holds(connection, expired.name, expired.foreign):
            connection.execute(attach(expired.name, expired.table, expired.start).encode())  # they came just now
            return False
        connection.execute(f"SET lock_timeout = '{_PATIENCE}'".encode())
        connection.execute(sql.SQL("DROP TABLE modelmeter.{}").format(name))
    except LockNotAvailable:
        return False
    finally:
        with contextlib.suppress(psycopg.Error):
            connection.execute("SET lock_timeout = 0")
    return True
