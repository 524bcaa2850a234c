"""Migrations that meet a database before it is there."""

import threading

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from modelmeter.errors import Unavailable, WrongSetting
from modelmeter.store.migrations import migrate, migrate_patiently, wait_for_schema

NOWHERE = "postgresql://127.0.0.1:1/none"


def test_a_database_that_stays_away_is_said_to_be_away() -> None:
    with pytest.raises(Unavailable, match="the database is away"):
        migrate_patiently(NOWHERE, 0)


def test_a_database_that_comes_up_later_is_migrated(postgres: str) -> None:
    name = "modelmeter_comes_later"
    conninfo = make_conninfo(postgres, dbname=name)
    ran: list[str] = []
    waiting = threading.Thread(target=lambda: ran.extend(migrate_patiently(conninfo, 30)))
    waiting.start()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        waiting.join()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert ran[0] == "0001_initial.sql"


def test_a_newer_schema_is_refused_or_left_as_it_is(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO modelmeter.migration (number, name, digest) VALUES (9999, 'later', '')")
    with pytest.raises(WrongSetting, match="newer modelmeter"):
        migrate_patiently(database_url, 0)
    assert migrate_patiently(database_url, 0, accept_newer=True) == []


def test_the_schema_is_waited_for(postgres: str) -> None:
    name = "modelmeter_no_schema"
    conninfo = make_conninfo(postgres, dbname=name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        waits = 0

        def is_over(_: float) -> bool:
            nonlocal waits
            waits += 1
            if waits == 2:
                migrate(conninfo)
            return False

        wait_for_schema(conninfo, is_over)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert waits == 2


def test_waiting_for_a_schema_ends_when_told() -> None:
    wait_for_schema(NOWHERE, lambda _: True)
