"""Compaction changes no answer: on random histories, step by step, and when it is killed in the middle."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from modelmeter import compactor as compactor_module
from modelmeter.chunk import pack_chunk, unpack_floats, unpack_ints
from modelmeter.compactor import Compactor, join_chunks
from modelmeter.config import Config
from modelmeter.reader import Event, Reader
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span, to_datetime
from tests.history import (
    BY_HOUR,
    BY_MINUTE,
    NOON,
    Random,
    Storing,
    bits,
    check_models,
    check_summary,
    count_partials,
    count_rows,
    event,
    labels_of,
    message_of,
    random_events,
    random_span,
    send,
    store,
)

LATER = NOON + 30 * DAY


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step folds so few partials that it cuts through series, and chunks are looked at every time."""
    monkeypatch.setattr(compactor_module, "_STEP_PARTIALS", 61)
    monkeypatch.setattr(compactor_module, "_CHUNKS_EVERY_SECONDS", 0)


@pytest.fixture
def compactor(database_url: str) -> Iterator[Compactor]:
    compactor = Compactor(Config(database_url=database_url, chunk_target_events=64))
    yield compactor
    compactor.close()


def compact(compactor: Compactor, now: int = LATER) -> int:
    """Until there is nothing more to do; how many steps that took."""
    for step in range(1, 500):
        if not compactor.run_once(now):
            return step
    raise AssertionError("the compactor does not come to an end")


