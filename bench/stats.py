"""How long GET /stats of one version over 30 days takes, with 1 and with 100 million events stored."""

import argparse
import time
from collections.abc import Iterator

import numpy as np

from bench.client import BenchError, Connection, message, send
from bench.data import ARROW, METRICS, BackfillBodies, streams
from bench.launch import modelmeter
from bench.report import Column, Row, Table

HELP = "GET /stats of one version over 30 days: 1 million against 100 million events stored"

DAY_MICROS = 86_400_000_000
_ASKED = 300

COLUMNS = (
    Column("events", "events stored", ",.0f"),
    Column("query", "query"),
    Column("client_p50_ms", "client p50 ms", ",.2f"),
    Column("client_p99_ms", "client p99 ms", ",.2f"),
    Column("server_p50_ms", "server p50 ms", ",.2f"),
    Column("server_p99_ms", "server p99 ms", ",.2f"),
    Column("loaded_per_second", "loaded events/s", ",.0f"),
    Column("bytes_per_sample", "bytes/sample", ",.2f"),
)

QUERIES = {
    "30 days": "start=-30d",
    "30 days, one metric": "start=-30d&metric=drift",
    "30 days, quantiles": "start=-30d&quantiles=0.5,0.95,0.99",
    "30 days, ragged": "start={ragged}",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", type=int, nargs="+", default=[1_000_000, 100_000_000], metavar="N",
        help="events stored, one server each (default: 1000000 100000000)",
    )  # fmt: skip
    parser.add_argument(
        "--compact-wait", type=float, default=900, metavar="SECONDS", help="longest wait for the compactor"
    )


def run(options: argparse.Namespace) -> Iterator[Table]:
    rows = [row for events in options.events for row in _measure(events, options)]
    notes = []
    small, large = rows[: len(QUERIES)], rows[-len(QUERIES) :]
    if len(options.events) > 1:
        for few, many in zip(small, large, strict=True):
            key = "client_p50_ms" if few.get("server_p50_ms") is None else "server_p50_ms"
            notes.append(
                f"{few['query']}: {many['events']:,} take {many[key] / few[key]:.2f} times as long as"
                f" {few['events']:,} ({key})."
            )
    notes.append(f"{_ASKED} requests each, one keep-alive connection, one after another.")
    yield Table("Stats of one version over 30 days", COLUMNS, rows, notes)


def _measure(event_count: int, options: argparse.Namespace) -> Iterator[Row]:
    print(f"  {event_count:,} events", flush=True)
    end = time.time_ns() // 1_000 - 60_000_000
    start = end - 30 * DAY_MICROS + 3_600_000_000
    bodies = BackfillBodies(event_count, start, end)
    messages = ((message("/events", body, ARROW), count) for body, count in bodies)
    with modelmeter() as server:
        sent = send(server.port, messages, connections=4, seconds=3_600)
        queryable_at = server.wait_queryable(sent.events)
        if not server.wait_compacted(seconds=options.compact_wait):
            print(f"  compaction was not over after {options.compact_wait:g} s", flush=True)
        stored = {
            "events": sent.events,
            "loaded_per_second": sent.events / (queryable_at - sent.started),
            "bytes_per_sample": sum(server.table_bytes().values()) / (sent.events * len(METRICS)),
        }
        name, version = streams(12).row(0)
        connection = Connection(server.port)
        ragged = (start + 3 * DAY_MICROS + 12_345_678) / 1e6
        for query, text in QUERIES.items():
            path = f"/stats/{name}/{version}?{text.format(ragged=f'{ragged:.6f}')}"
            yield {**stored, "query": query, **ask(connection, path, _ASKED)}
        connection.close()


def ask(connection: Connection, path: str, times: int) -> Row:
    """Medians and 99th percentiles of GET `path`, at the client and by Server-Timing."""
    client, server = [], []
    for _ in range(times):
        answer = connection.get(path)
        if answer.status != 200:
            raise BenchError(f"GET {path}: {answer.status} {answer.body[:600].decode(errors='replace')}")
        client.append(answer.seconds * 1e3)
        timing = answer.header("Server-Timing")
        if timing and "total;dur=" in timing:
            server.append(float(timing.split("total;dur=")[1].split(",")[0].split(";")[0]))
    row: Row = {
        "client_p50_ms": float(np.quantile(client, 0.5)),
        "client_p99_ms": float(np.quantile(client, 0.99)),
    }
    if server:
        row["server_p50_ms"] = float(np.quantile(server, 0.5))
        row["server_p99_ms"] = float(np.quantile(server, 0.99))
    return row
