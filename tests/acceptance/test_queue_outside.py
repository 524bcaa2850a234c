"""A queue outside the database, asked for by URL alone: its backlog, its letters, its parts and its command line."""

import json
import random
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

from modelmeter.config import Config
from modelmeter.queues import make_steward, read_backlog
from tests.acceptance.load import MODELS, Sent
from tests.acceptance.test_dead_letters import message
from tests.acceptance.yard import Yard, ask, connect, is_ready, until
from tests.queue.servers import NatsServer, nats_server


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


def made(database_url: str, nats: NatsServer, stream: str) -> Config:
    config = Config(database_url=database_url, queue=f"nats://127.0.0.1:{nats.port}/{stream}?ack_wait_seconds=2")
    make_steward(config).create(dry_run=False)
    return config


def events_of(url: str, name: str) -> int:
    answer = httpx.get(f"{url}/stats", timeout=5).json()
    return sum(model["events"] for model in answer["models"] if model["name"] == name)


def test_a_backlog_over_the_limit_is_a_429_until_a_worker_has_worked_it_off(
    yard: Yard, database_url: str, nats: NatsServer
) -> None:
    config = made(database_url, nats, "full")
    api = yard.run("api", "--port", "0", database_url=database_url, queue=config.queue, queue_limit_bytes=2000)
    until(lambda: is_ready(api.url), "the API is ready")
    dice, accepted = random.Random(1), 0

    def post() -> httpx.Response:
        nonlocal accepted
        events = [{"name": "Full", "version": "v1", "x": dice.random()} for _ in range(20)]
        answer = httpx.post(f"{api.url}/events", json=events, timeout=5)
        accepted += 20 if answer.status_code == 202 else 0
        return answer

    until(lambda: post().status_code == 429, "the API refuses")
    refused = post()
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert "the workers are behind" in refused.json()["detail"]
    assert read_backlog(config).bytes > 2000
    yard.run("worker", database_url=database_url, queue=config.queue)
    until(lambda: post().status_code == 202, "the API accepts again")
    until(lambda: events_of(api.url, "Full") == accepted, f"{accepted} events count")


def test_a_request_over_the_brokers_limit_that_is_sent_again_with_its_key_counts_once(
    yard: Yard, database_url: str, nats: NatsServer
) -> None:
    config = made(database_url, nats, "large")
    api = yard.run("api", "--port", "0", database_url=database_url, queue=config.queue)
    until(lambda: is_ready(api.url), "the API is ready")
    dice = random.Random(2)
    body = json.dumps([
        {"name": "Large", "version": "v1", "a": dice.random(), "b": dice.random(), "c": dice.random()}
        for _ in range(60_000)
    ])  # fmt: skip
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"}
    for _ in range(2):
        assert httpx.post(f"{api.url}/events", content=body, headers=headers, timeout=30).status_code == 202
    assert read_backlog(config).messages >= 4, "it was cut in parts"
    for _ in range(2):
        yard.run("worker", database_url=database_url, queue=config.queue)
    until(lambda: read_backlog(config).messages == 0, "the queue is empty")
    assert events_of(api.url, "Large") == 60_000
    assert ask(database_url, "SELECT count(*) FROM modelmeter.queue_part") == 0


def test_a_dead_letter_goes_back_onto_the_queue_outside_and_is_stored(
    yard: Yard, database_url: str, nats: NatsServer
) -> None:
    config = made(database_url, nats, "letters")
    letter = message(Sent(MODELS[0], time.time_ns() // 1000, 7, None), length=30)
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO modelmeter.dead_letter (reason, events, payload) VALUES ('a whim', 30, %s)", (letter,)
        )
    done = yard.command("dead-letters", "retry", "--all", database_url=database_url, queue=config.queue)
    assert (done.returncode, done.stdout) == (0, "1 back on the queue\n"), done.stderr
    assert read_backlog(config).messages == 1
    assert ask(database_url, "SELECT count(*) FROM modelmeter.dead_letter") == 0
    yard.run("worker", database_url=database_url, queue=config.queue)
    until(lambda: ask(database_url, "SELECT sum(count) FROM modelmeter.chunk") == 30, "its events are stored")


def test_the_keeper_drops_parts_whose_message_never_became_whole(
    yard: Yard, database_url: str, nats: NatsServer
) -> None:
    config = made(database_url, nats, "parts")
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO modelmeter.queue_part (message_id, number, arrived_at, events, payload)"
            " SELECT gen_random_uuid(), 0, now() - age * interval '1 day', 1, 'x' FROM generate_series(1, 9) AS age"
        )
    yard.run("keeper", database_url=database_url, queue=config.queue)
    until(lambda: ask(database_url, "SELECT count(*) FROM modelmeter.queue_part") == 6, "the old ones are gone")
    assert ask(database_url, "SELECT max(now() - arrived_at) < interval '7 days' FROM modelmeter.queue_part") is True


def test_the_queue_commands_work_on_postgres_too(yard: Yard, database_url: str) -> None:
    payload = message(Sent(MODELS[0], time.time_ns() // 1000, 7, None), length=30)
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO modelmeter.queue (events, bytes, payload) SELECT 30, %s, %s FROM generate_series(1, 4)",
            (len(payload), payload),
        )

    def said(*argv: str) -> str:
        done = yard.command("queue", *argv, database_url=database_url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("create") == said("create", "--dry-run") == "all that the queue needs is there\n"
    status = said("status")
    assert "messages: 4\nevents: 120\n" in status
    assert f"bytes: {4 * len(payload):,}\n" in status
    assert said("purge", "--dry-run") == "would drop 4 messages\n"
    refused = yard.command("queue", "purge", database_url=database_url)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert "messages: 4\n" in said("status")
    assert said("purge", "--yes") == "dropped 4 messages\n"
    assert "messages: 0\n" in said("status")