class Questions:
    """Random questions, asked again and again: every answer must be right, and the same as before."""

    def __init__(self, rng: Random, count: int) -> None:
        self._asked = [
            (
                str(rng.choice(["A", "B"])),
                None if rng.random() < 0.2 else "v1",
                random_span(rng),
                {"env": str(rng.choice(["prod", "test"]))} if rng.random() < 0.3 else {},
            )
            for _ in range(count)
        ]
        self._limit = int(rng.integers(1, 60))

    def ask(self, reader: Reader, events: Sequence[Event]) -> list[object]:
        check_models(reader, events)
        everything = Span(0, LATER)
        answers: list[object] = []
        names = {dict(one.labels)["name"] for one in events}
        for name, version, span, labels in self._asked:
            if (name, version or "v1") not in {
                (dict(one.labels)["name"], dict(one.labels)["version"] if version else "v1") for one in events
            }:
                continue
            answers.append(check_summary(reader, events, name, version, span, labels))
            answers.append([bits(one) for one in reader.events(name, version, span, labels, self._limit)])
        for name in names:
            wanted = [one for one in events if dict(one.labels)["name"] == name]
            found = reader.events(name, None, everything, {}, 100_000)
            assert sorted(map(bits, found)) == sorted(map(bits, wanted))
            answers.append([bits(one) for one in found])
        return answers


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_step_of_any_history_changes_an_answer(
    database_url: str, reader: Reader, compactor: Compactor, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    questions = Questions(rng, 5)
    coming = random_events(rng, 450)
    stored: list[Event] = []
    answers: list[object] = []
    with Storing(database_url, **BY_MINUTE) as fast, Storing(database_url, **BY_HOUR) as slow:
        for _ in range(18):
            kind = rng.choice(["store", "fold", "join", "both"])
            if kind == "store" or not stored:
                size = int(rng.integers(1, 120))
                now_stored, coming = coming[:size], coming[size:]
                if not now_stored:
                    continue
                message = message_of(*now_stored)
                send(database_url, message, *([message] if rng.random() < 0.3 else []))
                (fast if rng.random() < 0.5 else slow).run()
                stored += now_stored
                answers = questions.ask(reader, stored)
                continue
            now = LATER if rng.random() < 0.5 else random_span(rng).start
            connection = psycopg.connect(database_url)
            try:
                if kind == "fold":
                    table, resolutions = list(compactor_module._FOLDS.items())[rng.integers(2)]
                    compactor._fold(connection, now, table, resolutions)
                elif kind == "join":
                    compactor._join(connection, now)
                else:
                    compactor.run_once(now)
            finally:
                connection.close()
            assert questions.ask(reader, stored) == answers, (seed, kind)
        compact(compactor)
        assert questions.ask(reader, stored) == answers, seed
    assert count_partials(database_url) == 0


@pytest.mark.usefixtures("small_steps")
def test_compaction_comes_to_an_end_with_one_row_a_window_and_few_chunks(
    database_url: str, compactor: Compactor, reader: Reader
) -> None:
    events = [event(NOON + n * SECOND, drift=n) if n % 2 else event(NOON + n * SECOND, latency=n) for n in range(60)]
    for one in events:
        send(database_url, message_of(one))
    with Storing(database_url, claim_limit_events=1, **BY_MINUTE) as storing:
        storing.run()
    assert count_rows(database_url, "chunk") == 60
    compact(compactor)
    assert compact(compactor) == 1
    assert count_rows(database_url, "chunk") == 2, "one for each set of metrics"
    assert [count_rows(database_url, table) for table in ("rollup_1m", "rollup_1h", "rollup_1d")] == [3, 3, 3]
    assert reader.events("Mistral", "v1", Span(0, LATER), {}, 100) == events[::-1]


def test_late_events_find_their_place_in_what_is_compacted(
    database_url: str, compactor: Compactor, reader: Reader
) -> None:
    events: list[Event] = []
    for late in range(4):
        more = [event(NOON + n * HOUR + late, drift=10 * late + n) for n in range(5)]
        store(database_url, *more)
        events += more
        compact(compactor)
        assert count_rows(database_url, "rollup_1h") == 10  # 5 hours of drift and of the events themselves
        check_summary(reader, events, "Mistral", "v1", Span(NOON + 2, NOON + 4 * HOUR + 1), {})
        check_models(reader, events)


def test_open_minutes_wait_unless_there_are_too_many(
    database_url: str, compactor: Compactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(database_url, event(NOON), event(NOON + MINUTE), **BY_MINUTE)
    compact(compactor, now=NOON + MINUTE + 30 * SECOND)
    assert count_partials(database_url) == 2
    assert count_rows(database_url, "rollup_1m") == 2
    monkeypatch.setattr(compactor_module, "_PRESSURE_PARTIALS", 2)
    compact(compactor, now=NOON + MINUTE + 30 * SECOND)
    assert count_partials(database_url) == 0


def test_a_step_that_holds_no_count_of_events_is_a_step_like_any_other(
    database_url: str, compactor: Compactor, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event(NOON, labels=labels_of(env=str(n)), drift=n, latency=n) for n in range(40)]
    store(database_url, *events)
    monkeypatch.setattr(compactor_module, "_STEP_PARTIALS", 40)
    assert compact(compactor) >= 3
    check_models(reader, events)
    check_summary(reader, events, "Mistral", "v1", Span(0, LATER), {})


def test_the_ledger_forgets_ids_when_their_promise_is_over(database_url: str, compactor: Compactor) -> None:
    store(database_url, event(NOON))
    store(database_url, event(NOON))
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE modelmeter.ledger SET stored_at = now() - interval '8 days' WHERE batch_id ="
            " (SELECT min(batch_id::text)::uuid FROM modelmeter.ledger)"
        )
    compact(compactor)
    assert count_rows(database_url, "ledger") == 1


KILLS = [
    ("rollup_partial_1m", "DELETE"),
    ("rollup_partial_1h", "DELETE"),
    ("rollup_1m", "INSERT"),
    ("rollup_1h", "INSERT"),
    ("rollup_1d", "DELETE"),
    ("rollup_1d", "INSERT"),
    ("stream", "UPDATE"),
    ("chunk", "DELETE"),
    ("chunk", "INSERT"),
]


@pytest.mark.parametrize("moment", ["at once", "at commit"])
@pytest.mark.parametrize(("table", "operation"), KILLS)
def test_a_compactor_killed_at_any_statement_leaves_the_same_answers(
    database_url: str, reader: Reader, table: str, operation: str, moment: str
) -> None:
    rng = np.random.default_rng(7)
    events = random_events(rng, 200)
    store(database_url, *events[:50], **BY_MINUTE)
    store(database_url, *events[50:100], **BY_HOUR)
    config = Config(database_url=database_url, chunk_target_events=64)
    first = Compactor(config)
    compact(first)
    first.close()
    store(database_url, *events[100:150], **BY_MINUTE)
    store(database_url, *events[150:], **BY_HOUR)
    questions = Questions(rng, 4)
    answers = questions.ask(reader, events)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
        )
        how, when = ("", "") if moment == "at once" else ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED")
        connection.execute(
            f"CREATE {how} TRIGGER dies AFTER {operation} ON modelmeter.{table} {when}"
            " FOR EACH ROW EXECUTE FUNCTION die()".encode()
        )
        compactor = Compactor(config)
        with pytest.raises(psycopg.DatabaseError, match="terminating connection"):
            compact(compactor)
        assert questions.ask(reader, events) == answers
        connection.execute(f"DROP TRIGGER dies ON modelmeter.{table}".encode())
    compact(compactor)  # the same one goes on
    compactor.close()
    assert questions.ask(reader, events) == answers
    assert count_partials(database_url) == 0


