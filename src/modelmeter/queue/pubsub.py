"""The queue in Google Cloud Pub/Sub: a topic, one subscription for all workers, a topic for what nobody could store.

The official client batches publishing and bounds what is in flight. Workers pull as much as they can store, no more,
so that the rest is there for others; leases are extended while a message is in hand. PUBSUB_EMULATOR_HOST is honoured.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import monitoring_v3, pubsub_v1  # type: ignore[attr-defined]  # a namespace of many packages
from google.cloud.pubsub_v1.publisher.exceptions import FlowControlLimitError

from modelmeter.errors import Busy, Unavailable, WrongSetting
from modelmeter.queue import Backlog
from modelmeter.queue.outside import Delivery, Part, cut
from modelmeter.queue.url import PubsubUrl

log = logging.getLogger(__name__)

_LIMIT_BYTES = 9_000_000
"""Pub/Sub takes 10 MB a request, with attributes and all."""
_IN_FLIGHT_BYTES = 128 << 20
_ENQUEUE_SECONDS = 5.0
_WAIT_SECONDS = 0.3
_CALL_SECONDS = 10.0
_FIRST_LEASE_SECONDS = 10
"""The subscription's own. Right after a pull it becomes the URL's; so a lease lost on its way is a short one."""
_IDS_AT_ONCE = 500
_PULL_MESSAGES = 1000
_BACKLOG_SECONDS = 15.0
_EVENTS, _PART = "events", "part"
_AWAY = (google_errors.GoogleAPICallError, google_errors.RetryError, GoogleAuthError, TimeoutError)
_METRICS = "pubsub.googleapis.com/subscription/"


def _options(url: PubsubUrl) -> dict[str, str]:
    return {"api_endpoint": url.endpoint} if url.endpoint else {}


def _topic(url: PubsubUrl, suffix: str = "") -> str:
    return f"projects/{url.project}/topics/{url.topic}{suffix}"


def _subscription(url: PubsubUrl, suffix: str = "") -> str:
    return f"projects/{url.project}/subscriptions/{url.subscription}{suffix}"


def away(error: BaseException) -> Unavailable:
    reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return Unavailable(f"the queue is away (Pub/Sub): {reason}", retry_after_seconds=1)


def _missing(url: PubsubUrl, what: str) -> Unavailable:
    return Unavailable(f"the queue's {what} is not there in {url.project}; run: modelmeter queue create")


@contextlib.contextmanager
def _calls(url: PubsubUrl, what: str) -> Iterator[None]:
    """Google's errors become ours."""
    try:
        yield
    except google_errors.NotFound as error:
        raise _missing(url, what) from error
    except _AWAY as error:
        raise away(error) from error


