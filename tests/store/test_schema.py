"""Migrations and partitions on a real Postgres, also at once and beside writers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.history import NOON

from modelmeter.errors import WrongSetting
from modelmeter.store.migrations import _files, is_current, migrate
from modelmeter.store.partitions import WIDTHS, Partitions
from modelmeter.window import DAY, LATEST, to_datetime

FILES = [name for _, name, _ in _files()]


@pytest.fixture
def empty_database(postgres: str, database_url: str) -> Iterator[str]:
    """The conninfo of a database with nothing in it."""
    name = f"{conninfo_to_dict(database_url)['dbname']}_empty"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield make_conninfo(postgres, dbname=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_migrations_run_once(empty_database: str) -> None:
    with psycopg.connect(empty_database) as connection:
        assert not is_current(connection)
    ran = migrate(empty_database)
    assert ran == FILES
    assert migrate(empty_database) == []
    with psycopg.connect(empty_database) as connection:
        assert is_current(connection)


def test_migrations_at_once_take_turns(empty_database: str) -> None:
    together = Barrier(4)

    def run(_: int) -> list[str]:
        together.wait(10)
        return migrate(empty_database)

    with ThreadPoolExecutor(4) as pool:
        ran = [*pool.map(run, range(4))]
    assert sorted(map(len, ran)) == [0, 0, 0, len(FILES)]


def test_a_newer_schema_is_refused_and_still_good_for_reading(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO modelmeter.migration (number, name, digest) VALUES (9999, '9999_later.sql', '')"
        )
    with pytest.raises(WrongSetting, match="9999"):
        migrate(database_url)
    with psycopg.connect(database_url) as connection:
        assert is_current(connection), "release N-1 runs on the schema of release N"


def test_a_migration_that_was_broken_off_leaves_nothing(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA modelmeter")
        connection.execute("CREATE TABLE modelmeter.dead_letter (number int)")  # in the way of a later statement
        with pytest.raises(psycopg.errors.DuplicateTable):
            migrate(empty_database)
        assert connection.execute("SELECT to_regclass('modelmeter.metric')").fetchone() == (None,)
        assert connection.execute("SELECT count(*) FROM modelmeter.migration").fetchone() == (0,)
        connection.execute("DROP TABLE modelmeter.dead_letter")
    assert migrate(empty_database) == FILES


INSTANTS = np.array([0, 1, DAY - 1, DAY, 400 * DAY, 19_655 * DAY, 19_656 * DAY, NOON, LATEST - 365 * DAY])


def put(connection: psycopg.Connection[tuple[object, ...]], instant: int) -> None:
    connection.execute(
        "INSERT INTO modelmeter.chunk (stream_id, start_at, end_at, count, minutely, metrics, columns)"
        " VALUES (1, %s, %s, 1, true, '{}', '{x}')",
        (to_datetime(instant), to_datetime(instant + 1)),
    )


def test_a_partition_is_made_for_any_instant(database_url: str) -> None:
    partitions = Partitions()
    with psycopg.connect(database_url, autocommit=True) as connection:
        wanted = partitions.missing(INSTANTS, WIDTHS)
        partitions.make(connection, wanted)
        for instant in INSTANTS.tolist():
            put(connection, instant)
            assert partitions.missing(np.array([instant]), WIDTHS) == []
        assert partitions.missing(INSTANTS, WIDTHS) == []
        Partitions().make(connection, wanted)  # another process, that knows nothing, finds them made
        partitions.forget()
        assert sorted(partitions.missing(INSTANTS, WIDTHS)) == sorted(wanted)


def test_partitions_made_by_two_at_once_beside_writers_neither_wait_nor_fail(database_url: str) -> None:
    days = NOON + DAY * np.arange(30)
    made = Event()
    together = Barrier(3)
    with psycopg.connect(database_url, autocommit=True) as connection:
        Partitions().make(connection, Partitions().missing(days[:1], ["chunk"]))

    def make(order: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            together.wait(10)
            for day in days[::order]:
                partitions = Partitions()
                partitions.make(connection, partitions.missing(np.array([day]), WIDTHS))

    def write() -> int:
        written = 0
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '2s'")
            together.wait(10)
            while not made.is_set() or not written:
                with connection.transaction():
                    put(connection, NOON)
                written += 1
        return written

    with ThreadPoolExecutor(3) as pool:
        writing = pool.submit(write)
        making = [pool.submit(make, 1), pool.submit(make, -1)]
        try:
            for one in making:
                one.result(60)
        finally:
            made.set()
        assert writing.result(10) > 0
    with psycopg.connect(database_url) as connection:
        for day in days.tolist():
            put(connection, day)


def test_a_writer_in_a_long_transaction_holds_up_no_new_partition(database_url: str) -> None:
    partitions = Partitions()
    with psycopg.connect(database_url, autocommit=True) as maker, psycopg.connect(database_url) as writer:
        partitions.make(maker, partitions.missing(np.array([NOON]), ["chunk"]))
        put(writer, NOON)
        writer.execute("SELECT count(*) FROM modelmeter.chunk")
        maker.execute("SET lock_timeout = '1s'")
        partitions.make(maker, partitions.missing(np.array([NOON + DAY]), ["chunk"]))
        writer.rollback()
