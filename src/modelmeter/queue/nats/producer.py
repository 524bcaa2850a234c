"""The API's side: publishes, each message with an id."""

import asyncio
import time
import uuid

import nats
import nats.errors
from nats.js import api
from nats.js.errors import APIError

from modelmeter.errors import Busy
from modelmeter.queue import Backlog
from modelmeter.queue.nats.link import AWAY, ENQUEUE_SECONDS, EVENTS, PART, TRY_SECONDS, Link, away, missing, subject_of
from modelmeter.queue.outside import cut
from modelmeter.queue.url import NatsUrl

_FULL = frozenset((10047, 10077))
"""JetStream's codes for: the storage of the server or account, or of this stream, is used up."""


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
        deadline = time.monotonic() + ENQUEUE_SECONDS
        for part, piece in cut(payload, self._link.limit_bytes):
            headers = {api.Header.MSG_ID: uuid.uuid4().hex, EVENTS: str(0 if part and part.number else events)}
            if part is not None:
                headers[PART] = str(part)
            await self._publish(piece, headers, deadline)

    async def _publish(self, payload: bytes, headers: dict[str, str], deadline: float) -> None:
        """Again and again until it is there or time is up: the broker keeps one of the same id."""
        while True:
            try:
                client = await self._link.client()
                stream = client.jetstream(timeout=TRY_SECONDS)
                await stream.publish(subject_of(self._url), payload, headers=headers)
                return
            except APIError as error:
                if error.err_code in _FULL:
                    raise Busy(f"the queue is full: {error.description}", retry_after_seconds=5) from error
                if time.monotonic() > deadline:
                    raise away(self._url, error) from error
            except nats.errors.MaxPayloadError:
                raise  # the limit is known from the connection: a bug, not weather
            except AWAY as error:
                if time.monotonic() > deadline:
                    if isinstance(error, nats.js.errors.NoStreamResponseError):
                        raise missing(self._url) from error
                    raise away(self._url, error) from error
            await asyncio.sleep(0.05)

    async def backlog(self) -> Backlog:
        return await self._link.backlog()

    async def close(self) -> None:
        await self._link.close()
