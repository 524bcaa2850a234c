"""From one Postgres to many, and shards that move while events come."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from modelmeter.cli import app
from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.reader import Event, Reader
from modelmeter.store.distribution import DISTRIBUTED, distribute
from modelmeter.window import DAY, HOUR, Span, to_datetime
from tests.history import (
    BY_HOUR,
    BY_MINUTE,
    NOON,
    Storing,
    check_models,
    check_summary,
    event,
    labels_of,
    message_of,
    random_events,
    send,
    store,
)

ALL = Span(0, NOON + 30 * DAY)
LATER = NOON + 30 * DAY


def ask(url: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def compact(url: str) -> None:
    compactor = Compactor(Config(database_url=url))
    while compactor.run_once(LATER):
        pass
    compactor.close()


@pytest.fixture
def reader(undistributed_url: str) -> Iterator[Reader]:
    reader = Reader(undistributed_url)
    yield reader
    reader.close()


def test_what_was_stored_before_is_spread_and_answers_the_same(undistributed_url: str, reader: Reader) -> None:
    url = undistributed_url
    events = random_events(np.random.default_rng(3), 300)
    store(url, *events[:100], **BY_MINUTE)
    compact(url)
    store(url, *events[100:200], **BY_HOUR)
    before = check_summary(reader, events[:200], "A", "v1", ALL, {})
    done = CliRunner().invoke(app, ["migrate", "--database-url", url, "--distribute", "--shards", "4"])
    assert done.output.splitlines() == [f"distributed {table}" for table in DISTRIBUTED]
    assert check_summary(reader, events[:200], "A", "v1", ALL, {}) == before
    check_models(reader, events[:200])
    # What the coordinator had is gone from its own disk.
    for (table,) in ask(
        url, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'modelmeter.chunk'::regclass"
    ):
        assert ask(url, "SELECT pg_relation_size(%s)", table) == [(0,)]
    again = CliRunner().invoke(app, ["migrate", "--database-url", url, "--distribute"])
    assert again.output == "the schema is up to date\n"
    store(url, *events[200:], **BY_MINUTE)
    compact(url)
    check_summary(reader, events, "A", "v1", ALL, {})
    check_models(reader, events)


def test_partitions_made_later_lie_on_the_workers_and_a_stream_on_one_node(database_url: str) -> None:
    streams = [labels_of(version=f"v{number}") for number in range(12)]
    store(database_url, *(event(NOON + day * DAY, labels=labels) for labels in streams for day in range(3)))
    compact(database_url)
    names = {
        str(name).removeprefix("modelmeter.") for (name,) in ask(database_url, "SELECT table_name FROM citus_tables")
    }
    assert {"chunk_20260301", "chunk_20260302", "chunk_20260303"} <= names
    nodes = ask(
        database_url, "SELECT DISTINCT nodeport FROM citus_shards WHERE table_name::text LIKE 'modelmeter.chunk_%%'"
    )
    assert len(nodes) == 2
    for stream in range(1, len(streams) + 1):
        placed = {
            ask(
                database_url,
                "SELECT nodename, nodeport FROM pg_dist_placement JOIN pg_dist_node USING (groupid)"
                " WHERE shardid = get_shard_id_for_distribution_column(%s::regclass, %s::int)",
                f"modelmeter.{table}",
                stream,
            )[0]
            for table in DISTRIBUTED
        }
        assert len(placed) == 1


def test_a_partition_dropped_beneath_a_worker_is_made_again_at_the_next_try(database_url: str, reader: Reader) -> None:
    with Storing(database_url) as storing:
        send(database_url, message_of(event(NOON)))
        storing.run()
        ask(database_url, "SELECT count(*) FROM modelmeter.chunk")
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DROP TABLE modelmeter.chunk_20260301")
        send(database_url, message_of(event(NOON + 1)))
        with pytest.raises(psycopg.InternalError, match="no partition of relation"):
            storing.run()
        storing.run()
    assert reader.events("Mistral", "v1", ALL, {}, 9) == [event(NOON + 1)]


def test_shards_move_while_events_are_stored_and_compacted_and_no_answer_is_wrong(
    database_url: str, reader: Reader
) -> None:
    streams = [labels_of(version=f"v{number}") for number in range(8)]
    over = threading.Event()
    sent: list[list[Event]] = []

    def ingest() -> None:
        with Storing(database_url, **BY_MINUTE) as storing:
            while not over.is_set():
                at = NOON + len(sent) % 48 * HOUR
                sent.append([event(at + place, labels=labels) for place, labels in enumerate(streams)])
                send(database_url, message_of(*sent[-1]))
                # As the runner does it: a partition is not made while a shard moves, so it is tried again.
                with contextlib.suppress(psycopg.errors.LockNotAvailable):
                    storing.run()
            storing.run()

    def fold() -> None:
        compactor = Compactor(Config(database_url=database_url))
        while not over.is_set():
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                compactor.run_once(LATER)
        compactor.close()

    store(database_url, *(event(NOON, labels=labels) for labels in streams))
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ingest), pool.submit(fold)]
        try:
            placements = ask(
                database_url,
                "SELECT shardid, nodename, nodeport FROM citus_shards WHERE table_name = 'modelmeter.chunk'::regclass",
            )
            ports = sorted({port for _, _, port in placements})
            assert len(ports) == 2
            for shard, host, port in placements:
                ask(
                    database_url,
                    "SELECT citus_move_shard_placement(%s, %s, %s, %s, %s, shard_transfer_mode => 'block_writes')",
                    shard, host, port, host, ports[1 - ports.index(port)],
                )  # fmt: skip
        finally:
            over.set()
        for one in running:
            one.result()
    events = [one for some in sent for one in some] + [event(NOON, labels=labels) for labels in streams]
    assert len(sent) > 1
    check_models(reader, events)
    compact(database_url)
    check_models(reader, events)
    for version in ("v0", "v7"):
        check_summary(reader, events, "Mistral", version, ALL, {})


def test_on_a_coordinator_alone_it_says_which_call_is_missing(undistributed_url: str) -> None:
    with psycopg.connect(undistributed_url, autocommit=True) as connection:
        name = "modelmeter_test_alone"
        connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            alone = make_conninfo(undistributed_url, dbname=name)
            with psycopg.connect(alone, autocommit=True) as its_connection:
                its_connection.execute("CREATE EXTENSION citus")
            with pytest.raises(WrongSetting, match="no worker is known; run SELECT citus_add_node"):
                distribute(alone, shards=4)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_role_that_reads_the_views_needs_the_tables_behind_them_too(database_url: str) -> None:
    role = "modelmeter_reader_citus"
    store(database_url, event(NOON))
    with psycopg.connect(database_url, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        views = "model_version, modelmeter.stats_1m, modelmeter.stats_1h, modelmeter.stats_1d"
        tables = "rollup_1m, modelmeter.rollup_1h, modelmeter.rollup_1d, modelmeter.rollup_partial_1m"
        connection.execute(f"GRANT USAGE ON SCHEMA modelmeter TO {role}".encode())
        connection.execute(f"GRANT SELECT ON modelmeter.{views} TO {role}".encode())
        connection.execute(f"GRANT SELECT ON modelmeter.{tables}, modelmeter.rollup_partial_1h TO {role}".encode())
        connection.execute(f"SET ROLE {role}".encode())
        rows = connection.execute("SELECT window_start, count FROM modelmeter.stats_1d").fetchall()
        assert rows == [(to_datetime(NOON - NOON % DAY), 1)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM modelmeter.chunk")
