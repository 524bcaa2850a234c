"""The worker on a real queue and database: every event once, whatever is sent, killed or damaged."""

import asyncio
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import psycopg
import pytest

from modelmeter.announcer import Announcer
from modelmeter.batch import Batch
from modelmeter.config import Config
from modelmeter.ingester import Ingester
from modelmeter.message import Keyed, Message, encode, id_of_key, new_id
from modelmeter.notify.log import AlertLog
from modelmeter.reader import Event, Reader
from modelmeter.rule import EventRule
from modelmeter.store.dead_letters import DeadLetters
from modelmeter.store.queue import PostgresConsumer, PostgresProducer
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, SECOND, Span
from tests.history import (
    BY_HOUR,
    BY_MINUTE,
    NOON,
    Storing,
    batch_of,
    bits,
    check_models,
    check_summary,
    count_partials,
    count_rows,
    event,
    keyed_message,
    labels_of,
    message_of,
    random_events,
    send,
    send_bytes,
    store,
)

ALL = Span(0, LATEST)


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


def check_stored(reader: Reader, events: Sequence[Event]) -> None:
    """Each of these events counts once and no other, in stats, models and raw events."""
    check_models(reader, events)
    for name in {dict(one.labels)["name"] for one in events}:
        wanted = [one for one in events if dict(one.labels)["name"] == name]
        check_summary(reader, events, name, None, ALL, {})
        assert sorted(map(bits, reader.events(name, None, ALL, {}, 100_000))) == sorted(map(bits, wanted))


def test_a_message_becomes_chunks_rollups_and_a_line_in_the_ledger(database_url: str, reader: Reader) -> None:
    events = random_events(np.random.default_rng(0), 300)
    send(database_url, message_of(*events[:100]), message_of(*events[100:]))
    with Storing(database_url) as storing:
        stored = storing.run()
    assert [(one.messages, one.events) for one in stored] == [(2, 300)]
    check_stored(reader, events)
    assert count_rows(database_url, "ledger") == 2
    assert count_rows(database_url, "queue") == 0


def test_a_batch_claimed_twice_is_counted_once(database_url: str, reader: Reader) -> None:
    message = message_of(event(NOON, drift=1), event(NOON + 1, drift=2))
    for _ in range(2):  # in one claim, and again in a later one
        send(database_url, message, message)
        with Storing(database_url) as storing:
            storing.run()
    check_stored(reader, [event(NOON, drift=1), event(NOON + 1, drift=2)])


def test_an_idempotency_key_in_two_messages_counts_once(database_url: str, reader: Reader) -> None:
    ours, others = [event(NOON, drift=1), event(NOON + DAY, drift=2)], [event(NOON + 5, drift=9)]
    more = [event(NOON + 6, drift=8)]
    first = keyed_message(("key", ours), (None, others))
    again = keyed_message((None, more), ("key", ours))
    for together in (True, False):
        send(database_url, first, again) if together else send(database_url, again)
        with Storing(database_url) as storing:
            storing.run()
        check_stored(reader, ours + others + more)


def test_requests_without_a_key_beside_one_with_a_known_key_are_kept(database_url: str, reader: Reader) -> None:
    ours, others = [event(NOON, drift=1)], [event(NOON + 1, drift=2)]
    send(database_url, keyed_message(("key", ours)))
    events = batch_of([*others, *ours, *others])
    mixed = Message(new_id(), NOON, [Keyed(id_of_key("key"), 0, 1, 2)], [events])
    send(database_url, mixed)
    with Storing(database_url) as storing:
        storing.run()
    check_stored(reader, [*ours, *others, *others])


def test_an_idempotency_key_twice_in_one_message_counts_once(database_url: str, reader: Reader) -> None:
    ours, others = [event(NOON, drift=1), event(NOON + 1, latency=2)], [event(NOON + 2, drift=3)]

    async def submit() -> list[str]:
        producer = PostgresProducer(database_url, connections=1)
        ingester = Ingester(producer)
        requests = [("key", ours), ("key", ours), (None, others), ("other", others)]
        found = await asyncio.gather(
            *(
                ingester.submit([batch_of([one]) for one in events], id_of_key(key) if key else None)
                for key, events in requests
            )
        )
        await ingester.drain()
        await producer.close()
        return found

    ids = asyncio.run(submit())
    assert ids[0] == ids[1]
    assert len({*ids}) == 3
    assert count_rows(database_url, "queue") == 1, "requests that arrive together share one commit"
    with Storing(database_url) as storing:
        storing.run()
    check_stored(reader, [*ours, *others, *others])


