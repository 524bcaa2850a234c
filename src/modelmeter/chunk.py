"""A chunk: the raw events of one stream over a span within one UTC day, one compressed column a metric.

Packing is bit for bit: what was packed comes back, -0.0, subnormals and absent values (NaN) too.
Byte 0 of a packed column says how: plain little-endian values, pcodec, or one value for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig
from pcodec.standalone import simple_compress, simple_decompress_into

_PLAIN, _PCODEC, _CONSTANT = b"\0", b"\1", b"\2"
_LEAST_VALUES = 48  # below this many values pcodec's own header costs more than it saves
STORE_LEVEL = 4  # for disk: 1 % larger than level 8 and four times as fast on model metrics
WIRE_LEVEL = 0  # for the queue: half the time of STORE_LEVEL, 10 % larger

_CONFIGS = {level: ChunkConfig(compression_level=level) for level in (WIRE_LEVEL, STORE_LEVEL)}


def pack(column: NDArray[np.float64] | NDArray[np.int64], level: int = STORE_LEVEL) -> bytes:
    """A column of float64 or int64, shape (n,), as bytes."""
    if column.size > 1:
        bits = column.view(np.int64)
        if bits[0] == bits[-1] and (bits == bits[0]).all():
            return _CONSTANT + column[:1].tobytes()
    if column.size < _LEAST_VALUES:
        return _PLAIN + column.tobytes()
    packed: bytes = simple_compress(np.ascontiguousarray(column), _CONFIGS[level])
    return _PCODEC + packed


def _unpack(data: bytes, count: int, dtype: type[np.float64 | np.int64]) -> NDArray[Any]:
    how = data[:1]
    column: NDArray[Any]
    if how == _PCODEC:
        column = np.empty(count, dtype)  # the caller's count bounds the memory, not the bytes'
        try:
            progress = simple_decompress_into(data[1:], column)
        except RuntimeError as error:
            raise ValueError(f"a packed column that cannot be read: {error}") from None
        if progress.n_processed != count or not progress.finished:
            raise ValueError(f"a packed column of another count than the expected {count}")
    elif how == _CONSTANT:
        if len(data) != 1 + 8:
            raise ValueError("a packed column that is cut off")
        column = np.full(count, np.frombuffer(data, dtype, offset=1)[0])
    elif how == _PLAIN:
        column = np.frombuffer(data, dtype, offset=1)
    else:
        raise ValueError(f"unknown packing {how!r}")
    if column.size != count:
        raise ValueError(f"a packed column of {column.size} values where {count} were expected")
    return column


def unpack_floats(data: bytes, count: int) -> NDArray[np.float64]:
    """The float64 column, shape (count,). ValueError when the bytes are no such column."""
    return _unpack(data, count, np.float64)


def unpack_ints(data: bytes, count: int) -> NDArray[np.int64]:
    """The int64 column, shape (count,). ValueError when the bytes are no such column."""
    return _unpack(data, count, np.int64)


def pack_codes(codes: NDArray[np.int32], codomain: int) -> bytes:
    """Small non-negative integers below `codomain`, in the narrowest plain form."""
    return codes.astype(np.min_scalar_type(max(codomain - 1, 0)).newbyteorder("<")).tobytes()


def unpack_codes(data: bytes, codomain: int) -> NDArray[np.int32]:
    """The inverse of pack_codes. ValueError when a code is not below `codomain`."""
    codes = np.frombuffer(data, np.min_scalar_type(max(codomain - 1, 0)).newbyteorder("<"))
    if codes.size and codes.max() >= codomain:
        raise ValueError(f"a code of {codes.max()}, not below {codomain}")
    return codes.astype(np.int32)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events `[start, end)` of one stream, in time order; microseconds.

    `columns` holds the packed timestamps, then one packed column for each of `metrics` (ids); NaN is absent.
    `minutely` says that the events are in rollups of a minute too, not only of an hour and a day.
    """

    stream_id: int
    start: int
    end: int
    count: int
    minutely: bool
    metrics: Sequence[int]
    columns: Sequence[bytes]


def pack_chunk(
    stream_id: int,
    metrics: Sequence[int],
    timestamp: NDArray[np.int64],
    columns: Sequence[NDArray[np.float64]],
    *,
    minutely: bool,
) -> Chunk:
    """One chunk of events that are sorted by time; arrays of shape (events,)."""
    return Chunk(
        stream_id,
        int(timestamp[0]),
        int(timestamp[-1]) + 1,
        timestamp.size,
        minutely,
        metrics,
        [pack(timestamp), *(pack(column) for column in columns)],
    )
