"""How long PromQL and /compare take over HTTP: 3 million events (9 million samples) of 12 streams over 30 days."""

import argparse
import time
from collections.abc import Iterator
from urllib.parse import quote

from bench.client import Connection, message, send
from bench.data import ARROW, METRICS, BackfillBodies, streams
from bench.launch import modelmeter
from bench.report import Column, Row, Table
from bench.stats import DAY_MICROS, ask

HELP = "PromQL over 30 days: 3 million events, 12 streams, beside VictoriaMetrics"

COLUMNS = (
    Column("query", "query"),
    Column("series", "series", ",.0f"),
    Column("client_p50_ms", "client p50 ms", ",.2f"),
    Column("client_p99_ms", "client p99 ms", ",.2f"),
    Column("server_p50_ms", "server p50 ms", ",.2f"),
    Column("server_p99_ms", "server p99 ms", ",.2f"),
    Column("goal_ms", "goal ms", ",.0f"),
    Column("victoria_metrics_ms", "VictoriaMetrics ms", ",.0f"),
)

# Query, seconds of the range asked for, step, the goal and what VictoriaMetrics took (medians, milliseconds).
# {one} is a stream; a step of 0 is an instant query.
QUERIES = {
    "p95 over 30 days, one series": ("quantile_over_time(0.95, inference_time{one}[30d])", 0, 0, 3, 46),
    "mean over 30 days, one series": ("avg_over_time(inference_time{one}[30d])", 0, 0, 4, 7),
    "p95 over 30 days, 12 series": ("quantile_over_time(0.95, inference_time[30d])", 0, 0, 10, 231),
    "p95 by hour for 30 days, one series": (
        "quantile_over_time(0.95, inference_time{one}[1h])", 30 * 86_400, 3_600, 5, 25,
    ),
    "p95 by hour for 30 days, 12 series": ("quantile_over_time(0.95, inference_time[1h])", 30 * 86_400, 3_600, 45, 159),
    "mean of 5m, step 1m, last 6 h, 12 series": ("avg_over_time(inference_time[5m])", 6 * 3_600, 60, 5, 2),
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", type=int, nargs="+", default=[3_000_000], metavar="N",
        help="events stored, one server each (default: 3000000)",
    )  # fmt: skip
    parser.add_argument("--asked", type=int, default=100, metavar="N", help="requests for each query (default: 100)")
    parser.add_argument(
        "--compact-wait", type=float, default=900, metavar="SECONDS", help="longest wait for the compactor"
    )


def run(options: argparse.Namespace) -> Iterator[Table]:
    for events in options.events:
        rows, stored = _measure(events, options)
        notes = [
            f"{stored:,} events, {stored * len(METRICS):,} samples, 12 streams, 30 days.",
            f"{options.asked} requests each, one keep-alive connection, one after another.",
            "VictoriaMetrics: fixed figures, medians of 9 million such samples on 2 cores; not measured here.",
        ]
        yield Table(f"PromQL over 30 days, {stored:,} events", COLUMNS, rows, notes)


def _measure(event_count: int, options: argparse.Namespace) -> tuple[list[Row], int]:
    print(f"  {event_count:,} events", flush=True)
    hour = 3_600_000_000
    end = time.time_ns() // 1_000 // hour * hour
    bodies = BackfillBodies(event_count, end - 30 * DAY_MICROS, end - 1)
    messages = ((message("/events", body, ARROW), count) for body, count in bodies)
    name, version = streams(12).row(0)
    compared = f"/compare/{name}?a={version}&b=v2&start={end - 30 * DAY_MICROS}&end={end}"
    with modelmeter() as server:
        sent = send(server.port, messages, connections=4, seconds=3_600)
        server.wait_queryable(sent.events)
        if not server.wait_compacted(seconds=options.compact_wait):
            print(f"  compaction was not over after {options.compact_wait:g} s", flush=True)
        connection = Connection(server.port)
        rows: list[Row] = []
        for query, (text, seconds, step, goal, victoria_metrics) in QUERIES.items():
            path = path_of(text, end // 1_000_000, seconds, step)
            series = len(connection.get(path).json()["data"]["result"])
            rows.append(
                {
                    "query": query,
                    "series": series,
                    **ask(connection, path, options.asked),
                    "goal_ms": goal,
                    "victoria_metrics_ms": victoria_metrics,
                }
            )
        rows.append(
            {"query": "/compare, two versions, 3 metrics", **ask(connection, compared, options.asked), "goal_ms": 15}
        )
        connection.close()
    return rows, sent.events


def path_of(text: str, end: int, seconds: int, step: int) -> str:
    """The request; Unix seconds."""
    name, version = streams(12).row(0)
    query = quote(text.replace("{one}", f'{{name="{name}",version="{version}"}}'))
    if not step:
        return f"/api/v1/query?query={query}&time={end}"
    return f"/api/v1/query_range?query={query}&start={end - seconds + step}&end={end}&step={step}"
