"""Tables as a stream of bytes: NDJSON, CSV, Arrow IPC or Parquet, a table in memory at a time."""

import io
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import IO, cast

import polars as pl
from polars.io.plugins import register_io_source
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from modelmeter.batch import TIMESTAMP
from modelmeter.web.accept import ARROW, CSV, NDJSON, PARQUET
from modelmeter.web.table import RFC3339, arrow_stream

Schema = Mapping[str, pl.DataType]
Frames = Iterator[pl.DataFrame]

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_PLAIN_KEY = re.compile(r"[\w.:/-]+")
_PARTS_AHEAD = 8
_TEXT_EVENTS = 20_000
_ROW_GROUP_EVENTS = 1 << 17


def ndjson_parts(schema: Schema, frames: Frames) -> Generator[bytes]:
    """An event a line; what it does not have is left out, if the name of the field is plain, else null."""
    # A name that begins with a comma or brace could be a value's end and a name's beginning; such a null stays.
    nulls = [f',"{name}":null'.encode() for name in schema if _PLAIN_KEY.fullmatch(name)]
    for frame in _sliced(frames):
        lines = frame.with_columns(pl.col(TIMESTAMP).dt.strftime(RFC3339)).write_ndjson().encode()
        for null in nulls:
            lines = lines.replace(null, b"")
        yield lines


def csv_parts(schema: Schema, frames: Frames) -> Generator[bytes]:
    """One header, then a line an event; what it does not have is empty."""
    yield pl.DataFrame(schema=schema).write_csv().encode()
    for frame in _sliced(frames):
        yield frame.write_csv(include_header=False, datetime_format=RFC3339).encode()


def _sliced(frames: Frames) -> Frames:
    """Text takes many times the room of a table."""
    for frame in frames:
        yield from frame.iter_slices(_TEXT_EVENTS)


def arrow_parts(schema: Schema, frames: Frames) -> Generator[bytes]:
    """One IPC stream: the schema once, then a record batch a table."""
    head = arrow_stream(pl.DataFrame(schema=schema))
    first_batch = 8 + int.from_bytes(head[4:8], "little")  # after the message that is the schema
    yield head.removesuffix(_END_OF_STREAM)
    for frame in frames:
        yield arrow_stream(frame.rechunk())[first_batch:].removesuffix(_END_OF_STREAM)
    yield _END_OF_STREAM


class _Pipe(io.RawIOBase):
    """What is written by one thread is read by another, a few parts at most in between."""

    def __init__(self) -> None:
        self._parts: queue.Queue[bytes | None] = queue.Queue(_PARTS_AHEAD)
        self._abandoned = threading.Event()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._put(part)
        return len(part)

    def end(self) -> None:
        self._put(None)

    def _put(self, part: bytes | None) -> None:
        while not self._abandoned.is_set():
            try:
                self._parts.put(part, timeout=0.2)
                return
            except queue.Full:
                continue
        if part is not None:
            raise BrokenPipeError

    def parts(self) -> Iterator[bytes]:
        while (part := self._parts.get()) is not None:
            yield part

    def abandon(self) -> None:
        self._abandoned.set()


def parquet_parts(schema: Schema, frames: Frames) -> Generator[bytes]:
    """One Parquet file, a row group a table, written by Polars in a thread of its own."""
    pipe = _Pipe()
    failures: list[BaseException] = []

    def source(columns: list[str] | None, _where: object, _rows: object, _size: object) -> Frames:
        try:
            for frame in frames:
                yield frame if columns is None else frame.select(columns)
        except BaseException as error:
            failures.append(error)
            raise

    def write() -> None:
        try:
            lazy = register_io_source(source, schema=dict(schema))
            lazy.sink_parquet(
                cast("IO[bytes]", pipe), compression="zstd", row_group_size=_ROW_GROUP_EVENTS, maintain_order=True
            )
        except BaseException as error:
            failures.append(error)
        finally:
            pipe.end()

    writer = threading.Thread(target=write, name="parquet")
    writer.start()
    try:
        yield from pipe.parts()
        if failures:
            raise failures[0]
    finally:
        pipe.abandon()
        writer.join()


WRITERS: dict[str, Callable[[Schema, Frames], Generator[bytes]]] = {
    NDJSON: ndjson_parts,
    CSV: csv_parts,
    ARROW: arrow_parts,
    PARQUET: parquet_parts,
}


class Streamed(StreamingResponse):
    """A streamed answer that lets go of what it holds, however it ends: `release` is called once, in a thread."""

    def __init__(self, parts: Iterator[bytes], media: str, release: Callable[[], None]) -> None:
        super().__init__(parts, media_type=media)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await run_in_threadpool(self._release)
