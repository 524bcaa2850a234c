"""A worker's claim fits the memory it may take, however wide the events and however well they pack."""

import time

import numpy as np

from modelmeter.batch import Batch
from modelmeter.message import Message, encode, new_id
from tests.acceptance.yard import Yard, ask, connect, until

MEBIBYTE = 1 << 20
EVENTS, METRICS, MESSAGES = 10_000, 200, 16


def wide_message(number: int) -> bytes:
    """16 MiB of columns in a few KiB."""
    metrics = {f"metric_{one}": np.full(EVENTS, float(one)) for one in range(METRICS)}
    timestamp = np.full(EVENTS, time.time_ns() // 1000) + np.arange(EVENTS)
    labels = (("name", "wide"), ("version", f"v{number % 4}"))
    return encode(Message(new_id(), 0, [], [Batch([labels], np.zeros(EVENTS, np.int32), timestamp, metrics)]))


def test_a_backlog_of_wide_events_is_taken_in_claims_that_fit_the_memory(yard: Yard, database_url: str) -> None:
    limit = 64 * MEBIBYTE
    with connect(database_url) as connection:
        for number in range(MESSAGES):
            payload = wide_message(number)
            assert len(payload) < MEBIBYTE / 4, "it packs well, so packed bytes say nothing"
            connection.execute(
                "INSERT INTO modelmeter.queue (events, bytes, payload) VALUES (%s, %s, %s)",
                (EVENTS, len(payload), payload),
            )
    worker = yard.run("worker", database_url=database_url, claim_limit_memory_bytes=limit)
    until(lambda: ask(database_url, "SELECT count(*) FROM modelmeter.queue") == 0, "all is stored")
    assert worker.code is None, worker.said
    with open(f"/proc/{worker.pid}/status") as status:  # noqa: PTH123  no file of ours
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    # One message alone is over the limit with its copies; all of them at once took over 800 MiB.
    assert peak < 320 * MEBIBYTE, f"{peak / MEBIBYTE:.0f} MiB"
    total = ask(database_url, "SELECT sum(count) FROM modelmeter.chunk")
    assert int(str(total)) == EVENTS * MESSAGES
