"""Server-sent events: which models have new events, and that alerts changed.

One poller for all listeners of a process, and none while nobody listens. While nothing at all is written to the
database it asks one cheap question; only then which versions have more events than before.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from modelmeter import telemetry
from modelmeter.errors import Busy, Unavailable
from modelmeter.reader import Reader
from modelmeter.store.sql import load
from modelmeter.web.closing import Closing

SQL = load("dashboard.sql")
log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_SHARE = 10  # the poller sleeps at least so many times as long as its question took
_BEAT_SECONDS = 10  # proxies cut what is silent for long, and pages take it for lost
_BACKLOG = 16
_NAMED = 200  # versions in one message; beyond it, it only says that there is something new

_Versions = dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class State:
    """What is stored, as far as pages care."""

    written_until: str
    versions: _Versions
    transition: int


def changes(before: State, after: State) -> list[bytes]:
    """The messages that tell a page how `after` differs from `before`."""
    found = []
    grown = [key for key, events in after.versions.items() if before.versions.get(key) != events]
    if grown or len(before.versions) != len(after.versions):
        found.append(message("stored", {"versions": grown if len(grown) <= _NAMED else None}))
    if before.transition != after.transition:
        found.append(message("alerts", {}))
    return found


def message(kind: str, data: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


class Live:
    """The listeners of one process and the poller that they share. Lives in one event loop."""

    def __init__(self, reader: Reader, limit: int, closing: Closing) -> None:
        self._reader = reader
        self._limit = limit
        self._closing = closing
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._poller: asyncio.Task[None] | None = None

    def respond(self) -> Response:
        """A stream for one more listener. Busy when there are too many, Unavailable when the server stops."""
        if self._closing.begun:
            raise Unavailable("the server stops")
        if len(self._listeners) >= self._limit:
            raise Busy(f"{self._limit} pages listen already (MODELMETER_LIVE_LIMIT_LISTENERS)", retry_after_seconds=10)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_BACKLOG)
        return StreamingResponse(
            self._stream(queue),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def _stream(self, queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        self._listeners.add(queue)
        telemetry.LIVE_LISTENERS.set(len(self._listeners))
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        closing = asyncio.create_task(self._closing.wait())
        next_one: asyncio.Task[bytes | None] | None = None
        try:
            yield b"retry: 1000\n\n"
            while not self._closing.begun:
                next_one = asyncio.create_task(queue.get())
                done, _ = await asyncio.wait(
                    {next_one, closing}, timeout=_BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if next_one not in done:
                    next_one.cancel()
                    yield message("beat", {})
                    continue
                text = next_one.result()
                if text is None:
                    return
                yield text
        finally:
            for task in (closing, next_one):
                if task is not None:
                    task.cancel()
            self._listeners.discard(queue)
            telemetry.LIVE_LISTENERS.set(len(self._listeners))

    async def _poll(self) -> None:
        before: State | None = None
        closing = asyncio.create_task(self._closing.wait())
        try:
            while self._listeners and not self._closing.begun:
                began = time.monotonic()
                try:
                    after = await run_in_threadpool(self._read, before)
                except Unavailable as error:
                    self._tell([message("trouble", {"detail": error.detail})])
                else:
                    if before is not None:
                        self._tell(changes(before, after))
                    before = after
                took = time.monotonic() - began
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(closing), max(_POLL_SECONDS, took * _SHARE))
        except Exception:
            log.exception("the poller of the dashboard stops; the next listener starts it again")
            raise
        finally:
            closing.cancel()
            self._poller = None

    def _read(self, before: State | None) -> State:
        with self._reader.snapshot() as connection:
            row = connection.execute(SQL["written_until"]).fetchone()
            assert row is not None
            if before is not None and row[0] == before.written_until:
                return before
            versions = {(name, version): events for name, version, events in connection.execute(SQL["stored_events"])}
            newest = connection.execute(SQL["newest_transition"]).fetchone()
            assert newest is not None
            return State(row[0], versions, newest[0])

    def _tell(self, texts: list[bytes]) -> None:
        for queue in [*self._listeners]:
            for text in texts:
                try:
                    queue.put_nowait(text)
                except asyncio.QueueFull:  # it does not read: its page comes back and asks for everything
                    self._listeners.discard(queue)
                    while not queue.empty():
                        queue.get_nowait()
                    queue.put_nowait(None)
                    break
