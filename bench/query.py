"""How long PromQL, /stats and /compare take over HTTP: 3 million events (9 million samples), 12 streams, 30 days.

VictoriaMetrics, where it is installed, gets the same events and the same queries, its cache of results off.
"""

import argparse
import io
import shutil
import time
from collections.abc import Iterator
from urllib.parse import quote

import polars as pl

from bench.client import Connection, message, send
from bench.data import ARROW, METRICS, BackfillBodies, influx_lines, streams
from bench.launch import modelmeter
from bench.peers import victoria_metrics
from bench.report import Column, Row, Table
from bench.stats import DAY_MICROS, ask

HELP = "PromQL over 30 days: 3 million events, 12 streams, beside VictoriaMetrics"

COLUMNS = (
    Column("query", "query"),
    Column("series", "series", ",.0f"),
    Column("goal_ms", "goal ms", ",.0f"),
    Column("server_p50_ms", "server p50 ms", ",.2f"),
    Column("server_p99_ms", "server p99 ms", ",.2f"),
    Column("client_p50_ms", "client p50 ms", ",.2f"),
    Column("client_p99_ms", "client p99 ms", ",.2f"),
    Column("victoria_metrics_ms", "VictoriaMetrics client p50 ms", ",.2f"),
    Column("tenfold_ms", "server p50 ms, ten times the events", ",.2f"),
    Column("tenfold_ratio", "ratio", ",.2f"),
)
_HOUR = 3_600_000_000

# Query, seconds of the range asked for, step and the goal (median milliseconds in the server).
# {one} is a stream; a step of 0 is an instant query.
QUERIES = {
    "p95 over 30 days, one series": ("quantile_over_time(0.95, inference_time{one}[30d])", 0, 0, 3),
    "mean over 30 days, one series": ("avg_over_time(inference_time{one}[30d])", 0, 0, 4),
    "p95 over 30 days, 12 series": ("quantile_over_time(0.95, inference_time[30d])", 0, 0, 10),
    "p95 by hour for 30 days, one series": (
        "quantile_over_time(0.95, inference_time{one}[1h])", 30 * 86_400, 3_600, 5,
    ),
    "p95 by hour for 30 days, 12 series": ("quantile_over_time(0.95, inference_time[1h])", 30 * 86_400, 3_600, 45),
    "mean of 5m, step 1m, last 6 h, 12 series": ("avg_over_time(inference_time[5m])", 6 * 3_600, 60, 5),
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", type=int, nargs="+", default=[3_000_000], metavar="N",
        help="events stored, one server each (default: 3000000)",
    )  # fmt: skip
    parser.add_argument("--tenfold", action="store_true", help="also with ten times the events, and the ratio")
    parser.add_argument("--asked", type=int, default=100, metavar="N", help="requests for each query (default: 100)")
    parser.add_argument(
        "--compact-wait", type=float, default=900, metavar="SECONDS", help="longest wait for the compactor"
    )


def run(options: argparse.Namespace) -> Iterator[Table]:
    for events in options.events:
        end = time.time_ns() // 1_000 // _HOUR * _HOUR
        rows, stored = _measure(events, end, options)
        notes = [
            f"{stored:,} events, {stored * len(METRICS):,} samples, 12 streams, 30 days.",
            f"{options.asked} requests each, one keep-alive connection, one after another.",
        ]
        if shutil.which("victoria-metrics"):
            _add_victoria_metrics(rows, events, end, options.asked)
            notes.append("VictoriaMetrics: the same events and queries, its defaults, nocache=1.")
        else:
            notes.append("VictoriaMetrics left out: it is not here (apt-get install victoria-metrics).")
        if options.tenfold:
            many, stored = _measure(10 * events, end, options)
            for row, other in zip(rows, many, strict=True):
                row["tenfold_ms"] = other["server_p50_ms"]
                row["tenfold_ratio"] = other["server_p50_ms"] / row["server_p50_ms"]
            notes.append(f"Ten times the events: {stored:,} in the same 30 days.")
        yield Table(f"PromQL over 30 days, {events:,} events", COLUMNS, rows, notes)


def _measure(event_count: int, end: int, options: argparse.Namespace) -> tuple[list[Row], int]:
    print(f"  {event_count:,} events", flush=True)
    messages = ((message("/events", body, ARROW), count) for body, count in _bodies(event_count, end))
    name, version = streams(12).row(0)
    span = f"start={end - 30 * DAY_MICROS}&end={end}"
    others = {
        "/compare, two versions over 30 days, 3 metrics": (f"/compare/{name}?a={version}&b=v2&{span}", 15),
        "/stats of a version over 30 days": (f"/stats/{name}/{version}?{span}", 5),
        "/stats of a version, the last 30 days": (f"/stats/{name}/{version}?start=-30d", None),
    }
    with modelmeter() as server:
        sent = send(server.port, messages, connections=4, seconds=3_600)
        server.wait_queryable(sent.events)
        if not server.wait_compacted(seconds=options.compact_wait):
            print(f"  compaction was not over after {options.compact_wait:g} s", flush=True)
        connection = Connection(server.port)
        rows: list[Row] = []
        for query, (text, seconds, step, goal) in QUERIES.items():
            path = path_of(text, end // 1_000_000, seconds, step)
            series = len(connection.get(path).json()["data"]["result"])
            rows.append({"query": query, "series": series, **ask(connection, path, options.asked), "goal_ms": goal})
        for query, (path, its_goal) in others.items():
            rows.append({"query": query, **ask(connection, path, options.asked), "goal_ms": its_goal})
        connection.close()
    return rows, sent.events


def _bodies(event_count: int, end: int) -> BackfillBodies:
    return BackfillBodies(event_count, end - 30 * DAY_MICROS, end - 1)


def _add_victoria_metrics(rows: list[Row], event_count: int, end: int, asked: int) -> None:
    """What the same queries take there, at the client."""
    print("  VictoriaMetrics", flush=True)
    # Made before the load generator is forked: Polars does not survive that.
    lines = [
        (message("/write", influx_lines(_frame(body)), "text/plain"), count)
        for body, count in _bodies(event_count, end)
    ]
    with victoria_metrics() as store:
        sent = send(store.port, lines, connections=4, seconds=3_600, accept=204)
        store.wait_queryable(sent.events)
        store.settle(120)
        connection = Connection(store.port)
        for row, (text, seconds, step, _) in zip(rows, QUERIES.values(), strict=False):
            path = path_of(text.replace("inference_time", "model_inference_time"), end // 1_000_000, seconds, step)
            row["victoria_metrics_ms"] = ask(connection, f"{path}&nocache=1", asked)["client_p50_ms"]
        connection.close()


def _frame(body: bytes) -> pl.DataFrame:
    """The events of an Arrow body, their timestamps as integers."""
    return pl.read_ipc_stream(io.BytesIO(body)).with_columns(pl.col("timestamp").cast(pl.Int64))


def path_of(text: str, end: int, seconds: int, step: int) -> str:
    """The request; Unix seconds."""
    name, version = streams(12).row(0)
    query = quote(text.replace("{one}", f'{{name="{name}",version="{version}"}}'))
    if not step:
        return f"/api/v1/query?query={query}&time={end}"
    return f"/api/v1/query_range?query={query}&start={end - seconds + step}&end={end}&step={step}"
