"""Makes, looks at and empties the stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from modelmeter.errors import Unavailable, WrongSetting
from modelmeter.queue.nats.link import AWAY, CONSUMER, Link, away, missing, subject_of
from modelmeter.queue.url import NatsUrl

_DUPLICATES_SECONDS = 120


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
    except AWAY as error:
        raise away(url, error) from error
    finally:
        await link.close()
