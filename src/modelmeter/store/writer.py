"""What the worker writes: the ledger, streams and metrics, chunks and rollup partials."""

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import psycopg

from modelmeter.batch import Labels, fingerprint
from modelmeter.chunk import Chunk
from modelmeter.rollup import Rollups
from modelmeter.store.copy import chunk_rows, rollup_rows
from modelmeter.store.partitions import Partitions
from modelmeter.store.sql import load

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("write.sql")


class Catalog:
    """The ids of streams and metrics, remembered. New ones are made on a connection of their own.

    A stream made for a batch that is then not stored stays, empty; that harms nothing.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Connection | None = None
        self._streams: dict[Labels, int] = {}
        self._metrics: dict[str, int] = {}
        self._partitions = Partitions()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def forget(self) -> None:
        """After any error: trust nothing that was remembered."""
        self.close()
        self._streams.clear()
        self._metrics.clear()
        self._partitions.forget()

    def _connect(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._conninfo, autocommit=True, application_name="modelmeter catalog")
        return self._connection

    def stream_ids(self, streams: Sequence[Labels]) -> np.ndarray[Any, np.dtype[np.int32]]:
        """The id of each, shape (len(streams),)."""
        known = self._streams
        missing = [labels for labels in streams if labels not in known]
        if missing:
            if len(known) > 1_000_000:
                known.clear()
                missing = list(streams)
            by_print = {uuid.UUID(bytes=fingerprint(labels)): labels for labels in missing}
            documents = [json.dumps(dict(labels)) for labels in by_print.values()]
            connection = self._connect()
            connection.execute(SQL["add_streams"], (list(by_print), documents))
            for found, stream_id in connection.execute(SQL["find_streams"], (list(by_print),)):
                known[by_print[found]] = stream_id
        return np.fromiter(map(known.__getitem__, streams), np.int32, len(streams))

    def metric_ids(self, names: Iterable[str]) -> list[int]:
        known = self._metrics
        names = list(names)
        missing = [name for name in names if name not in known]
        if missing:
            connection = self._connect()
            connection.execute(SQL["add_metrics"], (missing,))
            known.update(connection.execute(SQL["find_metrics"], (missing,)).fetchall())
        return [known[name] for name in names]

    def make_partitions(self, instants: np.ndarray[Any, np.dtype[np.int64]], *tables: str) -> None:
        """See that these instants (microseconds) have a place in `tables`."""
        wanted = self._partitions.missing(instants, tables)
        if wanted:
            self._partitions.make(self._connect(), wanted)


def remember_batches(connection: Connection, ids: Iterable[bytes]) -> set[bytes]:
    """Take ids into the ledger; those that are there already (by now, or by a worker that just committed) come back."""
    wanted = {uuid.UUID(bytes=raw) for raw in ids}
    new = {row[0] for row in connection.execute(SQL["remember_batches"], (list(wanted),), prepare=True)}
    return {known.bytes for known in wanted - new}


def write_chunks(connection: Connection, chunks: Sequence[Chunk]) -> None:
    """In the transaction that `connection` has open; their partitions must stand."""
    if chunks:
        with connection.cursor().copy(SQL["copy_chunks"]) as copy:
            copy.write(chunk_rows(chunks))


def write_rollups(connection: Connection, rollups: Rollups, table: str) -> None:
    """In the transaction that `connection` has open; their partitions must stand."""
    if len(rollups):
        with connection.cursor().copy(SQL["copy_rollups"].replace(b"{table}", table.encode())) as copy:
            copy.write(rollup_rows(rollups))


def bury(connection: Connection, payload: bytes, events: int, reason: str) -> None:
    """A message that cannot be stored goes to the dead letters, in the transaction that `connection` has open."""
    readable = reason.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    connection.execute(SQL["bury"], (readable, events, payload))
