"""The worker's side: pulls what fits, keeps the leases of what is in hand."""

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions as google_errors

from modelmeter.errors import Unavailable
from modelmeter.queue import Backlog
from modelmeter.queue.outside import Delivery, Part
from modelmeter.queue.pubsub.calls import CALL_SECONDS, EVENTS, PART, calls, open_subscriber, subscription_name
from modelmeter.queue.pubsub.gauge import Gauge
from modelmeter.queue.url import PubsubUrl

_WAIT_SECONDS = 0.3
_IDS_AT_ONCE = 500
_PULL_MESSAGES = 1000


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
                self._subscriber = open_subscriber(self._url)
            self._ended = threading.Event()
            args = (self._subscriber, self._ended)
            threading.Thread(target=self._keep_leases, args=args, name="pubsub leases", daemon=True).start()
        return self._subscriber

    def _calls(self) -> "contextlib.AbstractContextManager[None]":
        return calls(self._url, f"subscription {self._url.subscription!r}")

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
                    request={"subscription": subscription_name(self._url), "max_messages": count},
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
            part = Part.read(attributes.get(PART))
        except ValueError:
            part = None
        events = attributes.get(EVENTS, "0")
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
                        "subscription": subscription_name(self._url),
                        "ack_ids": ids[start : start + _IDS_AT_ONCE],
                        "ack_deadline_seconds": seconds,
                    },
                    timeout=CALL_SECONDS,
                )

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        ids = [delivery.handle for delivery in deliveries]
        with self._mutex:
            self._hand.difference_update(ids)
        subscriber = self._open()
        with self._calls():
            for start in range(0, len(ids), _IDS_AT_ONCE):
                subscriber.acknowledge(
                    request={
                        "subscription": subscription_name(self._url),
                        "ack_ids": ids[start : start + _IDS_AT_ONCE],
                    },
                    timeout=CALL_SECONDS,
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
            subscriber.transport.close()


def _fitting(found: Sequence[Delivery], limit_events: int, limit_bytes: int) -> int:
    events = size = 0
    for number, delivery in enumerate(found):
        events += delivery.events
        size += len(delivery.payload)
        if number and (events > limit_events or size > limit_bytes):
            return number
    return len(found)
