"""Batches to the queue, by group commit: what arrives while a commit is under way shares the next one.

A submit returns when its events are durable on the queue, or raises; never is anything acknowledged before.
"""

import asyncio
import time
from collections.abc import Sequence

from modelmeter.batch import Batch, concat
from modelmeter.message import Keyed, Message, encode, format_id, new_id
from modelmeter.queue import Producer

MESSAGE_LIMIT_EVENTS = 65_536
_COMMITS_AT_ONCE = 2


class _Waiting:
    __slots__ = ("batches", "done", "events", "key_id")

    def __init__(self, batches: Sequence[Batch], key_id: bytes | None, done: asyncio.Future[str]) -> None:
        self.batches = batches
        self.key_id = key_id
        self.done = done
        self.events = sum(len(batch) for batch in batches)


class Ingester:
    """One for each API process."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._waiting: list[_Waiting] = []
        self._commits = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, batches: Sequence[Batch], key_id: bytes | None) -> str:
        """The batch's id, once it is durable. `key_id` is the id made from the request's Idempotency-Key."""
        waiting = _Waiting(batches, key_id, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._commits < _COMMITS_AT_ONCE:
            self._start()
        return await waiting.done

    def _start(self) -> None:
        self._commits += 1
        task = asyncio.create_task(self._commit_all())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _commit_all(self) -> None:
        try:
            await asyncio.sleep(0)  # requests that are ready in this turn of the loop join in
            while self._waiting:
                await self._commit(self._next())
        finally:
            self._commits -= 1

    def _next(self) -> list[_Waiting]:
        events = 0
        for number, waiting in enumerate(self._waiting):
            events += waiting.events
            if number and events > MESSAGE_LIMIT_EVENTS:
                taken, self._waiting = self._waiting[:number], self._waiting[number:]
                return taken
        taken, self._waiting = self._waiting, []
        return taken

    async def _commit(self, group: list[_Waiting]) -> None:
        message_id = new_id()
        try:
            message = assemble(message_id, _once_each(group))
            payload = encode(message)
            if len(payload) > self._producer.limit_bytes and len(group) > 1:
                # Each request stays whole, so its key does: two messages cost less than parts of one.
                await self._commit(group[: len(group) // 2])
                await self._commit(group[len(group) // 2 :])
                return
            await self._producer.enqueue(payload, message.events)
        except BaseException as error:
            for one in group:
                if not one.done.done():
                    one.done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
            return
        shared = format_id(message_id)
        for number, one in enumerate(group):
            if not one.done.done():
                one.done.set_result(format_id(one.key_id) if one.key_id else f"{shared}.{number}")

    async def drain(self) -> None:
        """Wait until all that was submitted is answered."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _once_each(group: Sequence[_Waiting]) -> list[tuple[Sequence[Batch], bytes | None]]:
    """The same Idempotency-Key twice in one commit is kept once, and both are answered."""
    seen: set[bytes] = set()
    kept = []
    for one in group:
        if one.key_id is None or one.key_id not in seen:
            kept.append((one.batches, one.key_id))
        if one.key_id is not None:
            seen.add(one.key_id)
    return kept


def assemble(message_id: bytes, requests: Sequence[tuple[Sequence[Batch], bytes | None]]) -> Message:
    """One message of many requests' batches: those with the same metrics become one batch, rows in order."""
    tables: dict[tuple[str, ...], list[Batch]] = {}
    rows: dict[tuple[str, ...], int] = {}
    keyed: list[tuple[bytes, tuple[str, ...], int, int]] = []
    for batches, key_id in requests:
        for batch in batches:
            shape = tuple(batch.metrics)
            start = rows.get(shape, 0)
            tables.setdefault(shape, []).append(batch)
            rows[shape] = start + len(batch)
            if key_id:
                keyed.append((key_id, shape, start, start + len(batch)))
    number = {shape: index for index, shape in enumerate(tables)}
    return Message(
        message_id,
        time.time_ns() // 1000,
        [Keyed(key_id, number[shape], start, stop) for key_id, shape, start, stop in keyed],
        [concat(batches) for batches in tables.values()],
    )
