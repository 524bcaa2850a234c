"""Retention on a real Postgres: what is dropped, what stays right, and that nobody waits for it."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from modelmeter import compactor as compactor_module
from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.correction import DELETE, Correction
from modelmeter.corrector import Corrector
from modelmeter.message import Message, new_id
from modelmeter.partitioner import Partitioner, retire_over
from modelmeter.reader import Reader
from modelmeter.retention import read_retention
from modelmeter.store import partitions as partitions_module
from modelmeter.store.retirement import read_retired
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span, floor, to_datetime
from tests.history import (
    BY_HOUR,
    BY_MINUTE,
    NOON,
    Storing,
    batch_of,
    check_models,
    check_summary,
    count_rows,
    event,
    labels_of,
    message_of,
    random_events,
    send,
    store,
)
from tests.web.conftest import serve

CLASSES = "[{name: gold, match: '{name=\"Gold\"}', raw: 90d}, {name: short, match: '{env=\"dev\"}', raw: 7d}]"
TODAY = floor(NOON, DAY)


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


def config_of(url: str, **settings: Any) -> Config:
    return Config(database_url=url, **settings)


def partition(url: str, now: int, **settings: Any) -> None:
    """Until there is nothing more to drop."""
    partitioner = Partitioner(config_of(url, **settings))
    for _ in range(100):
        if not partitioner.run_once(now):
            partitioner.close()
            return
    raise AssertionError("the partitioner does not come to an end")


def retire(url: str, now: int, **settings: Any) -> None:
    """What a worker does before its first claim."""
    with psycopg.connect(url, autocommit=True) as connection:
        retire_over(connection, read_retention(config_of(url, **settings)), now)


def storing(url: str, **settings: Any) -> Storing:
    """A worker that knows the classes."""
    made = Storing(url, **{key: value for key, value in settings.items() if not key.startswith("retention")})
    made.catalog._retention = read_retention(config_of(url, **settings))
    return made


def compact(url: str, now: int) -> None:
    compactor = Compactor(config_of(url, chunk_target_events=64))
    while compactor.run_once(now):
        pass
    compactor.close()


def tables(url: str, pattern: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'modelmeter'::regnamespace AND relkind IN ('r', 'p')"
            " AND relname ~ %s ORDER BY 1",
            (pattern,),
        )
        return [name for (name,) in rows]


def chunk_days(url: str) -> list[str]:
    return [name.removeprefix("chunk_") for name in tables(url, "^chunk_")]


def day(number: int) -> str:
    return f"{to_datetime(TODAY + number * DAY):%Y%m%d}"


def test_partitions_stand_before_they_are_needed(database_url: str) -> None:
    partition(database_url, NOON)
    assert chunk_days(database_url) == [day(number) for number in range(4)]
    for table in ("rollup_1m", "rollup_1h", "rollup_1d"):
        assert tables(database_url, f"^{table}_")


def test_raw_events_over_their_retention_are_dropped_and_every_resolution_stays(
    database_url: str, reader: Reader
) -> None:
    events = [event(NOON - days * DAY + n * MINUTE, drift=n) for days in (0, 29, 30, 31, 40) for n in range(5)]
    store(database_url, *events[:10], **BY_MINUTE)
    store(database_url, *events[10:], **BY_HOUR)
    compact(database_url, NOON + DAY)
    partition(database_url, NOON)
    assert chunk_days(database_url) == [day(number) for number in (-30, -29, 0, 1, 2, 3)]
    whole = Span(TODAY - 60 * DAY, TODAY + DAY)
    check_summary(reader, events, "Mistral", "v1", whole, {})
    check_models(reader, events)
    kept = [one for one in events if one.timestamp >= TODAY - 30 * DAY]
    assert reader.events("Mistral", "v1", whole, {}, 100) == sorted(kept, key=lambda one: -one.timestamp)
    with psycopg.connect(database_url) as connection:
        assert read_retired(connection)[0, "raw"] == TODAY - 30 * DAY
        assert (0, "1d") not in read_retired(connection)


def test_a_year_of_history_on_the_first_day_counts_and_makes_no_partition_that_is_dropped_again(
    database_url: str, reader: Reader
) -> None:
    retire(database_url, NOON)
    events = [event(NOON - days * DAY, drift=days) for days in range(0, 365, 5)]
    send(database_url, message_of(*events))
    with Storing(database_url) as worker:
        done = worker.run()
    old = [one for one in events if one.timestamp < TODAY - 30 * DAY]
    assert sum(one.without_raw for one in done) == len(old) > 60
    assert sum(one.events for one in done) == len(events)
    compact(database_url, NOON + DAY)
    made = chunk_days(database_url)
    assert made == [day(-days) for days in range(30, -1, -5)]
    check_summary(reader, events, "Mistral", "v1", Span(TODAY - 400 * DAY, TODAY + DAY), {})
    for one in ("rollup_1m", "rollup_1h", "rollup_1d"):
        before = tables(database_url, f"^{one}_")
        partition(database_url, NOON)
        assert set(before) <= set(tables(database_url, f"^{one}_")), "nothing was made that had to go"
    with psycopg.connect(database_url) as connection:
        first = connection.execute("SELECT min(window_start) FROM modelmeter.rollup_1m").fetchone()
    assert first is None or first[0] is None or first[0] >= to_datetime(NOON - 97 * DAY)


def test_a_dropped_partition_does_not_come_back_with_a_late_event(database_url: str, reader: Reader) -> None:
    events = [event(NOON - 40 * DAY, drift=1)]
    with Storing(database_url) as worker:  # one worker all along: what it remembers must not bring it back
        send(database_url, message_of(*events))
        worker.run()
        assert chunk_days(database_url) == [day(-40)]
        partition(database_url, NOON)
        assert day(-40) not in chunk_days(database_url)
        late = [event(NOON - 40 * DAY + HOUR, drift=2), event(NOON, drift=3)]
        send(database_url, message_of(*late))
        done = worker.run()
    assert sum(one.dead_letters for one in done) == 0
    assert sum(one.without_raw for one in done) == 1
    assert day(-40) not in chunk_days(database_url)
    for _ in range(2):
        check_summary(reader, events + late, "Mistral", "v1", Span(TODAY - 60 * DAY, TODAY + DAY), {})
        compact(database_url, NOON + DAY)


def test_each_class_has_its_own_partitions_and_they_go_by_its_own_retention(database_url: str, reader: Reader) -> None:
    settings = {"retention_classes": CLASSES}
    retire(database_url, NOON - 100 * DAY, **settings)
    gold, dev, plain = labels_of("Gold"), labels_of(env="dev"), labels_of()
    events = [
        event(NOON - days * DAY, labels=labels, drift=days) for days in (0, 10, 40, 95) for labels in (gold, dev, plain)
    ]
    send(database_url, message_of(*events))
    with storing(database_url, **settings) as worker:
        worker.run()
    compact(database_url, NOON - 100 * DAY)
    assert tables(database_url, f"^chunk_{day(-40)}") == [f"chunk_{day(-40)}{end}" for end in ("", "_c0", "_c1", "_c2")]
    partition(database_url, NOON, **settings)
    compact(database_url, NOON + DAY)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT s.name, s.labels ->> 'env', c.class, date_part('day', %s - start_at)::int"
            " FROM modelmeter.chunk c JOIN modelmeter.stream s USING (stream_id) WHERE s.class = c.class",
            (to_datetime(NOON),),
        )
        left = {(name, env or "", class_id, days) for name, env, class_id, days in rows}
    assert left == {
        *(("Gold", "", 1, days) for days in (0, 10, 40)),
        ("Mistral", "dev", 2, 0),
        *(("Mistral", "", 0, days) for days in (0, 10)),
    }
    assert tables(database_url, f"^chunk_{day(-40)}") == [f"chunk_{day(-40)}", f"chunk_{day(-40)}_c1"]
    assert tables(database_url, f"^chunk_{day(-95)}") == []
    for name in ("Gold", "Mistral"):
        check_summary(reader, events, name, "v1", Span(TODAY - 100 * DAY, TODAY + DAY), {})


def test_a_partition_from_before_the_classes_stays_as_long_as_it_holds_one_that_is_kept_longer(
    database_url: str,
) -> None:
    settings = {"retention_classes": CLASSES}
    store(database_url, event(NOON - 40 * DAY), event(NOON - 41 * DAY))  # no class is known: plain partitions
    retire(database_url, NOON - 50 * DAY, **settings)
    send(database_url, message_of(event(NOON - 40 * DAY, labels=labels_of("Gold"))))
    with storing(database_url, **settings) as worker:
        worker.run()
    partition(database_url, NOON, **settings)
    assert tables(database_url, f"^chunk_{day(-40)}") == [f"chunk_{day(-40)}"]
    assert tables(database_url, f"^chunk_{day(-41)}") == []
    partition(database_url, NOON + 60 * DAY, **settings)
    assert tables(database_url, f"^chunk_{day(-40)}") == []


def test_a_class_that_the_settings_no_longer_name_keeps_what_it_was_promised(database_url: str) -> None:
    retire(database_url, NOON - 50 * DAY, retention_classes=CLASSES)
    send(database_url, message_of(event(NOON - 40 * DAY, labels=labels_of("Gold")), event(NOON - 40 * DAY)))
    with storing(database_url, retention_classes=CLASSES) as worker:
        worker.run()
    partition(database_url, NOON)
    assert tables(database_url, f"^chunk_{day(-40)}") == [f"chunk_{day(-40)}", f"chunk_{day(-40)}_c1"]


def test_a_detachment_that_broke_off_is_finished_and_what_was_left_over_is_dropped(database_url: str) -> None:
    store(database_url, event(NOON - 40 * DAY), event(NOON - 41 * DAY), event(NOON - 42 * DAY))
    retire(database_url, NOON)
    with psycopg.connect(database_url, autocommit=True) as connection, psycopg.connect(database_url) as reading:
        connection.execute(f"ALTER TABLE modelmeter.chunk DETACH PARTITION modelmeter.chunk_{day(-41)}".encode())
        reading.execute("SELECT count(*) FROM modelmeter.chunk")
        connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(
                f"ALTER TABLE modelmeter.chunk DETACH PARTITION modelmeter.chunk_{day(-40)} CONCURRENTLY".encode()
            )
    partition(database_url, NOON)
    assert chunk_days(database_url) == [day(number) for number in range(4)]


def test_a_long_reader_keeps_what_it_reads_and_holds_up_nobody(database_url: str) -> None:
    store(database_url, event(NOON - 40 * DAY), event(NOON))
    partitioner = Partitioner(config_of(database_url))
    with psycopg.connect(database_url) as reading:
        reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert reading.execute("SELECT count(*) FROM modelmeter.chunk").fetchone() == (2,)
        assert partitioner.run_once(NOON)
        assert not partitioner.run_once(NOON), "it is in use"
        store(database_url, event(NOON + SECOND))
        assert reading.execute("SELECT count(*) FROM modelmeter.chunk").fetchone() == (2,)
    partitioner.run_once(NOON)
    partitioner.close()
    assert day(-40) not in chunk_days(database_url)


def test_nobody_who_writes_waits_while_a_day_is_dropped(database_url: str) -> None:
    """Every insert in the meantime takes less than 100 ms of locks: with that lock_timeout none fails."""
    for days in range(31, 43):
        store(database_url, event(NOON - days * DAY))
    store(database_url, event(NOON))
    partitioner = Partitioner(config_of(database_url))
    partitioner.run_once(NOON)
    done = threading.Event()
    longest: list[float] = []

    def write() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '100ms'")
            while not done.is_set():
                began = time.monotonic()
                with connection.transaction():
                    connection.execute(
                        "INSERT INTO modelmeter.chunk (stream_id, start_at, end_at, count, minutely, metrics, columns)"
                        " VALUES (1, %s, %s, 1, true, '{}', '{x}')",
                        (to_datetime(NOON), to_datetime(NOON + 1)),
                    )
                    connection.execute("SELECT count(*) FROM modelmeter.chunk WHERE stream_id = 1")
                longest.append(time.monotonic() - began)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with psycopg.connect(database_url) as reading:  # who reads for long is waited for, in nobody's way
            reading.execute("SELECT count(*) FROM modelmeter.chunk")
            assert not partitioner.run_once(NOON)
        while partitioner.run_once(NOON):
            pass
        assert writer.is_alive(), "no write has failed"
    finally:
        done.set()
        writer.join(20)
        partitioner.close()
    assert len(longest) > 10
    print(f"{len(longest)} writes, the longest {max(longest) * 1e3:.1f} ms")
    assert chunk_days(database_url) == [day(number) for number in range(4)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_retention_between_stores_corrections_and_compactions_of_any_history_changes_no_answer_that_has_its_data(
    database_url: str, reader: Reader, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print("seed", seed)
    monkeypatch.setattr(compactor_module, "_STEP_PARTIALS", 97)
    rng = np.random.default_rng(seed)
    coming = random_events(rng, 300, days=80)
    rng.shuffle(coming)
    settings = {"retention_classes": "[{name: b, match: '{name=\"B\"}', raw: 20d, 1m: 30d}]", "retention_raw": "10d"}
    now = NOON
    stored = []
    with storing(database_url, **BY_MINUTE) as fast, storing(database_url, **BY_HOUR, **settings) as slow:
        for step in range(16):
            kind = rng.choice(["store", "store", "compact", "retire", "correct"])
            if kind == "store" and coming:
                size = int(rng.integers(1, 60))
                some, coming = coming[:size], coming[size:]
                send(database_url, Message(new_id(), NOON + step, [], [batch_of(some)]))
                done = (fast if rng.random() < 0.5 else slow).run()
                assert sum(one.dead_letters for one in done) == 0
                stored += some
            elif kind == "compact":
                compact(database_url, now)
            elif kind == "correct":
                first, last = sorted(floor(int(NOON + rng.integers(-45, 45) * DAY), DAY) for _ in range(2))
                span = Span(first, last + DAY)  # whole days: they can go, whether their raw events are there or not
                touched = [dict(one.labels) for one in stored if span.start <= one.timestamp < span.end]
                one = Correction(DELETE, NOON + step, '{name="B",env=""}', frozenset(), span, "", "")
                done_here = Corrector(config_of(database_url), read_retention(config_of(database_url))).correct(one)
                assert done_here.removed == sum(its["name"] == "B" and "env" not in its for its in touched)
                gone = [its for its in stored if one.touches([its.labels])[0] and first <= its.timestamp < last + DAY]
                stored = [its for its in stored if its not in gone]
            else:
                now += int(rng.integers(1, 9)) * DAY
                partition(database_url, now, **settings)
            if not stored:
                continue
            check_models(reader, stored)
            for _ in range(3):
                first, last = sorted(floor(int(NOON + rng.integers(-45, 45) * DAY), DAY) for _ in range(2))
                for name, version in {(dict(one.labels)["name"], dict(one.labels)["version"]) for one in stored}:
                    check_summary(reader, stored, name, version, Span(first, last + DAY), {})
            with psycopg.connect(database_url) as connection:
                retired = read_retired(connection)
            border = retired.get((0, "raw"), 0)
            wanted = [one for one in stored if dict(one.labels)["name"] == "A" and one.timestamp >= border]
            if wanted:
                found = reader.events("A", None, Span(border, NOON + 200 * DAY), {}, 10_000)
                assert len(found) == len(wanted), "raw events that are kept are whole"


def test_alerts_of_the_past_have_a_partition_a_month_and_go_by_their_retention(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for days in (0, 40, 300, 420):
            connection.execute(
                "INSERT INTO modelmeter.alert_history (at, group_name, rule_name, fingerprint, labels, from_state,"
                " to_state, reason) VALUES (%s, 'g', 'r', gen_random_uuid(), '{}', 'inactive', 'pending', 'x')",
                (to_datetime(NOON - days * DAY),),
            )
        ids = connection.execute("SELECT transition_id FROM modelmeter.alert_history ORDER BY at DESC").fetchall()
    partition(database_url, NOON)
    assert tables(database_url, r"^alert_history_\d") == [
        f"alert_history_{month}" for month in ("202505", "202601", "202603", "202604")
    ]
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM ONLY modelmeter.alert_history_default").fetchone() == (0,)
        found = connection.execute("SELECT transition_id FROM modelmeter.alert_history ORDER BY at DESC").fetchall()
        assert found == ids[:3]
    assert count_rows(database_url, "alert_history") == 3


def test_what_the_previous_release_writes_finds_its_place(database_url: str) -> None:
    """Its SQL, word for word: a partition made without classes, rows without a class, among those with."""
    retire(database_url, NOON, retention_classes=CLASSES)
    partition(database_url, NOON, retention_classes=CLASSES)
    with psycopg.connect(database_url, autocommit=True) as connection:
        for number in (0, -5):
            start, name = TODAY + number * DAY, f"modelmeter.chunk_{day(number)}"
            connection.execute(
                f"""DO $$ BEGIN
                IF to_regclass('{name}') IS NULL THEN
                    CREATE TABLE {name} (LIKE modelmeter.chunk INCLUDING ALL);
                    ALTER TABLE modelmeter.chunk ATTACH PARTITION {name}
                        FOR VALUES FROM ('{to_datetime(start).isoformat()}')
                        TO ('{to_datetime(start + DAY).isoformat()}');
                END IF;
            END $$""".encode()
            )
            connection.execute(
                "INSERT INTO modelmeter.chunk (stream_id, start_at, end_at, count, minutely, metrics, columns)"
                " VALUES (1, %s, %s, 1, true, '{}', '{x}')",
                (to_datetime(start), to_datetime(start + 1)),
            )
        assert connection.execute("SELECT count(*), max(class) FROM modelmeter.chunk").fetchone() == (2, 0)
    assert partitions_module.PARTITION_NAME.fullmatch(f"chunk_{day(0)}_c0")


def test_the_answer_says_how_many_are_kept_without_raw_and_the_worker_agrees(database_url: str) -> None:
    """By class: of streams that stand, by the class they have; of new ones, by the one that they match."""
    now = time.time_ns() // 1000
    settings: dict[str, Any] = {"retention_classes": CLASSES}
    send(database_url, message_of(event(now, labels=labels_of("Gold", env="old"))))
    with Storing(database_url) as worker:
        worker.run()  # seen before there were classes: it is of none
    retire(database_url, now, **settings)
    with serve(database_url, **settings) as served, storing(database_url, **settings) as worker:
        for _ in range(2):  # once as new streams, once as known ones
            body = [
                {
                    "name": name,
                    "version": "v1",
                    **({"env": env} if env else {}),
                    "timestamp": (now - days * DAY) / 1e6,
                    "x": 1,
                }
                for name, env in (("Gold", ""), ("Gold", "old"), ("Mistral", ""), ("Mistral", "dev"))
                for days in (0, 9, 40, 100)
            ]
            answer = served.post(json.dumps(body)).json()
            assert (answer["accepted"], answer["kept_without_raw"]) == (16, 1 + 2 + 2 + 3)
            assert sum(one.without_raw for one in worker.run()) == 8
        assert served.post(json.dumps(body[0])).json()["kept_without_raw"] == 0


def test_an_event_to_which_no_resolution_of_any_class_reaches_back_is_refused(database_url: str) -> None:
    now = time.time_ns() // 1000
    settings: dict[str, Any] = {"retention_1h": "400d", "retention_1d": "400d"}
    longer = "[{name: long, match: '{env=\"x\"}', 1d: 3000d}]"

    def answer(days: int, **more: Any) -> Any:
        with serve(database_url, **settings, **more) as served:
            one = {"name": "A", "version": "v1", "timestamp": (now - days * DAY) / 1e6, "x": 1}
            return served.post(json.dumps(one)).json()

    assert answer(300)["kept_without_raw"] == 1
    assert answer(800)["errors"][0]["code"] == "too_old"
    assert answer(800, retention_classes=longer)["accepted"] == 1