def test_the_same_key_in_two_workers_at_once_counts_once(database_url: str, reader: Reader) -> None:
    ours = [event(NOON, drift=1), event(NOON + 1, drift=2)]
    rest = [event(NOON + 10 + n, drift=n) for n in range(20)]
    for number in range(20):
        pair = [("key", ours), (f"key {number}", [rest[number]])]
        send(database_url, keyed_message(*pair), keyed_message(*pair[::-1]))
    together = Barrier(2)

    def work() -> int:
        with Storing(database_url, claim_limit_events=3) as storing:
            together.wait(10)
            return sum(one.events for one in storing.run())

    with ThreadPoolExecutor(2) as pool:
        stored = [done.result(30) for done in [pool.submit(work), pool.submit(work)]]
    assert sum(stored) == 22
    check_stored(reader, [*ours, *rest])


def refused_by_postgres() -> dict[str, Message]:
    """Messages that can be read, and that Postgres refuses; each for another reason."""
    good = batch_of([event(NOON)])
    streams = {
        "a stream without a name": (("version", "v1"),),
        "an empty name": (("name", ""), ("version", "v1")),
        "a NUL in a label": (("env", "a\0b"), ("name", "Mistral"), ("version", "v1")),
        "a name too long for its index": tuple(
            (key, "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FA5, 5000))))
            for key in ("name", "version")
        ),
    }
    batches = {reason: Batch([labels], good.stream, good.timestamp, good.metrics) for reason, labels in streams.items()}
    for reason, name in (
        ("a NUL in a metric", "a\0"),
        ("an empty metric", ""),
        ("a metric too long for its index", "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FA5, 5000)))),
    ):
        batches[reason] = Batch(good.streams, good.stream, good.timestamp, {name: good.metrics["drift"]})
    for reason, instant in (("a year 12000", 316_000_000_000 * SECOND), ("the last microsecond", 2**63 - 1)):
        batches[reason] = Batch(good.streams, good.stream, np.array([instant]), good.metrics)
    batches["no event"] = Batch(good.streams, good.stream[:0], good.timestamp[:0], {"other": good.metrics["drift"][:0]})
    messages = {reason: Message(new_id(), NOON, [], [good, batch]) for reason, batch in batches.items()}
    messages["an id of 3 bytes"] = Message(b"abc", NOON, [], [good])
    return messages


POISON = {
    "garbage": b"\xff\x00garbage",
    "nothing": b"",
    "cut off": encode(message_of(event(NOON)))[:-7],
    "another format": b'{"name": "Mistral"}',
    "another tag, with a NUL": b"\x95\xa3m1\0" + encode(message_of(event(NOON)))[4:],
    **{reason: encode(message) for reason, message in refused_by_postgres().items()},
}


@pytest.mark.parametrize("poison", [*POISON])
def test_a_poisoned_message_goes_to_the_dead_letters_and_the_good_are_stored(
    database_url: str, reader: Reader, poison: str
) -> None:
    good = [event(NOON + number, drift=number) for number in range(6)]
    send(database_url, *(message_of(one) for one in good[:3]))
    send_bytes(database_url, (POISON[poison], 1))
    send(database_url, *(message_of(one) for one in good[3:]))
    with Storing(database_url) as storing:
        storing.run()
    letters = DeadLetters(database_url).newest()
    assert [(letter.events, letter.bytes) for letter in letters] == [(1, len(POISON[poison]))]
    assert len(letters[0].reason) > 8
    check_stored(reader, good)
    assert count_rows(database_url, "queue") == 0


def test_a_poisoned_message_alone_goes_to_the_dead_letters(database_url: str) -> None:
    for payload in POISON.values():
        send_bytes(database_url, (payload, 1))
        with Storing(database_url) as storing:
            storing.run()
    assert len(DeadLetters(database_url).newest()) == len(POISON)


def test_a_dead_letter_put_back_is_stored_once_it_can_be(database_url: str, reader: Reader) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE modelmeter.stream ADD CONSTRAINT never CHECK (name <> 'Mistral')")
        send(database_url, message_of(event(NOON)))
        with Storing(database_url) as storing:
            storing.run()
        letters = DeadLetters(database_url)
        assert "never" in letters.newest()[0].reason
        connection.execute("ALTER TABLE modelmeter.stream DROP CONSTRAINT never")
    assert letters.retry(None) == 1
    with Storing(database_url) as storing:
        storing.run()
    check_stored(reader, [event(NOON)])
    assert letters.newest() == []


def test_a_schema_that_is_not_the_workers_leaves_the_messages_on_the_queue(database_url: str, reader: Reader) -> None:
    send(database_url, message_of(event(NOON)))
    with psycopg.connect(database_url, autocommit=True) as connection, Storing(database_url) as storing:
        connection.execute("ALTER TABLE modelmeter.chunk RENAME count TO number")
        for _ in range(3):
            with pytest.raises(psycopg.ProgrammingError):
                storing.run()
        assert count_rows(database_url, "queue") == 1
        assert DeadLetters(database_url).newest() == []
        connection.execute("ALTER TABLE modelmeter.chunk RENAME number TO count")
        storing.run()
    check_stored(reader, [event(NOON)])


def test_a_partition_dropped_beneath_a_worker_loses_nothing(database_url: str, reader: Reader) -> None:
    with Storing(database_url) as storing:
        send(database_url, message_of(event(NOON)))
        storing.run()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DROP TABLE modelmeter.chunk_20260301")
        send(database_url, message_of(event(NOON + 1)))
        storing.run()
    assert DeadLetters(database_url).newest() == []
    assert reader.events("Mistral", "v1", ALL, {}, 9) == [event(NOON + 1)]


KILLS = [
    ("queue", "DELETE"),
    ("ledger", "INSERT"),
    ("stream", "INSERT"),
    ("metric", "INSERT"),
    ("chunk", "INSERT"),
    ("rollup_partial_1m", "INSERT"),
    ("rollup_partial_1h", "INSERT"),
]


@pytest.mark.parametrize("moment", ["at once", "at commit"])
@pytest.mark.parametrize(("table", "operation"), KILLS)
def test_a_worker_killed_at_any_statement_stores_its_claim_once_in_the_end(
    database_url: str, reader: Reader, table: str, operation: str, moment: str
) -> None:
    settings = BY_HOUR if table.endswith("1h") else BY_MINUTE
    events = random_events(np.random.default_rng(5), 50)
    message = message_of(*events)
    send(database_url, message, keyed_message(("key", [event(NOON, labels=labels_of(), drift=1)])), message)
    with psycopg.connect(database_url, autocommit=True) as connection, Storing(database_url, **settings) as storing:
        connection.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
        )
        how, when = ("", "") if moment == "at once" else ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED")
        connection.execute(
            f"CREATE {how} TRIGGER dies AFTER {operation} ON modelmeter.{table} {when}"
            " FOR EACH ROW EXECUTE FUNCTION die()".encode()
        )
        for _ in range(2):
            with pytest.raises(psycopg.DatabaseError, match="terminating connection"):
                storing.run()
        assert storing.seen == []
        assert count_rows(database_url, "queue") == 3
        assert [count_rows(database_url, kept) for kept in ("ledger", "chunk")] == [0, 0]
        assert count_partials(database_url) == 0
        connection.execute(f"DROP TRIGGER dies ON modelmeter.{table}".encode())
        storing.run()
    check_stored(reader, [*events, event(NOON, drift=1)])
    assert DeadLetters(database_url).newest() == []


def test_a_connection_closed_between_store_and_complete_stores_once_in_the_end(
    database_url: str, reader: Reader
) -> None:
    send(database_url, message_of(event(NOON)))
    with Storing(database_url) as storing:
        claim = storing.consumer.claim(100, 10**6, 100)
        assert claim is not None
        storing.worker._store(claim)
        claim.connection.close()
        storing.run()
    check_stored(reader, [event(NOON)])


def test_the_callback_hears_of_committed_events_only_and_of_each_once(database_url: str) -> None:
    message = message_of(event(NOON, drift=1), event(NOON, latency=2))
    send(database_url, message, message)
    heard: list[int] = []

    def look(batches: Sequence[Batch]) -> None:
        assert count_rows(database_url, "queue") == 0
        heard.append(sum(len(batch) for batch in batches))

    with Storing(database_url, look) as storing:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE modelmeter.chunk ADD CONSTRAINT never CHECK (count < 0)")
            storing.run()
            assert sum(heard) == 0, "what is refused is not heard of"
            connection.execute("ALTER TABLE modelmeter.chunk DROP CONSTRAINT never")
        assert DeadLetters(database_url).retry(None) == 2
        storing.run()
    assert sum(heard) == 2


def test_an_alert_line_says_the_event_as_it_came(database_url: str) -> None:
    out = io.StringIO()
    rules = [EventRule("Low", "prediction_accuracy", "<", 0.3, ())]
    announcer = Announcer(Config(database_url=database_url), rules, AlertLog(rules, 20, out))
    low = event(
        NOON, prediction_accuracy=0.19342903578218118, drift=0.11206803927678188, inference_time=12.757847941304057
    )
    fine = event(NOON, prediction_accuracy=0.3)
    send(database_url, message_of(fine, event(NOON, drift=0.1), low))
    with Storing(database_url, announcer.tell, announcer.judge) as storing:
        storing.run()
    assert out.getvalue() == (
        "ALERT prediction_accuracy lower than 0.3, {'name': 'Mistral', 'version': 'v1', "
        "'prediction_accuracy': 0.19342903578218118, 'drift': 0.11206803927678188, "
        "'inference_time': 12.757847941304057}\n"
    )


def test_batches_over_days_and_years_with_changing_metrics_are_stored(database_url: str, reader: Reader) -> None:
    events = [
        event(0, drift=1),
        event(DAY - 1, drift=2),
        event(DAY, latency=3),
        event(400 * DAY, drift=4, latency=5),
        event(10_000 * DAY + 7, score=6),
        event(NOON - HOUR, drift=-0.0),
        event(NOON, drift=5e-324, latency=1.7e308),
    ]
    events += [
        Event(labels_of(env="x"), NOON + number * MINUTE, {f"m{number % 5}": float(number)}) for number in range(40)
    ]
    rng = np.random.default_rng(0)
    shuffled = [events[int(at)] for at in rng.permutation(len(events))]
    for part in range(0, len(shuffled), 9):
        send(database_url, message_of(*shuffled[part : part + 9]))
    with Storing(database_url) as storing:
        storing.run()
    check_stored(reader, events)


def test_an_event_for_every_day_since_1970_is_stored(database_url: str, reader: Reader) -> None:
    events = [event(day * DAY, drift=day) for day in range(0, 20_500, 5)]
    store(database_url, *events)
    check_models(reader, events)
    assert reader.events("Mistral", "v1", ALL, {}, 9) == events[:-10:-1]


def test_a_clock_that_goes_backwards_changes_nothing(database_url: str, reader: Reader) -> None:
    events = [event(NOON - number * HOUR, drift=number) for number in range(30)]
    for one in events:
        send(database_url, Message(new_id(), one.timestamp, [], [batch_of([one])]))
    with Storing(database_url, claim_limit_events=4) as storing:
        stored = storing.run()
    assert all(one.lag_seconds >= 0 for one in stored)
    check_stored(reader, events)


def test_a_message_from_the_future_has_no_negative_lag(database_url: str) -> None:
    send(database_url, Message(new_id(), LATEST, [], [batch_of([event(NOON)])]))
    with Storing(database_url) as storing:
        assert [one.lag_seconds for one in storing.run()] == [0]


def test_a_claim_is_bounded_by_events(database_url: str) -> None:
    send(database_url, *(message_of(*(event(NOON) for _ in range(10))) for _ in range(10)))
    with Storing(database_url, claim_limit_events=25) as storing:
        assert [one.events for one in storing.run()] == [20, 20, 20, 20, 20]


def test_two_workers_share_what_waits(database_url: str) -> None:
    send(database_url, *(message_of(*(event(NOON) for _ in range(10))) for _ in range(4)))
    first, second = PostgresConsumer(database_url), PostgresConsumer(database_url)
    one, other = first.claim(20, 10**9, 1024), second.claim(20, 10**9, 1024)
    assert one is not None
    assert other is not None
    assert [len(one.payloads), len(other.payloads)] == [2, 2]
    first.close()
    second.close()


def test_a_worker_takes_fewer_events_when_they_are_wide_and_more_again_when_they_are_not(database_url: str) -> None:
    names = [f"metric_{one}" for one in range(400)]
    wide = [event(NOON + number, labels=None, **dict.fromkeys(names, 1.0)) for number in range(50)]
    narrow = [event(NOON + number, drift=1) for number in range(50)]
    with Storing(database_url, claim_limit_memory_bytes=16 << 20) as storing:
        before = storing.worker.limit_events
        send(database_url, message_of(*wide))
        storing.run()
        least = storing.worker.limit_events
        assert least * 400 * 8 < 16 << 20
        assert least < before / 2
        for _ in range(40):
            send(database_url, message_of(*narrow))
            storing.run()
        assert storing.worker.limit_events > 4 * before
