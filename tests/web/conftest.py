"""The real application behind a real HTTP server, on a real database, with a real worker that steps when it is told."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from psycopg.conninfo import make_conninfo

from modelmeter.app import make_api
from modelmeter.config import Config
from tests.history import Storing


@dataclass
class Served:
    """A server: `client` talks to it, `store` lets a worker take what waits."""

    url: str
    client: httpx.Client
    database_url: str

    def store(self) -> int:
        with Storing(self.database_url) as storing:
            return sum(one.events for one in storing.run())

    def post(self, content: bytes | str, path: str = "/events", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, content=content, headers={"content-type": "application/json", **named})

    def wait_until(self, true: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.01)  # the pace of asking, not a wait for the answer

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: self.client.get("/readyz").status_code == 200)


@contextmanager
def serve(database_url: str, *, ready: bool = True, **settings: Any) -> Iterator[Served]:
    """A server in a thread, until the block ends."""
    config = Config(database_url=database_url, **settings)
    server = uvicorn.Server(
        uvicorn.Config(
            make_api(config), host="127.0.0.1", port=0, log_config=None, http="httptools", lifespan="on", ws="none"
        )
    )
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            served = Served(url, client, database_url)
            if ready:
                served.wait_until_ready()
            yield served
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def served(database_url: str) -> Iterator[Served]:
    with serve(database_url) as served:
        yield served


@pytest.fixture(scope="module")
def shared(postgres: str, template_database: str, request: pytest.FixtureRequest) -> Iterator[Served]:
    """One server and database for a module whose tests do not disturb each other; bodies up to 64 KiB."""
    name = f"{template_database}_{request.module.__name__.rpartition('.')[2]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
    try:
        with serve(make_conninfo(postgres, dbname=name), body_limit_bytes=65_536) as served:
            yield served
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
