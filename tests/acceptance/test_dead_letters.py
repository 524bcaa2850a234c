"""Invariant 6: what cannot be stored goes to the dead letters, and stops nobody."""

import re
import time

import numpy as np

from modelmeter.batch import Batch
from modelmeter.message import Message, encode, new_id
from modelmeter.window import LATEST
from tests.acceptance.load import MODELS, Load, Sent, audit
from tests.acceptance.yard import Yard, ask, connect, is_ready, until

DEAD = "SELECT count(*) FROM modelmeter.dead_letter"
QUEUED = "SELECT count(*) FROM modelmeter.queue"


def message(event: Sent, instant: int | None = None, length: int = 1) -> bytes:
    """One event as the API would put it on the queue."""
    name, version, env = event.model
    labels = (("env", env), ("name", name), ("version", version))
    timestamp = np.full(length, event.timestamp if instant is None else instant)
    values = np.arange(event.number, event.number + length, dtype=np.float64)
    batch = Batch([labels], np.zeros(length, np.int32), timestamp, {"number": values})
    return encode(Message(new_id(), time.time_ns() // 1000, [], [batch]))


def enqueue(conninfo: str, *payloads: bytes) -> None:
    with connect(conninfo) as connection:
        for payload in payloads:
            connection.execute(
                "INSERT INTO modelmeter.queue (events, bytes, payload) VALUES (1, %s, %s)", (len(payload), payload)
            )


def test_poisoned_messages_among_good_ones_go_to_the_dead_letters_and_come_back(yard: Yard, database_url: str) -> None:
    dice = yard.chance()
    event = Sent(MODELS[0], time.time_ns() // 1000, -(10**6), None)
    good = message(event, length=200)
    broken_column = good[:-40] + bytes([good[-40] ^ 0xFF, *(byte ^ 0x5A for byte in good[-39:])])
    poison = [b"", b"no message", good[: len(good) // 2], broken_column, message(event, instant=LATEST)]
    mendable = message(event)  # refused by the database for a while, not by its bytes

    api = yard.run("api", "--port", "0", database_url=database_url)
    worker = yard.run("worker", database_url=database_url)
    until(lambda: is_ready(api.url), "the API is ready")
    with connect(database_url) as connection:
        connection.execute("ALTER TABLE modelmeter.rollup_partial_1h ADD CONSTRAINT whim CHECK (min <> -1000000)")
    with Load([api.url], yard.seed) as load:
        for payload in [*poison, mendable]:
            before = load.count
            until(lambda before=before: load.count > before, "good events before")  # type: ignore[misc]
            enqueue(database_url, payload)
        until(lambda: ask(database_url, DEAD) == len(poison) + 1, "the dead letters")
        events = load.finish()
    until(lambda: ask(database_url, QUEUED) == 0, "the queue is empty")
    assert worker.code is None
    audit(api.url, events, dice, spans=3)

    listed = yard.command("dead-letters", "list", database_url=database_url)
    assert listed.returncode == 0, listed.stderr
    whims = re.findall(r"(\d+)\s+│.*CheckViolation", listed.stdout)
    assert len(whims) == 1, listed.stdout
    assert listed.stdout.count("unreadable") >= 4, listed.stdout

    with connect(database_url) as connection:
        connection.execute("ALTER TABLE modelmeter.rollup_partial_1h DROP CONSTRAINT whim")
    retried = yard.command("dead-letters", "retry", *whims, database_url=database_url)
    assert (retried.returncode, retried.stdout) == (0, "1 back on the queue\n"), retried.stderr
    until(lambda: ask(database_url, QUEUED) == 0, "the queue is empty")
    audit(api.url, [*events, event], dice, spans=3)

    retried = yard.command("dead-letters", "retry", "--all", database_url=database_url)
    assert retried.stdout == f"{len(poison)} back on the queue\n"
    until(lambda: ask(database_url, DEAD) == len(poison), "they are dead again")
    dropped = yard.command("dead-letters", "drop", "--all", database_url=database_url)
    assert dropped.stdout == f"{len(poison)} dropped\n"
    assert ask(database_url, DEAD) == ask(database_url, QUEUED) == 0
    assert yard.command("dead-letters", "drop", database_url=database_url).returncode == 2
    audit(api.url, [*events, event], dice, spans=3)
