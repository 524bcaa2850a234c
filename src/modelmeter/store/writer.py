"""What the worker writes: the ledger, streams and metrics, chunks and rollup partials."""

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import psycopg

from modelmeter.batch import Labels, fingerprint
from modelmeter.chunk import Chunk
from modelmeter.retention import Retention
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

    def __init__(self, conninfo: str, retention: Retention | None = None) -> None:
        """`retention` says of which class a stream is that is first seen; None: of no class."""
        self._conninfo = conninfo
        self._retention = retention
        self._connection: Connection | None = None
        self._streams: dict[Labels, int] = {}
        self._classes: dict[int, int] = {}
        self._has_classes = True
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
        self._classes.clear()
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
                self._classes.clear()
                missing = list(streams)
            by_print = {uuid.UUID(bytes=fingerprint(labels)): labels for labels in missing}
            documents = [json.dumps(dict(labels)) for labels in by_print.values()]
            classes = self._retention.classify(list(by_print.values())) if self._retention else [None] * len(by_print)
            connection = self._connect()
            connection.execute(SQL["add_streams"], (list(by_print), documents, classes))
            for found, stream_id, class_id in connection.execute(SQL["find_streams"], (list(by_print),)):
                known[by_print[found]] = stream_id
                if self._has_classes:
                    self._classes[stream_id] = class_id
        return np.fromiter(map(known.__getitem__, streams), np.int32, len(streams))

    def class_ids(self, streams: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.int16]] | None:
        """The class of each of these streams, shape (len(streams),); None when there are no classes at all."""
        if not self._has_classes:
            return None
        ids = streams.tolist()
        missing = list({one for one in ids if one not in self._classes})
        if missing:
            self._classes.update(dict.fromkeys(missing, 0))
            self._classes.update(self._connect().execute(SQL["find_classes"], (missing,)).fetchall())
        return np.fromiter(map(self._classes.__getitem__, ids), np.int16, len(ids))

    def metric_ids(self, names: Iterable[str]) -> list[int]:
        known = self._metrics
        names = list(names)
        missing = [name for name in names if name not in known]
        if missing:
            connection = self._connect()
            connection.execute(SQL["add_metrics"], (missing,))
            known.update(connection.execute(SQL["find_metrics"], (missing,)).fetchall())
        return [known[name] for name in names]

    def make_partitions(self, instants: np.ndarray[Any, np.dtype[np.int64]], *tables: str, class_id: int = 0) -> None:
        """See that these instants (microseconds) have a place in `tables`, those that are not retired there."""
        wanted = self._partitions.missing(instants, tables, class_id)
        if wanted:
            self._partitions.make(self._connect(), wanted)

    def retired_until(self, table: str, class_id: int = 0) -> int:
        """Before this (microseconds) nothing of the class may be written to the table; 0: anything may."""
        return self._partitions.retired_until(table, class_id)

    def look(self) -> None:
        """See now and then what is retired by now, and whether there are classes."""
        if self._partitions.needs_look():
            connection = self._connect()
            self._partitions.look(connection)
            self._has_classes = connection.execute(SQL["has_classes"]).fetchone() == (True,)


def remember_batches(connection: Connection, ids: Iterable[bytes]) -> set[bytes]:
    """Take ids into the ledger; those that are there already (by now, or by a worker that just committed) come back."""
    wanted = {uuid.UUID(bytes=raw) for raw in ids}
    new = {row[0] for row in connection.execute(SQL["remember_batches"], (list(wanted),), prepare=True)}
    return {known.bytes for known in wanted - new}


def write_chunks(connection: Connection, chunks: Sequence[Chunk], classes: Sequence[int] | None = None) -> None:
    """In the transaction that `connection` has open; their partitions must stand. `classes` None: all of class 0."""
    if chunks:
        with connection.cursor().copy(SQL["copy_chunks"]) as copy:
            copy.write(chunk_rows(chunks, classes))


def write_rollups(connection: Connection, rollups: Rollups, table: str, class_id: int | None = None) -> None:
    """In the transaction that `connection` has open; their partitions must stand. Partials have no class."""
    if len(rollups):
        column = b"" if class_id is None else b", class"
        query = SQL["copy_rollups"].replace(b"{table}", table.encode()).replace(b"{class}", column)
        with connection.cursor().copy(query) as copy:
            copy.write(rollup_rows(rollups, class_id))


def bury(connection: Connection, payload: bytes, events: int, reason: str) -> None:
    """A message that cannot be stored goes to the dead letters, in the transaction that `connection` has open."""
    readable = reason.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    connection.execute(SQL["bury"], (readable, events, payload))