class Gauge:
    """The backlog as Cloud Monitoring knows it: a minute or more behind. The emulator has none: it reads as empty."""

    def __init__(self, url: PubsubUrl) -> None:
        self._url = url
        self._client: monitoring_v3.MetricServiceClient | None = None
        self._known = Backlog(0, 0, 0, 0)
        self._due = 0.0
        self.events_per_message = 1.0

    def read(self) -> Backlog:
        """Events are an estimate, from the messages that this process has seen."""
        if os.environ.get("PUBSUB_EMULATOR_HOST") or time.monotonic() < self._due:
            return self._known
        with _calls(self._url, f"subscription {self._url.subscription!r}"):
            if self._client is None:
                self._client = monitoring_v3.MetricServiceClient()
            messages = self._newest("num_undelivered_messages")
            self._known = Backlog(
                int(messages),
                round(messages * self.events_per_message),
                int(self._newest("backlog_bytes")),
                self._newest("oldest_unacked_message_age"),
            )
        self._due = time.monotonic() + _BACKLOG_SECONDS
        return self._known

    def _newest(self, metric: str) -> float:
        assert self._client is not None
        now = time.time()
        series = self._client.list_time_series(
            request={
                "name": f"projects/{self._url.project}",
                "filter": f'metric.type = "{_METRICS}{metric}" AND '
                f'resource.labels.subscription_id = "{self._url.subscription}"',
                "interval": {"start_time": {"seconds": int(now) - 600}, "end_time": {"seconds": int(now)}},
                "view": monitoring_v3.ListTimeSeriesRequest.TimeSeriesView.FULL,
            },
            timeout=_CALL_SECONDS,
        )
        return float(sum(one.points[0].value.int64_value for one in series if one.points))  # the newest comes first


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
            with _calls(self._url, f"topic {self._url.topic!r}"):
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
                    client_options=_options(self._url),
                )
        return self._publisher

    async def enqueue(self, payload: bytes, events: int) -> None:
        publisher = self._open()
        waiting = []
        for part, piece in cut(payload, _LIMIT_BYTES):
            attributes = {_EVENTS: str(0 if part and part.number else events)}
            if part is not None:
                attributes[_PART] = str(part)
            try:
                future = publisher.publish(
                    _topic(self._url),
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
        with _calls(self._url, f"topic {self._url.topic!r}"):
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
        with _calls(self._url, f"topic {self._url.topic!r}"):
            self._open().get_topic(request={"topic": _topic(self._url)}, timeout=_ENQUEUE_SECONDS, retry=None)

    async def close(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await asyncio.to_thread(publisher.stop)
            await asyncio.to_thread(publisher.transport.close)


class PubsubBroker:
    """The worker's side of the subscription."""

    def __init__(self, url: PubsubUrl) -> None:
        self._url = url
        self._subscriber: Any = None
        self._gauge = Gauge(url)
        self._hand: set[str] = set()
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._mean = (float("inf"), float("inf"))  # events and bytes of a message; not known, one tells

    def _open(self) -> Any:
        if self._subscriber is None:
            with self._calls():
                self._subscriber = pubsub_v1.SubscriberClient(client_options=_options(self._url))
            self._ended = threading.Event()
            args = (self._subscriber, self._ended)
            threading.Thread(target=self._keep_leases, args=args, name="pubsub leases", daemon=True).start()
        return self._subscriber

    def _calls(self) -> "contextlib.AbstractContextManager[None]":
        return _calls(self._url, f"subscription {self._url.subscription!r}")

    def pull(self, limit_events: int, limit_bytes: int, limit_messages: int) -> list[Delivery]:
        """As many as should fit, going by the size of those that came before; again as long as all asked for came."""
        found: list[Delivery] = []
        events = size = 0
        asked = got = 1
        while asked == got and len(found) < _PULL_MESSAGES:
            mean_events, mean_size = self._mean
            room = min(
                limit_messages - len(found),
                _PULL_MESSAGES,
                int((limit_events - events) / mean_events),
                int((limit_bytes - size) / mean_size),
            )
            if found and room < 1:
                break
            asked = max(room, 1)
            more = self._pull_once(asked)
            got = len(more)
            found += more
            events = sum(delivery.events for delivery in found)
            size = sum(len(delivery.payload) for delivery in found)
            if found:
                self._mean = (max(events / len(found), 1), max(size / len(found), 1))
        self._gauge.events_per_message = self._mean[0]
        fitting = _fitting(found, limit_events, limit_bytes)
        self.give_back(found[fitting:])
        return found[:fitting]

    def _pull_once(self, count: int) -> list[Delivery]:
        subscriber = self._open()
        try:
            with self._calls():
                answer = subscriber.pull(
                    request={"subscription": _subscription(self._url), "max_messages": count},
                    timeout=_WAIT_SECONDS,
                    retry=None,
                )
        except Unavailable as error:
            if isinstance(error.__cause__, google_errors.DeadlineExceeded):
                return []
            raise
        found = [self._receive(message) for message in answer.received_messages]
        if found:
            with self._mutex:
                self._hand.update(delivery.handle for delivery in found)
            self._extend(subscriber, [delivery.handle for delivery in found], int(self._url.ack_wait_seconds))
        return found

    @staticmethod
    def _receive(message: Any) -> Delivery:
        attributes = message.message.attributes
        try:
            part = Part.read(attributes.get(_PART))
        except ValueError:
            part = None
        events = attributes.get(_EVENTS, "0")
        return Delivery(
            message.message.data,
            int(events) if events.isdecimal() else 0,
            max(message.delivery_attempt, 1),
            part,
            message.ack_id,
        )

    def _keep_leases(self, subscriber: Any, ended: threading.Event) -> None:
        while not ended.wait(self._url.ack_wait_seconds / 3):
            with self._mutex:
                hand = list(self._hand)
            with contextlib.suppress(Unavailable):
                self._extend(subscriber, hand, int(self._url.ack_wait_seconds))

    def _extend(self, subscriber: Any, ids: Sequence[str], seconds: int) -> None:
        with self._calls():
            for start in range(0, len(ids), _IDS_AT_ONCE):
                subscriber.modify_ack_deadline(
                    request={
                        "subscription": _subscription(self._url),
                        "ack_ids": ids[start : start + _IDS_AT_ONCE],
                        "ack_deadline_seconds": seconds,
                    },
                    timeout=_CALL_SECONDS,
                )

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        ids = [delivery.handle for delivery in deliveries]
        with self._mutex:
            self._hand.difference_update(ids)
        subscriber = self._open()
        with self._calls():
            for start in range(0, len(ids), _IDS_AT_ONCE):
                subscriber.acknowledge(
                    request={"subscription": _subscription(self._url), "ack_ids": ids[start : start + _IDS_AT_ONCE]},
                    timeout=_CALL_SECONDS,
                )

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        with self._mutex:
            ids = [delivery.handle for delivery in deliveries if delivery.handle in self._hand]
            self._hand.difference_update(ids)
        if ids:
            self._extend(self._open(), ids, 0)

    def backlog(self) -> Backlog:
        return self._gauge.read()

    def close(self) -> None:
        with self._mutex:
            hand = list(self._hand)
        if self._subscriber is not None and hand:
            with contextlib.suppress(Unavailable):
                self._extend(self._subscriber, hand, 0)
        self.forsake()

    def forsake(self) -> None:
        """Drop the connection as a dead process does: nothing is given back."""
        self._ended.set()
        with self._mutex:
            self._hand.clear()
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            subscriber.close()


def _fitting(found: Sequence[Delivery], limit_events: int, limit_bytes: int) -> int:
    events = size = 0
    for number, delivery in enumerate(found):
        events += delivery.events
        size += len(delivery.payload)
        if number and (events > limit_events or size > limit_bytes):
            return number
    return len(found)


class PubsubSteward:
    """Makes, looks at and empties topics and subscriptions: `modelmeter queue ...`."""

    def __init__(self, url: PubsubUrl) -> None:
        self._url = url

    def create(self, *, dry_run: bool) -> list[str]:
        """What was made, or would be, a line each; nothing when all is there."""
        url = self._url
        made: list[str] = []
        with self._clients() as (publisher, subscriber):
            for suffix in ("-dead", ""):
                if not _is_there(lambda suffix=suffix: publisher.get_topic(topic=_topic(url, suffix))):
                    made.append(f"topic {url.topic}{suffix}")
                    if not dry_run:
                        publisher.create_topic(name=_topic(url, suffix))
            for suffix, request in (("-dead", self._dead()), ("", self._wanted())):
                name = _subscription(url, suffix)
                if not _is_there(lambda name=name: subscriber.get_subscription(subscription=name)):
                    what = "keeps what nobody could store, 7 days" if suffix else self._describe()
                    made.append(f"subscription {url.subscription}{suffix} of {url.topic}{suffix}: {what}")
                    if not dry_run:
                        subscriber.create_subscription(request=request)
            if not suffix and not dry_run:
                there = subscriber.get_subscription(subscription=_subscription(url))
                if there.topic != _topic(url):
                    raise WrongSetting(f"queue: the subscription {url.subscription!r} belongs to {there.topic}")
        return made

    def _describe(self) -> str:
        once = "exactly once" if self._url.exactly_once else "at least once"
        return f"{once}, dead letters to {self._url.topic}-dead after {self._url.max_deliver} deliveries"

    def _wanted(self) -> dict[str, Any]:
        return {
            "name": _subscription(self._url),
            "topic": _topic(self._url),
            "ack_deadline_seconds": _FIRST_LEASE_SECONDS,
            "message_retention_duration": {"seconds": 7 * 86_400},
            "expiration_policy": {},
            "enable_exactly_once_delivery": self._url.exactly_once,
            "dead_letter_policy": {
                "dead_letter_topic": _topic(self._url, "-dead"),
                "max_delivery_attempts": self._url.max_deliver,
            },
        }

    def _dead(self) -> dict[str, Any]:
        return {
            "name": _subscription(self._url, "-dead"),
            "topic": _topic(self._url, "-dead"),
            "message_retention_duration": {"seconds": 7 * 86_400},
            "expiration_policy": {},
        }

    def status(self) -> dict[str, object]:
        with self._clients() as (_, subscriber):
            found = subscriber.get_subscription(subscription=_subscription(self._url))
        return {
            "queue": f"Pub/Sub {found.name} of {found.topic}",
            "exactly once": "yes" if found.enable_exactly_once_delivery else "no",
            "dead letters": found.dead_letter_policy.dead_letter_topic or "no topic",
        }

    def purge(self, *, dry_run: bool) -> int:
        """-1: Pub/Sub does not say how many."""
        if not dry_run:
            with self._clients() as (_, subscriber):
                subscriber.seek(request={"subscription": _subscription(self._url), "time": datetime.now(UTC)})
        return -1

    @contextlib.contextmanager
    def _clients(self) -> Iterator[tuple[Any, Any]]:
        with _calls(self._url, "topic or subscription"):
            publisher = pubsub_v1.PublisherClient(client_options=_options(self._url))
            try:
                with pubsub_v1.SubscriberClient(client_options=_options(self._url)) as subscriber:
                    yield publisher, subscriber
            finally:
                publisher.transport.close()


def _is_there(look: Any) -> bool:
    try:
        look()
    except google_errors.NotFound:
        return False
    return True
