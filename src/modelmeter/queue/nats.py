"""The queue in NATS JetStream: a stream on disk, one durable pull consumer for all workers, explicit acks.

A message has an id for the broker's own deduplication, so a publish whose answer was lost is repeated safely.
The leases of what is in hand are extended for as long as this process lives; when it dies they end and another
worker gets the messages.
"""

import asyncio
import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from modelmeter.errors import Busy, Unavailable, WrongSetting
from modelmeter.queue import Backlog
from modelmeter.queue.outside import Delivery, Part, cut
from modelmeter.queue.url import NatsUrl

log = logging.getLogger(__name__)

T = TypeVar("T")

CONSUMER = "modelmeter"
_EVENTS, _PART = "Modelmeter-Events", "Modelmeter-Part"
_HEADERS_BYTES = 1024
_DEFAULT_PAYLOAD_BYTES = 1 << 20
_ENQUEUE_SECONDS = 5.0
_TRY_SECONDS = 2.0
_WAIT_SECONDS = 0.2
_DUPLICATES_SECONDS = 120
_FULL = frozenset((10047, 10077))
"""JetStream's codes for: the storage of the server or account, or of this stream, is used up."""
_AWAY = (nats.errors.Error, OSError, asyncio.TimeoutError)


def subject_of(url: NatsUrl) -> str:
    return f"{url.stream}.messages"


class Link:
    """One connection, made when it is needed and mended by itself. Lives in one event loop."""

    def __init__(self, url: NatsUrl, name: str) -> None:
        self.url = url
        self._name = name
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Client:
        """The client, connected now or soon again. Unavailable when no server answers."""
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                client = Client()
                try:
                    await asyncio.wait_for(
                        client.connect(
                            list(self.url.servers),
                            name=self._name,
                            connect_timeout=2,
                            max_reconnect_attempts=-1,
                            reconnect_time_wait=0.25,  # type: ignore[arg-type]  # any number will do
                            ping_interval=10,
                            error_cb=_on_error,
                            user_credentials=self.url.credentials or None,
                        ),
                        _ENQUEUE_SECONDS,
                    )
                except _AWAY as error:
                    with contextlib.suppress(*_AWAY):
                        await client.close()
                    raise away(self.url, error) from error
                self._client = client
            return self._client

    @property
    def limit_bytes(self) -> int:
        """What a message may hold: the server's limit, once connected."""
        limit = self._client.max_payload if self._client is not None else 0
        return (limit if limit > 0 else _DEFAULT_PAYLOAD_BYTES) - _HEADERS_BYTES

    async def backlog(self) -> Backlog:
        """Events are exact when all messages hold the same number, else an estimate from the oldest and the newest."""
        try:
            stream = (await self.client()).jetstream(timeout=_TRY_SECONDS)
            state = (await stream.stream_info(self.url.stream)).state
            if not state.messages:
                return Backlog(0, 0, 0, 0)
            ends = await asyncio.gather(
                stream.get_msg(self.url.stream, state.first_seq),
                stream.get_msg(self.url.stream, state.last_seq),
                return_exceptions=True,
            )
        except NotFoundError as error:
            raise missing(self.url) from error
        except _AWAY as error:
            raise away(self.url, error) from error
        found = [one for one in ends if isinstance(one, api.RawStreamMsg)]
        events = sum(events_of(one.headers) for one in found) * state.messages / max(len(found), 1)
        oldest = ends[0]
        age = 0.0
        if isinstance(oldest, api.RawStreamMsg) and oldest.time is not None:
            age = max((datetime.now(UTC) - oldest.time).total_seconds(), 0.0)
        return Backlog(state.messages, round(events), state.bytes, age)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*_AWAY):
                await client.close()


async def _on_error(error: Exception) -> None:
    log.debug("nats: %r", error)


def events_of(headers: dict[str, str] | None) -> int:
    try:
        return int((headers or {}).get(_EVENTS, "0"))
    except ValueError:
        return 0


