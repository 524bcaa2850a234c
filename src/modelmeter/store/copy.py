"""Rows for Postgres' binary COPY, made column-wise (https://www.postgresql.org/docs/current/sql-copy.html)."""

import itertools
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelmeter.chunk import Chunk
from modelmeter.packed import Packed
from modelmeter.rollup import FIELDS, Rollups

Buffer: TypeAlias = bytes | memoryview

POSTGRES_EPOCH = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: where Postgres counts its timestamps from."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_INT4_OID, _BYTEA_OID = 23, 17


NUMBER = "number"
"""A column beside those of a rollup: which part of a UNION a row comes from."""

_TYPES = {
    NUMBER: ">i4",
    "stream": ">i4",
    "metric": ">i4",
    "sum": ">f8",
    "deviation": ">f8",
    "min": ">f8",
    "max": ">f8",
    "last": ">f8",
}


@cache
def _rollup_dtype(columns: tuple[str, ...] = FIELDS) -> np.dtype[np.void]:
    """One row up to the sketch's length: every field is preceded by its own length."""
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name in columns:
        fields += [(f"{name}_length", ">i4"), (name, _TYPES.get(name, ">i8"))]
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


def rollups_of(blocks: Sequence[Buffer], columns: tuple[str, ...] = FIELDS) -> Rollups:
    """The rollups in the messages of a COPY TO of `columns` and the sketch; the other columns are zeros.

    The inverse of rollup_rows.
    """
    return numbered_rollups_of(blocks, columns)[0]


def numbered_rollups_of(blocks: Sequence[Buffer], columns: tuple[str, ...]) -> tuple[Rollups, NDArray[np.int64]]:
    """The same, and the NUMBER of each row; zeros where `columns` lack it.

    Postgres sends a message a row; other cuts between messages cost time, not more.
    """
    row = _rollup_dtype(columns)
    size = row.itemsize
    rows = [bytes(block) for block in blocks]
    if rows and rows[0].startswith(HEADER):
        rows[0] = rows[0].removeprefix(HEADER)
        rows = rows if rows[0] else rows[1:]
    if rows and rows[-1] == TRAILER:
        rows.pop()
    fixed = np.frombuffer(b"".join([one[:size] for one in rows]), np.uint8)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows)) - size
    if fixed.size != size * len(rows) or (fixed.view(row)["sketch_length"] != lengths).any():
        rows = _rows_of(b"".join(map(bytes, blocks)), size)
        fixed = np.frombuffer(b"".join([one[:size] for one in rows]), np.uint8)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows)) - size
    table = fixed.view(row)
    found = {
        name: table[name].astype(row[name].newbyteorder("="))
        if name in columns
        else np.zeros(len(rows), np.dtype(_TYPES.get(name, ">i8")).newbyteorder("="))
        for name in FIELDS
    }
    for name in _INSTANTS:
        if name in columns:
            found[name] += POSTGRES_EPOCH
    sketches = Packed(b"".join([one[size:] for one in rows]), np.cumsum(lengths) - lengths, lengths)
    numbers = table[NUMBER].astype(np.int64) if NUMBER in columns else np.zeros(len(rows), np.int64)
    return Rollups(**found, sketch=sketches), numbers


def _rows_of(data: bytes, size: int) -> list[bytes]:
    """The rows of a whole COPY, told apart by the lengths in it."""
    rows, at, end = [], len(HEADER), len(data) - len(TRAILER)
    while at < end:
        length = int.from_bytes(data[at + size - 4 : at + size], "big")
        rows.append(data[at : at + size + length])
        at += size + length
    return rows


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
