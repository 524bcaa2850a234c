"""Corrections: what is taken out is gone from every resolution, and nothing else is; in any order with all others."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter import compactor as compactor_module
from modelmeter.batch import fingerprint
from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.correction import DELETE, REPLACE, Correction, uncorrected
from modelmeter.corrector import Corrector
from modelmeter.errors import CannotCorrect, Malformed, NotFound
from modelmeter.message import Message, new_id
from modelmeter.partitioner import Partitioner, retire_over
from modelmeter.reader import Event, Reader
from modelmeter.retention import read_retention
from modelmeter.store.corrections import read_since
from modelmeter.store.retirement import read_retired
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span, floor, to_datetime
from tests.history import (
    BY_HOUR,
    BY_MINUTE,
    NOON,
    Random,
    Storing,
    batch_of,
    bits,
    check_models,
    check_summary,
    count_partials,
    count_rows,
    event,
    labels_of,
    matching,
    message_of,
    random_events,
    random_span,
    send,
    store,
)

ALL = Span(0, NOON + 400 * DAY)
TODAY = floor(NOON, DAY)


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


@pytest.fixture
def corrector(database_url: str) -> Corrector:
    return corrector_of(database_url)


def corrector_of(url: str, **settings: Any) -> Corrector:
    config = Config(database_url=url, **{"minutely_rate": 2, **settings})
    return Corrector(config, read_retention(config))


def delete(match: str, span: Span, received_at: int = NOON + DAY) -> Correction:
    return Correction(DELETE, received_at, match, frozenset(), span, "someone", "a bad run")


def replace(events: Sequence[Event], span: Span, received_at: int = NOON + DAY) -> Correction:
    prints = frozenset(fingerprint(one.labels) for one in events)
    return Correction(REPLACE, received_at, None, prints, span, "someone", "")


def compact(url: str, now: int = NOON + 300 * DAY) -> None:
    compactor = Compactor(Config(database_url=url, chunk_target_events=64))
    while compactor.run_once(now):
        pass
    compactor.close()


def received(at: int, *events: Event) -> Message:
    """A message that the API took at this time."""
    return Message(new_id(), at, [], [batch_of(events)])


def without(events: Sequence[Event], span: Span, **labels: str) -> list[Event]:
    gone = labels.items()
    return [one for one in events if not (span.start <= one.timestamp < span.end and gone <= dict(one.labels).items())]


def rest(events: Sequence[Event], correction: Correction) -> list[Event]:
    """Those that it does not name."""
    touched = correction.touches([one.labels for one in events]).tolist()
    span = correction.span
    return [
        one for one, its in zip(events, touched, strict=True) if not (its and span.start <= one.timestamp < span.end)
    ]


def check_all(reader: Reader, events: Sequence[Event], rng: Random) -> None:
    """Models, raw events, and stats of some spans are those of these events and of no others."""
    check_models(reader, events)
    for name, version in {(dict(one.labels)["name"], dict(one.labels)["version"]) for one in events}:
        wanted = matching(events, name, version, ALL, {})
        found = reader.events(name, version, ALL, {}, 10_000)
        assert sorted(map(bits, found)) == sorted(map(bits, wanted))
        for span in (ALL, random_span(rng), random_span(rng)):
            check_summary(reader, events, name, version, span, {})


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("how", [BY_MINUTE, BY_HOUR])
def test_what_is_deleted_is_gone_from_every_resolution_and_nothing_else_is(
    database_url: str, reader: Reader, corrector: Corrector, how: dict[str, Any], compacted: bool
) -> None:
    rng = np.random.default_rng(5)
    events = random_events(rng, 300)
    store(database_url, *events, **how)
    if compacted:
        compact(database_url)
    span = Span(NOON - 7 * HOUR + 5, NOON + 13 * MINUTE + 1)
    counted = corrector.count(delete('{name="A",env!="prod"}', span))
    left = [
        one
        for one in events
        if not (span.start <= one.timestamp < span.end)
        or dict(one.labels)["name"] != "A"
        or dict(one.labels).get("env") == "prod"
    ]
    assert counted.removed == len(events) - len(left) > 10
    check_all(reader, events, rng)
    done = corrector.correct(delete('{name="A",env!="prod"}', span))
    assert (done.removed, done.streams) == (counted.removed, counted.streams)
    check_all(reader, left, rng)
    compact(database_url)
    check_all(reader, left, rng)
    assert count_partials(database_url) == 0


def test_a_stream_that_is_forgotten_leaves_no_row_of_data(
    database_url: str, reader: Reader, corrector: Corrector
) -> None:
    store(database_url, *[event(NOON + n * MINUTE, labels=labels_of(customer="acme")) for n in range(50)], **BY_MINUTE)
    store(database_url, event(NOON))
    compact(database_url)
    store(database_url, event(NOON + HOUR, labels=labels_of(customer="acme")), **BY_HOUR)
    assert corrector.correct(delete('{customer="acme"}', Span(0, NOON + DAY))).removed == 51
    for table in ("chunk", "rollup_1m", "rollup_1h", "rollup_1d", "rollup_partial"):
        with psycopg.connect(database_url) as connection:
            left = connection.execute(
                f"SELECT count(*) FROM modelmeter.{table} JOIN modelmeter.stream USING (stream_id)"
                " WHERE labels ? 'customer'".encode()
            ).fetchone()
        assert left == (0,), table
    check_models(reader, [event(NOON)])


def test_what_was_on_its_way_is_corrected_and_what_came_later_is_not(
    database_url: str, reader: Reader, corrector: Corrector
) -> None:
    old, new = event(NOON, drift=1), event(NOON + 1, drift=2)
    send(database_url, received(NOON + HOUR - 1, old), received(NOON + HOUR, new))
    assert corrector.correct(delete('{name="Mistral"}', ALL, NOON + HOUR)).removed == 0
    with Storing(database_url) as worker:
        assert sum(one.events for one in worker.run()) == 1
    check_models(reader, [new])
    send(database_url, received(NOON, old), received(NOON + 2 * HOUR, event(NOON + 2)))  # out of a dead letter, say
    with Storing(database_url) as worker:
        worker.run()
    check_models(reader, [new, event(NOON + 2)])


def test_what_replaces_stands_and_what_it_replaces_is_gone(
    database_url: str, reader: Reader, corrector: Corrector
) -> None:
    rng = np.random.default_rng(6)
    other = [event(NOON + n * SECOND, labels=labels_of(env="prod"), drift=n) for n in range(10)]
    mine = [event(NOON + n * MINUTE, drift=n) for n in range(90)]
    store(database_url, *mine, *other, **BY_MINUTE)
    compact(database_url)
    late = event(NOON + 20 * MINUTE + 1, drift=-1)
    send(database_url, received(NOON + HOUR, late))
    better = [event(NOON + n * MINUTE, drift=100 + n) for n in range(10, 41, 2)]
    span = Span(NOON + 10 * MINUTE, NOON + 40 * MINUTE + 1)
    done = corrector.correct(replace(better, span), [batch_of(better)], batch_id=b"k" * 16)
    assert (done.removed, done.streams) == (31, 1)
    left = [*without(mine, span), *other, *better]
    check_all(reader, left, rng)
    with Storing(database_url) as worker:
        worker.run()
    compact(database_url)
    check_all(reader, left, rng)
    again = corrector.correct(replace(better, span, NOON + 2 * DAY), [batch_of(better)], batch_id=b"k" * 16)
    assert (again.id, again.removed) == (0, 0)
    check_all(reader, left, rng)


def test_what_is_loaded_after_a_deletion_stays(database_url: str, reader: Reader, corrector: Corrector) -> None:
    rng = np.random.default_rng(7)
    store(database_url, *[event(NOON + n) for n in range(5)])
    assert corrector.correct(delete('{name="Mistral"}', ALL)).removed == 5
    again = [event(NOON + n, drift=2) for n in range(5)]
    send(database_url, received(NOON + DAY + 1, *again))
    with Storing(database_url) as worker:
        worker.run()
    check_all(reader, again, rng)
    assert not corrector.run_once(), "it was applied, and is not applied again"
    check_all(reader, again, rng)


def test_a_correction_leaves_a_record_of_who_what_when(database_url: str, corrector: Corrector) -> None:
    store(database_url, event(NOON))
    done = corrector.correct(delete('{name="Mistral"}', Span(NOON, NOON + 1)))
    (row,) = corrector.newest(10)
    number, kind, at, applied, match, prints, start, end, author, reason, streams, removed, added = row
    assert (number, kind, match, prints, author, reason) == (
        done.id, "delete", '{name="Mistral"}', None, "someone", "a bad run",
    )  # fmt: skip
    assert (start, end) == (to_datetime(NOON), to_datetime(NOON + 1))
    assert at == to_datetime(NOON + DAY)
    assert applied is not None
    assert (streams, removed, added) == (1, 1, 0)


@pytest.mark.parametrize("match", ["", "{", '{__name__="drift"}', 'drift{env="prod"}', "{}", '{env=~".*"}', '{a=~"("}'])
def test_a_selector_that_is_none_or_takes_everything_is_refused(corrector: Corrector, match: str) -> None:
    with pytest.raises(Malformed, match="match"):
        corrector.count(delete(match, ALL))


def retired(url: str, **settings: Any) -> None:
    """All that is older than 30 days loses its raw events; the partitions go."""
    partitioner = Partitioner(Config(database_url=url, **settings))
    while partitioner.run_once(NOON):
        pass
    partitioner.close()


def test_where_raw_events_are_retired_only_whole_days_can_go(
    database_url: str, reader: Reader, corrector: Corrector
) -> None:
    events = [event(NOON - days * DAY + n * HOUR, drift=n) for days in range(0, 60, 4) for n in range(3)]
    events += [event(one.timestamp, labels=labels_of(env="prod"), **one.metrics) for one in events]
    store(database_url, *events, **BY_MINUTE)
    compact(database_url)
    retired(database_url)
    late = [event(NOON - 48 * DAY + 5, drift=7)]
    store(database_url, *late, **BY_HOUR)
    events += late
    for edge in (Span(NOON - 50 * DAY, NOON), Span(TODAY - 60 * DAY, NOON - 48 * DAY)):
        for act in (corrector.count, corrector.correct):
            with pytest.raises(CannotCorrect, match="whole UTC days"):
                act(delete('{name="Mistral",env=""}', edge))
    span = Span(TODAY - 50 * DAY, NOON - 3 * DAY + 1)
    counted = corrector.count(delete('{name="Mistral",env=""}', span))
    done = corrector.correct(delete('{name="Mistral",env=""}', span))
    left = [one for one in events if "env" in dict(one.labels) or not span.start <= one.timestamp < span.end]
    assert counted.removed == done.removed == len(events) - len(left) > 30
    for _ in range(2):
        check_models(reader, left)
        for first, last in itertools.pairwise(range(-60, 2, 6)):
            check_summary(reader, left, "Mistral", "v1", Span(TODAY + first * DAY, TODAY + last * DAY), {})
        compact(database_url)


def test_a_correction_that_was_recorded_and_not_applied_is_applied_by_the_keeper(
    database_url: str, reader: Reader, corrector: Corrector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any number of its transactions; the compactor rests until it is done."""
    rng = np.random.default_rng(9)
    events = random_events(rng, 200)
    store(database_url, *events[:100], **BY_MINUTE)
    compact(database_url)
    store(database_url, *events[100:], **BY_HOUR)
    span = Span(NOON - DAY, NOON + DAY)
    steps = Corrector._take_events_of_day
    for survived in range(2):
        calls = itertools.count()

        def dies(*arguments: Any, calls: Iterator[int] = calls, survived: int = survived) -> set[int]:
            if next(calls) == survived:
                raise KeyboardInterrupt
            return steps(*arguments)

        monkeypatch.setattr(Corrector, "_take_events_of_day", dies)
        correction = delete('{name="A"}', span)
        with pytest.raises(KeyboardInterrupt):
            corrector.run_once() if survived else corrector.correct(correction)
        partials = count_partials(database_url)
        compact(database_url)
        assert count_partials(database_url) == partials, "the compactor rests"
    monkeypatch.undo()
    fresh = event(NOON + 3, labels=labels_of("A"))
    send(database_url, received(NOON + 2 * DAY, fresh))
    with Storing(database_url) as worker:
        worker.run()
    assert corrector.run_once()
    left = [*without(events, span, name="A"), fresh]
    check_all(reader, left, rng)
    compact(database_url)
    check_all(reader, left, rng)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_any_history_of_stores_corrections_and_compactions_ends_in_the_events_that_are_left(
    database_url: str, reader: Reader, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print("seed", seed)
    monkeypatch.setattr(compactor_module, "_STEP_PARTIALS", 83)
    monkeypatch.setattr(compactor_module, "_CHUNKS_EVERY_SECONDS", 0)
    rng = np.random.default_rng(seed)
    corrector = corrector_of(database_url)
    clock = NOON + 2 * DAY  # of the API
    waiting: list[tuple[int, list[Event]]] = []
    left: list[Event] = []
    with Storing(database_url, **BY_MINUTE) as fast, Storing(database_url, **BY_HOUR) as slow:

        def store_all() -> None:
            (fast if rng.random() < 0.5 else slow).run()
            left.extend(one for _, some in waiting for one in some)
            waiting.clear()

        for _ in range(16):
            clock += SECOND
            kind = rng.choice(["send", "send", "store", "compact", "delete", "replace"])
            if kind == "send":
                some = random_events(rng, int(rng.integers(1, 40)))
                send(database_url, received(clock, *some))
                waiting.append((clock, some))
            elif kind == "store":
                store_all()
            elif kind == "compact":
                compact(database_url)
            else:
                span = random_span(rng)
                name = str(rng.choice(["A", "B"]))
                better: list[Event] = []
                if kind == "delete":
                    one = delete(f'{{name="{name}",env!="prod"}}', span, clock)
                else:
                    inside = [some for some in random_events(rng, 20) if span.start <= some.timestamp < span.end]
                    better = inside or [event(span.start, labels=labels_of(name))]
                    one = replace(better, span, clock)
                corrector.correct(one, [batch_of(better)] if better else [])
                left[:] = [*rest(left, one), *better]
                waiting[:] = [(at, rest(some, one)) for at, some in waiting]
            check_all(reader, left, rng)
        store_all()
        check_all(reader, left, rng)
        compact(database_url)
        check_all(reader, left, rng)


def test_corrections_beside_workers_and_a_compactor_lose_nothing_and_bring_nothing_back(
    database_url: str, reader: Reader
) -> None:
    """Two workers, a compactor and two correctors at once: what is left is what no later correction names."""
    rng = np.random.default_rng(10)
    config = Config(database_url=database_url, minutely_rate=2)
    corrector = Corrector(config, read_retention(config), lambda: time.time_ns() // 1000)
    done = threading.Event()
    began = time.time_ns() // 1000
    sent: list[tuple[int, Event]] = []

    def now() -> int:
        return time.time_ns() // 1000

    def work(rate: dict[str, Any]) -> None:
        with Storing(database_url, claim_limit_events=40, **rate) as worker:
            while not done.is_set():
                worker.run()
            worker.run()

    def compacting() -> None:
        while not done.is_set():
            compactor = Compactor(Config(database_url=database_url, chunk_target_events=64))
            try:
                compactor.run_once(NOON + 300 * DAY)
            finally:
                compactor.close()

    def correcting(name: str) -> None:
        its_rng = np.random.default_rng(len(name) + ord(name))
        for _ in range(8):
            start = NOON + int(its_rng.integers(0, 3 * HOUR))
            one = delete(f'{{name="{name}"}}', Span(start, start + HOUR), now())
            corrector.correct(one)

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(work, BY_MINUTE), pool.submit(work, BY_HOUR), pool.submit(compacting)]
        corrections = [pool.submit(correcting, name) for name in "AB"]
        try:
            for _ in range(60):
                some = [
                    event(NOON + int(rng.integers(0, 4 * HOUR)), labels=labels_of(str(rng.choice(["A", "B"]))), drift=n)
                    for n in range(10)
                ]
                at = now()
                send(database_url, received(at, *some))
                sent += [(at, one) for one in some]
            for one in corrections:
                one.result(120)
        finally:
            done.set()
        for one in running:
            one.result(60)
    with Storing(database_url) as worker:
        worker.run()
    with psycopg.connect(database_url) as connection:
        made = read_since(connection, 0)  # each took effect when nobody stored
    assert len(made) == 16
    left = [
        one
        for at, one in sent
        if not any(
            at < c.received_at and c.span.start <= one.timestamp < c.span.end and c.touches([one.labels])[0]
            for c in made
        )
    ]
    assert began < min(at for at, _ in sent)
    assert len(left) < len(sent)
    check_all(reader, left, rng)
    compact(database_url)
    check_all(reader, left, rng)
    assert count_rows(database_url, "dead_letter") == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=12), st.integers(0, 4))
