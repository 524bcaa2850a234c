"""The stream of what is new: quick, bounded, cheap, and over when the server stops."""

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx

from modelmeter.web.dashboard.live import State, changes
from modelmeter.window import SECOND
from tests.web.conftest import Served, serve

KEYS = {("A", "v1"): 3}


class Listener:
    """Reads a stream in a thread of its own; `messages` is what came, None when it was over."""

    def __init__(self, url: str) -> None:
        self.messages: queue.Queue[tuple[str, Any] | None] = queue.Queue()
        self.status = 0
        self._socket: socket.socket | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(url,), daemon=True)
        self._thread.start()
        assert self._opened.wait(20)

    def _read(self, url: str) -> None:
        with contextlib.suppress(httpx.HTTPError), httpx.stream("GET", f"{url}/ui/live", timeout=30) as response:
            self.status = response.status_code
            self._socket = response.extensions["network_stream"].get_extra_info("socket")
            kind = ""
            for line in response.iter_lines():
                if line.startswith("retry"):
                    self._opened.set()
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                if line.startswith("data: "):
                    self.messages.put((kind, json.loads(line.removeprefix("data: "))))
        self.messages.put(None)
        self._opened.set()

    def leave(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)


def test_changes_are_told_by_version() -> None:
    before = State("1", KEYS, 7)
    assert changes(before, State("2", KEYS, 7)) == []
    grown = State("3", {**KEYS, ("B", "v1"): 1}, 7)
    assert changes(before, grown) == [b'event: stored\ndata: {"versions":[["B","v1"]]}\n\n']
    assert changes(before, State("4", KEYS, 8)) == [b"event: alerts\ndata: {}\n\n"]
    gone = changes(grown, before)
    assert gone == [b'event: stored\ndata: {"versions":[]}\n\n']
    many = State("5", {("A", str(number)): 1 for number in range(201)}, 7)
    assert changes(before, many) == [b'event: stored\ndata: {"versions":null}\n\n']


def event_of(version: str) -> str:
    return json.dumps(
        {"name": "Mistral", "version": version, "drift": 0.5, "timestamp": time.time_ns() // 1000 / SECOND}
    )


@contextlib.contextmanager
def listeners(served: Served, count: int) -> Iterator[list[Listener]]:
    """So many that listen; they let go when the block ends, so that the server can stop."""
    some = [Listener(served.url) for _ in range(count)]
    try:
        yield some
    finally:
        for one in some:
            one.leave()


def test_what_is_stored_is_told_to_every_listener(served: Served) -> None:
    with listeners(served, 2) as both:
        served.wait_until(lambda: count_listeners(served) == 2)
        served.post(event_of("v1"))
        served.store()
        for one in both:
            message = one.messages.get(timeout=20)
            assert message == ("stored", {"versions": [["Mistral", "v1"]]})
        served.post(event_of("v2"))
        served.store()
        assert both[0].messages.get(timeout=20) == ("stored", {"versions": [["Mistral", "v2"]]})
    served.wait_until(lambda: count_listeners(served) == 0)


def count_listeners(served: Served) -> float:
    line = next(
        one for one in served.client.get("/metrics").text.splitlines() if "live_listeners " in one and one[0] != "#"
    )
    return float(line.split()[1])


def test_more_listeners_than_the_limit_are_refused(database_url: str) -> None:
    with serve(database_url, live_limit_listeners=1) as served, listeners(served, 1) as some:
        refused = served.client.get("/ui/live")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
        assert "MODELMETER_LIVE_LIMIT_LISTENERS" in refused.json()["detail"]
        assert some[0].messages.empty()
