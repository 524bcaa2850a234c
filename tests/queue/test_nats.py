"""What only the queue in NATS promises, against a real nats-server, and a cluster that loses a node."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import nats as nats_client
import psycopg
import pytest
from nats.js import api

from modelmeter.errors import Busy, Unavailable, WrongSetting
from modelmeter.queue.nats import NatsBroker, NatsProducer, NatsSteward
from modelmeter.queue.nats.link import subject_of
from modelmeter.queue.outside import OutsideConsumer
from modelmeter.queue.url import NatsUrl, parse
from modelmeter.store.dead_letters import DeadLetters
from modelmeter.store.outside import OutsideDatabase
from tests.queue.servers import NatsServer, nats_cluster, nats_server, until

EVENTS, BYTES, MESSAGES = 1_000_000, 10**9, 1000
_numbers = itertools.count()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def url_of(server: NatsServer, **options: object) -> NatsUrl:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    found = parse(f"nats://127.0.0.1:{server.port}/nats-{next(_numbers)}?{query}")
    assert isinstance(found, NatsUrl)
    return found


def make_stream(server: NatsServer, **options: object) -> NatsUrl:
    url = url_of(server, **options)
    NatsSteward(url).create(dry_run=False)
    return url


def consumer_of(url: NatsUrl, database_url: str, opened: ExitStack) -> OutsideConsumer:
    consumer = OutsideConsumer(NatsBroker(url), OutsideDatabase(database_url), url.max_deliver)
    opened.callback(consumer.close)
    return consumer


def send(url: NatsUrl, *payloads: bytes) -> None:
    async def enqueue() -> None:
        producer = NatsProducer(url)
        try:
            for payload in payloads:
                await producer.enqueue(payload, 1)
        finally:
            await producer.close()

    asyncio.run(enqueue())


def drain(consumer: OutsideConsumer, seconds: float = 1) -> list[bytes]:
    """All that comes until nothing came for so long."""
    found: list[bytes] = []
    since = time.monotonic()
    while time.monotonic() - since < seconds:
        claim = consumer.claim(EVENTS, BYTES, MESSAGES)
        if claim is not None:
            found += claim.payloads
            claim.complete()
            since = time.monotonic()
    return found


def test_create_says_what_it_would_make_makes_it_and_leaves_what_is_there(nats: NatsServer) -> None:
    url = url_of(nats)
    steward = NatsSteward(url)
    with pytest.raises(Unavailable, match="queue create"):
        steward.status()
    would = steward.create(dry_run=True)
    assert len(would) == 2
    assert url.stream in would[0]
    assert steward.create(dry_run=True) == would
    assert steward.create(dry_run=False) == would
    assert steward.create(dry_run=False) == []
    send(url, b"a", b"b")
    assert steward.status()["replicas"] == 1
    assert steward.purge(dry_run=True) == 2
    assert steward.purge(dry_run=False) == 2
    assert steward.purge(dry_run=False) == 0


def test_a_stream_that_is_somebody_elses_is_left_alone(nats: NatsServer) -> None:
    url = url_of(nats)

    async def make() -> None:
        client = await nats_client.connect(url.servers[0])
        await client.jetstream().add_stream(name=url.stream, subjects=[f"{url.stream}.other"])
        await client.close()

    asyncio.run(make())
    with pytest.raises(WrongSetting, match="not modelmeter's"):
        NatsSteward(url).create(dry_run=False)


def test_a_stream_that_is_missing_is_named(nats: NatsServer, database_url: str, opened: ExitStack) -> None:
    url = url_of(nats)
    with pytest.raises(Unavailable, match="queue create"):
        send(url, b"a")
    with pytest.raises(Unavailable, match="queue create"):
        consumer_of(url, database_url, opened).claim(EVENTS, BYTES, MESSAGES)


def test_the_broker_keeps_one_of_two_publishes_with_one_id(
    nats: NatsServer, database_url: str, opened: ExitStack
) -> None:
    url = make_stream(nats)

    async def publish() -> None:
        client = await nats_client.connect(url.servers[0])
        for _ in range(2):
            await client.jetstream().publish(subject_of(url), b"a", headers={api.Header.MSG_ID: "one"})
        await client.close()

    asyncio.run(publish())
    assert drain(consumer_of(url, database_url, opened)) == [b"a"]


def test_a_lease_is_extended_for_as_long_as_the_worker_lives(
    nats: NatsServer, database_url: str, opened: ExitStack
) -> None:
    url = make_stream(nats, ack_wait_seconds=1)
    send(url, b"a")
    claim = consumer_of(url, database_url, opened).claim(EVENTS, BYTES, MESSAGES)
    assert claim is not None
    other = consumer_of(url, database_url, opened)
    until_then = time.monotonic() + 2.5
    while time.monotonic() < until_then:
        assert other.claim(EVENTS, BYTES, MESSAGES) is None
    claim.complete()


def test_what_is_never_stored_is_a_dead_letter_after_so_many_deliveries(
    nats: NatsServer, database_url: str, opened: ExitStack
) -> None:
    url = make_stream(nats, max_deliver=6)
    send(url, b"bad", b"good")
    consumer = consumer_of(url, database_url, opened)
    stored: list[bytes] = []
    seen_alone = 0
    deadline = time.monotonic() + 20
    while not DeadLetters(database_url).newest():
        assert time.monotonic() < deadline
        claim = consumer.claim(EVENTS, BYTES, MESSAGES)
        if claim is None:
            continue
        if b"bad" in claim.payloads:  # as a worker does that dies of it
            seen_alone += claim.payloads == [b"bad"]
            claim.release()
        else:
            stored += claim.payloads
            claim.complete()
    assert stored == [b"good"]
    assert seen_alone >= 2
    letter = DeadLetters(database_url).newest()[0]
    assert (letter.events, letter.bytes, letter.reason) == (1, 3, "delivered 7 times and never stored")
    assert drain(consumer) == []


def test_a_message_over_the_brokers_limit_travels_in_parts_to_whichever_worker(
    nats: NatsServer, database_url: str, opened: ExitStack
) -> None:
    url = make_stream(nats)
    large = [bytes([number]) * 3_500_000 for number in (1, 2)]
    send(url, large[0], b"small", large[1])
    consumers = [consumer_of(url, database_url, opened) for _ in range(3)]
    found: list[bytes] = []
    for consumer in itertools.islice(itertools.cycle(consumers), 30):
        claim = consumer.claim(EVENTS, BYTES, 1)
        if claim is not None:
            found += claim.payloads
            claim.complete()
    assert sorted(found) == sorted([*large, b"small"])
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM modelmeter.queue_part").fetchone() == (0,)


def test_parts_in_any_order_again_and_released_come_to_one_message(
    nats: NatsServer, database_url: str, opened: ExitStack
) -> None:
    url = make_stream(nats)
    its_id = uuid.UUID(int=7)

    async def publish() -> None:
        client = await nats_client.connect(url.servers[0])
        for number in (2, 0, 2, 0, 1):
            headers = {"Modelmeter-Part": f"{its_id}/{number}/3", "Modelmeter-Events": "5" if number == 0 else "0"}
            await client.jetstream().publish(subject_of(url), b"%d" % number, headers=headers)
        await client.close()

    asyncio.run(publish())
    consumer = consumer_of(url, database_url, opened)
    for _ in range(4):
        assert consumer.claim(EVENTS, BYTES, 1) is None  # taken in, not whole
    claim = consumer.claim(EVENTS, BYTES, 1)
    assert claim is not None
    assert claim.payloads == [b"012"]
    claim.release()
    assert drain(consumer) == [b"012"]


def test_a_full_queue_is_busy_and_keeps_what_it_has(nats: NatsServer, database_url: str, opened: ExitStack) -> None:
    url = make_stream(nats, limit_bytes=300_000)
    with pytest.raises(Busy) as caught:
        send(url, *[b"x" * 20_000] * 100)
    assert not isinstance(caught.value, Unavailable)
    assert "full" in caught.value.detail
    assert len(drain(consumer_of(url, database_url, opened))) >= 10
    send(url, b"x")


def test_both_sides_reconnect_when_the_server_was_killed(database_url: str, opened: ExitStack) -> None:
    with nats_server() as server:
        url = make_stream(server, ack_wait_seconds=1)
        consumer = consumer_of(url, database_url, opened)

        async def work() -> None:
            producer = NatsProducer(url)
            await producer.enqueue(b"a", 1)
            await asyncio.to_thread(lambda: consumer.claim(EVENTS, BYTES, MESSAGES))  # in hand when it happens
            server.kill()
            with pytest.raises(Unavailable, match="the queue is away"):
                await producer.enqueue(b"lost", 1)
            server.start()
            deadline = time.monotonic() + 20
            while True:
                try:
                    await producer.enqueue(b"b", 1)
                    break
                except Unavailable:
                    assert time.monotonic() < deadline
            await producer.close()

        asyncio.run(work())
        found: set[bytes] = set()
        deadline = time.monotonic() + 20
        while not found >= {b"a", b"b"}:
            assert time.monotonic() < deadline, found
            try:
                found |= set(drain(consumer, 0.5))
            except Unavailable:
                consumer.close()


def test_a_cluster_that_loses_a_node_loses_no_message(database_url: str, opened: ExitStack) -> None:
    with nats_cluster() as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        url = parse(f"nats://{hosts}/cluster?replicas=3&ack_wait_seconds=2")
        assert isinstance(url, NatsUrl)

        def made() -> bool:
            try:
                NatsSteward(url).create(dry_run=False)
            except Unavailable:
                return False
            return True

        until(made, "the cluster has a leader")
        sent: list[bytes] = []

        async def enqueue() -> None:
            producer = NatsProducer(url)
            for number in range(150):
                if number == 50:
                    leader = NatsSteward(url)
                    name = (await asyncio.to_thread(leader.status))["leader"]
                    next(node for node in nodes if node.name == name).kill()
                payload = b"%d" % number
                deadline = time.monotonic() + 40
                while True:
                    try:
                        await producer.enqueue(payload, 1)
                        break
                    except Unavailable:
                        assert time.monotonic() < deadline
                sent.append(payload)
            await producer.close()

        asyncio.run(enqueue())
        consumer = consumer_of(url, database_url, opened)
        found: list[bytes] = []
        deadline = time.monotonic() + 30
        while set(found) != set(sent):
            assert time.monotonic() < deadline, (len(found), len(sent))
            try:
                found += drain(consumer, 1)
            except Unavailable:
                consumer.close()
