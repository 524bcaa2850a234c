"""How large an Arrow IPC stream says that it is, read from its metadata before anything unpacks it.

Each compressed buffer begins with its unpacked size, and readers ask for that much memory at once: a forged size, or a
zip bomb, would end the process. (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format and
https://flatbuffers.dev/internals: a table begins with the distance to its vtable, which holds the fields' places.)
"""

import struct
from collections.abc import Iterator

_DICTIONARY, _BATCH = 2, 3
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3  # fields of Message
_DATA = 1  # of DictionaryBatch
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3  # of RecordBatch


def unpacked_size(body: bytes) -> int:
    """The bytes of all buffers, unpacked. ValueError when the metadata cannot be true of these bytes."""
    try:
        return sum(_batch_size(body, batch, start, end) for batch, start, end in _batches(body))
    except struct.error:
        raise ValueError("its metadata points outside it") from None


def _u16(body: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", body, _inside(at))[0])


def _i32(body: bytes, at: int) -> int:
    return int(struct.unpack_from("<i", body, _inside(at))[0])


def _i64(body: bytes, at: int) -> int:
    return int(struct.unpack_from("<q", body, _inside(at))[0])


def _inside(at: int) -> int:
    if at < 0:
        raise ValueError("its metadata points outside it")
    return at


def _field(body: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 when it is absent."""
    vtable = table - _i32(body, table)
    place = 4 + 2 * number
    if place >= _u16(body, vtable):
        return 0
    offset = _u16(body, vtable + place)
    return table + offset if offset else 0


def _target(body: bytes, at: int) -> int:
    return at + _i32(body, at)


def _batches(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Each RecordBatch table, and where the body of its message begins and ends."""
    at = 0
    while at < len(body):
        size = _i32(body, at)
        at += 4
        if size == -1:
            size = _i32(body, at)
            at += 4
        if size == 0:
            return
        message, start = _target(body, at), _inside(at + size)
        kind_at, header_at = _field(body, message, _HEADER_TYPE), _field(body, message, _HEADER)
        length_at = _field(body, message, _BODY_LENGTH)
        end = start + (_i64(body, length_at) if length_at else 0)
        if size < 0 or not start <= end <= len(body):
            raise ValueError("it is cut off")
        kind = body[kind_at] if 0 < kind_at < len(body) else 0
        if kind in (_BATCH, _DICTIONARY) and header_at:
            batch = _target(body, header_at)
            if kind == _DICTIONARY:
                data_at = _field(body, batch, _DATA)
                batch = _target(body, data_at) if data_at else 0
            if batch:
                yield batch, start, end
        at = end


def _batch_size(body: bytes, batch: int, start: int, end: int) -> int:
    total = 0
    buffers_at = _field(body, batch, _BUFFERS)
    if buffers_at:
        vector = _target(body, buffers_at)
        packed = _field(body, batch, _COMPRESSION) != 0
        for number in range(_i32(body, vector)):
            offset, length = _i64(body, vector + 4 + 16 * number), _i64(body, vector + 12 + 16 * number)
            if offset < 0 or length < 0 or start + offset + length > end:
                raise ValueError("a buffer lies outside its message")
            if packed and length:
                size = _i64(body, start + offset)
                if size < -1 or length < 8:
                    raise ValueError("a buffer's unpacked size is wrong")
                length = length - 8 if size == -1 else size
            total += length
    rows_at = _field(body, batch, _LENGTH)
    rows = _i64(body, rows_at) if rows_at else 0
    if not 0 <= rows <= total:  # a name and a version take more than a byte a row
        raise ValueError(f"it says {rows} rows, in {total} bytes")
    return total
