"""What rules cost: a round of many rules over many series; how soon an event is an ALERT line, or at a webhook."""

import argparse
import json
import re
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.client import Connection, message, send
from bench.launch import modelmeter
from bench.report import Column, Row, Table
from modelmeter.config import Config
from modelmeter.evaluator import Evaluator
from modelmeter.recorder import Recorder
from modelmeter.rule_book import RuleBook
from modelmeter.store.queue import PostgresProducer
from modelmeter.window import SECOND

HELP = "a round of 1,000 rules over 1,000 series, an event to its ALERT line, an alert to its webhook"

COLUMNS = (
    Column("rules", "rules"),
    Column("firing", "alerts", ",.0f"),
    Column("cpu_s", "CPU of a round, s", ",.3f"),
    Column("wall_s", "a round, s", ",.3f"),
    Column("goal_s", "goal, s of one core", ",.1f"),
)
LINE_COLUMNS = (
    Column("events", "events", ",.0f"),
    Column("p50_ms", "p50 ms", ",.1f"),
    Column("p99_ms", "p99 ms", ",.1f"),
    Column("goal_ms", "goal p99 ms", ",.0f"),
)
WEBHOOK_COLUMNS = (
    Column("what", "to a webhook"),
    Column("events", "events", ",.0f"),
    Column("p50_ms", "p50 ms", ",.0f"),
    Column("p99_ms", "p99 ms", ",.0f"),
    Column("max_ms", "most, ms", ",.0f"),
    Column("goal_ms", "goal, ms", ",.0f"),
)
STEP = 15
INTERVAL = 5
KINDS = {
    "one for each series": 'avg_over_time(latency{{name="m{number}"}}[5m]) > {limit}',
    "one for each series, last value": 'latency{{name="m{number}"}} > {limit}',
    "each over all series": "avg_over_time(latency[5m]) > {high}",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rules", type=int, default=1000, metavar="N", help="rules (default: 1000)")
    parser.add_argument("--series", type=int, default=1000, metavar="N", help="series (default: 1000)")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="rounds that count (default: 8)")
    parser.add_argument("--lines", type=int, default=200, metavar="N", help="events for the ALERT line (default: 200)")
    parser.add_argument("--alerts", type=int, default=60, metavar="N", help="alerts to a webhook (default: 60)")


def run(options: argparse.Namespace) -> Iterator[Table]:
    with modelmeter() as server:
        now = int(time.time()) // STEP * STEP
        rng = np.random.default_rng(1)
        bodies = []
        for at in range(now - 900, now, STEP):
            events = [
                {"name": f"m{number}", "version": "v1", "timestamp": at, "latency": float(value)}
                for number, value in enumerate(rng.random(options.series))
            ]
            bodies.append((message("/events", json.dumps(events).encode(), "application/json"), len(events)))
        sent = send(server.port, iter(bodies), connections=1, seconds=600)
        server.wait_queryable(sent.events)
        rows = [_rounds(server.conninfo, kind, text, options, now) for kind, text in KINDS.items()]
        size = f"{options.rules:,} rules, {options.series:,} series with an event every {STEP} s"
        notes = [
            f"{size}; the median of {options.rounds} rounds {STEP} s apart.",
            "CPU: of the evaluator's process; Postgres' own comes on top of it.",
        ]
        yield Table("Evaluation of rules", COLUMNS, rows, notes)
        yield Table("An event to its ALERT line", LINE_COLUMNS, [_lines(server, options)], ["One event after another."])
    notes = [
        f"From sending an event to the webhook's request. No `for`; its group has an interval of {INTERVAL} s;",
        "the events come at all times between two evaluations. `group_wait: 0s`, one message for each alert.",
    ]
    yield Table("An event to a webhook", WEBHOOK_COLUMNS, _webhook(options), notes)


