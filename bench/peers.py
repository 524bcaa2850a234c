"""The same events, in turn and in one run, to modelmeter, VictoriaMetrics and InfluxDB 1.x.

All bodies are made before; every event has its own timestamp in whole milliseconds, so that no store
merges two of them. Each store listens on loopback only and lives in a temporary directory.
"""

import argparse
import contextlib
import math
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.client import HOST, Answer, BenchError, Connection, send
from bench.client import message as post
from bench.data import ARROW, JSON, METRICS, NDJSON, Generator, arrow, influx_lines, json_array, ndjson
from bench.ingest import ingest_numbers
from bench.launch import Server, answers, end, free_port, modelmeter, scratch, started, wait_until
from bench.report import Column, Row, Table, median_row
from bench.usage import Usage, disk_bytes, read_usage

HELP = "the same events to modelmeter, VictoriaMetrics and InfluxDB, with ratios"

_LINES = "text/plain"
_WAIT_SECONDS = 120.0

COLUMNS = (
    Column("store", "store"),
    Column("body", "body"),
    Column("acknowledged_per_second", "events/s acked", ",.0f"),
    Column("queryable_per_second", "events/s queryable", ",.0f"),
    Column("client_us", "client us", ",.2f"),
    Column("server_us", "server us", ",.2f"),
    Column("later_us", "later us", ",.2f"),
    Column("bytes_per_sample", "bytes/sample", ",.2f"),
    Column("ack_p50_ms", "ack p50 ms", ",.1f"),
    Column("ack_p99_ms", "ack p99 ms", ",.1f"),
    Column("peak_mb", "peak MB", ",.0f"),
    Column("others_percent", "others %", ",.0f"),
    Column("events_ratio", "queryable, x VM", ",.2f"),
    Column("server_ratio", "server us, x VM", ",.2f"),
    Column("bytes_ratio", "bytes, x VM", ",.2f"),
)


@dataclass(frozen=True, slots=True)
class Format:
    """How a store gets its bodies."""

    name: str
    events_per_body: int
    path: str
    content_type: str
    encode: Callable[[pl.DataFrame], bytes]


class Store:
    """A store that runs, fresh and empty. `accept` is the status of its acknowledgement."""

    port: int
    accept = 204

    def usage(self) -> Usage:
        raise NotImplementedError

    def wait_queryable(self, events: int) -> float:
        """The monotonic time at which all `events` could be counted by a query."""
        raise NotImplementedError

    def settle(self, seconds: float) -> None:
        """Waits until the store has written and merged what it will, at most about `seconds`."""
        raise NotImplementedError

    def stored_bytes(self) -> int:
        """Bytes on disk. The store may be stopped for it; nothing is asked of it afterwards."""
        raise NotImplementedError


class Modelmeter(Store):
    accept = 202

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self._server = server

    def usage(self) -> Usage:
        return self._server.usage()

    def wait_queryable(self, events: int) -> float:
        return self._server.wait_queryable(events)

    def settle(self, seconds: float) -> None:
        self._server.wait_compacted(seconds=seconds)

    def stored_bytes(self) -> int:
        return sum(self._server.table_bytes().values())


@contextlib.contextmanager
def _modelmeter() -> Iterator[Store]:
    with modelmeter() as server:
        yield Modelmeter(server)


