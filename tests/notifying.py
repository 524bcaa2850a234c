"""Alerts as the evaluator leaves them, a web server that answers as it is told, and a dispatcher that steps."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from modelmeter.config import Config
from modelmeter.dispatcher import Dispatcher
from modelmeter.window import SECOND, to_datetime, to_micros
from tests.history import NOON

Labels = Mapping[str, str]


def fingerprint(labels: Labels) -> UUID:
    return UUID(bytes=hashlib.blake2b(json.dumps(sorted(labels.items())).encode(), digest_size=16).digest())


class Evaluator:
    """Writes what the evaluator writes: state, and the notification of its change, in one transaction."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        row = self._connection.execute("SELECT coalesce(max(transition_id), 0) FROM modelmeter.notification").fetchone()
        self._last = row[0] if row else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def fire(self, at: int = NOON, value: float | None = 0.9, **labels: str) -> dict[str, str]:
        labels = _labels(labels)
        with self._connection.transaction():
            self._connection.execute(
                "INSERT INTO modelmeter.alert (group_name, rule_name, fingerprint, labels, annotations, state, value,"
                " reason, active_at, fired_at, evaluated_at)"
                " VALUES ('g', %s, %s, %s, %s, 'firing', %s, 'the condition holds', %s, %s, %s)",
                (
                    labels["alertname"], fingerprint(labels), Jsonb(labels), _annotations(labels), value,
                    to_datetime(at), to_datetime(at), to_datetime(at),
                ),
            )  # fmt: skip
            self._notify("firing", labels, value, at, at, None)
        return labels

    def resolve(self, at: int = NOON + 60 * SECOND, **labels: str) -> None:
        labels = _labels(labels)
        with self._connection.transaction():
            row = self._connection.execute(
                "DELETE FROM modelmeter.alert WHERE fingerprint = %s RETURNING fired_at", (fingerprint(labels),)
            ).fetchone()
            assert row, labels
            self._notify("resolved", labels, 0.1, at, to_micros(row[0]), at)

    def event(self, at: int = NOON, **labels: str) -> None:
        """What a rule found in one event: no alert, only a notification."""
        self._notify("firing", _labels(labels), 0.2, at, at, None)

    def forget(self, **labels: str) -> None:
        """The alert goes without a word."""
        self._connection.execute("DELETE FROM modelmeter.alert WHERE fingerprint = %s", (fingerprint(_labels(labels)),))

    def _notify(
        self, status: str, labels: Labels, value: float | None, at: int, starts_at: int, ends_at: int | None
    ) -> None:
        self._last += 1
        self._connection.execute(
            "INSERT INTO modelmeter.notification VALUES (%s, %s, %s, %s, %s, %s, %s, 'the condition holds', %s, %s)",
            (
                self._last, to_datetime(at), status, fingerprint(labels), Jsonb(dict(labels)), _annotations(labels),
                value, to_datetime(starts_at), None if ends_at is None else to_datetime(ends_at),
            ),
        )  # fmt: skip


def _labels(labels: Labels) -> dict[str, str]:
    return {"alertname": "Drift", **labels}


def _annotations(labels: Labels) -> Jsonb:
    return Jsonb({"summary": f"{labels['alertname']} of {labels.get('name', 'some model')}"})


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def alerts(self) -> list[tuple[str, str]]:
        """Status and name of the model, of each alert."""
        return [(one["status"], one["labels"].get("name", "")) for one in self.json["alerts"]]


Answer = Callable[[socket.socket], None]


def status(code: int, *headers: str, body: str = "") -> Answer:
    def answer(client: socket.socket) -> None:
        lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
        client.sendall("\r\n".join(lines).encode())

    return answer


def die(client: socket.socket) -> None:
    """In the middle of the answer."""
    client.sendall(b"HTTP/1.1 20")


@dataclass
class Inbox:
    """A web server: keeps what comes, answers by `answer`, which may change; `hang` answers nothing until the end."""

    url: str = ""
    answer: Answer = field(default=status(200))
    requests: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def hang(self, _client: socket.socket) -> None:
        self.over.wait(60)

    def drip(self, client: socket.socket) -> None:
        """A byte of a header now and then, so that no single read takes long."""
        client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.over.wait(0.05):
            client.sendall(b"x")

    def take(self) -> list[Request]:
        found, self.requests = self.requests, []
        return found

    def serve(self, client: socket.socket) -> None:
        with client:
            try:
                reader = client.makefile("rb")
                path = reader.readline().decode().split(" ")[1]
                headers = {}
                while (line := reader.readline().decode().strip()) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = reader.read(int(headers.get("content-length", 0)))
                self.requests.append(Request(path, headers, body))
                self.answer(client)
            except (OSError, IndexError):
                return


@contextmanager
def inbox(answer: Answer | None = None) -> Iterator[Inbox]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Inbox(f"http://127.0.0.1:{listener.getsockname()[1]}/hook")
        place.answer = answer or place.answer

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=place.serve, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield place
        finally:
            place.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


class Dispatching:
    """A dispatcher of one's own that goes by a clock moved by hand; what it sends is waited for."""

    def __init__(self, url: str, file: Path | None = None, text: str | None = None, **settings: Any) -> None:
        if text is not None:
            assert file is not None
            file.write_text(text)
        self.now = NOON
        self.config = Config(database_url=url, notifications=file, **{"notification_timeout_seconds": 5, **settings})
        self.dispatcher = Dispatcher(self.config, jitter=lambda: 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispatcher.close()

    def step(self, after: float = 0, *, wait: bool = True) -> None:
        """So many seconds later: whatever is to be done, until nothing is."""
        self.now += int(after * SECOND)
        deadline = time.monotonic() + 30
        while self.dispatcher.run_once(self.now) or (wait and self.dispatcher.under_way):
            time.sleep(0.005)  # the pace of asking
            assert time.monotonic() < deadline, "it does not come to an end"


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def webhooks(**urls: str) -> str:
    """A file with a receiver for each; everything to the first, at once, each alert by itself."""
    first = next(iter(urls))
    receivers = [{"name": name, "webhook_configs": [{"url": url}]} for name, url in urls.items()]
    route: dict[str, object] = {
        "receiver": first,
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": "1m",
        "repeat_interval": "1h",
    }
    return json.dumps({"route": route, "receivers": receivers})


def alerts_of(requests: Sequence[Request]) -> list[tuple[str, str]]:
    return [alert for request in requests for alert in request.alerts]
