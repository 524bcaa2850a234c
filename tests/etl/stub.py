"""A server that keeps its word: a key counts once. It can be told to fail, before or after that."""

import io
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import polars as pl


@dataclass
class Fault:
    """One answer that is no 202. `is_counted`: the events count all the same. 0 drops the connection."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    is_counted: bool = False


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: deque[Fault] = deque()
        self.requests: list[dict[str, str]] = []
        self.batches: dict[str, pl.DataFrame] = {}
        self.on_request: Callable[[int], Fault | None] = lambda _: None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def keys(self) -> list[str]:
        return [request["Idempotency-Key"] for request in self.requests]

    @property
    def events(self) -> pl.DataFrame:
        """All that counted, in the order of the keys' numbers."""
        ordered = sorted(self.batches, key=lambda key: int(key.rpartition("-")[2]))
        return pl.concat([self.batches[key] for key in ordered], how="diagonal_relaxed")


def _decode(body: bytes, content_type: str) -> pl.DataFrame:
    if content_type == "application/vnd.apache.arrow.stream":
        return pl.read_ipc_stream(io.BytesIO(body))
    if content_type == "application/x-ndjson":
        return pl.read_ndjson(io.BytesIO(body), infer_schema_length=None)
    return pl.DataFrame(msgspec.json.decode(body))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        with self.server.lock:
            self.server.requests.append({**dict(self.headers.items()), "path": self.path})
            fault = self.server.on_request(len(self.server.requests))
            if fault is None and self.server.faults:
                fault = self.server.faults.popleft()
            accepted = rejected = 0
            errors: list[dict[str, Any]] = []
            if fault is None or fault.is_counted:
                events = _decode(body, self.headers["Content-Type"])
                good = events["name"].is_not_null()
                rejected, accepted = events.height - int(good.sum()), int(good.sum())
                errors = [
                    {"index": index, "field": "name", "code": "missing", "detail": "name: missing"}
                    for index in (~good).arg_true().to_list()
                ][:100]
                self.server.batches.setdefault(key, events.filter(good))
        if fault is None:
            answer = {"batch_id": key, "accepted": accepted, "rejected": rejected, "errors": errors}
            self._answer(202 if accepted else 422, answer, {})
        elif fault.status:
            self._answer(fault.status, fault.body, fault.headers)
        else:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        content = msgspec.json.encode(body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is http.server's
        pass


@contextmanager
def serving() -> Iterator[Stub]:
    with Stub() as stub:
        thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            stub.shutdown()
            thread.join()
