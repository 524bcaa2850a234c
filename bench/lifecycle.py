"""What keeping data costs: compaction beside full-speed ingest, its disk, and dropping a day beside both."""

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import psutil
import psycopg

from bench.client import Load, message, send
from bench.data import ARROW, METRICS, BackfillBodies, Generator, arrow
from bench.launch import Server, modelmeter
from bench.report import Column, Row, Table
from bench.usage import Usage, others_percent
from modelmeter.store.expiry import Expired, drop
from modelmeter.window import DAY, HOUR, floor, to_datetime

HELP = "compaction beside full-speed ingest, disk after it, and the locks of dropping a day"

_STREAMS = 12
_BACKFILL_HOURS = 4

COMPACTION = (
    Column("events_per_second", "events/s", ",.0f"),
    Column("seconds", "s", ",.0f"),
    Column("server_us", "server us", ",.3f"),
    Column("compaction_us", "compaction us", ",.3f"),
    Column("compaction_percent", "compaction % of server", ",.1f"),
    Column("partials_most", "partials waiting, most", ",.0f"),
    Column("partials_last", "partials waiting, last", ",.0f"),
    Column("chunks_last", "chunks, last", ",.0f"),
    Column("over_seconds", "over after s", ",.0f"),
    Column("others_percent", "others %", ",.0f"),
)
DISK = (
    Column("unit", "timestamps"),
    Column("events", "events", ",.0f"),
    Column("raw_bytes", "raw bytes/sample", ",.2f"),
    Column("hour_bytes", "1h and 1d bytes/series and hour", ",.0f"),
    Column("minute_bytes", "1m bytes/series and hour", ",.0f"),
)
LOCKS = (
    Column("dropped_events", "events dropped", ",.0f"),
    Column("dropped_mb", "MB dropped", ",.0f"),
    Column("drop_ms", "drop ms", ",.0f"),
    Column("read_before_ms", "read max ms, before", ",.0f"),
    Column("read_ms", "read max ms, meanwhile", ",.0f"),
    Column("write_before_ms", "write max ms, before", ",.0f"),
    Column("write_ms", "write max ms, meanwhile", ",.0f"),
    Column("lock_ms", "exclusive lock ms", ",.0f"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--load", type=float, default=180, metavar="SECONDS", help="full-speed ingest (default: 180)")
    parser.add_argument(
        "--backfill", type=int, default=6_000_000, metavar="N",
        help="events in the four hours whose disk is measured (default: 6000000)",
    )  # fmt: skip
    parser.add_argument("--compact-wait", type=float, default=900, metavar="SECONDS", help="longest wait")


def run(options: argparse.Namespace) -> Iterator[Table]:
    generator = Generator(_STREAMS)
    bodies = [arrow(generator.frame(10_000)) for _ in range(64)]
    messages = [(message("/events", body, ARROW), 10_000) for body in bodies]
    with modelmeter() as server:
        yield Table(
            f"Compaction beside ingest: Arrow bodies of 10,000 events, {_STREAMS} streams",
            COMPACTION,
            [_compaction(server, messages, options)],
            ["Goal: less than 10 % of the server's CPU, and nothing piles up.",
             "compaction: the keeper and the Postgres backends that it works through."],
        )  # fmt: skip
    with modelmeter() as server:
        yield Table(
            f"Disk after compaction: {_STREAMS} busy streams over {_BACKFILL_HOURS} hours",
            DISK,
            [_disk(server, options, unit, day) for unit, day in ((1_000, 2), (1, 1))],
            ["Timestamps are at random; at microseconds, most of what an event takes is its time.",
             "Goals: 2.2 bytes a raw sample; 1,024 bytes a series and hour of rollups that are kept for years."],
        )  # fmt: skip
        yield Table(
            "Dropping a day beside full-speed ingest",
            LOCKS,
            [_locks(server, messages)],
            ["Goal: 100 ms of locks. exclusive lock: as long as anybody else was seen to wait for one on a chunk."],
        )


def _compaction(server: Server, messages: list[tuple[bytes, int]], options: argparse.Namespace) -> Row:
    warm = send(server.port, itertools.cycle(messages), connections=4, seconds=2)
    server.wait_queryable(warm.events)
    keepers = Backends(server.conninfo)
    before, compaction = server.usage(), compaction_seconds(server.usage(), keepers)
    own = time.process_time()
    load = Load(server.port, itertools.cycle(messages), connections=4, seconds=options.load)
    waiting = []
    try:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            until = time.monotonic() + options.load
            while time.monotonic() < until:
                waiting.append(_count(connection, "rollup_partial_1m"))
                keepers.look()
                time.sleep(2)
            sent = load.result()
            queryable_at = server.wait_queryable(warm.events + sent.events)
            after = server.usage()
            compaction = compaction_seconds(after, keepers) - compaction
            last, chunks = _count(connection, "rollup_partial_1m"), _count(connection, "chunk")
    finally:
        load.stop()
    spent = sum(after.since(before).values())
    ended = time.monotonic()
    is_over = server.wait_compacted(seconds=options.compact_wait)
    return {
        "events_per_second": sent.events / (queryable_at - sent.started),
        "seconds": options.load,
        "server_us": spent * 1e6 / sent.events,
        "compaction_us": compaction * 1e6 / sent.events,
        "compaction_percent": 100 * compaction / spent,
        "partials_most": max(waiting),
        "partials_last": last,
        "chunks_last": chunks,
        "over_seconds": time.monotonic() - ended if is_over else None,
        "others_percent": others_percent(before, after, spent + sent.cpu_seconds + time.process_time() - own),
    }


class Backends:
    """The Postgres backends that the keeper works through, and the CPU that they have taken, ended ones included."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._seconds: dict[int, float] = {}

    def look(self) -> float:
        """CPU seconds so far."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name IN"
                " ('modelmeter compactor', 'modelmeter partitioner')"
            ).fetchall()
        for (pid,) in rows:
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._seconds[pid] = times.user + times.system
        return sum(self._seconds.values())


def compaction_seconds(usage: Usage, backends: Backends) -> float:
    """CPU seconds of the keeper and of those backends so far."""
    return usage.cpu_seconds.get("keeper", 0.0) + backends.look()


def _count(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM modelmeter.{table}").fetchone()
    assert row is not None
    return int(row[0])


def _disk(server: Server, options: argparse.Namespace, unit: int, days_ago: int) -> Row:
    """Of the hours of one day, `days_ago`, with timestamps in whole `unit` microseconds."""
    start = floor(time.time_ns() // 1000, DAY) - days_ago * DAY
    backfill = BackfillBodies(options.backfill, start, start + _BACKFILL_HOURS * HOUR - 1, unit=unit)
    known = server.event_count()
    sent = send(server.port, ((message("/events", body, ARROW), count) for body, count in backfill),
                connections=4, seconds=3_600)  # fmt: skip
    server.wait_queryable(known + sent.events)
    if not server.wait_compacted(seconds=options.compact_wait):
        print(f"  compaction was not over after {options.compact_wait:g} s", flush=True)
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("VACUUM")
        # A table that had rows which are gone keeps their pages for the next ones: what it needs is what counts here.
        live = {
            name: _live_bytes(connection, name, column, start)
            for name, column in (
                ("chunk", "start_at"), ("rollup_1m", "window_start"), ("rollup_1h", "window_start"),
                ("rollup_1d", "window_start"),
            )
        }  # fmt: skip
    samples, series_hours = sent.events * len(METRICS), _STREAMS * (len(METRICS) + 1) * _BACKFILL_HOURS
    return {
        "unit": "whole ms" if unit == 1_000 else "us",
        "events": sent.events,
        "raw_bytes": live["chunk"] / samples,
        "hour_bytes": (live["rollup_1h"] + live["rollup_1d"]) / series_hours,
        "minute_bytes": live["rollup_1m"] / series_hours,
    }


def _live_bytes(connection: psycopg.Connection, table: str, column: str, start: int) -> float:
    """Bytes of all rows of a day with their headers and their part of the index."""
    row = connection.execute(
        f"SELECT coalesce(sum(pg_column_size(t.*) + 28), 0)::float8 + 40 * count(*) FROM modelmeter.{table} t"
        f" WHERE {column} >= %s AND {column} < %s",
        (to_datetime(start), to_datetime(start + DAY)),
    ).fetchone()
    assert row is not None
    return float(row[0])


def _locks(server: Server, messages: list[tuple[bytes, int]]) -> Row:
    start = floor(time.time_ns() // 1000, DAY) - DAY
    name = f"chunk_{to_datetime(start):%Y%m%d}"
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        size = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (f"modelmeter.{name}",)).fetchone()
        held = connection.execute(f"SELECT sum(count) FROM modelmeter.{name}").fetchone()
        assert size is not None
        assert held is not None
        load = Load(server.port, itertools.cycle(messages), connections=4, seconds=20)
        try:
            time.sleep(5)
            with _Probes(server.conninfo) as probes:
                time.sleep(5)
                before = probes.take()
                began = time.monotonic()
                while not drop(connection, Expired(name, "chunk", False, "chunk", start)):
                    pass
                took = time.monotonic() - began
                meanwhile = probes.take()
        finally:
            load.result()
            load.stop()
    return {
        "dropped_events": held[0],
        "dropped_mb": size[0] / 1e6,
        "drop_ms": took * 1e3,
        "read_before_ms": before["read"],
        "read_ms": meanwhile["read"],
        "write_before_ms": before["write"],
        "write_ms": meanwhile["write"],
        "lock_ms": meanwhile["lock"],
    }


class _Probes:
    """Reads and writes the chunks again and again, and looks who waits for a lock; the longest of each."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._over = threading.Event()
        self._longest = dict.fromkeys(("read", "write", "lock"), 0.0)
        self._threads = [threading.Thread(target=self._probe, args=(name,)) for name in self._longest]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> dict[str, float]:
        """The longest so far, in milliseconds; and begin anew."""
        taken = {name: seconds * 1e3 for name, seconds in self._longest.items()}
        self._longest = dict.fromkeys(self._longest, 0.0)
        return taken

    def _probe(self, name: str) -> None:
        statements: dict[str, Callable[[psycopg.Connection], float]] = {
            "read": self._read,
            "write": self._write,
            "lock": self._waiting,
        }
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            while not self._over.wait(0.005):
                self._longest[name] = max(self._longest[name], statements[name](connection))

    @staticmethod
    def _read(connection: psycopg.Connection) -> float:
        began = time.monotonic()
        connection.execute(
            "SELECT count(*) FROM modelmeter.chunk WHERE stream_id = 1 AND start_at >= now() - interval '1 m'"
        )
        return time.monotonic() - began

    @staticmethod
    def _write(connection: psycopg.Connection) -> float:
        began = time.monotonic()
        with connection.transaction(force_rollback=True):
            connection.execute(
                "INSERT INTO modelmeter.chunk (stream_id, start_at, end_at, count, minutely, metrics, columns)"
                " VALUES (0, now(), now() + interval '1 s', 1, true, '{}', '{x}')"
            )
        return time.monotonic() - began

    @staticmethod
    def _waiting(connection: psycopg.Connection) -> float:
        row = connection.execute(
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart)), 0)::float8 FROM pg_locks l"
            " JOIN pg_class c ON c.oid = l.relation WHERE NOT l.granted AND c.relname ~ '^chunk'"
            " AND l.mode <> 'AccessExclusiveLock' AND l.mode <> 'ShareUpdateExclusiveLock'"
        ).fetchone()
        assert row is not None
        return float(row[0])
