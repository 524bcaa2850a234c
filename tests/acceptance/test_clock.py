"""The clock of the API, the worker and the keeper goes backwards by hours: nothing is lost, twice, or stuck."""

import itertools
import random
import time
from pathlib import Path

import httpx
import psycopg

from modelmeter.store.queue import PostgresConsumer
from modelmeter.window import HOUR, MINUTE, SECOND
from tests.acceptance.load import Load, audit
from tests.acceptance.test_dead_letters import message
from tests.acceptance.yard import Yard, ask, connect, is_ready, partials, until

CLOCK = Path(__file__).parent / "clock"


def test_a_clock_that_goes_backwards_loses_and_repeats_nothing(yard: Yard) -> None:
    dice = yard.chance()
    offset = yard.home / "offset"
    offset.write_text("0")

    def set_clock(seconds: int) -> None:
        new = offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(offset)

    serve = yard.serve(
        PYTHONPATH=f"{CLOCK}:{yard.environment()['PYTHONPATH']}",
        MODELMETER_TEST_CLOCK=offset,
        compact_interval_seconds=0.2,
    )
    until(lambda: is_ready(serve.url), "serve is ready")
    # Each event is older than the one before, by up to a minute: no two of them are in order.
    steps = itertools.count(1)
    start = time.time_ns() // 1000 - 4 * HOUR

    def instant(dice: random.Random) -> int:
        return start - next(steps) * SECOND - dice.randrange(MINUTE)

    with Load([serve.url], yard.seed, threads=2, most=50, instant=instant) as load:
        for seconds in (0, -3600, -7200, 300, -3 * 3600):
            set_clock(seconds)
            before = load.requests
            until(lambda before=before: load.requests > before + 15, f"progress at {seconds} s")  # type: ignore[misc]
        events = load.finish()
    bare = {"name": "Gemma", "version": "v1", "number": 1}  # no timestamp: the API's clock, wherever it stands
    for seconds in (-3600, 0, -7200):
        set_clock(seconds)
        answer = httpx.post(f"{serve.url}/events", json=[bare] * 10)
        assert answer.status_code == 202, answer.text
    until(lambda: ask(yard.conninfo, "SELECT count(*) FROM modelmeter.queue") == 0, "the queue is empty")
    audit(serve.url, events, dice)
    until(lambda: partials(yard.conninfo, 130) == 0, "the keeper goes on at the time that it has now")
    audit(serve.url, events, dice)
    now = time.time_ns() // 1000
    gemma = httpx.get(f"{serve.url}/stats/Gemma/v1", params={"start": now - 24 * HOUR, "end": now + HOUR}).json()
    assert (gemma["events"], gemma["metrics"]["number"]["count"]) == (30, 30)
    lag = [line for line in httpx.get(f"{serve.url}/metrics").text.splitlines() if "lag_seconds_sum" in line]
    assert lag
    assert all(float(line.split()[-1]) >= 0 for line in lag)


def test_messages_in_any_slot_survive_the_tidying_whatever_the_database_clock_says(database_url: str) -> None:
    """A slot is chosen by Postgres' clock; one that jumped leaves messages in slots whose turn it is to be emptied."""
    payload = message_of_slot()
    with connect(database_url) as connection:
        for slot in range(4):
            connection.execute(
                "INSERT INTO modelmeter.queue (slot, events, bytes, payload) VALUES (%s, 1, %s, %s)",
                (slot, len(payload), payload),
            )
    consumer = PostgresConsumer(database_url)
    consumer.tidy()
    assert consumer.backlog().messages == 4
    claim = consumer.claim(10, 10**6, 10)
    assert claim is not None
    consumer.tidy()  # while they are claimed and not completed
    assert len(claim.payloads) == 4
    claim.release()
    assert consumer.backlog().messages == 4
    claim = consumer.claim(10, 10**6, 10)
    assert claim is not None
    claim.complete()
    consumer.tidy()
    assert consumer.backlog().messages == 0
    consumer.close()
    with psycopg.connect(database_url) as connection:
        pages = connection.execute(
            "SELECT count(*) FROM generate_series(0, 3) AS slot WHERE pg_relation_size('modelmeter.queue_' || slot) > 0"
        ).fetchone()
    assert pages is not None
    assert pages[0] <= 2


def message_of_slot() -> bytes:
    from tests.acceptance.load import MODELS, Sent  # noqa: PLC0415

    return message(Sent(MODELS[0], time.time_ns() // 1000, 1, None))
