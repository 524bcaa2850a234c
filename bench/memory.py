"""Memory while the worker is stopped and the backlog grows to its limit, and while it is caught up."""

import argparse
import itertools
import signal
from collections.abc import Iterator

import psutil

from bench.client import message, send
from bench.data import JSON, Generator, json_array
from bench.launch import Server, modelmeter
from bench.report import Column, Row, Table
from bench.usage import processes

HELP = "worker stopped: the API's memory while the backlog grows to its limit"

COLUMNS = (
    Column("limit_mb", "queue limit MB", ",.0f"),
    Column("events", "events queued", ",.0f"),
    Column("acknowledged_per_second", "events/s acked", ",.0f"),
    Column("refused", "answers 429", ",.0f"),
    Column("api_before_mb", "API MB before", ",.0f"),
    Column("api_peak_mb", "API MB peak", ",.0f"),
    Column("worker_peak_mb", "worker MB peak, catching up", ",.0f"),
    Column("catch_up_seconds", "catch-up s", ",.1f"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue-limit-mb", type=int, default=256, help="the queue's limit for this run (default: 256)")


def run(options: argparse.Namespace) -> Iterator[Table]:
    limit_bytes = options.queue_limit_mb * 1_000_000
    generator = Generator(options.streams)
    messages = [(message("/events", json_array(generator.frame(1_000)), JSON), 1_000) for _ in range(128)]
    with modelmeter(queue_limit_bytes=limit_bytes) as server:
        warm = send(server.port, itertools.cycle(messages), connections=4, seconds=1)
        server.wait_queryable(warm.events)
        before = server.usage()
        workers = _workers(server)
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        try:
            sent = send(server.port, itertools.cycle(messages), connections=4, seconds=3 * options.seconds)
            stopped = server.usage()
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGCONT)
        queryable_at = server.wait_queryable(warm.events + sent.events)
        row: Row = {
            "limit_mb": options.queue_limit_mb,
            "events": sent.events,
            "acknowledged_per_second": sent.events_per_second,
            "refused": sent.retries,
            "api_before_mb": before.peak_bytes.get("api", 0) / 1e6,
            "api_peak_mb": stopped.peak_bytes.get("api", 0) / 1e6,
            "worker_peak_mb": server.usage().peak_bytes.get("worker", 0) / 1e6,
            "catch_up_seconds": queryable_at - sent.ended,
        }
    notes = [] if sent.retries else ["The backlog did not reach its limit: give more --seconds or a lower limit."]
    yield Table("Memory: worker stopped, 1,000-event JSON bodies, 4 connections", COLUMNS, [row], notes)


def _workers(server: Server) -> list[psutil.Process]:
    return [process for process, role in processes(server.roots) if role == "worker"]
