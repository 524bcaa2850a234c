"""The table of corrections, and the lock by which they and those who store take turns.

A worker's transaction shares the lock and then reads the corrections; a correction is recorded under the exclusive
lock. So each batch was either committed before the correction was recorded, and is found, or its worker knows of it.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import psycopg

from modelmeter.batch import Labels
from modelmeter.correction import Correction, parse_match
from modelmeter.store.sql import load
from modelmeter.window import Span, to_datetime, to_micros

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("correction.sql")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A correction in the table: chunks stored before `recorded_at` are concerned."""

    correction_id: int
    correction: Correction
    recorded_at: datetime
    is_applied: bool
    streams: int
    removed: int


def share(connection: Connection) -> None:
    """From here to the end of the transaction, no correction is recorded."""
    connection.execute(SQL["share"], prepare=True)


def exclude(connection: Connection) -> None:
    """From here to the end of the transaction, nobody stores. Waits for those who do."""
    connection.execute(SQL["exclude"])


def is_pending(connection: Connection) -> bool:
    """Whether a correction waits to be applied."""
    return connection.execute(SQL["is_pending"], prepare=True).fetchone() == (True,)


def read_since(connection: Connection, received_at: int) -> list[Correction]:
    """The corrections that concern what was received then, or later."""
    rows = connection.execute(SQL["since"], (to_datetime(received_at),), prepare=True).fetchall()
    return [_correction(row) for row in rows]


def read_pending(connection: Connection) -> list[int]:
    """The ids of those that are not applied, the oldest first."""
    return [number for (number,) in connection.execute(SQL["pending"])]


def read(connection: Connection, correction_id: int) -> Recorded:
    """One that is there."""
    row = connection.execute(SQL["read"], (correction_id,)).fetchone()
    assert row is not None
    return Recorded(correction_id, _correction(row[:8]), *row[8:])


def record(connection: Connection, correction: Correction, added: int) -> int:
    """Its id. In the transaction that holds the exclusive lock."""
    prints = None if correction.match is not None else [uuid.UUID(bytes=raw) for raw in sorted(correction.fingerprints)]
    scope = {
        "kind": correction.kind,
        "received_at": to_datetime(correction.received_at),
        "match": correction.match,
        "fingerprints": prints,
        "start": to_datetime(correction.span.start),
        "end": to_datetime(correction.span.end),
        "author": correction.author,
        "reason": correction.reason,
        "added": added,
    }
    row = connection.execute(SQL["record"], scope).fetchone()
    assert row is not None
    return int(row[0])


def find_streams(connection: Connection, correction: Correction) -> Mapping[int, tuple[Labels, int]]:
    """The streams that it touches: id to labels and class."""
    if correction.match is None:
        prints = [uuid.UUID(bytes=raw) for raw in correction.fingerprints]
        rows = connection.execute(SQL["streams_by_fingerprint"], (prints,)).fetchall()
    else:
        names = [one.value for one in parse_match(correction.match) if (one.name, one.operator) == ("name", "=")]
        rows = connection.execute(SQL["streams"], {"name": names[0] if names else None}).fetchall()
    found = [(number, tuple(sorted(labels.items())), class_id) for number, labels, class_id in rows]
    mask = correction.touches([labels for _, labels, _ in found])
    return {one[0]: (one[1], one[2]) for one, touched in zip(found, mask.tolist(), strict=True) if touched}


def _correction(row: tuple[Any, ...]) -> Correction:
    kind, received_at, match, prints, start, end, author, reason = row
    return Correction(
        kind,
        to_micros(received_at),
        match,
        frozenset(one.bytes for one in prints or ()),
        Span(to_micros(start), to_micros(end)),
        author,
        reason,
    )
