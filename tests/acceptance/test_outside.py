"""Invariants 1 and 2 on queues outside the database: everything is killed at random, the broker and Postgres too."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from modelmeter.config import Config
from modelmeter.queues import make_steward, read_backlog
from modelmeter.store.embedded import EmbeddedPostgres
from modelmeter.store.migrations import migrate
from tests.acceptance.load import Load, audit
from tests.acceptance.yard import Process, Yard, ask, connect, free_port, is_ready, kill, until
from tests.queue.servers import NatsServer, nats_server, pubsub_emulator

ROUNDS = int(os.environ.get("MODELMETER_TEST_ROUNDS", "20"))
ACK_WAIT_SECONDS = 2


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


def cut_sessions(conninfo: str) -> None:
    with connect(conninfo) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def torment(
    yard: Yard,
    database_url: str,
    rounds: int,
    stored: Callable[[], bool],
    accidents: dict[str, Callable[[], None]],
    **settings: object,
) -> None:
    """Four workers and two APIs under load, one of them or something else killed in each round; then the audit."""
    dice = yard.chance()
    ports = [free_port(), free_port()]

    def start(role: str, number: int) -> Process:
        argv = [role, "--port", str(ports[number])] if role == "api" else [role]
        return yard.run(*argv, database_url=database_url, **settings)

    crew = {(role, number): start(role, number) for role, many in (("api", 2), ("worker", 4)) for number in range(many)}
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    for url in urls:
        until(lambda url=url: is_ready(url), "the API is ready")  # type: ignore[misc]
    with Load(urls, yard.seed) as load:
        for number in range(rounds):
            before = load.count
            until(lambda before=before: load.count > before, f"progress before round {number}: {load.statuses}")  # type: ignore[misc]
            time.sleep(dice.random() ** 2)
            places: list[str | tuple[str, int]] = [*crew, *accidents]
            place = dice.choice(places)
            if isinstance(place, str):
                accidents[place]()
            else:
                crew[place].kill()
                crew[place] = start(*place)
        for process in crew.values():
            assert process.code is None, process.said
        events = load.finish()
    print(f"{len(events)} events, {load.requests} requests, {load.retries} retries, {load.statuses}")
    until(stored, "the queue is empty", 90)
    assert ask(database_url, "SELECT count(*) FROM modelmeter.dead_letter") == 0
    until(lambda: is_ready(urls[0]), "the API is ready")
    audit(urls[0], events, dice)


def test_nats_four_workers_and_two_apis_killed_at_random_count_every_event_once(
    yard: Yard, database_url: str, nats: NatsServer
) -> None:
    queue = f"nats://127.0.0.1:{nats.port}/kills?ack_wait_seconds={ACK_WAIT_SECONDS}&max_deliver=200"
    config = Config(database_url=database_url, queue=queue)
    make_steward(config).create(dry_run=False)

    def kill_nats() -> None:
        nats.kill()
        nats.start()

    accidents = {"nats": kill_nats, "sessions": lambda: cut_sessions(database_url)}
    torment(yard, database_url, ROUNDS // 2, lambda: read_backlog(config).messages == 0, accidents, queue=queue)


def test_pubsub_four_workers_and_two_apis_killed_at_random_count_every_event_once(
    yard: Yard, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pubsub_emulator() as address:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
        queue = "pubsub://kills-test/events?subscription=workers&ack_wait_seconds=10&max_deliver=100"
        make_steward(Config(database_url=database_url, queue=queue)).create(dry_run=False)
        seen: dict[str, float] = {"rows": -1, "since": 0}

        def stored() -> bool:
            """The emulator does not count: nothing new for longer than the longest lease of a dead worker."""
            rows = float(str(ask(database_url, "SELECT count(*) FROM modelmeter.ledger")))
            if rows != seen["rows"]:
                seen.update(rows=rows, since=time.monotonic())
            return time.monotonic() - seen["since"] > 13

        accidents = {"sessions": lambda: cut_sessions(database_url)}
        torment(yard, database_url, ROUNDS // 4, stored, accidents, queue=queue, PUBSUB_EMULATOR_HOST=address)


def test_with_a_queue_outside_events_are_accepted_while_postgres_is_away_and_stored_when_it_is_back(
    yard: Yard, nats: NatsServer
) -> None:
    dice = yard.chance()
    postgres = EmbeddedPostgres(yard.data_dir)
    conninfo = postgres.start()
    try:
        migrate(conninfo)
        queue = f"nats://127.0.0.1:{nats.port}/away?ack_wait_seconds={ACK_WAIT_SECONDS}"
        config = Config(database_url=conninfo, queue=queue)
        make_steward(config).create(dry_run=False)
        api = yard.run("api", "--port", "0", database_url=conninfo, queue=queue)
        yard.run("worker", database_url=conninfo, queue=queue)
        until(lambda: is_ready(api.url), "the API is ready")
        with Load([api.url], yard.seed) as load:
            until(lambda: load.requests > 20, "some load")
            master = yard.postmaster()
            assert master is not None
            kill(master)
            before = load.requests
            until(lambda: load.requests > before + 60, "requests are acknowledged while Postgres is away")
            assert is_ready(api.url)
            waiting = read_backlog(config)
            assert waiting.messages >= 20
            assert waiting.age_seconds > 0
            until(postgres.ensure_running, "Postgres is back")
            after = load.requests
            until(lambda: load.requests > after + 20, "it goes on")
            events = load.finish()
        assert set(load.statuses) == {202}, load.statuses
        until(lambda: read_backlog(config).messages == 0, "the queue is empty")
        audit(api.url, events, dice, spans=3)
    finally:
        yard.stop()
        postgres.stop()
