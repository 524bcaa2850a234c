"""One connection to NATS, what is said when it is away, and the names on the wire."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

import nats
import nats.errors
from nats.aio.client import Client
from nats.js import api
from nats.js.errors import NotFoundError

from modelmeter.errors import Unavailable
from modelmeter.queue import Backlog
from modelmeter.queue.url import NatsUrl

log = logging.getLogger(__name__)
CONSUMER = "modelmeter"
EVENTS, PART = "Modelmeter-Events", "Modelmeter-Part"
_HEADERS_BYTES = 1024
_DEFAULT_PAYLOAD_BYTES = 1 << 20
ENQUEUE_SECONDS = 5.0
TRY_SECONDS = 2.0
AWAY = (nats.errors.Error, OSError, asyncio.TimeoutError)


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
                        ENQUEUE_SECONDS,
                    )
                except AWAY as error:
                    with contextlib.suppress(*AWAY):
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
            stream = (await self.client()).jetstream(timeout=TRY_SECONDS)
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
        except AWAY as error:
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
            with contextlib.suppress(*AWAY):
                await client.close()


async def _on_error(error: Exception) -> None:
    log.debug("nats: %r", error)


def events_of(headers: dict[str, str] | None) -> int:
    try:
        return int((headers or {}).get(EVENTS, "0"))
    except ValueError:
        return 0


def away(url: NatsUrl, error: BaseException) -> Unavailable:
    hosts = ", ".join(server.rpartition("@")[2].removeprefix("nats://") for server in url.servers)
    reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return Unavailable(f"the queue is away (NATS at {hosts}): {reason}", retry_after_seconds=1)


def missing(url: NatsUrl) -> Unavailable:
    return Unavailable(f"the queue's stream {url.stream!r} is not there; run: modelmeter queue create")
