"""The queue's contract (modelmeter/queue/__init__.py), told once for all implementations.

A further implementation is a further entry of QUEUES. What comes back by itself may take `patience` seconds.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from threading import Barrier
from typing import TypeVar

import psycopg
import pytest

from modelmeter.errors import Unavailable
from modelmeter.queue import Claim, Consumer, Producer
from modelmeter.queue.nats import NatsBroker, NatsProducer, NatsSteward
from modelmeter.queue.outside import OutsideConsumer
from modelmeter.queue.pubsub import PubsubBroker, PubsubProducer, PubsubSteward
from modelmeter.queue.url import NatsUrl, PubsubUrl, parse
from modelmeter.store.dead_letters import DeadLetters
from modelmeter.store.outside import OutsideDatabase
from modelmeter.store.queue import PostgresConsumer, PostgresProducer
from tests.queue.servers import NatsServer

EVENTS, BYTES, MESSAGES = 1_000_000, 10**9, 1000

Found = TypeVar("Found")


@dataclass
class Queue:
    """How a test comes to producers and consumers of one implementation."""

    database_url: str
    make_producer: Callable[[], Producer]
    make_consumer: Callable[[], Consumer]
    break_consumer: Callable[[Consumer], None]
    patience_seconds: float = 10
    counts: bool = True
    make_lost_producer: Callable[[], Producer] = lambda: PostgresProducer("host=/nowhere dbname=none")
    opened: ExitStack = field(default_factory=ExitStack)

    def consumer(self) -> Consumer:
        consumer = self.make_consumer()
        self.opened.callback(consumer.close)
        return consumer

    def send(self, *messages: tuple[bytes, int]) -> None:
        async def enqueue() -> None:
            producer = self.make_producer()
            for payload, events in messages:
                await producer.enqueue(payload, events)
            await producer.close()

        asyncio.run(enqueue())

    def wait(self, look: Callable[[], Found | None]) -> Found:
        deadline = time.monotonic() + self.patience_seconds
        while (found := look()) is None:
            assert time.monotonic() < deadline, "it did not come"
        return found


def _postgres(url: str) -> Queue:
    def break_consumer(consumer: Consumer) -> None:
        assert isinstance(consumer, PostgresConsumer)
        assert consumer._connection is not None
        with psycopg.connect(url, autocommit=True) as connection:
            pid = consumer._connection.info.backend_pid
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))

    return Queue(url, lambda: PostgresProducer(url), lambda: PostgresConsumer(url), break_consumer)


_numbers = count()


def _nats(url: str, request: pytest.FixtureRequest) -> Queue:
    server: NatsServer = request.getfixturevalue("nats")
    its = parse(f"nats://127.0.0.1:{server.port}/contract-{next(_numbers)}?ack_wait_seconds=2")
    assert isinstance(its, NatsUrl)
    NatsSteward(its).create(dry_run=False)
    brokers: dict[int, NatsBroker] = {}

    def make_consumer() -> Consumer:
        broker = NatsBroker(its)
        consumer = OutsideConsumer(broker, OutsideDatabase(url), its.max_deliver)
        brokers[id(consumer)] = broker
        return consumer

    return Queue(
        url,
        lambda: NatsProducer(its),
        make_consumer,
        lambda consumer: brokers[id(consumer)].forsake(),
        make_lost_producer=lambda: NatsProducer(NatsUrl(("nats://127.0.0.1:1",), "none")),
    )


def _pubsub(url: str, request: pytest.FixtureRequest) -> Queue:
    address: str = request.getfixturevalue("emulator")
    request.getfixturevalue("monkeypatch").setenv("PUBSUB_EMULATOR_HOST", address)
    number = next(_numbers)
    its = parse(f"pubsub://contract/topic-{number}?subscription=sub-{number}&ack_wait_seconds=10")
    assert isinstance(its, PubsubUrl)
    PubsubSteward(its).create(dry_run=False)
    brokers: dict[int, PubsubBroker] = {}

    def make_consumer() -> Consumer:
        broker = PubsubBroker(its)
        consumer = OutsideConsumer(broker, OutsideDatabase(url), its.max_deliver)
        brokers[id(consumer)] = broker
        return consumer

    return Queue(
        url,
        lambda: PubsubProducer(its),
        make_consumer,
        lambda consumer: brokers[id(consumer)].forsake(),
        patience_seconds=30,
        counts=False,
        make_lost_producer=lambda: PubsubProducer(PubsubUrl("contract", "nothing", "nothing")),
    )


QUEUES: dict[str, Callable[[str, pytest.FixtureRequest], Queue]] = {
    "postgres": lambda url, _: _postgres(url),
    "nats": _nats,
    "pubsub": _pubsub,
}


@pytest.fixture(params=[*QUEUES])
def queue(request: pytest.FixtureRequest, database_url: str) -> Iterator[Queue]:
    queue = QUEUES[request.param](database_url, request)
    with queue.opened:
        yield queue


def take_all(
    consumer: Consumer, events: int = EVENTS, size: int = BYTES, messages: int = MESSAGES
) -> list[list[bytes]]:
    """The payloads of each claim until nothing waits."""
    taken = []
    while (claim := consumer.claim(events, size, messages)) is not None:
        taken.append(list(claim.payloads))
        claim.complete()
    return taken


def test_what_is_enqueued_can_be_claimed_and_completed_once(queue: Queue) -> None:
    payloads = [bytes([number]) * (number * 1000) for number in range(10)]
    queue.send(*((payload, 5) for payload in payloads))
    consumer = queue.consumer()
    taken = [payload for claim in take_all(consumer) for payload in claim]
    assert sorted(taken) == sorted(payloads)
    assert consumer.claim(EVENTS, BYTES, MESSAGES) is None
    assert queue.consumer().claim(EVENTS, BYTES, MESSAGES) is None


def test_an_empty_queue_gives_no_claim(queue: Queue) -> None:
    assert queue.consumer().claim(EVENTS, BYTES, MESSAGES) is None


def test_a_payload_comes_out_as_it_went_in(queue: Queue) -> None:
    payloads = [b"", b"\0", bytes(range(256)) * 5000]
    queue.send(*((payload, 1) for payload in payloads))
    assert sorted(payload for claim in take_all(queue.consumer()) for payload in claim) == sorted(payloads)


def test_many_producers_at_once_lose_nothing(queue: Queue) -> None:
    async def enqueue() -> None:
        producers = [queue.make_producer() for _ in range(3)]
        await asyncio.gather(*(producers[n % 3].enqueue(b"%d" % n, 1) for n in range(200)))
        for producer in producers:
            await producer.close()

    asyncio.run(enqueue())
    taken = [int(payload) for claim in take_all(queue.consumer()) for payload in claim]
    assert sorted(taken) == [*range(200)]


def test_order_is_kept_roughly(queue: Queue) -> None:
    queue.send(*((b"%d" % number, 1) for number in range(50)))
    firsts = [min(int(payload) for payload in claim) for claim in take_all(queue.consumer(), messages=5)]
    assert firsts == sorted(firsts)


def test_a_claim_is_bounded_by_messages_events_and_bytes(queue: Queue) -> None:
    queue.send(*((b"x" * 100, 10) for _ in range(12)))
    consumer = queue.consumer()
    for limits, most in (((EVENTS, BYTES, 3), 3), ((25, BYTES, MESSAGES), 2), ((EVENTS, 450, MESSAGES), 4)):
        claim = consumer.claim(*limits)
        assert claim is not None
        assert 1 <= len(claim.payloads) <= most
        claim.release()


def test_a_message_over_every_limit_is_claimed_alone(queue: Queue) -> None:
    queue.send((b"x" * 1000, 1000), (b"y", 1))
    assert sorted(take_all(queue.consumer(), 10, 10)) == [[b"x" * 1000], [b"y"]]


def test_what_is_released_comes_back_to_any_consumer_at_once(queue: Queue) -> None:
    queue.send((b"a", 1), (b"b", 1))
    claim = queue.consumer().claim(EVENTS, BYTES, MESSAGES)
    assert claim is not None
    claim.release()
    again = queue.wait(lambda: queue.consumer().claim(EVENTS, BYTES, MESSAGES))
    assert sorted(again.payloads) == [b"a", b"b"]
    again.release()


def test_what_a_dead_consumer_had_comes_back_to_another(queue: Queue) -> None:
    queue.send((b"a", 1))
    dead = queue.consumer()
    assert dead.claim(EVENTS, BYTES, MESSAGES) is not None
    other = queue.consumer()
    assert other.claim(EVENTS, BYTES, MESSAGES) is None
    queue.break_consumer(dead)
    claim = queue.wait(lambda: other.claim(EVENTS, BYTES, MESSAGES))
    assert claim.payloads == [b"a"]
    claim.complete()
    assert other.claim(EVENTS, BYTES, MESSAGES) is None


def test_a_consumer_that_was_closed_begins_anew(queue: Queue) -> None:
    queue.send((b"a", 1))
    consumer = queue.consumer()
    assert consumer.claim(EVENTS, BYTES, MESSAGES) is not None
    consumer.close()
    claim = queue.wait(lambda: consumer.claim(EVENTS, BYTES, MESSAGES))
    assert claim.payloads == [b"a"]
    claim.release()


def test_two_consumers_never_hold_one_message(queue: Queue) -> None:
    queue.send(*((b"%d" % number, 1) for number in range(300)))
    together = Barrier(3)

    def work() -> list[int]:
        consumer = queue.make_consumer()
        together.wait(10)
        taken: list[int] = []
        claim: Claim | None
        try:
            while (claim := consumer.claim(7, BYTES, 7)) is not None:
                taken += map(int, claim.payloads)
                claim.complete()
        finally:
            consumer.close()
        return taken

    with ThreadPoolExecutor(3) as pool:
        taken = [number for done in [pool.submit(work) for _ in range(3)] for number in done.result(60)]
    taken += [int(payload) for claim in take_all(queue.consumer()) for payload in claim]
    assert sorted(taken) == [*range(300)]


def test_what_a_claim_leaves_another_consumer_can_take(queue: Queue) -> None:
    queue.send(*((b"%d" % number, 10) for number in range(4)))
    one = queue.consumer().claim(20, BYTES, MESSAGES)
    other = queue.consumer().claim(20, BYTES, MESSAGES)
    assert one is not None
    assert other is not None
    assert sorted([*one.payloads, *other.payloads]) == [b"0", b"1", b"2", b"3"]
    one.release()
    other.release()


def test_what_failed_is_a_dead_letter_when_the_claim_completes(queue: Queue) -> None:
    queue.send((b"good", 1), (b"bad", 7))
    consumer = queue.consumer()
    claim = consumer.claim(EVENTS, BYTES, MESSAGES)
    assert claim is not None
    claim.fail([*claim.payloads].index(b"bad"), "it \0 smells \ud800")
    claim.complete()
    assert consumer.claim(EVENTS, BYTES, MESSAGES) is None
    letters = DeadLetters(queue.database_url).newest()
    assert [(letter.events, letter.bytes, letter.reason) for letter in letters] == [(7, 3, "it \\0 smells \\ud800")]


def test_what_failed_in_a_claim_that_is_released_is_no_dead_letter(queue: Queue) -> None:
    queue.send((b"bad", 1))
    consumer = queue.consumer()
    claim = consumer.claim(EVENTS, BYTES, MESSAGES)
    assert claim is not None
    claim.fail(0, "no")
    claim.release()
    assert DeadLetters(queue.database_url).newest() == []
    assert queue.wait(lambda: consumer.claim(EVENTS, BYTES, MESSAGES)).payloads == [b"bad"]


def test_the_backlog_says_what_waits_on_both_sides(queue: Queue) -> None:
    if not queue.counts:
        pytest.skip("Cloud Monitoring counts, which the emulator has not; test_pubsub.py looks at its answers")
    consumer = queue.consumer()
    assert consumer.backlog().messages == 0
    assert consumer.backlog().age_seconds == 0
    queue.send((b"abc", 5), (b"de", 7))

    async def look() -> tuple[int, int, int]:
        producer = queue.make_producer()
        found = await producer.backlog()
        await producer.close()
        return found.messages, found.events, found.bytes

    messages, events, size = asyncio.run(look())
    assert (messages, events) == (2, 12)
    assert size >= 5  # the queue's own count, with what it puts around a message
    found = consumer.backlog()
    assert (found.messages, found.events, found.bytes) == (2, 12, size)
    assert 0 <= found.age_seconds < 60
    take_all(consumer)
    assert consumer.backlog().messages == 0


def test_a_producer_whose_server_is_away_says_so(queue: Queue) -> None:
    async def enqueue() -> None:
        producer = queue.make_lost_producer()
        with pytest.raises(Unavailable) as caught:
            await producer.enqueue(b"a", 1)
        assert caught.value.retry_after_seconds >= 1
        await producer.close()

    asyncio.run(enqueue())
