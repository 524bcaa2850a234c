"""The API's side: publishes through the official client."""

import asyncio
import time
from typing import Any

from google.api_core.retry import Retry
from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace of many packages
from google.cloud.pubsub_v1.publisher.exceptions import FlowControlLimitError

from modelmeter.errors import Busy
from modelmeter.queue import Backlog
from modelmeter.queue.outside import cut
from modelmeter.queue.pubsub.calls import EVENTS, PART, calls, client_options, topic_name
from modelmeter.queue.pubsub.gauge import Gauge
from modelmeter.queue.url import PubsubUrl

_LIMIT_BYTES = 9_000_000
"""Pub/Sub takes 10 MB a request, with attributes and all."""
_IN_FLIGHT_BYTES = 128 << 20
_ENQUEUE_SECONDS = 5.0


class PubsubProducer:
    """Publishes; a message is durable when Pub/Sub has given it an id."""

    limit_bytes = _LIMIT_BYTES

    def __init__(self, url: PubsubUrl) -> None:
        self._url = url
        self._publisher: Any = None
        self._gauge = Gauge(url)
        self._reachable_until = 0.0

    def _open(self) -> Any:
        if self._publisher is None:
            with calls(self._url, f"topic {self._url.topic!r}"):
                self._publisher = pubsub_v1.PublisherClient(
                    # What arrives together is one message already: hardly anything is worth waiting for.
                    batch_settings=pubsub_v1.types.BatchSettings(
                        max_messages=100, max_bytes=1 << 20, max_latency=0.002
                    ),
                    publisher_options=pubsub_v1.types.PublisherOptions(
                        flow_control=pubsub_v1.types.PublishFlowControl(
                            message_limit=1000,
                            byte_limit=_IN_FLIGHT_BYTES,
                            limit_exceeded_behavior=pubsub_v1.types.LimitExceededBehavior.ERROR,
                        )
                    ),
                    client_options=client_options(self._url),
                )
        return self._publisher

    async def enqueue(self, payload: bytes, events: int) -> None:
        publisher = self._open()
        waiting = []
        for part, piece in cut(payload, _LIMIT_BYTES):
            attributes = {EVENTS: str(0 if part and part.number else events)}
            if part is not None:
                attributes[PART] = str(part)
            try:
                future = publisher.publish(
                    topic_name(self._url),
                    piece,
                    retry=Retry(deadline=_ENQUEUE_SECONDS, initial=0.1, maximum=1.0),
                    timeout=_ENQUEUE_SECONDS,
                    **attributes,
                )
            except FlowControlLimitError as error:
                raise Busy(
                    f"over {_IN_FLIGHT_BYTES} bytes are on their way to Pub/Sub", retry_after_seconds=1
                ) from error
            waiting.append(asyncio.wrap_future(future))
        with calls(self._url, f"topic {self._url.topic!r}"):
            try:
                await asyncio.wait_for(asyncio.gather(*waiting), _ENQUEUE_SECONDS + 1)
            except FlowControlLimitError as error:
                raise Busy(
                    f"over {_IN_FLIGHT_BYTES} bytes are on their way to Pub/Sub", retry_after_seconds=1
                ) from error
        self._gauge.events_per_message += (events - self._gauge.events_per_message) / 16

    async def backlog(self) -> Backlog:
        if time.monotonic() > self._reachable_until:
            await asyncio.to_thread(self._look)
            self._reachable_until = time.monotonic() + 2
        return await asyncio.to_thread(self._gauge.read)

    def _look(self) -> None:
        """The topic is there, and answers."""
        with calls(self._url, f"topic {self._url.topic!r}"):
            self._open().get_topic(request={"topic": topic_name(self._url)}, timeout=_ENQUEUE_SECONDS, retry=None)

    async def close(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await asyncio.to_thread(publisher.stop)
            await asyncio.to_thread(publisher.transport.close)
