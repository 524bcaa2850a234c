"""How fast events are taken in and become queryable, what each process pays, and what is left on disk."""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from bench.client import BenchError, Load, Probe, Sent, message, send
from bench.data import ARROW, JSON, METRICS, NDJSON, Generator, arrow, json_array, json_object, ndjson
from bench.floor import measure_floor
from bench.launch import Server, modelmeter
from bench.report import Column, Row, Table, median_row
from bench.usage import ROLES, Usage, others_percent

HELP = "events in over HTTP: rates, CPU by process, disk, latency, memory; and the floor"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    content_type: str
    encode: Callable[[pl.DataFrame], bytes]
    events_per_body: int
    connections: int
    bodies: int
    streams: int | None = None
    in_turn: bool = False
    floor: bool = True


CASES = (
    Case("json-1000", JSON, json_array, 1_000, connections=4, bodies=128),
    Case("ndjson-10000", NDJSON, ndjson, 10_000, connections=4, bodies=64),
    Case("arrow-10000", ARROW, arrow, 10_000, connections=4, bodies=64),
    Case("single", JSON, json_object, 1, connections=64, bodies=4_096, floor=False),
    Case(
        "streams-10000", JSON, json_array, 1_000, connections=4, bodies=120,
        streams=10_000, in_turn=True, floor=False,
    ),
)  # fmt: skip

_US = ",.2f"
_MS = ",.1f"
COLUMNS = (
    Column("case", "case"),
    Column("acknowledged_per_second", "events/s acked", ",.0f"),
    Column("queryable_per_second", "events/s queryable", ",.0f"),
    Column("client_us", "client us", _US),
    *(Column(f"{role}_us", f"{role} us", _US) for role in ROLES),
    Column("server_us", "server us", _US),
    Column("floor_us", "floor us", _US),
    Column("floor_ratio", "x floor", _US),
    Column("compaction_us", "later us", _US),
    Column("bytes_per_sample", "bytes/sample", _US),
    Column("ack_p50_ms", "ack p50 ms", _MS),
    Column("ack_p99_ms", "ack p99 ms", _MS),
    Column("freshness_p99_ms", "fresh p99 ms", _MS),
    Column("api_peak_mb", "API MB", ",.0f"),
    Column("worker_peak_mb", "worker MB", ",.0f"),
    Column("requests_per_second", "requests/s", ",.0f"),
    Column("retries", "retries", ",.0f"),
    Column("others_percent", "others %", ",.0f"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--case", nargs="+", choices=[case.name for case in CASES], help="only these cases (default: all)"
    )
    parser.add_argument(
        "--settle", type=float, default=180, metavar="SECONDS",
        help="longest wait for the compactor before the disk is measured; 0: not at all (default: 180)",
    )  # fmt: skip
    parser.add_argument("--no-probe", action="store_true", help="leave the freshness probe out")


def run(options: argparse.Namespace) -> Iterator[Table]:
    rows: list[Row] = []
    failures: list[str] = []
    for case in CASES:
        if options.case and case.name not in options.case:
            continue
        repeats: list[Row] = []
        for number in range(options.repeat):
            print(f"  {case.name}, run {number + 1} of {options.repeat}", flush=True)
            settle = options.settle if number == options.repeat - 1 else 0
            try:
                repeats.append(_measure(case, options, settle))
            except BenchError as error:
                failures.append(f"{case.name}: {error}")
        if repeats:
            rows.append(median_row(repeats))
    yield Table(
        f"Ingest: {options.seconds:g} s a case, median of {options.repeat}",
        COLUMNS,
        rows,
        ["us: CPU microseconds an event; server us: all but the client; later us: compaction, afterwards."],
        failures,
    )


def _measure(case: Case, options: argparse.Namespace, settle: float) -> Row:
    generator = Generator(case.streams or options.streams, in_turn=case.in_turn)
    bodies = [case.encode(generator.frame(case.events_per_body)) for _ in range(case.bodies)]
    row: Row = {"case": case.name}
    if case.floor:
        row["floor_us"] = measure_floor(bodies, case.content_type, seconds=min(options.seconds, 5))
    messages = [(message("/events", body, case.content_type), case.events_per_body) for body in bodies]
    with modelmeter() as server:
        warm = send(server.port, itertools.cycle(messages), connections=case.connections, seconds=1)
        server.wait_queryable(warm.events)
        before, own = server.usage(), time.process_time()
        load = Load(server.port, itertools.cycle(messages), connections=case.connections, seconds=options.seconds)
        probed = 0
        try:
            if options.no_probe:
                sent = load.result()
            else:
                with Probe(server.port) as probe:
                    sent = load.result()
                probed = probe.events
                row["freshness_p99_ms"] = probe.p99_ms()
        finally:
            load.stop()
        total = warm.events + sent.events + probed
        queryable_at = server.wait_queryable(total)
        after, own = server.usage(), time.process_time() - own
        row |= ingest_numbers(sent, queryable_at, own, before, after)
        if settle:
            if not server.wait_compacted(seconds=settle):
                print(f"  {case.name}: compaction was not over after {settle:g} s", flush=True)
            row |= stored_numbers(server, total, after)
            server.wait_queryable(total)
    if case.floor:
        row["floor_ratio"] = row["server_us"] / row["floor_us"]
    return row


def ingest_numbers(sent: Sent, queryable_at: float, own_seconds: float, before: Usage, after: Usage) -> Row:
    """Rates, latencies, CPU and memory of one load. `own_seconds`: CPU of our probe and polling."""
    spent = after.since(before)
    per_event = 1e6 / sent.events
    row: dict[str, Any] = {
        "events": sent.events,
        "acknowledged_per_second": sent.events_per_second,
        "queryable_per_second": sent.events / (queryable_at - sent.started),
        "requests_per_second": sent.requests / (sent.ended - sent.started),
        "client_us": (sent.cpu_seconds + own_seconds) * per_event,
        "server_us": sum(spent.values()) * per_event,
        "ack_p50_ms": sent.latency_ms(0.5),
        "ack_p99_ms": sent.latency_ms(0.99),
        "retries": sent.retries,
    }
    row["others_percent"] = others_percent(before, after, sum(spent.values()) + sent.cpu_seconds + own_seconds)
    row |= {f"{role}_us": seconds * per_event for role, seconds in spent.items()}
    row |= {f"{role}_peak_mb": peak / 1e6 for role, peak in after.peak_bytes.items()}
    return row


def stored_numbers(server: Server, events: int, after: Usage) -> Row:
    """Disk after compaction, and the CPU spent since `after`, which idling is part of."""
    tables = server.table_bytes()
    return {
        "bytes_per_sample": sum(tables.values()) / (events * len(METRICS)),
        "compaction_us": sum(server.usage().since(after).values()) * 1e6 / events,
        "table_bytes": tables,
    }
