"""Makes, looks at and empties topics and subscriptions."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace of many packages

from modelmeter.errors import WrongSetting
from modelmeter.queue.pubsub.calls import calls, client_options, open_subscriber, subscription_name, topic_name
from modelmeter.queue.url import PubsubUrl

_FIRST_LEASE_SECONDS = 10
"""The subscription's own. Right after a pull it becomes the URL's; so a lease lost on its way is a short one."""


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
                if not _is_there(lambda suffix=suffix: publisher.get_topic(topic=topic_name(url, suffix))):
                    made.append(f"topic {url.topic}{suffix}")
                    if not dry_run:
                        publisher.create_topic(name=topic_name(url, suffix))
            for suffix, request in (("-dead", self._dead()), ("", self._wanted())):
                name = subscription_name(url, suffix)
                if not _is_there(lambda name=name: subscriber.get_subscription(subscription=name)):
                    what = "keeps what nobody could store, 7 days" if suffix else self._describe()
                    made.append(f"subscription {url.subscription}{suffix} of {url.topic}{suffix}: {what}")
                    if not dry_run:
                        subscriber.create_subscription(request=request)
            if not suffix and not dry_run:
                there = subscriber.get_subscription(subscription=subscription_name(url))
                if there.topic != topic_name(url):
                    raise WrongSetting(f"queue: the subscription {url.subscription!r} belongs to {there.topic}")
        return made

    def _describe(self) -> str:
        once = "exactly once" if self._url.exactly_once else "at least once"
        return f"{once}, dead letters to {self._url.topic}-dead after {self._url.max_deliver} deliveries"

    def _wanted(self) -> dict[str, Any]:
        return {
            "name": subscription_name(self._url),
            "topic": topic_name(self._url),
            "ack_deadline_seconds": _FIRST_LEASE_SECONDS,
            "message_retention_duration": {"seconds": 7 * 86_400},
            "expiration_policy": {},
            "enable_exactly_once_delivery": self._url.exactly_once,
            "dead_letter_policy": {
                "dead_letter_topic": topic_name(self._url, "-dead"),
                "max_delivery_attempts": self._url.max_deliver,
            },
        }

    def _dead(self) -> dict[str, Any]:
        return {
            "name": subscription_name(self._url, "-dead"),
            "topic": topic_name(self._url, "-dead"),
            "message_retention_duration": {"seconds": 7 * 86_400},
            "expiration_policy": {},
        }

    def status(self) -> dict[str, object]:
        with self._clients() as (_, subscriber):
            found = subscriber.get_subscription(subscription=subscription_name(self._url))
        return {
            "queue": f"Pub/Sub {found.name} of {found.topic}",
            "exactly once": "yes" if found.enable_exactly_once_delivery else "no",
            "dead letters": found.dead_letter_policy.dead_letter_topic or "no topic",
        }

    def purge(self, *, dry_run: bool) -> int:
        """-1: Pub/Sub does not say how many."""
        if not dry_run:
            with self._clients() as (_, subscriber):
                subscriber.seek(request={"subscription": subscription_name(self._url), "time": datetime.now(UTC)})
        return -1

    @contextlib.contextmanager
    def _clients(self) -> Iterator[tuple[Any, Any]]:
        with calls(self._url, "topic or subscription"):
            publisher = pubsub_v1.PublisherClient(client_options=client_options(self._url))
            try:
                with open_subscriber(self._url) as subscriber:
                    yield publisher, subscriber
            finally:
                publisher.transport.close()


def _is_there(look: Any) -> bool:
    try:
        look()
    except google_errors.NotFound:
        return False
    return True
