"""HTTP/1.1 over raw sockets: cheap enough that the client's CPU hardly counts.

`Load` sends ready-made messages over keep-alive connections from one process of its own, one thread, no
HTTP library. `Connection` asks one thing at a time. `Probe` finds how long an event takes to be queryable.
"""

import contextlib
import heapq
import json
import multiprocessing
import re
import selectors
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

HOST = "127.0.0.1"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
_STALLED_SECONDS = 60.0


class BenchError(Exception):
    """What was measured is not what was meant; the benchmark has no number to give."""


def message(path: str, body: bytes, content_type: str) -> bytes:
    """A whole POST, head and body in one piece."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True, slots=True)
class Sent:
    """What one `Load` did. Times are of the monotonic clock, which all processes share."""

    events: int
    requests: int
    retries: int
    started: float
    ended: float
    cpu_seconds: float
    latency_seconds: npt.NDArray[np.float64] = field(repr=False)

    @property
    def events_per_second(self) -> float:
        return self.events / (self.ended - self.started)

    def latency_ms(self, quantile: float) -> float:
        return float(np.quantile(self.latency_seconds, quantile)) * 1e3


class Load:
    """Sends messages from a forked process until they end or `seconds` are over.

    `messages` gives (message, events in it). 429 and 503 are sent again after Retry-After and counted;
    any other status than `accept` ends the run with BenchError.
    """

    def __init__(
        self,
        port: int,
        messages: Iterable[tuple[bytes, int]],
        *,
        connections: int,
        seconds: float,
        accept: int = 202,
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_run, args=(sender, port, messages, connections, seconds, accept), daemon=True
        )
        self._process.start()
        sender.close()

    def result(self) -> Sent:
        """Waits for the end. BenchError when the server answered wrongly."""
        try:
            result = self._receiver.recv()
        except EOFError:
            raise BenchError("the load generator died") from None
        finally:
            self.stop()
        if isinstance(result, str):
            raise BenchError(result)
        assert isinstance(result, Sent)
        return result

    def stop(self) -> None:
        self._process.join(1)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._receiver.close()


def send(
    port: int,
    messages: Iterable[tuple[bytes, int]],
    *,
    connections: int,
    seconds: float,
    accept: int = 202,
) -> Sent:
    """As `Load`, waiting for its end; nothing is left behind on Ctrl-C."""
    load = Load(port, messages, connections=connections, seconds=seconds, accept=accept)
    try:
        return load.result()
    finally:
        load.stop()


def _run(
    pipe: Any,
    port: int,
    messages: Iterable[tuple[bytes, int]],
    connections: int,
    seconds: float,
    accept: int,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        pipe.send(_Sender(port, iter(messages), connections, seconds, accept).run())
    except BenchError as error:
        pipe.send(str(error))
    except BaseException:  # whatever it is, the parent must hear of it
        pipe.send(f"the load generator failed\n{traceback.format_exc()}")


class _Line:
    """One keep-alive connection of a `_Sender` and what it is about."""

    __slots__ = ("busy", "events", "message", "received", "sent_at", "socket", "unsent")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.busy = False
        self.message = b""
        self.events = 0
        self.unsent: memoryview | None = None
        self.received = b""
        self.sent_at = 0.0


class _Sender:
    def __init__(
        self, port: int, messages: Iterator[tuple[bytes, int]], connections: int, seconds: float, accept: int
    ) -> None:
        self._port = port
        self._messages = messages
        self._connections = connections
        self._seconds = seconds
        self._accept = accept
        self._selector = selectors.DefaultSelector()
        self._latencies: list[float] = []
        self._events = 0
        self._retries = 0
        self._busy = 0
        self._deadline = 0.0
        self._waiting: list[tuple[float, int, _Line]] = []

    def run(self) -> Sent:
        lines = [_Line(self._connect()) for _ in range(self._connections)]
        for line in lines:
            self._selector.register(line.socket, selectors.EVENT_READ, line)
        cpu = time.process_time()
        started = time.monotonic()
        self._deadline = started + self._seconds
        for line in lines:
            self._send_next(line)
        progressed = started
        while self._busy or self._waiting:
            ready = self._selector.select(self._wake_in())
            for key, mask in ready:
                if mask & selectors.EVENT_WRITE:
                    self._send_rest(key.data)
                if mask & selectors.EVENT_READ:
                    self._receive(key.data)
            now = time.monotonic()
            if ready:
                progressed = now
            elif now - progressed > _STALLED_SECONDS:
                raise BenchError(f"no answer for {_STALLED_SECONDS:g} s")
            while self._waiting and (self._waiting[0][0] <= now or now >= self._deadline):
                line = heapq.heappop(self._waiting)[2]
                if now < self._deadline:
                    self._send(line)
        ended = time.monotonic()
        cpu = time.process_time() - cpu
        for line in lines:
            line.socket.close()
        if not self._latencies:
            raise BenchError("nothing was acknowledged")
        return Sent(
            events=self._events,
            requests=len(self._latencies),
            retries=self._retries,
            started=started,
            ended=ended,
            cpu_seconds=cpu,
            latency_seconds=np.array(self._latencies),
        )

    def _connect(self) -> socket.socket:
        connected = socket.create_connection((HOST, self._port), timeout=10)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        return connected

    def _reconnect(self, line: _Line) -> None:
        self._selector.unregister(line.socket)
        line.socket.close()
        line.socket = self._connect()
        line.unsent = None
        line.received = b""
        self._selector.register(line.socket, selectors.EVENT_READ, line)

    def _wake_in(self) -> float:
        if self._waiting:
            return min(max(self._waiting[0][0] - time.monotonic(), 0.0), 1.0)
        return 1.0

    def _send_next(self, line: _Line) -> None:
        if time.monotonic() >= self._deadline:
            return
        following = next(self._messages, None)
        if following is not None:
            line.message, line.events = following
            self._send(line)

    def _send(self, line: _Line) -> None:
        self._busy += 1
        line.busy = True
        line.sent_at = time.monotonic()
        count = line.socket.send(line.message)
        if count < len(line.message):
            line.unsent = memoryview(line.message)[count:]
            self._selector.modify(line.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, line)

    def _send_rest(self, line: _Line) -> None:
        if line.unsent is None:
            return
        count = line.socket.send(line.unsent)
        if count < len(line.unsent):
            line.unsent = line.unsent[count:]
        else:
            line.unsent = None
            self._selector.modify(line.socket, selectors.EVENT_READ, line)

    def _receive(self, line: _Line) -> None:
        data = line.socket.recv(65_536)
        if not data and not line.busy:  # it waits for a retry, longer than the server keeps connections
            self._reconnect(line)
            return
        if not data:
            raise BenchError(f"the server closed a connection; received before: {line.received[:200]!r}")
        if line.received:
            data = line.received + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            line.received = data
            return
        status = int(data[9:12])
        found = _LENGTH.search(data, 0, end)
        if len(data) < end + 4 + (int(found[1]) if found else 0):
            line.received = data
            return
        line.received = b""
        line.busy = False
        self._busy -= 1
        if status == self._accept and line.unsent is None:
            self._latencies.append(time.monotonic() - line.sent_at)
            self._events += line.events
            self._send_next(line)
        elif status in {429, 503}:
            self._retry(line, data[:end])
        else:
            raise BenchError(f"expected {self._accept}, the server answered: {data[:600].decode(errors='replace')}")

    def _retry(self, line: _Line, head: bytes) -> None:
        self._retries += 1
        if line.unsent is not None or b"\r\nconnection: close" in head.lower():
            self._reconnect(line)
        found = _RETRY_AFTER.search(head)
        at = time.monotonic() + (max(int(found[1]), 0.05) if found else 1.0)
        heapq.heappush(self._waiting, (at, id(line), line))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: str
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        found = re.search(rf"^{re.escape(name)}: *(.*?)\r?$", self.head, re.IGNORECASE | re.MULTILINE)
        return found[1] if found else None


class Connection:
    """A blocking keep-alive connection; connects anew when the server has closed it."""

    def __init__(self, port: int, *, timeout_seconds: float = 60) -> None:
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._socket: socket.socket | None = None

    def get(self, path: str) -> Answer:
        return self._ask(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())

    def post(self, path: str, body: bytes = b"", content_type: str = "application/json") -> Answer:
        return self._ask(message(path, body, content_type))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: bytes) -> Answer:
        fresh = self._socket is None
        started = time.perf_counter()
        try:
            return self._exchange(request, started)
        except OSError:
            self.close()
            if fresh:
                raise
        return self._exchange(request, started)

    def _exchange(self, request: bytes, started: float) -> Answer:
        if self._socket is None:
            self._socket = socket.create_connection((HOST, self._port), timeout=self._timeout_seconds)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        data = self._read(b"", 1)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data = self._read(data, len(data) + 1)
        head, rest = data[: end + 2], data[end + 4 :]
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            body = self._read_chunks(rest)
        else:
            found = _LENGTH.search(head)
            body = self._read(rest, int(found[1]) if found else 0)
        seconds = time.perf_counter() - started
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return Answer(int(head[9:12]), head.decode("latin-1"), body, seconds)

    def _read(self, data: bytes, length: int) -> bytes:
        assert self._socket is not None
        pieces, size = [data], len(data)
        while size < length:
            piece = self._socket.recv(262_144)
            if not piece:
                raise ConnectionError("the server closed the connection")
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _read_chunks(self, data: bytes) -> bytes:
        body = b""
        while True:
            while (end := data.find(b"\r\n")) < 0:
                data = self._read(data, len(data) + 1)
            size = int(data[:end].split(b";")[0], 16)
            data = self._read(data[end + 2 :], size + 2)
            if size == 0:
                return body
            body += data[:size]
            data = data[size + 2 :]


class Probe:
    """Posts an event of its own model some times a second and looks until the stats count it.

    The look repeats every 40 ms only: finer would cost the server enough to show in its CPU.
    """

    NAME = "bench-probe"
    _EVENT = b'{"name":"bench-probe","version":"v1","prediction_accuracy":0.9,"drift":0.1,"inference_time":7.5}'
    _INTERVAL_SECONDS = 0.2
    _LOOK_SECONDS = 0.04

    def __init__(self, port: int) -> None:
        self.seconds: list[float] = []
        self.events = 0
        self._connection = Connection(port)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def p99_ms(self) -> float | None:
        return float(np.quantile(self.seconds, 0.99)) * 1e3 if self.seconds else None

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the server ends before us when a case fails
            while not self._over.is_set():
                started = time.monotonic()
                if self._connection.post("/events", self._EVENT).status == 202:
                    self.events += 1
                    self._look(started)
                self._over.wait(max(0.0, started + self._INTERVAL_SECONDS - time.monotonic()))
        self._connection.close()

    def _look(self, started: float) -> None:
        limit = started + 30
        while time.monotonic() < limit:
            answer = self._connection.get(f"/stats/{self.NAME}/v1?metric=drift")
            if answer.status == 200 and answer.json()["events"] >= self.events:
                self.seconds.append(time.monotonic() - started)
                return
            if self._over.wait(self._LOOK_SECONDS):
                time.sleep(self._LOOK_SECONDS)
        self.seconds.append(time.monotonic() - started)
