"""Invariant 9, and what happens to those that are not asked: no orphans, one owner a directory, one a port."""

import http.client
import signal
import socket
import time
import urllib.parse
from typing import Self

import pytest

from tests.acceptance.load import MODELS, Load, Sent, audit, body_of
from tests.acceptance.yard import Yard, ask, free_port, is_ready, until

GRACE_SECONDS = 10


class Slow:
    """A request that the server has begun to read and that is not whole yet."""

    def __init__(self, url: str, events: list[Sent]) -> None:
        self._body = body_of(events, "json")
        self._connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=15)
        self._connection.putrequest("POST", "/events")
        self._connection.putheader("Content-Type", "application/json")
        self._connection.putheader("Content-Length", str(len(self._body)))
        self._connection.putheader("Idempotency-Key", "slow")
        self._connection.putheader("Expect", "100-continue")
        self._connection.endheaders()
        sock = self._connection.sock
        assert isinstance(sock, socket.socket)
        assert sock.recv(4096).startswith(b"HTTP/1.1 100")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def finish(self) -> int:
        self._connection.send(self._body)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def test_sigterm_under_load_answers_what_is_in_hand_and_loses_nothing(yard: Yard) -> None:
    dice = yard.chance()
    port = free_port()
    serve = yard.serve(port)
    url = serve.url
    until(lambda: is_ready(url), "serve is ready")
    extra = [Sent(MODELS[0], time.time_ns() // 1000, 10**9 + number, None) for number in range(10)]
    with Load([url], yard.seed, threads=4, rest_seconds=0.005) as load, Slow(url, extra) as slow:
        until(lambda: load.requests > 40, "some load")
        time.sleep(dice.random() / 2)
        began = time.monotonic()
        serve.signal(signal.SIGTERM)
        until(lambda: "ConnectionRefusedError" in load.statuses, "the port is closed")
        assert slow.finish() == 202
        assert serve.end() == 0
        assert time.monotonic() - began < GRACE_SECONDS
        assert set(load.statuses) == {202, "ConnectionRefusedError"}, "a request was cut off, or refused, on the way"
        assert not until(lambda: [yard.living()], "a look")[0]
        serve = yard.serve(port)
        until(lambda: is_ready(url), "serve is ready again")
        events = [*load.finish(), *extra]
    until(lambda: ask(yard.conninfo, "SELECT count(*) FROM modelmeter.queue") == 0, "the queue is empty")
    audit(url, events, dice, spans=3)


def test_sigterm_ends_within_the_grace_though_a_client_never_finishes_its_body(yard: Yard) -> None:
    serve = yard.serve(grace_seconds=GRACE_SECONDS)
    until(lambda: is_ready(serve.url), "serve is ready")
    with Slow(serve.url, [Sent(MODELS[0], 0, 1, None)]):
        began = time.monotonic()
        serve.signal(signal.SIGTERM)
        assert serve.end() == 0
        assert time.monotonic() - began < GRACE_SECONDS


def test_sigterm_ends_streams_that_have_no_end_of_their_own(yard: Yard, database_url: str) -> None:
    api = yard.run("api", "--port", "0", database_url=database_url, grace_seconds=60)
    until(lambda: is_ready(api.url), "the API is ready")
    with socket.create_connection(
        (urllib.parse.urlsplit(api.url).hostname, urllib.parse.urlsplit(api.url).port)
    ) as sock:
        sock.sendall(b"GET /ui/live HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.settimeout(15)
        heard = b""
        while b"retry: " not in heard:
            heard += sock.recv(4096)
        assert heard.startswith(b"HTTP/1.1 200")
        api.signal(signal.SIGTERM)
        while found := sock.recv(4096):
            heard += found
        assert heard.endswith(b"0\r\n\r\n"), "the stream was cut, not ended"
        assert api.end(GRACE_SECONDS) == 0, api.said


@pytest.mark.parametrize("role", ["api", "worker", "keeper"])
def test_each_role_alone_ends_with_zero_on_sigterm(yard: Yard, database_url: str, role: str) -> None:
    argv = [role, "--port", "0"] if role == "api" else [role]
    process = yard.run(*argv, database_url=database_url)
    if role == "api":
        until(lambda: is_ready(process.url), "the API is ready")
    else:
        sessions = f"SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'modelmeter ({role}|leader)'"
        until(lambda: ask(database_url, sessions), "it works")
    process.signal(signal.SIGTERM)
    assert process.end(GRACE_SECONDS) == 0, process.said


def test_a_killed_serve_leaves_no_process_and_a_new_one_has_all_that_was_acknowledged(yard: Yard) -> None:
    dice = yard.chance()
    port = free_port()
    serve = yard.serve(port)
    until(lambda: is_ready(serve.url), "serve is ready")
    with Load([serve.url], yard.seed) as load:
        until(lambda: load.requests > 10, "some load")
        serve.kill()
        until(lambda: not yard.living(), "all of its processes are gone", 8)
        again = yard.serve(port)
        until(lambda: is_ready(again.url), "the new serve is ready")
        events = load.finish()
    until(lambda: ask(yard.conninfo, "SELECT count(*) FROM modelmeter.queue") == 0, "the queue is empty")
    audit(again.url, events, dice, spans=3)

    # On the running one: the same directory, then the same port.
    second = yard.serve(0)
    assert second.end() == 2
    assert f"is in use by another modelmeter, pid {again.pid}" in second.said
    taken = yard.run("serve", "--port", str(port), "--data-dir", str(yard.home / "other"))
    alone = yard.run("api", "--port", str(port), database_url=yard.conninfo)
    for process in (taken, alone):
        assert process.end() == 2
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in process.said
    assert is_ready(again.url)
