"""What the worker writes comes back bit for bit; two workers at once neither deadlock nor count twice."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import psycopg
import pytest
from psycopg import sql
from tests.history import NOON, labels_of

from modelmeter import rollup
from modelmeter.batch import fingerprint
from modelmeter.chunk import pack_chunk, unpack_floats, unpack_ints
from modelmeter.errors import Unavailable
from modelmeter.message import new_id
from modelmeter.store.dead_letters import DeadLetters
from modelmeter.store.partitions import WIDTHS
from modelmeter.store.queue import PostgresConsumer
from modelmeter.store.registry import read_registry
from modelmeter.store.rollups import SELECTED, copy_out
from modelmeter.store.writer import Catalog, bury, remember_batches, write_chunks, write_rollups
from modelmeter.window import DAY, MINUTE

SPECIAL = np.array([0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1.7976931348623157e308, -1.7e308, 0.1, 1 / 3, 1e-300])


@pytest.fixture
def catalog(database_url: str) -> Iterator[Catalog]:
    catalog = Catalog(database_url)
    yield catalog
    catalog.close()


def test_chunks_come_back_bit_for_bit(database_url: str, catalog: Catalog) -> None:
    rng = np.random.default_rng(0)
    with psycopg.connect(database_url) as connection:
        for number, size in enumerate((1, 2, 47, 48, 3000)):
            timestamp = np.sort(NOON + rng.integers(0, DAY // 2 - 1, size))
            columns = [rng.choice(SPECIAL, size), np.where(rng.random(size) < 0.5, np.nan, rng.random(size))]
            chunk = pack_chunk(number, [7, 9], timestamp, columns, minutely=bool(number % 2))
            catalog.make_partitions(timestamp, "chunk")
            write_chunks(connection, [chunk])
            row = connection.execute(
                "SELECT start_at, end_at, count, minutely, metrics, columns FROM modelmeter.chunk WHERE stream_id = %s",
                (number,),
                binary=True,
            ).fetchone()
            assert row is not None
            assert row[2:] == (size, bool(number % 2), [7, 9], list(chunk.columns))
            assert row[0].timestamp() * 1e6 == timestamp[0]
            assert unpack_ints(row[5][0], size).tobytes() == timestamp.tobytes()
            for packed, column in zip(row[5][1:], columns, strict=True):
                assert unpack_floats(packed, size).tobytes() == column.tobytes()


@pytest.mark.parametrize("table", ["rollup_partial_1m", "rollup_partial_1h", "rollup_1m", "rollup_1h", "rollup_1d"])
def test_rollups_come_back_bit_for_bit(database_url: str, catalog: Catalog, table: str) -> None:
    rng = np.random.default_rng(1)
    stream = np.repeat(np.arange(9, dtype=np.int32), 40)
    timestamp = NOON + np.arange(360) * 1000
    window = timestamp - timestamp % DAY
    starts = rollup.group_starts(stream)
    rows = rollup.concat(
        [
            rollup.fold_events(stream, window, timestamp, starts),
            rollup.fold_metric(stream, 3, window, timestamp, rng.choice(SPECIAL, 360), starts),
            rollup.fold_metric(stream, 4, window, timestamp, rng.lognormal(size=360), starts),
        ]
    )
    catalog.make_partitions(rows.window, *WIDTHS)
    with psycopg.connect(database_url) as connection:
        write_rollups(connection, rows, table)
        found = copy_out(
            connection,
            sql.SQL("SELECT {} FROM modelmeter.{} ORDER BY metric_id, stream_id").format(
                SELECTED, sql.Identifier(table)
            ),
        )
    for field in rollup.FIELDS:
        assert getattr(found, field).tobytes() == getattr(rows, field).tobytes(), field
    assert list(found.sketch) == list(rows.sketch)


def test_a_window_has_one_folded_row_for_each_series(database_url: str, catalog: Catalog) -> None:
    rows = rollup.fold_events(np.ones(1, np.int32), np.array([NOON]), np.array([NOON]), np.zeros(1, np.int64))
    catalog.make_partitions(rows.window, *WIDTHS)
    with psycopg.connect(database_url) as connection:
        write_rollups(connection, rows, "rollup_1m")
        with pytest.raises(psycopg.errors.UniqueViolation):
            write_rollups(connection, rows, "rollup_1m")


def test_the_same_stream_or_metric_gets_the_same_id_from_workers_at_once(database_url: str) -> None:
    streams = [labels_of(env=str(number)) for number in range(60)]
    metrics = [f"m{number}" for number in range(60)]
    together = Barrier(3)

    def work(number: int) -> tuple[list[int], list[int]]:
        order = np.random.default_rng(number).permutation(60).tolist()
        catalog = Catalog(database_url)
        together.wait(10)
        for at in range(0, 60, 7):
            catalog.stream_ids([streams[row] for row in order[at : at + 7]])
            catalog.metric_ids([metrics[row] for row in order[at : at + 7]])
        found = catalog.stream_ids(streams).tolist(), catalog.metric_ids(metrics)
        catalog.close()
        return found

    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(work, range(3))]
    assert found[0] == found[1] == found[2]
    assert len({*found[0][0]}) == len({*found[0][1]}) == 60
    fresh = Catalog(database_url)
    assert fresh.stream_ids(streams).tolist() == found[0][0]
    fresh.close()


def test_no_metric_has_the_id_that_counts_events(catalog: Catalog) -> None:
    assert min(catalog.metric_ids(["a", "b"])) > rollup.EVENTS


def test_an_id_is_taken_into_the_ledger_once(database_url: str) -> None:
    ids = [new_id() for _ in range(4)]
    with psycopg.connect(database_url) as connection:
        assert remember_batches(connection, [*ids[:2], ids[0]]) == set()
        connection.commit()
        assert remember_batches(connection, ids) == {*ids[:2]}
        connection.rollback()
        assert remember_batches(connection, ids[2:]) == set()
        assert remember_batches(connection, []) == set()


def test_of_two_workers_with_the_same_ids_exactly_one_wins(database_url: str) -> None:
    together = Barrier(2)
    rounds = [[new_id() for _ in range(30)] for _ in range(20)]

    def work(number: int) -> list[set[bytes]]:
        new = []
        with psycopg.connect(database_url) as connection:
            for ids in rounds:
                mine = [ids[at] for at in np.random.default_rng(number).permutation(30).tolist()]
                together.wait(30)
                known = remember_batches(connection, mine)
                connection.commit()
                new.append({*ids} - known)
        return new

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(work, range(2))
    for ids, mine, theirs in zip(rounds, one, other, strict=True):
        assert sorted([*mine, *theirs]) == sorted(ids)


def test_a_worker_that_gives_up_leaves_its_ids_to_the_one_that_waits(database_url: str) -> None:
    ids = [new_id() for _ in range(3)]
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second, ThreadPoolExecutor(1) as pool:
        assert remember_batches(first, ids) == set()
        waiting = pool.submit(remember_batches, second, ids)
        first.rollback()
        assert waiting.result(10) == set()


def test_dead_letters_can_be_listed_put_back_and_dropped(database_url: str) -> None:
    letters = DeadLetters(database_url)
    assert letters.newest() == []
    with psycopg.connect(database_url) as connection:
        for number in range(5):
            bury(connection, bytes([number]) * 10, number, f"reason {number}")
    found = letters.newest()
    assert [(letter.events, letter.bytes, letter.reason) for letter in found] == [
        (number, 10, f"reason {number}") for number in (4, 3, 2, 1, 0)
    ]
    assert letters.retry([found[0].id, 999_999]) == 1
    assert letters.drop([found[1].id]) == 1
    assert [letter.events for letter in letters.newest()] == [2, 1, 0]
    assert letters.retry([]) == letters.drop([]) == 0
    assert letters.retry(None) == 3
    assert letters.drop(None) == 0
    consumer = PostgresConsumer(database_url)
    claim = consumer.claim(100, 100, 100)
    assert claim is not None
    assert sorted(claim.payloads) == [bytes([number]) * 10 for number in (0, 1, 2, 4)]
    consumer.close()


def test_dead_letters_of_a_database_that_is_away_are_unavailable() -> None:
    with pytest.raises(Unavailable):
        DeadLetters("host=/nowhere dbname=none").newest()


def test_the_registry_knows_all_streams_and_metrics(database_url: str, catalog: Catalog) -> None:
    def known(count: int) -> tuple[set[bytes] | None, set[str]]:
        found = read_registry(database_url, count)
        return found.streams, found.metrics

    assert known(0) == (None, set())
    streams = [labels_of(), labels_of(env="prod")]
    catalog.stream_ids(streams)
    catalog.metric_ids(["drift"])
    assert known(0) == ({fingerprint(labels) for labels in streams}, {"drift"})
    assert known(2) == (None, {"drift"}), "as many as known are not read again"


def test_a_registry_without_a_schema_is_unavailable(postgres: str) -> None:
    with pytest.raises(Unavailable, match="migrate"):
        asyncio.run(asyncio.to_thread(read_registry, postgres, 0))


def test_a_partition_is_remembered_and_forgotten(catalog: Catalog) -> None:
    catalog.make_partitions(np.array([NOON, NOON + MINUTE]), *WIDTHS)
    assert catalog._partitions.missing(np.array([NOON]), WIDTHS) == []
    catalog.forget()
    assert len(catalog._partitions.missing(np.array([NOON]), WIDTHS)) == len(WIDTHS)
    catalog.make_partitions(np.array([NOON]), *WIDTHS)
