"""What only the queue in Pub/Sub promises, against Google's emulator; the backlog against a stub of Monitoring."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from google.cloud import monitoring_v3

from modelmeter.errors import Unavailable
from modelmeter.queue import Backlog
from modelmeter.queue.outside import OutsideConsumer
from modelmeter.queue.pubsub import Gauge, PubsubBroker, PubsubProducer, PubsubSteward
from modelmeter.queue.url import PubsubUrl
from modelmeter.store.outside import OutsideDatabase

EVENTS, BYTES, MESSAGES = 1_000_000, 10**9, 1000
_numbers = itertools.count()


@pytest.fixture
def url(emulator: str, monkeypatch: pytest.MonkeyPatch) -> PubsubUrl:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator)
    number = next(_numbers)
    return PubsubUrl("pubsub-test", f"topic-{number}", f"subscription-{number}", ack_wait_seconds=10)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def consumer_of(url: PubsubUrl, database_url: str, opened: ExitStack) -> OutsideConsumer:
    consumer = OutsideConsumer(PubsubBroker(url), OutsideDatabase(database_url), url.max_deliver)
    opened.callback(consumer.close)
    return consumer


def send(url: PubsubUrl, *payloads: bytes) -> None:
    async def enqueue() -> None:
        producer = PubsubProducer(url)
        try:
            for payload in payloads:
                await producer.enqueue(payload, 1)
        finally:
            await producer.close()

    asyncio.run(enqueue())


def drain(consumer: OutsideConsumer, count: int) -> list[bytes]:
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        claim = consumer.claim(EVENTS, BYTES, MESSAGES)
        if claim is not None:
            found += claim.payloads
            claim.complete()
    return found


def test_create_says_what_it_would_make_makes_it_and_leaves_what_is_there(url: PubsubUrl) -> None:
    steward = PubsubSteward(url)
    with pytest.raises(Unavailable, match="queue create"):
        steward.status()
    would = steward.create(dry_run=True)
    assert [line.split(":")[0] for line in would] == [
        f"topic {url.topic}-dead",
        f"topic {url.topic}",
        f"subscription {url.subscription}-dead of {url.topic}-dead",
        f"subscription {url.subscription} of {url.topic}",
    ]
    assert steward.create(dry_run=False) == would
    assert steward.create(dry_run=False) == []
    assert str(steward.status()["dead letters"]).endswith(f"/{url.topic}-dead")


def test_a_topic_that_is_missing_is_named(url: PubsubUrl) -> None:
    with pytest.raises(Unavailable, match="queue create"):
        send(url, b"a")

    async def look() -> None:
        producer = PubsubProducer(url)
        try:
            await producer.backlog()
        finally:
            await producer.close()

    with pytest.raises(Unavailable, match="queue create"):
        asyncio.run(look())


def test_a_message_over_the_limit_travels_in_parts(url: PubsubUrl, database_url: str, opened: ExitStack) -> None:
    PubsubSteward(url).create(dry_run=False)
    large = bytes(range(256)) * 80_000
    send(url, large, b"small")
    assert sorted(drain(consumer_of(url, database_url, opened), 2)) == sorted([large, b"small"])


def test_a_lease_is_extended_for_as_long_as_the_worker_lives(
    url: PubsubUrl, database_url: str, opened: ExitStack
) -> None:
    PubsubSteward(url).create(dry_run=False)
    send(url, b"a")
    claim = None
    holder = consumer_of(url, database_url, opened)
    while claim is None:
        claim = holder.claim(EVENTS, BYTES, MESSAGES)
    other = consumer_of(url, database_url, opened)
    until_then = time.monotonic() + 12
    while time.monotonic() < until_then:
        assert other.claim(EVENTS, BYTES, MESSAGES) is None
    claim.complete()


def test_purge_drops_what_waits(url: PubsubUrl, database_url: str, opened: ExitStack) -> None:
    steward = PubsubSteward(url)
    steward.create(dry_run=False)
    send(url, b"a", b"b")
    assert steward.purge(dry_run=True) == -1
    assert steward.purge(dry_run=False) == -1
    assert consumer_of(url, database_url, opened).claim(EVENTS, BYTES, MESSAGES) is None


class Monitoring:
    """The one call of Cloud Monitoring that is made, answered with numbers by metric."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self._numbers = numbers
        self.asked: list[str] = []

    def list_time_series(self, request: dict[str, object], timeout: float) -> list[monitoring_v3.TimeSeries]:  # noqa: ARG002
        asked = str(request["filter"])
        self.asked.append(asked)
        number = next((value for name, value in self._numbers.items() if f'/{name}"' in asked), None)
        if number is None:
            return []
        points = [{"value": {"int64_value": value}} for value in (number, 999)]
        return [monitoring_v3.TimeSeries({"points": points})]


def test_the_backlog_is_cloud_monitorings_newest_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    gauge = Gauge(PubsubUrl("project-1", "topic", "workers"))
    stub = Monitoring({"num_undelivered_messages": 3, "backlog_bytes": 700, "oldest_unacked_message_age": 9})
    gauge._client = stub  # type: ignore[assignment]
    gauge.events_per_message = 20
    assert gauge.read() == Backlog(3, 60, 700, 9)
    assert all('subscription_id = "workers"' in asked for asked in stub.asked)
    asked = len(stub.asked)
    gauge.read()
    assert len(stub.asked) == asked, "it is asked a few times a minute only"
