"""The dead letters: messages that could not be stored, kept whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from modelmeter.errors import Unavailable
from modelmeter.store.sql import load

SQL = load("dead_letters.sql")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: int
    died_at: datetime
    events: int
    bytes: int
    reason: str


class DeadLetters:
    """Each call is a connection and a transaction of its own."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        try:
            return psycopg.connect(self._conninfo, connect_timeout=5)
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database is away: {str(error).strip()}") from None

    def newest(self) -> list[DeadLetter]:
        with self._connect() as connection:
            return [DeadLetter(*row) for row in connection.execute(SQL["list"])]  # type: ignore[arg-type]

    def retry(self, ids: Sequence[int] | None) -> int:
        """Back onto the queue (all, when `ids` is None); how many."""
        with self._connect() as connection:
            return connection.execute(SQL["retry"], {"ids": None if ids is None else [*ids]}).rowcount

    def read(self, ids: Sequence[int] | None) -> Iterator[tuple[int, int, bytes]]:
        """Id, events and payload of each (all, when `ids` is None), one at a time."""
        with self._connect() as connection:
            found = connection.execute(SQL["ids"], {"ids": None if ids is None else [*ids]}).fetchall()
            for (letter_id,) in found:
                yield from connection.execute(SQL["read"], {"id": letter_id}, binary=True)

    def drop(self, ids: Sequence[int] | None) -> int:
        with self._connect() as connection:
            return connection.execute(SQL["drop"], {"ids": None if ids is None else [*ids]}).rowcount
