"""Rows for Postgres' binary COPY, made column-wise (https://www.postgresql.org/docs/current/sql-copy.html)."""

import itertools
import struct
from collections.abc import Iterable

import numpy as np

from modelmeter.chunk import Chunk
from modelmeter.rollup import FIELDS, Rollups

POSTGRES_EPOCH = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: where Postgres counts its timestamps from."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_INT4_OID, _BYTEA_OID = 23, 17


def _rollup_dtype() -> np.dtype[np.void]:
    """One row up to the sketch's length: every field is preceded by its own length."""
    types = {
        "stream": ">i4",
        "metric": ">i4",
        "sum": ">f8",
        "deviation": ">f8",
        "min": ">f8",
        "max": ">f8",
        "last": ">f8",
    }
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name in FIELDS:
        fields += [(f"{name}_length", ">i4"), (name, types.get(name, ">i8"))]
    return np.dtype([*fields, ("sketch_length", ">i4")])


_ROLLUP = _rollup_dtype()
_INSTANTS = ("window", "first_at", "last_at")


def rollup_rows(rollups: Rollups, class_id: int | None = None) -> bytes:
    """All rows, with header and trailer, for copy_rollups; with the class when it is given."""
    rows = np.zeros(len(rollups), _ROLLUP)
    ending = b"" if class_id is None else struct.pack(">ih", 2, class_id)
    rows["fields"] = len(FIELDS) + 1 + bool(ending)
    for name in FIELDS:
        column = getattr(rollups, name)
        rows[f"{name}_length"] = _ROLLUP[name].itemsize
        rows[name] = column - POSTGRES_EPOCH if name in _INSTANTS else column
    rows["sketch_length"] = [len(data) for data in rollups.sketch]
    fixed, size = rows.tobytes(), _ROLLUP.itemsize
    parts = [HEADER]
    for number, data in enumerate(rollups.sketch):
        parts.append(fixed[number * size : (number + 1) * size])
        parts.append(data)
        if ending:
            parts.append(ending)
    parts.append(TRAILER)
    return b"".join(parts)


def rollups_of(data: bytes) -> Rollups:
    """The rollups in the bytes of a COPY TO; the inverse of rollup_rows."""
    offsets, sketches = [], []
    at, size = len(HEADER), _ROLLUP.itemsize
    end = len(data) - len(TRAILER)
    while at < end:
        offsets.append(at)
        at += size
        length = int.from_bytes(data[at - 4 : at], "big")
        sketches.append(data[at : at + length])
        at += length
    octets = np.frombuffer(data, np.uint8)
    where = np.asarray(offsets, np.intp)[:, None] + np.arange(size)
    rows = octets[where].view(_ROLLUP).ravel()
    columns = {name: rows[name].astype(_ROLLUP[name].newbyteorder("=")) for name in FIELDS}
    for name in _INSTANTS:
        columns[name] += POSTGRES_EPOCH
    return Rollups(**columns, sketch=sketches)


def chunk_rows(chunks: Iterable[Chunk], classes: Iterable[int] | None = None) -> bytes:
    """All rows, with header and trailer, for copy_chunks; `classes` has the class of each, None: 0."""
    parts = [HEADER]
    for chunk, class_id in zip(chunks, itertools.repeat(0) if classes is None else classes, strict=False):
        metrics, columns = chunk.metrics, chunk.columns
        parts.append(
            struct.pack(
                ">hiiiqiqiii?iiiiii",
                8,
                4,
                chunk.stream_id,
                8,
                chunk.start - POSTGRES_EPOCH,
                8,
                chunk.end - POSTGRES_EPOCH,
                4,
                chunk.count,
                1,
                chunk.minutely,
                20 + 8 * len(metrics),
                1,
                0,
                _INT4_OID,
                len(metrics),
                1,
            )
        )
        parts.extend(struct.pack(">ii", 4, metric) for metric in metrics)
        parts.append(
            struct.pack(">iiiiii", 20 + sum(4 + len(data) for data in columns), 1, 0, _BYTEA_OID, len(columns), 1)
        )
        for data in columns:
            parts.append(struct.pack(">i", len(data)))
            parts.append(data)
        parts.append(struct.pack(">ih", 2, class_id))
    parts.append(TRAILER)
    return b"".join(parts)
