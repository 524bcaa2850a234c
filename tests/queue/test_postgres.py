"""What only the queue in Postgres promises: one transaction with the store, slots that are emptied by TRUNCATE."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from modelmeter.errors import Unavailable
from modelmeter.store.queue import SQL, PostgresConsumer, PostgresProducer
from tests.history import count_rows, send_bytes

SLOT_NOW = "(floor(extract(epoch FROM clock_timestamp()) / 30)::bigint %% 4)::smallint"


@pytest.fixture
def consumer(database_url: str) -> Iterator[PostgresConsumer]:
    consumer = PostgresConsumer(database_url)
    yield consumer
    consumer.close()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[int]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


Connection = psycopg.Connection[tuple[int]]


def put(connection: Connection, slots_ahead: int) -> int:
    """One message in the slot whose turn comes so many slots after the present one; the slot."""
    row = connection.execute(
        f"INSERT INTO modelmeter.queue (slot, events, bytes, payload)"
        f" VALUES (({SLOT_NOW} + %s) %% 4, 1, 1, 'x') RETURNING slot".encode(),
        (slots_ahead,),
    ).fetchone()
    assert row is not None
    return row[0]


def size(connection: Connection, slot: int) -> int:
    row = connection.execute("SELECT pg_relation_size('modelmeter.queue_' || %s)", (slot,)).fetchone()
    assert row is not None
    return row[0]


def test_what_the_claims_connection_writes_commits_with_complete(
    database_url: str, consumer: PostgresConsumer, connection: Connection
) -> None:
    connection.execute("CREATE TABLE modelmeter.kept (number int)")
    for end, rows, waiting in (("release", 0, 1), ("complete", 1, 0)):
        if end == "release":
            send_bytes(database_url, (b"a", 1))
        claim = consumer.claim(10, 10, 10)
        assert claim is not None
        claim.connection.execute("INSERT INTO modelmeter.kept VALUES (1)")
        assert count_rows(database_url, "kept") == 0
        getattr(claim, end)()
        assert count_rows(database_url, "kept") == rows
        assert count_rows(database_url, "queue") == waiting


def test_an_idle_slot_that_is_empty_is_truncated(consumer: PostgresConsumer, connection: Connection) -> None:
    slot = put(connection, 3)
    claim = consumer.claim(10, 10, 10)
    assert claim is not None
    claim.complete()
    assert size(connection, slot) > 0
    consumer.tidy()
    assert size(connection, slot) == 0


def test_a_slot_with_a_message_is_never_truncated(
    database_url: str, consumer: PostgresConsumer, connection: Connection
) -> None:
    for ahead in range(4):
        put(connection, ahead)
    consumer.tidy()
    assert count_rows(database_url, "queue") == 4


def test_the_slots_written_now_and_next_are_left_alone(consumer: PostgresConsumer, connection: Connection) -> None:
    slots = [put(connection, 0), put(connection, 1)]
    connection.execute("DELETE FROM modelmeter.queue")
    consumer.tidy()
    # the clock may just have moved on by one slot: the first is then the one written last
    assert size(connection, slots[1]) > 0


@pytest.mark.parametrize("doing", ["INSERT", "claim"])
def test_a_slot_with_a_transaction_in_flight_is_never_truncated_and_never_waited_for(
    database_url: str, consumer: PostgresConsumer, connection: Connection, doing: str
) -> None:
    slot = put(connection, 3)
    claim = consumer.claim(10, 10, 10)
    assert claim is not None
    if doing == "INSERT":
        claim.complete()
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO modelmeter.queue (slot, events, bytes, payload) VALUES (%s, 1, 1, 'x')", (slot,)
        )
    tidier = PostgresConsumer(database_url)
    tidier.tidy()  # comes back, though the other's lock is held
    with psycopg.connect(database_url, autocommit=True) as other:
        assert size(other, slot) > 0
    if doing == "claim":
        assert claim is not None
        claim.release()
    else:
        connection.execute("COMMIT")
    assert count_rows(database_url, "queue") == 1


def test_a_long_transaction_elsewhere_does_not_make_the_queue_grow(
    database_url: str, consumer: PostgresConsumer, connection: Connection
) -> None:
    with psycopg.connect(database_url) as long_one:
        long_one.execute("SELECT txid_current(), count(*) FROM modelmeter.stream")
        slot = put(connection, 3)
        claim = consumer.claim(10, 10, 10)
        assert claim is not None
        claim.complete()
        consumer.tidy()
        assert size(connection, slot) == 0


def test_a_producer_reconnects_by_itself(database_url: str, connection: Connection) -> None:
    async def enqueue() -> None:
        producer = PostgresProducer(database_url, connections=1)
        await producer.enqueue(b"a", 1)
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'modelmeter queue'"
            " AND datname = current_database()"
        )
        with pytest.raises(Unavailable):
            await producer.enqueue(b"b", 1)
        await producer.enqueue(b"c", 1)
        await producer.close()

    asyncio.run(enqueue())
    assert count_rows(database_url, "queue") == 2


def test_an_enqueue_that_is_cancelled_leaves_the_producer_whole(database_url: str) -> None:
    async def enqueue() -> None:
        producer = PostgresProducer(database_url, connections=1)
        with psycopg.connect(database_url) as locking:
            locking.execute("LOCK TABLE modelmeter.queue IN ACCESS EXCLUSIVE MODE")
            task = asyncio.create_task(producer.enqueue(b"a", 1))
            while producer._idle.qsize():
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await producer.enqueue(b"b", 1)
        await producer.close()

    asyncio.run(enqueue())
    assert count_rows(database_url, "queue") >= 1


def pages_of_a_claim(consumer: PostgresConsumer, limit: int) -> int:
    """Pages that the claim's search touches, from where the consumer's last claim was; it claims nothing."""
    with psycopg.connect(consumer._conninfo) as connection:
        plan = connection.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + SQL["pick"], (consumer._floor, limit)
        ).fetchone()
        connection.rollback()
    assert plan is not None
    facts = plan[0][0]["Plan"]
    return int(facts["Shared Hit Blocks"]) + int(facts["Shared Read Blocks"])


def pass_through(consumer: PostgresConsumer, connection: Connection, messages: int) -> None:
    """So many messages are put, claimed and completed, in a slot whose turn to be truncated it is."""
    put_many = (
        "INSERT INTO modelmeter.queue (slot, events, bytes, payload)"
        f" SELECT ({SLOT_NOW} + 2) %% 4, 1, 1, 'x' FROM generate_series(1, %s)"
    )
    connection.execute(put_many.encode(), (messages,))
    while (claim := consumer.claim(10**9, 10**9, 100)) is not None:
        claim.complete()


def test_a_snapshot_held_open_neither_slows_claims_nor_keeps_pages(
    database_url: str, consumer: PostgresConsumer, connection: Connection
) -> None:
    """What was deleted cannot be vacuumed while anybody's old snapshot stands; claims must not step over it."""
    with psycopg.connect(database_url) as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM modelmeter.ledger")
        pages = []
        for _ in range(6):
            pass_through(consumer, connection, 4000)
            pages.append(pages_of_a_claim(consumer, 100))
        assert max(pages) < 2 * pages[0] + 50, pages
        consumer._look_at = 0  # the next look goes from the beginning
        assert consumer.claim(1, 1, 1) is None
        for _ in range(3):  # the slots whose turn it is; the clock may pass an edge in between
            consumer.tidy()
        sizes = [size(connection, slot) for slot in range(4)]
        assert sum(sizes) == 0, sizes


def test_a_claim_before_ten_million_events_touches_as_many_pages_as_before_a_few(
    database_url: str, consumer: PostgresConsumer, connection: Connection
) -> None:
    put = (
        "INSERT INTO modelmeter.queue (slot, events, bytes, payload)"
        f" SELECT ({SLOT_NOW} + n %% 2) %% 4, 1000, 26000, repeat(md5(n::text), 812)::bytea"
        " FROM generate_series(1, %s) AS n"
    )
    connection.execute(put.encode(), (64,))
    few = pages_of_a_claim(consumer, 64)
    connection.execute(put.encode(), (9_936,))
    row = connection.execute("SELECT sum(events) FROM modelmeter.queue").fetchone()
    assert row == (10_000_000,)
    assert pages_of_a_claim(consumer, 64) <= few + 50
    with psycopg.connect(database_url) as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM modelmeter.ledger")
        taken = 0
        for _ in range(30):
            claim = consumer.claim(64_000, 10**9, 1024)
            assert claim is not None
            taken += len(claim.payloads)
            claim.complete()
        assert taken == 30 * 64
        assert pages_of_a_claim(consumer, 64) <= 2 * few + 300