def test_of_a_message_those_rows_are_left_that_no_later_correction_names(
    rows: list[tuple[int, int, int]], received_at: int
) -> None:
    corrections = [
        delete('{env="1"}', Span(2, 5), 1),
        delete('{env=~"2|3"}', Span(4, 9), 3),
        Correction(REPLACE, 4, None, frozenset([fingerprint(labels_of(env="0"))]), Span(0, 3), "", ""),
    ]
    events = [event(at, labels=labels_of(env=str(env)), drift=value) for at, value, env in rows]
    batches = [batch_of(events)] if events else []
    found = uncorrected(batches, received_at, corrections)
    kept = [float(value) for batch in found for value in batch.metrics["drift"].tolist()]
    assert kept == [
        value
        for at, value, env in rows
        if not (received_at < 1 and env == 1 and 2 <= at < 5)
        and not (received_at < 3 and env in (2, 3) and 4 <= at < 9)
        and not (received_at < 4 and env == 0 and at < 3)
    ]


def test_an_unknown_model_after_all_of_it_is_gone(database_url: str, reader: Reader, corrector: Corrector) -> None:
    store(database_url, event(NOON))
    corrector.correct(delete('{name="Mistral"}', ALL))
    with pytest.raises(NotFound):
        reader.models("Mistral")
    assert message_of(event(NOON)).events == 1


