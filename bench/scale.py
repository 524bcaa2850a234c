"""A year of many streams: does what is claimed hold when it is tried, and what does that come to at other sizes?

Claimed: stats cost what their windows cost, however many events lie in them; compaction and disk grow with windows.
Each case is a fresh server that is filled through HTTP, the queue, the worker and the compactor.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import psycopg

from bench.client import Connection, message, send
from bench.data import ARROW, METRICS, Generator, arrow, streams
from bench.launch import Server, modelmeter, wait_until
from bench.lifecycle import Backends, compaction_seconds
from bench.report import Column, Row, Table
from bench.stats import ask
from modelmeter.window import DAY, HOUR, floor

HELP = "a year of 1,000 streams: query time, compaction and disk against what is claimed, and sums for other sizes"

_ASKED = 30
_SERIES = len(METRICS) + 1  # one more counts the events


@dataclass(frozen=True, slots=True)
class Case:
    """Each stream sends `events` in one hour of each of `days`."""

    days: int
    events: int


CASES = (Case(91, 10), Case(365, 10), Case(91, 40))

MEASURED = (
    Column("days", "days", ",.0f"),
    Column("events", "events", ",.0f"),
    Column("windows", "windows", ",.0f"),
    Column("event_us", "store us/event", ",.2f"),
    Column("compact_seconds", "compaction s", ",.1f"),
    Column("window_us", "compaction us/window", ",.1f"),
    Column("hour_bytes", "bytes/1h row", ",.0f"),
    Column("day_bytes", "bytes/1d row", ",.0f"),
    Column("rollup_mb", "rollups MB", ",.1f"),
    Column("stats_ms", "stats ms", ",.2f"),
    Column("promql_ms", "PromQL ms", ",.2f"),
    Column("models_ms", "GET /stats ms", ",.1f"),
)
CLAIMS = (
    Column("claim", "claim"),
    Column("said", "claimed factor", ",.2f"),
    Column("found", "found", ",.2f"),
)
SUMS = (
    Column("streams", "streams", ",.0f"),
    Column("rate", "events/s", ",.0f"),
    Column("cores", "cores", ",.2f"),
    Column("raw_gb", "raw, 30 d, GB", ",.1f"),
    Column("minute_gb", "1m, 90 d, GB", ",.1f"),
    Column("hour_gb", "1h, 2 y, GB", ",.1f"),
    Column("day_gb", "1d, a year, GB", ",.1f"),
)

# Streams and events a second of all of them together.
_SIZES = ((12, 1_000), (1_000, 1_000), (1_000, 100_000), (10_000, 100_000), (100_000, 100_000), (100_000, 1_000_000))
_MINUTELY_RATE = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--year-streams", type=int, default=1_000, metavar="N", help="streams (default: 1000)")
    parser.add_argument("--shrink", type=int, default=1, metavar="N", help="a quick look: so many times fewer days")
    parser.add_argument(
        "--raw-bytes", type=float, default=1.9, metavar="BYTES",
        help="of a raw sample, as `script/bench lifecycle` says it (default: 1.9)",
    )  # fmt: skip
    parser.add_argument("--compact-wait", type=float, default=1_800, metavar="SECONDS", help="longest wait")


def run(options: argparse.Namespace) -> Iterator[Table]:
    rows = [_measure(Case(case.days // options.shrink, case.events), options) for case in CASES]
    yield Table(
        f"{options.year_streams:,} streams, {len(METRICS)} metrics each, one hour of events a day",
        MEASURED,
        rows,
        [
            "windows: rows of one hour and of one day, of each metric and of the events themselves.",
            "stats: GET /stats/{name}/{version} with three quantiles over all days; PromQL: a mean over them.",
            f"The queries: medians of {_ASKED} at the client.",
        ],
    )
    yield Table("The claims", CLAIMS, _claims(rows), ["Of the case in the middle, and of the last, over the first."])
    yield Table(
        "Sums for other sizes, from these unit costs",
        SUMS,
        [_sum(size, rate, rows[1], options.raw_bytes) for size, rate in _SIZES],
        [
            "Computed, not run. cores: all processes and Postgres, at the costs above, where a claim has all streams.",
            f"Rollups of a minute only where a stream sends {_MINUTELY_RATE} events/s; taken to be as large as 1h's.",
            "Every hour of every stream is taken to have events.",
        ],
    )


def _measure(case: Case, options: argparse.Namespace) -> Row:
    count = options.year_streams
    print(f"  {case.days} days, {case.events} events a stream and day", flush=True)
    bodies = _bodies(case, count)
    with modelmeter() as server:
        before, backends = server.usage(), Backends(server.conninfo)
        compaction = compaction_seconds(before, backends)
        sent = send(server.port, iter(bodies), connections=4, seconds=3_600)
        server.wait_queryable(sent.events, stalled_seconds=300)
        began = time.monotonic()
        with psycopg.connect(server.conninfo, autocommit=True) as connection:

            def is_folded() -> bool:
                return connection.execute("SELECT FROM modelmeter.rollup_partial LIMIT 1").fetchone() is None

            wait_until(is_folded, "compaction", seconds=options.compact_wait, step=0.2, log=server.log)
        took = time.monotonic() - began
        folded = server.usage()
        compaction = compaction_seconds(folded, backends) - compaction
        hours, days = (_rows(server, table) for table in ("rollup_1h", "rollup_1d"))
        sizes = server.table_bytes()
        hour_bytes, day_bytes = (
            sum(size for name, size in sizes.items() if name.startswith(table))
            for table in ("rollup_1h_", "rollup_1d_")
        )
        name, version = streams(count).row(count // 2)
        connection_ = Connection(server.port)
        since = f"-{case.days + 2}d"
        query = f"avg_over_time(drift%7Bname%3D%22{name}%22%2Cversion%3D%22{version}%22%7D%5B{case.days + 2}d%5D)"
        stats_ms, promql_ms, models_ms = (
            ask(connection_, path, _ASKED)["client_p50_ms"]
            for path in (
                f"/stats/{name}/{version}?start={since}&quantiles=0.5,0.95,0.99",
                f"/api/v1/query?query={query}",
                "/stats",
            )
        )
        connection_.close()
    spent = sum(folded.since(before).values())
    return {
        "days": case.days,
        "events": sent.events,
        "windows": hours + days,
        "event_us": (spent - compaction) * 1e6 / sent.events,
        "compact_seconds": took,
        "window_us": compaction * 1e6 / (hours + days),
        "hour_bytes": hour_bytes / max(hours, 1),
        "day_bytes": day_bytes / max(days, 1),
        "rollup_mb": (hour_bytes + day_bytes) / 1e6,
        "stats_ms": stats_ms,
        "promql_ms": promql_ms,
        "models_ms": models_ms,
    }


def _bodies(case: Case, count: int) -> list[tuple[bytes, int]]:
    """One request a day, the oldest first; yesterday is the last."""
    generator = Generator(count, in_turn=True)
    per_body = count * case.events
    end = floor(time.time_ns() // 1000, DAY)
    bodies = []
    for day in range(case.days, 0, -1):
        times = end - day * DAY + 12 * HOUR + np.arange(per_body, dtype=np.int64) * (HOUR // per_body)
        frame = generator.frame(per_body).with_columns(pl.Series("timestamp", times))
        bodies.append((message("/events", arrow(frame), ARROW), per_body))
    return bodies


def _rows(server: Server, table: str) -> int:
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        row = connection.execute(f"SELECT count(*) FROM modelmeter.{table}").fetchone()
    assert row is not None
    return int(row[0])


def _claims(rows: list[Row]) -> list[Row]:
    few, long, many = rows

    def ratio(row: Row, key: str) -> float:
        return float(row[key] / few[key])

    windows, events = long["windows"] / few["windows"], many["events"] / few["events"]
    return [
        {
            "claim": f"{windows:.1f} times the windows: disk",
            "said": windows,
            "found": ratio(long, "rollup_mb"),
        },
        {"claim": "the same: compaction of a window", "said": 1.0, "found": ratio(long, "window_us")},
        {
            "claim": "the same: stats over all days, at most",
            "said": windows,
            "found": ratio(long, "stats_ms"),
        },
        {"claim": f"{events:.1f} times the events: stats", "said": 1.0, "found": ratio(many, "stats_ms")},
        {"claim": "the same: PromQL", "said": 1.0, "found": ratio(many, "promql_ms")},
        {"claim": "the same: compaction of a window", "said": 1.0, "found": ratio(many, "window_us")},
        {"claim": "the same: windows", "said": 1.0, "found": ratio(many, "windows")},
    ]


def _sum(size: int, rate: int, unit: Row, raw_bytes: float) -> Row:
    series = size * _SERIES
    is_minutely = rate / size >= _MINUTELY_RATE
    windows = series * (24 + 1 + (1_440 if is_minutely else 0)) / 86_400  # a second
    gigabyte = 1e9
    return {
        "streams": size,
        "rate": rate,
        "cores": (rate * unit["event_us"] + windows * unit["window_us"]) / 1e6,
        "raw_gb": rate * 86_400 * 30 * len(METRICS) * raw_bytes / gigabyte,
        "minute_gb": series * 1_440 * 90 * unit["hour_bytes"] / gigabyte if is_minutely else 0,
        "hour_gb": series * 24 * 730 * unit["hour_bytes"] / gigabyte,
        "day_gb": series * 365 * unit["day_bytes"] / gigabyte,
    }