def test_two_compactors_at_once_leave_the_same_answers(database_url: str, reader: Reader) -> None:
    rng = np.random.default_rng(11)
    events = random_events(rng, 600)
    for part in range(0, 600, 100):
        store(database_url, *events[part : part + 100], **(BY_MINUTE if part % 200 else BY_HOUR))
    questions = Questions(rng, 4)
    answers = questions.ask(reader, events)

    def work() -> None:
        compactor = Compactor(Config(database_url=database_url, chunk_target_events=64))
        for _ in range(50):
            try:
                compact(compactor)
                break
            except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
                continue  # the other was first: its work stands, ours is undone
        compactor.close()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work), pool.submit(work)]:
            done.result()
    assert questions.ask(reader, events) == answers


def _unpacked(chunks: Sequence[tuple[int, Sequence[int], Sequence[bytes]]]) -> list[tuple[int, tuple[str, ...]]]:
    rows = []
    for count, _, columns in chunks:
        values = [[value.hex() for value in unpack_floats(column, count).tolist()] for column in columns[1:]]
        rows += list(zip(unpack_ints(columns[0], count).tolist(), zip(*values, strict=True), strict=True))
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_joined_chunks_hold_the_same_events_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    special = np.array([0.0, -0.0, np.nan, 5e-324, -2.2e-308, 1.7e308, 0.1])
    chunks = []
    for number in range(12):
        size = int(rng.integers(1, 90))
        timestamp = np.sort(NOON + rng.integers(0, 500, size))
        metrics = [1, 2] if rng.random() < 0.7 else [2]
        columns = [np.where(rng.random(size) < 0.3, rng.choice(special, size), rng.random(size)) for _ in metrics]
        chunk = pack_chunk(7, metrics, timestamp, columns, minutely=True)
        chunks.append((to_datetime(NOON + number), chunk.count, metrics, list(chunk.columns)))
    joined = join_chunks(7, chunks, 64, minutely=True)
    for metrics in ([1, 2], [2]):
        before = _unpacked([(count, its, columns) for _, count, its, columns in chunks if its == metrics])
        after = _unpacked([(one.count, one.metrics, one.columns) for one in joined if list(one.metrics) == metrics])
        assert sorted(before) == sorted(after), seed
    for one in joined:
        timestamp = unpack_ints(one.columns[0], one.count)
        assert (one.start, one.end) == (timestamp[0], timestamp[-1] + 1)
        assert (np.diff(timestamp) >= 0).all()