def away(url: NatsUrl, error: BaseException) -> Unavailable:
    hosts = ", ".join(server.rpartition("@")[2].removeprefix("nats://") for server in url.servers)
    reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return Unavailable(f"the queue is away (NATS at {hosts}): {reason}", retry_after_seconds=1)


def missing(url: NatsUrl) -> Unavailable:
    return Unavailable(f"the queue's stream {url.stream!r} is not there; run: modelmeter queue create")


class NatsProducer:
    """Publishes; a message is durable when the stream's leader, and most of its replicas, have it."""

    def __init__(self, url: NatsUrl) -> None:
        self._url = url
        self._link = Link(url, "modelmeter api")

    @property
    def limit_bytes(self) -> int:
        return self._link.limit_bytes

    async def enqueue(self, payload: bytes, events: int) -> None:
        await self._link.client()
        deadline = time.monotonic() + _ENQUEUE_SECONDS
        for part, piece in cut(payload, self._link.limit_bytes):
            headers = {api.Header.MSG_ID: uuid.uuid4().hex, _EVENTS: str(0 if part and part.number else events)}
            if part is not None:
                headers[_PART] = str(part)
            await self._publish(piece, headers, deadline)

    async def _publish(self, payload: bytes, headers: dict[str, str], deadline: float) -> None:
        """Again and again until it is there or time is up: the broker keeps one of the same id."""
        while True:
            try:
                client = await self._link.client()
                stream = client.jetstream(timeout=_TRY_SECONDS)
                await stream.publish(subject_of(self._url), payload, headers=headers)
                return
            except APIError as error:
                if error.err_code in _FULL:
                    raise Busy(f"the queue is full: {error.description}", retry_after_seconds=5) from error
                if time.monotonic() > deadline:
                    raise away(self._url, error) from error
            except nats.errors.MaxPayloadError:
                raise  # the limit is known from the connection: a bug, not weather
            except _AWAY as error:
                if time.monotonic() > deadline:
                    if isinstance(error, nats.js.errors.NoStreamResponseError):
                        raise missing(self._url) from error
                    raise away(self._url, error) from error
            await asyncio.sleep(0.05)

    async def backlog(self) -> Backlog:
        return await self._link.backlog()

    async def close(self) -> None:
        await self._link.close()


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
        except (*_AWAY, TimeoutError) as error:
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
        deadline = time.monotonic() + wait_seconds + _TRY_SECONDS
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
                await client.jetstream(timeout=_TRY_SECONDS).consumer_info(self._url.stream, CONSUMER)
                break  # it is there, and was not for a moment: an election
            elif status == "409":
                log.debug("nats: %s", (message.headers or {}).get(api.Header.DESCRIPTION))
                break
        return found

    def _receive(self, message: Msg) -> Delivery:
        self._hand[message.reply] = message
        headers = message.headers or {}
        try:
            part = Part.read(headers.get(_PART))
        except ValueError:
            part = None
        return Delivery(message.data, events_of(headers), message.metadata.num_delivered, part, message)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._url.ack_wait_seconds / 3)
            for message in list(self._hand.values()):
                with contextlib.suppress(*_AWAY):
                    await message.in_progress()

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """The last one waits for the server, which takes them in order."""
        for number, delivery in enumerate(deliveries, 1):
            message: Msg = delivery.handle
            self._hand.pop(message.reply, None)
            if number < len(deliveries):
                await message.ack()
            else:
                await message.ack_sync(timeout=_TRY_SECONDS)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            message: Msg = delivery.handle
            if self._hand.pop(message.reply, None) is not None:
                with contextlib.suppress(*_AWAY):
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


