"""Backups of a database in use, put back elsewhere: the same answers, and what was on the queue is stored."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.history import (
    BY_MINUTE,
    NOON,
    Storing,
    check_models,
    check_summary,
    event,
    labels_of,
    message_of,
    random_events,
    random_span,
    send,
    store,
)
from typer.testing import CliRunner

from modelmeter.cli import app
from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.errors import Unavailable, WrongSetting
from modelmeter.reader import Reader
from modelmeter.store.backup import backup, restore
from modelmeter.store.embedded import EmbeddedPostgres
from modelmeter.store.migrations import _files, is_current, migrate
from modelmeter.window import DAY, Span


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="modelmeter-test-", dir="/tmp"))
    path.chmod(0o755)  # Postgres runs as a user of its own when the tests run as root
    yield path
    shutil.rmtree(path)


@pytest.fixture
def empty_database(postgres: str, database_url: str) -> Iterator[str]:
    name = f"{conninfo_to_dict(database_url)['dbname']}_empty"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield make_conninfo(postgres, dbname=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_backup_put_back_gives_the_same_answers_and_stores_what_was_on_the_queue(
    database_url: str, empty_database: str, home: Path
) -> None:
    rng = np.random.default_rng(1)
    events = random_events(rng, 200)
    store(database_url, *events[:100], **BY_MINUTE)
    compactor = Compactor(Config(database_url=database_url))
    while compactor.run_once(NOON + 9 * DAY):
        pass
    compactor.close()
    store(database_url, *events[100:150])
    on_the_queue = message_of(*events[150:])
    send(database_url, on_the_queue)
    with psycopg.connect(database_url) as connection:  # somebody is in the middle of something
        connection.execute("INSERT INTO modelmeter.metric (name) VALUES ('not_committed')")
        assert backup(database_url, home / "all.dump") == (home / "all.dump").stat().st_size
    assert [path.name for path in home.iterdir()] == ["all.dump"]
    restore(empty_database, home / "all.dump")
    with psycopg.connect(empty_database) as connection:
        assert is_current(connection)
    send(empty_database, on_the_queue)  # and again, by a client that had no answer: it counts once
    with Storing(empty_database) as worker:
        worker.run()
    reader = Reader(empty_database)
    check_models(reader, events)
    for _ in range(5):
        check_summary(reader, events, "A", None, random_span(rng), {})
    reader.close()


def test_a_restored_data_directory_serves_and_a_used_one_is_refused(database_url: str, home: Path) -> None:
    events = [event(NOON + n) for n in range(5)]
    store(database_url, *events)
    dump, data_dir = str(home / "all.dump"), str(home / "data")
    run = CliRunner()
    said = run.invoke(app, ["backup", dump, "--database-url", database_url])
    assert said.output.startswith(f"wrote {dump}, ")
    said = run.invoke(app, ["restore", dump, "--data-dir", data_dir])
    assert said.output == f"restored {dump} into {data_dir}; run: modelmeter serve --data-dir {data_dir}\n"
    with EmbeddedPostgres(home / "data") as server:
        reader = Reader(server.conninfo)
        check_models(reader, events)
        assert len(reader.events("Mistral", "v1", Span(NOON, NOON + 9), {}, 10)) == 5
        reader.close()
        again = home / "again.dump"
        assert run.invoke(app, ["backup", str(again), "--data-dir", data_dir]).exit_code == 0
    assert again.stat().st_size > 1000
    said = run.invoke(app, ["restore", dump, "--data-dir", data_dir])
    assert "already" in str(said.exception)


def test_a_backup_over_a_file_and_a_restore_over_data_are_refused(database_url: str, home: Path) -> None:
    (home / "precious").write_text("precious")
    with pytest.raises(WrongSetting, match="already"):
        backup(database_url, home / "precious")
    with pytest.raises(WrongSetting, match="no directory"):
        backup(database_url, home / "nowhere" / "file")
    with pytest.raises(WrongSetting, match="has a schema modelmeter already"):
        restore(database_url, home / "precious")
    with pytest.raises(WrongSetting, match="no file"):
        restore(database_url, home / "nothing")
    assert (home / "precious").read_text() == "precious"


def test_a_backup_that_breaks_off_leaves_no_file_and_a_damaged_one_leaves_the_database_empty(
    empty_database: str, home: Path
) -> None:
    with pytest.raises(Unavailable):
        backup("host=/nowhere dbname=none", home / "all.dump")
    assert list(home.iterdir()) == []
    (home / "damaged").write_bytes(b"PGDMP" + bytes(100))
    with pytest.raises(Unavailable):
        restore(empty_database, home / "damaged")
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT to_regnamespace('modelmeter') IS NULL").fetchone() == (True,)


@pytest.mark.parametrize("release", [number for number, _, _ in _files()])
def test_every_schema_that_was_is_brought_up_to_date_with_its_data(empty_database: str, release: int) -> None:
    """Data as that release wrote it: rollups, chunks, totals, and a message on the queue."""
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA modelmeter")
        connection.execute(
            "CREATE TABLE modelmeter.migration (number integer PRIMARY KEY, name text NOT NULL,"
            " digest text NOT NULL, ran_at timestamptz NOT NULL DEFAULT now())"
        )
        for number, name, text in _files():
            if number <= release:
                connection.execute(text.encode())
                connection.execute("INSERT INTO modelmeter.migration VALUES (%s, %s, '')", (number, name))
        connection.execute(
            """
            INSERT INTO modelmeter.stream (fingerprint, name, version, labels, events, first_at, last_at) VALUES
                (gen_random_uuid(), 'Old', 'v1', '{"name": "Old", "version": "v1"}', 2, '2026-03-01T12:00Z',
                 '2026-03-01T12:01Z');
            CREATE TABLE modelmeter.rollup_1d_20251023 (LIKE modelmeter.rollup_1d INCLUDING ALL);
            ALTER TABLE modelmeter.rollup_1d ATTACH PARTITION modelmeter.rollup_1d_20251023
                FOR VALUES FROM ('2025-10-23T00:00Z') TO ('2026-10-22T00:00Z');
            INSERT INTO modelmeter.rollup_1d (stream_id, metric_id, window_start, count, sum, deviation, min, max,
                first_at, last_at, last, sketch)
            SELECT stream_id, 0, '2026-03-01T00:00Z', 2, 0, 0, 0, 0, first_at, last_at, 0, '' FROM modelmeter.stream;
            """
        )
    send(empty_database, message_of(event(NOON, labels=labels_of("New"))))
    ran = migrate(empty_database)
    assert ran == [name for number, name, _ in _files() if number > release]
    with Storing(empty_database) as worker:
        assert sum(one.events for one in worker.run()) == 1
    store(empty_database, event(NOON + 1, labels=labels_of("Old")))
    compactor = Compactor(Config(database_url=empty_database))
    while compactor.run_once(NOON + 9 * DAY):
        pass
    compactor.close()
    reader = Reader(empty_database)
    assert [(model.name, model.events) for model in reader.models()] == [("New", 1), ("Old", 3)]
    day = Span(NOON - NOON % DAY, NOON - NOON % DAY + DAY)
    assert reader.stats("Old", "v1", day, {}, None, ()).events == 3
    reader.close()


DEBIAN = Path("/usr/lib/postgresql/15/bin/initdb")


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's PostgreSQL 15 is not installed")
def test_a_real_data_directory_of_postgresql_15_is_refused_and_left_as_it_is(home: Path) -> None:
    data = home / "data"
    data.mkdir()
    argv = [str(DEBIAN), "-D", str(data / "postgres"), "--no-sync", "--auth=trust"]
    if os.geteuid() == 0:
        shutil.chown(data, "postgres", "postgres")
        argv = ["runuser", "-u", "postgres", "--", *argv]
    subprocess.run(argv, check=True, capture_output=True, cwd=home)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in data.rglob("*"))
    with pytest.raises(WrongSetting, match=r"holds data of PostgreSQL 15; this release carries 18"):
        EmbeddedPostgres(data).start()
    assert sorted((path.name, path.stat().st_mtime_ns) for path in data.rglob("*")) == before