class _Process(Store):
    """A store that is one process with its data in one directory."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, data: Path) -> None:
        self.port = port
        self._process = process
        self._data = data
        self._connection = Connection(port, timeout_seconds=_WAIT_SECONDS)

    def usage(self) -> Usage:
        return read_usage({self._process.pid: "peer"})

    def wait_queryable(self, events: int) -> float:
        limit = time.monotonic() + _WAIT_SECONDS
        while (count := self._count()) < events:
            if time.monotonic() > limit:
                raise BenchError(f"{count} of {events} events are queryable after {_WAIT_SECONDS:g} s")
            time.sleep(0.05)
        if count > events:
            raise BenchError(f"{count} events are queryable, only {events} were sent")
        return time.monotonic()

    def stored_bytes(self) -> int:
        end(self._process)
        return disk_bytes(self._data)

    def _count(self) -> int:
        raise NotImplementedError

    def _get(self, path: str, **query: str) -> Answer:
        answer = self._connection.get(f"{path}?{urllib.parse.urlencode(query)}" if query else path)
        if answer.status not in {200, 204}:
            raise BenchError(f"GET {path}: {answer.status} {answer.body[:600].decode(errors='replace')}")
        return answer


class VictoriaMetrics(_Process):
    def _count(self) -> int:
        self._get("/internal/force_flush")
        query = f"sum(count_over_time(model_{METRICS[0]}[3650d]))"
        result = self._get("/api/v1/query", query=query, nocache="1").json()["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    def settle(self, seconds: float) -> None:
        self._get("/internal/force_merge")
        limit = time.monotonic() + seconds
        quiet_since = time.monotonic()
        while time.monotonic() < min(limit, quiet_since + 5):
            if self._merging():
                quiet_since = time.monotonic()
            time.sleep(0.2)

    def _merging(self) -> bool:
        lines = self._get("/metrics").body.decode().splitlines()
        return any(line.startswith("vm_active_merges") and not line.endswith(" 0") for line in lines)


@contextlib.contextmanager
def victoria_metrics() -> Iterator[Store]:
    with scratch() as folder:
        port, data, log = free_port(), folder / "data", folder / "log"
        command = [
            "victoria-metrics",
            f"-httpListenAddr={HOST}:{port}",
            f"-storageDataPath={data}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-search.maxQueryDuration=2m",
        ]
        with started(command, log) as process:
            wait_until(lambda: answers(port, "/health"), "VictoriaMetrics to answer", seconds=30, log=log)
            yield VictoriaMetrics(process, port, data)


# As Debian's, but all of it on loopback and in our directory; a cold cache is written and merged soon.
_INFLUX_CONFIG = """
reporting-disabled = true
bind-address = "{host}:{rpc_port}"
[meta]
  dir = "{data}/meta"
[data]
  dir = "{data}/data"
  wal-dir = "{data}/wal"
  query-log-enabled = false
  cache-snapshot-write-cold-duration = "5s"
  compact-full-write-cold-duration = "5s"
[monitor]
  store-enabled = false
[http]
  bind-address = "{host}:{port}"
  auth-enabled = false
  log-enabled = false
  flux-enabled = false
[ifql]
  enabled = false
