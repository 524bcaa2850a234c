"""The worker's side: pulls what fits, keeps the leases of what is in hand."""

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import NotFoundError

from modelmeter.errors import Unavailable
from modelmeter.queue import Backlog
from modelmeter.queue.nats.link import AWAY, CONSUMER, PART, TRY_SECONDS, Link, away, events_of, missing
from modelmeter.queue.outside import Delivery, Part
from modelmeter.queue.url import NatsUrl

log = logging.getLogger(__name__)
T = TypeVar("T")
_WAIT_SECONDS = 0.2


class _Thread:
    """An event loop in a thread of its own, for callers that are not async."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="nats", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self.loop.close()


class NatsBroker:
    """The worker's side of the stream."""

    def __init__(self, url: NatsUrl) -> None:
        self._url = url
        self._thread: _Thread | None = None
        self._session: _Session | None = None

    def _open(self) -> tuple[_Thread, "_Session"]:
        if self._thread is None or self._session is None:
            self._thread = _Thread()
            self._session = _Session(self._url)
        return self._thread, self._session

    def _run(self, work: Coroutine[Any, Any, T], seconds: float = 15) -> T:
        assert self._thread is not None
        try:
            return self._thread.run(work, seconds)
        except NotFoundError as error:
            raise missing(self._url) from error
        except (*AWAY, TimeoutError) as error:
            raise away(self._url, error) from error

    def pull(self, limit_events: int, limit_bytes: int, limit_messages: int) -> list[Delivery]:
        _, session = self._open()
        return self._run(session.pull(limit_events, limit_bytes, limit_messages))

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        if self._session is not None:
            self._run(self._session.acknowledge(deliveries))

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        if self._session is not None:
            self._run(self._session.give_back(deliveries))

    def backlog(self) -> Backlog:
        _, session = self._open()
        return self._run(session.link.backlog())

    def close(self) -> None:
        if self._thread is not None and self._session is not None:
            with contextlib.suppress(Unavailable):
                self._run(self._session.close(), 5)
            self.forsake()

    def forsake(self) -> None:
        """Drop the connection as a dead process does: nothing is given back."""
        thread, self._thread, session, self._session = self._thread, None, self._session, None
        if thread is not None and session is not None:
            with contextlib.suppress(Exception):
                thread.run(session.cut(), 5)
            thread.stop()


class _Session:
    """Messages in hand over one connection, their leases kept alive. All in one event loop."""

    def __init__(self, url: NatsUrl) -> None:
        self._url = url
        self.link = Link(url, "modelmeter worker")
        self._inbox: asyncio.Queue[Msg] = asyncio.Queue()
        self._address = ""
        self._hand: dict[str, Msg] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._mean = (1.0, 1.0)

    async def _connect(self) -> Client:
        client = await self.link.client()
        if not self._address:
            address = client.new_inbox()

            async def on_message(message: Msg) -> None:
                self._inbox.put_nowait(message)

            await client.subscribe(address, cb=on_message)
            self._address = address
            self._keeper = asyncio.create_task(self._keep_leases())
        return client

    async def pull(self, limit_events: int, limit_bytes: int, limit_messages: int) -> list[Delivery]:
        """One message tells how large they are; then as many as should fit."""
        client = await self._connect()
        taken = await self._ask(client, 1, _WAIT_SECONDS)
        if not taken:
            return []
        over: list[Delivery] = []
        events, size = taken[0].events, len(taken[0].payload)
        while not over:
            mean_events, mean_size = max(events / len(taken), 1), max(size / len(taken), 1)
            room = min(
                limit_messages - len(taken),
                int((limit_events - events) / mean_events),
                int((limit_bytes - size) / mean_size),
            )
            if room < 1:
                break
            more = await self._ask(client, room, 0)
            for delivery in more:
                if events + delivery.events > limit_events or size + len(delivery.payload) > limit_bytes:
                    over.append(delivery)
                else:
                    taken.append(delivery)
                    events += delivery.events
                    size += len(delivery.payload)
            if len(more) < room:
                break
        if over:
            await self.give_back(over)
        return taken

    async def _ask(self, client: Client, count: int, wait_seconds: float) -> list[Delivery]:
        """At most so many messages; with `wait_seconds` it waits so long for the first, else takes what is there."""
        request: dict[str, object] = {"batch": count}
        if wait_seconds:
            request["expires"] = int(wait_seconds * 1e9)
        else:
            request["no_wait"] = True
        address = f"$JS.API.CONSUMER.MSG.NEXT.{self._url.stream}.{CONSUMER}"
        await client.publish(address, json.dumps(request).encode(), self._address)
        deadline = time.monotonic() + wait_seconds + TRY_SECONDS
        found: list[Delivery] = []
        while len(found) < count:
            try:
                message = await asyncio.wait_for(self._inbox.get(), max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                if not client.is_connected:
                    raise away(self._url, nats.errors.StaleConnectionError()) from None
                break
            status = (message.headers or {}).get(api.Header.STATUS) if not message.reply else None
            if status is None:
                found.append(self._receive(message))
            elif status in ("404", "408"):
                break
            elif status == "503":
                await client.jetstream(timeout=TRY_SECONDS).consumer_info(self._url.stream, CONSUMER)
                break  # it is there, and was not for a moment: an election
            elif status == "409":
                log.debug("nats: %s", (message.headers or {}).get(api.Header.DESCRIPTION))
                break
        return found

    def _receive(self, message: Msg) -> Delivery:
        self._hand[message.reply] = message
        headers = message.headers or {}
        try:
            part = Part.read(headers.get(PART))
        except ValueError:
            part = None
        return Delivery(message.data, events_of(headers), message.metadata.num_delivered, part, message)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._url.ack_wait_seconds / 3)
            for message in list(self._hand.values()):
                with contextlib.suppress(*AWAY):
                    await message.in_progress()

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """The last one waits for the server, which takes them in order."""
        for number, delivery in enumerate(deliveries, 1):
            message: Msg = delivery.handle
            self._hand.pop(message.reply, None)
            if number < len(deliveries):
                await message.ack()
            else:
                await message.ack_sync(timeout=TRY_SECONDS)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            message: Msg = delivery.handle
            if self._hand.pop(message.reply, None) is not None:
                with contextlib.suppress(*AWAY):
                    await message.nak()
        client = await self.link.client()
        await client.flush(timeout=2)

    async def close(self) -> None:
        while not self._inbox.empty():
            message = self._inbox.get_nowait()
            if message.reply:
                self._receive(message)
        hand = [Delivery(b"", 0, 0, None, message) for message in self._hand.values()]
        if hand:
            await self.give_back(hand)

    async def cut(self) -> None:
        await self.link.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # the leases', and what the client leaves behind
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