def test_no_border_of_the_retention_moves_while_a_correction_may_need_what_lies_before_it(
    database_url: str, reader: Reader, corrector: Corrector, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event(NOON + n * HOUR, drift=n) for n in range(6)]
    store(database_url, *events, **BY_MINUTE)
    later = NOON + 60 * DAY
    retention = read_retention(Config(database_url=database_url))

    def dies(*_: object) -> set[int]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Corrector, "_take_events_of_day", dies)
    with pytest.raises(KeyboardInterrupt):
        corrector.correct(delete('{name="Mistral"}', Span(NOON + HOUR, NOON + 3 * HOUR)))
    monkeypatch.undo()
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert not retire_over(connection, retention, later)
        assert read_retired(connection) == {}
        assert corrector.run_once()
        assert retire_over(connection, retention, later)
        assert read_retired(connection)[0, "raw"] > NOON
    day = Span(TODAY, TODAY + DAY)
    check_summary(reader, without(events, Span(NOON + HOUR, NOON + 3 * HOUR)), "Mistral", "v1", day, {})


def test_what_is_retired_of_one_class_is_no_hindrance_for_another(database_url: str, corrector: Corrector) -> None:
    store(database_url, *[event(NOON - 10 * DAY + n * MINUTE) for n in range(60)], **BY_HOUR)
    compact(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO modelmeter.retired VALUES (1, 'raw', %s)", (to_datetime(TODAY - 7 * DAY),))
    span = Span(NOON - 10 * DAY + 5 * MINUTE, NOON - 10 * DAY + 30 * MINUTE)
    assert corrector.count(delete('{name="Mistral"}', span)).removed == 25
    assert corrector.correct(delete('{name="Mistral"}', span)).removed == 25