"""


class InfluxDB(_Process):
    def _count(self) -> int:
        answer = self._get("/query", db="bench", q=f"SELECT count({METRICS[0]}) FROM model").json()
        if "error" in answer["results"][0]:
            raise BenchError(answer["results"][0]["error"])
        series = answer["results"][0].get("series")
        return int(series[0]["values"][0][1]) if series else 0

    def settle(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        size, quiet_since = -1, time.monotonic()
        while time.monotonic() < min(limit, quiet_since + 20):
            if (found := disk_bytes(self._data)) != size:
                size, quiet_since = found, time.monotonic()
            time.sleep(0.5)


@contextlib.contextmanager
def _influxdb() -> Iterator[Store]:
    with scratch() as folder:
        port, data, log = free_port(), folder / "data", folder / "log"
        config = folder / "influxdb.conf"
        config.write_text(_INFLUX_CONFIG.format(host=HOST, port=port, rpc_port=free_port(), data=data))
        with started(["influxd", "run", "-config", str(config)], log) as process:
            wait_until(lambda: answers(port, "/ping", 204), "InfluxDB to answer", seconds=30, log=log)
            connection = Connection(port)
            connection.post("/query?q=CREATE+DATABASE+bench")
            connection.close()
            yield InfluxDB(process, port, data)


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    start: Callable[[], AbstractContextManager[Store]]
    formats: tuple[Format, ...]
    binary: str | None = None
    package: str | None = None


def _lines(path: str) -> tuple[Format, ...]:
    return tuple(Format(f"lines-{count}", count, path, _LINES, influx_lines) for count in (1_000, 10_000))


PEERS = (
    Peer("victoriametrics", victoria_metrics, _lines("/write"), "victoria-metrics", "victoria-metrics"),
    Peer("influxdb", _influxdb, _lines("/write?db=bench"), "influxd", "influxdb"),
    Peer(
        "modelmeter",
        _modelmeter,
        (
            Format("json-1000", 1_000, "/events", JSON, json_array),
            Format("ndjson-10000", 10_000, "/events", NDJSON, ndjson),
            Format("arrow-10000", 10_000, "/events", ARROW, arrow),
        ),
    ),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=int, default=3_000_000, metavar="N", help="events to each (default: 3000000)")
    parser.add_argument("--store", nargs="+", choices=[peer.name for peer in PEERS], help="only these (default: all)")
    parser.add_argument(
        "--settle", type=float, default=180, metavar="SECONDS",
        help="longest wait for merges and compaction before the disk is measured (default: 180)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> Iterator[Table]:
    chosen = [peer for peer in PEERS if not options.store or peer.name in options.store]
    ready: list[Peer] = []
    missing: list[str] = []
    for peer in chosen:
        if peer.binary is not None and shutil.which(peer.binary) is None:
            missing.append(f"{peer.name} left out: {peer.binary} is not here (apt-get install {peer.package}).")
            print(f"bench: {missing[-1]}", file=sys.stderr)
        else:
            ready.append(peer)
    start = time.time_ns() // 1_000_000_000 * 1_000_000 - 86_400_000_000
    repeats: dict[tuple[str, str], list[Row]] = {}
    failures: list[str] = []
    for number in range(options.repeat):
        for peer in ready:
            for form in peer.formats:
                print(f"  {peer.name}, {form.name}, run {number + 1} of {options.repeat}", flush=True)
                try:
                    row = _measure(peer, form, options, start)
                except (BenchError, OSError) as error:
                    failures.append(f"{peer.name}, {form.name}: {error}")
                else:
                    repeats.setdefault((peer.name, form.name), []).append(row)
    rows = [median_row(found) for found in repeats.values()]
    _add_ratios(rows)
    yield Table(
        f"Peers: {options.events:,} events each, 4 connections, median of {options.repeat}",
        COLUMNS,
        rows,
        [
            "x VM: over VictoriaMetrics with as many events in a body.",
            "VictoriaMetrics acknowledges before its data is safe on disk; InfluxDB and modelmeter after.",
            "later us: merging and compaction, after all was queryable.",
            *missing,
        ],
        failures,
    )


def _measure(peer: Peer, form: Format, options: argparse.Namespace, start: int) -> Row:
    messages = _messages(form, options, start)
    warm, measured = messages[:10], messages[10:]
    with peer.start() as store:
        warmed = send(store.port, warm, connections=4, seconds=60, accept=store.accept)
        store.wait_queryable(warmed.events)
        before, own = store.usage(), time.process_time()
        sent = send(store.port, measured, connections=4, seconds=300, accept=store.accept)
        queryable_at = store.wait_queryable(warmed.events + sent.events)
        after, own = store.usage(), time.process_time() - own
        row: Row = {"store": peer.name, "body": form.name, "events_per_body": form.events_per_body}
        row |= ingest_numbers(sent, queryable_at, own, before, after)
        row["peak_mb"] = max(after.peak_bytes.values()) / 1e6
        if options.settle:
            store.settle(options.settle)
            row["later_us"] = sum(store.usage().since(after).values()) * 1e6 / sent.events
            samples = (warmed.events + sent.events) * len(METRICS)
            row["bytes_per_sample"] = store.stored_bytes() / samples
    return row


def _messages(form: Format, options: argparse.Namespace, start: int) -> list[tuple[bytes, int]]:
    generator = Generator(options.streams)
    messages = []
    for _ in range(math.ceil(options.events / form.events_per_body) + 10):
        frame = generator.timed_frame(form.events_per_body, start)
        start = frame["timestamp"][-1]
        messages.append((post(form.path, form.encode(frame), form.content_type), form.events_per_body))
    return messages


def _add_ratios(rows: list[Row]) -> None:
    base = {row["events_per_body"]: row for row in rows if row["store"] == "victoriametrics"}
    for row in rows:
        other = base.get(row["events_per_body"])
        if other is None:
            continue
        for ratio, key in (
            ("events_ratio", "queryable_per_second"),
            ("server_ratio", "server_us"),
            ("bytes_ratio", "bytes_per_sample"),
        ):
            if row.get(key) is not None and other.get(key):
                row[ratio] = row[key] / other[key]