def _rounds(conninfo: str, kind: str, text: str, options: argparse.Namespace, now: int) -> Row:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yml"
        rules = [
            {
                "alert": f"Rule{number}",
                "expr": text.format(number=number % options.series, limit=0.9, high=1 + number),
                "for": "30s",
                "annotations": {"summary": "{{ $labels.name }} is at {{ $value | humanize }}"},
            }
            for number in range(options.rules)
        ]
        groups = [
            {"name": f"{kind} {number}", "interval": f"{STEP}s", "rules": rules[number : number + 50]}
            for number in range(0, options.rules, 50)
        ]
        path.write_text(json.dumps({"groups": groups}))
        book = RuleBook(path)
        book.read()
        evaluator = Evaluator(Config(database_url=conninfo), book, Recorder(PostgresProducer(conninfo, connections=1)))
        cpu, wall = [], []
        for number in range(options.rounds + 2):
            cpu_began, began = time.process_time(), time.perf_counter()
            evaluator.run_once((now - 300 + number * STEP) * SECOND)
            cpu.append(time.process_time() - cpu_began)
            wall.append(time.perf_counter() - began)
        firing = sum(sum(standing.values()) for standing in evaluator._standing.values())  # noqa: SLF001
        evaluator.close()
    return {
        "rules": kind,
        "firing": firing,
        "cpu_s": statistics.median(cpu[2:]),
        "wall_s": statistics.median(wall[2:]),
        "goal_s": 2,
    }


def _lines(server: object, options: argparse.Namespace) -> Row:
    log: Path = server.log  # type: ignore[attr-defined]
    connection = Connection(server.port)  # type: ignore[attr-defined]
    found = []
    for number in range(options.lines):
        mark = f"line{number}"
        body = json.dumps({"name": mark, "version": "v1", "prediction_accuracy": 0.1}).encode()
        began = time.perf_counter()
        connection.post("/events", body)
        size = max(log.stat().st_size - 4096, 0)
        while time.perf_counter() - began < 30:
            with log.open("rb") as file:
                file.seek(size)
                if re.search(rf"ALERT .*'{mark}'".encode(), file.read()):
                    break
            time.sleep(0.001)
        found.append((time.perf_counter() - began) * 1e3)
    connection.close()
    return {
        "events": len(found),
        "p50_ms": statistics.median(found),
        "p99_ms": float(np.quantile(found, 0.99)),
        "goal_ms": 2000,
    }


@contextmanager
def _inbox() -> Iterator[tuple[str, dict[tuple[str, str], float]]]:
    """A webhook: its URL, and when it heard first of each rule's alert for each model."""
    heard: dict[tuple[str, str], float] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            now = time.perf_counter()
            for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]:
                heard.setdefault((alert["labels"]["alertname"], alert["labels"]["name"]), now)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the table says it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", heard
        finally:
            server.shutdown()
            thread.join()


def _webhook(options: argparse.Namespace) -> list[Row]:
    rules = [
        {"alert": "Held", "expr": "last_over_time(level[5m]) > 0"},
        {"alert": "Seen", "event": "level > 0"},
    ]
    with TemporaryDirectory() as folder, _inbox() as (url, heard):
        rules_file, file = Path(folder) / "rules.yml", Path(folder) / "notifications.yml"
        group = {"name": "webhook", "interval": f"{INTERVAL}s", "rules": rules}
        rules_file.write_text(json.dumps({"groups": [group]}))
        route = {"receiver": "bench", "group_by": ["..."], "group_wait": "0s"}
        receivers = [{"name": "bench", "webhook_configs": [{"url": url}]}]
        file.write_text(json.dumps({"route": route, "receivers": receivers}))
        sent: dict[str, float] = {}
        with modelmeter(rules=rules_file, notifications=file) as server:
            connection = Connection(server.port)
            for number in range(options.alerts):
                name = f"m{number}"
                sent[name] = time.perf_counter()
                connection.post("/events", json.dumps({"name": name, "version": "v1", "level": 1}).encode())
                time.sleep(INTERVAL * 0.0743)  # not in step with the evaluations
            deadline = time.perf_counter() + 30
            while len(heard) < 2 * options.alerts and time.perf_counter() < deadline:
                time.sleep(0.05)
            connection.close()
    rows: list[Row] = []
    for rule, what, goal in (("Held", "an alert without `for`", INTERVAL + 1), ("Seen", "an event rule's event", 2)):
        found = [(at - sent[name]) * 1e3 for (its_rule, name), at in heard.items() if its_rule == rule]
        rows.append(
            {
                "what": what,
                "events": len(found),
                "p50_ms": statistics.median(found),
                "p99_ms": float(np.quantile(found, 0.99)),
                "max_ms": max(found),
                "goal_ms": goal * 1000,
            }
        )
    return rows
