"""/healthz and /metrics of the processes without an API; the API's last seconds."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import httpx
import pytest

from modelmeter.errors import WrongSetting
from modelmeter.runner import Pulse
from modelmeter.web.probe import probes


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_loop_that_comes_round_is_healthy_and_one_that_does_not_is_not() -> None:
    pulse = Pulse(limit_seconds=60)
    with probes("127.0.0.1", 0, pulse.trouble) as port:
        assert fetch(port, "/healthz") == (200, "ok\n")
        pulse._limit_seconds = 0
        status, text = fetch(port, "/healthz")
        assert status == 503
        assert "has not come round" in text
        assert "modelmeter_events_stored_total" in fetch(port, "/metrics")[1]
        assert fetch(port, "/other")[0] == 404


def test_a_taken_port_is_a_wrong_setting() -> None:
    with (
        probes("127.0.0.1", 0, lambda: None) as port,
        pytest.raises(WrongSetting, match="metrics_port"),
        probes("127.0.0.1", port, lambda: None),
    ):
        pass


@contextlib.contextmanager
def process(role: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-m", "modelmeter", role], env={**os.environ, **settings})
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until_answers(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)


@pytest.mark.parametrize("role", ["worker", "keeper"])
def test_a_loop_without_a_database_waits_and_is_healthy(role: str) -> None:
    port = free_port()
    settings = {"MODELMETER_METRICS_PORT": str(port), "MODELMETER_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    with process(role, **settings) as loop:
        until_answers(f"http://127.0.0.1:{port}/healthz")
        assert fetch(port, "/healthz")[0] == 200
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(10) == 0