class NatsSteward:
    """Makes, looks at and empties the stream: `modelmeter queue ...`."""

    def __init__(self, url: NatsUrl) -> None:
        self._url = url

    def _stream(self) -> api.StreamConfig:
        return api.StreamConfig(
            name=self._url.stream,
            description="modelmeter's queue",
            subjects=[subject_of(self._url)],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            num_replicas=self._url.replicas,
            max_bytes=self._url.limit_bytes or -1,
            discard=api.DiscardPolicy.NEW,
            duplicate_window=_DUPLICATES_SECONDS,
        )

    def _consumer(self) -> api.ConsumerConfig:
        return api.ConsumerConfig(
            durable_name=CONSUMER,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._url.ack_wait_seconds,
            max_deliver=-1,  # counted by the workers: the broker would only cease to deliver
            max_ack_pending=-1,
            max_waiting=4096,
        )

    def create(self, *, dry_run: bool) -> list[str]:
        """What was made, or would be, a line each; nothing when all is there."""
        return asyncio.run(self._create(dry_run=dry_run))

    async def _create(self, *, dry_run: bool) -> list[str]:
        made = []
        async with _admin(self._url) as stream:
            wanted = self._stream()
            try:
                there = (await stream.stream_info(self._url.stream)).config
            except NotFoundError:
                made.append(
                    f"stream {self._url.stream} on {subject_of(self._url)}: file storage, work queue, "
                    f"{self._url.replicas} replica(s), limit {self._url.limit_bytes or 'none'}"
                )
                if not dry_run:
                    await stream.add_stream(wanted)
            else:
                if there.retention != api.RetentionPolicy.WORK_QUEUE or there.subjects != wanted.subjects:
                    raise WrongSetting(f"queue: the stream {self._url.stream!r} is there and is not modelmeter's")
                if (there.num_replicas, there.max_bytes) != (wanted.num_replicas, wanted.max_bytes):
                    made.append(
                        f"stream {self._url.stream}: {wanted.num_replicas} replica(s) instead of "
                        f"{there.num_replicas}, limit {wanted.max_bytes} bytes instead of {there.max_bytes}"
                    )
                    if not dry_run:
                        await stream.update_stream(wanted)
            try:
                await stream.consumer_info(self._url.stream, CONSUMER)
            except NotFoundError:
                made.append(f"durable pull consumer {CONSUMER}: ack wait {self._url.ack_wait_seconds:g} s")
                if not dry_run:
                    await stream.add_consumer(self._url.stream, self._consumer())
        return made

    def status(self) -> dict[str, object]:
        return asyncio.run(self._status())

    async def _status(self) -> dict[str, object]:
        async with _admin(self._url) as stream:
            info = await stream.stream_info(self._url.stream)
            consumer = await stream.consumer_info(self._url.stream, CONSUMER)
        facts: dict[str, object] = {
            "queue": f"NATS stream {self._url.stream}",
            "replicas": info.config.num_replicas,
            "in hand": consumer.num_ack_pending,
            "delivered again": consumer.num_redelivered,
        }
        if info.cluster is not None:
            facts["leader"] = info.cluster.leader or "none"
            for peer in info.cluster.replicas or []:
                facts[f"replica {peer.name}"] = "away" if peer.offline else "current" if peer.current else "behind"
        return facts

    def purge(self, *, dry_run: bool) -> int:
        """How many messages were dropped, or would be."""
        return asyncio.run(self._purge(dry_run=dry_run))

    async def _purge(self, *, dry_run: bool) -> int:
        async with _admin(self._url) as stream:
            count: int = (await stream.stream_info(self._url.stream)).state.messages
            if not dry_run:
                await stream.purge_stream(self._url.stream)
        return count


@contextlib.asynccontextmanager
async def _admin(url: NatsUrl) -> AsyncIterator[JetStreamContext]:
    link = Link(url, "modelmeter queue")
    try:
        yield (await link.client()).jetstream(timeout=5)
    except NotFoundError as error:
        raise missing(url) from error
    except APIError as error:
        raise Unavailable(f"NATS refuses: {error.description}") from error
    except _AWAY as error:
        raise away(url, error) from error
    finally:
        await link.close()
